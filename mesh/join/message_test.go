package join

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"meshd/keys"
)

func TestCarryRoundTrip(t *testing.T) {
	o := newOffice(t)
	j := o.joiner(t, strings.Repeat("n", 63), o.invite(t, 1))
	msg, _ := j.Tick(o.now)
	for _, from := range []netip.AddrPort{{}, netip.MustParseAddrPort("198.51.100.7:51830"), netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:65535")} {
		b := must(Carry{Joiner: j.public, From: from, Payload: msg}.Marshal())(t)
		got := must(ParseCarry(b))(t)
		if got.Joiner != j.public || got.From != from || !bytes.Equal(got.Payload, msg) {
			t.Errorf("got %+v", got)
		}
		if _, err := ParseBack(b); err == nil {
			t.Error("a carry is read as an answer")
		}
	}
	for _, reply := range o.desk.Receive(j.public, msg, o.now) {
		b := must(Back{Joiner: j.public.ID(), Payload: reply}.Marshal())(t)
		got := must(ParseBack(b))(t)
		if got.Joiner != j.public.ID() || !bytes.Equal(got.Payload, reply) {
			t.Errorf("got %+v", got)
		}
	}
}

// TestSizes makes everything as long as it can be: what carries it must hold it.
func TestSizes(t *testing.T) {
	o := newOffice(t)
	o.state = make([]byte, maxPart*maxParts)
	roles := must(keys.ParseRoles("admin router dhcp bridge vlan=1000,1002,1004,1006,1008,1010,1012,1014,1016,999"))(t)
	j := o.joiner(t, strings.Repeat("n", 63), nil)
	from := netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:65535")
	longest := 0
	for range 8 {
		msg, _ := j.Tick(o.now)
		if msg != nil {
			if b := must(Carry{Joiner: j.public, From: from, Payload: msg}.Marshal())(t); len(b) > MaxCarried {
				t.Errorf("carried: %d bytes", len(b))
			}
		}
		for _, reply := range o.desk.Receive(j.public, msg, o.now) {
			b := must(Back{Joiner: j.public.ID(), Payload: reply}.Marshal())(t)
			longest = max(longest, len(b))
			_ = j.Receive(reply, o.now)
		}
		if j.Words() != nil {
			_, _ = o.desk.Approve(strings.Join(j.Words(), " "), roles, o.now)
		}
		_, o.now = j.Tick(o.now)
	}
	if j.Result() == nil || len(j.Result().Chain) < 960 {
		t.Fatalf("%v, %v", j.Err(), j.Stage())
	}
	t.Logf("longest answer as carried: %d bytes, chain of %d", longest, len(j.Result().Chain))
	// A chain may grow to keys.MaxChain and must still fit.
	grown := encoded(typeGrant, grant{Chain: make([]byte, keys.MaxChain)})
	if grown == nil {
		t.Fatal("a grant of the longest chain is too long")
	}
	must(Back{Payload: grown[0]}.Marshal())(t)
}

func TestCarryRefuses(t *testing.T) {
	o := newOffice(t)
	j := o.joiner(t, "laptop", nil)
	msg, _ := j.Tick(o.now)
	reply := o.desk.Receive(j.public, msg, o.now)[0]
	for name, err := range map[string]error{
		"nothing":      second(Carry{Joiner: j.public}.Marshal()),
		"garbage":      second(Carry{Joiner: j.public, Payload: []byte("garbage")}.Marshal()),
		"too long":     second(Back{Payload: append([]byte{typeGrant}, make([]byte, MaxMessage)...)}.Marshal()),
		"answer there": second(ParseCarry(must(encode(typeCarry, carryWire{Payload: reply}))(t))),
		"carry back":   second(ParseBack(must(encode(typeBack, backWire{Payload: msg}))(t))),
		"bad address":  second(ParseCarry(must(encode(typeCarry, carryWire{From: "a:1", Payload: msg}))(t))),
		"zone":         second(ParseCarry(must(encode(typeCarry, carryWire{From: "[fe80::1%eth0]:1", Payload: msg}))(t))),
		"odd address":  second(ParseCarry(must(encode(typeCarry, carryWire{From: "[2001:DB8::1]:1", Payload: msg}))(t))),
		"empty":        second(ParseCarry(nil)),
		"short":        second(ParseBack([]byte{typeBack})),
	} {
		if !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestWireForm pins bytes: another meshd must understand them.
func TestWireForm(t *testing.T) {
	got := hex.EncodeToString(refuse(ref{1, 2}, CodeBusy))
	if want := "0882" + "50" + "0102" + strings.Repeat("00", 14) + "08"; got != want {
		t.Errorf("refusal is %s, want %s", got, want)
	}
	short := "0882" + "4f" + "0102" + strings.Repeat("00", 13) + "08"
	long := "0882" + "51" + "0102" + strings.Repeat("00", 15) + "08"
	for _, bad := range []string{short, long, got + "00", "08830102", "089f50" + strings.Repeat("00", 16) + "08ff"} {
		b := must(hex.DecodeString(bad))(t)
		var r refusal
		if err := decode(b, &r); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// FuzzDesk feeds a desk that has an invite out and a request waiting.
func FuzzDesk(f *testing.F) {
	o := newOffice(f)
	j, waiting := o.joiner(f, "laptop", o.invite(f, 1)), o.joiner(f, "other", nil)
	ask, _ := j.Tick(o.now)
	commit, _ := waiting.Tick(o.now)
	for _, reply := range o.desk.Receive(waiting.public, commit, o.now) {
		_ = waiting.Receive(reply, o.now)
	}
	reveal, _ := waiting.Tick(o.now)
	for _, seed := range [][]byte{ask, commit, reveal} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, as := range []keys.Public{j.public, waiting.public} {
			for _, reply := range o.desk.Receive(as, msg, o.now) {
				if kindOf(reply) < typeChallenge {
					t.Fatalf("answer %x", reply)
				}
			}
		}
		if len(o.log.Issues()) > 1 || len(o.desk.pending) > maxPending {
			t.Fatal("more certificates or requests than were asked for")
		}
		Signer(msg)
		Unreachable(msg)
	})
}

// FuzzJoiner feeds a joiner by invite and one by words.
func FuzzJoiner(f *testing.F) {
	o := newOffice(f)
	for _, invite := range []*keys.Invite{nil, o.invite(f, 1)} {
		j := o.joiner(f, "laptop", invite)
		for range 3 {
			msg, _ := j.Tick(o.now)
			for _, reply := range o.desk.Receive(j.public, msg, o.now) {
				f.Add(reply)
				_ = j.Receive(reply, o.now)
			}
		}
	}
	f.Add(refuse(ref{}, CodeAgain))
	by, to := o.joiner(f, "a", o.invite(f, 1)), o.joiner(f, "b", nil)
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, j := range []*Joiner{by, to} {
			_ = j.Receive(msg, o.now)
			if j.Result() != nil {
				t.Fatal("joined by a message of another request")
			}
			j.Tick(o.now)
		}
	})
}

func FuzzCarried(f *testing.F) {
	o := newOffice(f)
	j := o.joiner(f, "laptop", nil)
	msg, _ := j.Tick(o.now)
	f.Add(must(Carry{Joiner: j.public, From: netip.MustParseAddrPort("192.0.2.1:1"), Payload: msg}.Marshal())(f))
	f.Add(must(Back{Payload: o.desk.Receive(j.public, msg, o.now)[0]}.Marshal())(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCarry(b); err == nil && !bytes.Equal(must(c.Marshal())(t), b) {
			t.Fatal("another encoding of a carry")
		}
		if v, err := ParseBack(b); err == nil && !bytes.Equal(must(v.Marshal())(t), b) {
			t.Fatal("another encoding of an answer")
		}
	})
}
