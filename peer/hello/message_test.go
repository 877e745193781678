package hello

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"meshd/keys"
)

// fill is n bytes of one value, as hex.
func fill(value byte, n int) string { return hex.EncodeToString(bytes.Repeat([]byte{value}, n)) }

func filled(value byte) (b [keyLen]byte) { return [keyLen]byte(bytes.Repeat([]byte{value}, keyLen)) }

func signature() [sigLen]byte { return [sigLen]byte(bytes.Repeat([]byte{0x55}, sigLen)) }

func TestDatagramsExactBytes(t *testing.T) {
	id := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	var cookie [cookieLen]byte
	copy(cookie[:], bytes.Repeat([]byte{0xcc}, cookieLen))
	open := openMessage(id, cookie, bytes.Repeat([]byte{0xee}, keyLen))
	want := "d1010100" + "0102030405060708" + fill(0xcc, 16) + fill(0xee, 32) + fill(0, 1200-60)
	if got := hex.EncodeToString(open); got != want {
		t.Errorf("open %s", got)
	}
	gotCookie, noise, ok := parseOpen(open)
	if !ok || gotCookie != cookie || !bytes.Equal(noise, bytes.Repeat([]byte{0xee}, keyLen)) {
		t.Errorf("parsed %x %x %v", gotCookie, noise, ok)
	}
	for _, step := range []Step{StepOpen, StepCookie, StepAnswer, StepProof, StepResult} {
		msg := appendHeader(nil, step, id)
		if got := hex.EncodeToString(msg); got != "d101"+fill(byte(step), 1)+"00"+"0102030405060708" {
			t.Errorf("header %s", got)
		}
		gotStep, gotID, ok := ParseHeader(msg)
		if !ok || gotStep != step || gotID != id {
			t.Errorf("parsed %d %x %v", gotStep, gotID, ok)
		}
	}
	if cookieStep != 28 || answerLen != 236 || maxChain != 1053 || proofPayload != 1124 {
		t.Errorf("sizes %d %d %d %d", cookieStep, answerLen, maxChain, proofPayload)
	}
}

func TestParseHeaderRefuses(t *testing.T) {
	for _, tt := range []struct{ name, msg string }{
		{"empty", ""},
		{"short", "d10101000102030405060"[:20] + "07"},
		{"first byte", "d20101000102030405060708"},
		{"version", "d10201000102030405060708"},
		{"step 0", "d10100000102030405060708"},
		{"step 6", "d10106000102030405060708"},
		{"reserved", "d10101010102030405060708"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			msg, err := hex.DecodeString(tt.msg)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, ok := ParseHeader(msg); ok {
				t.Error("accepted")
			}
		})
	}
}

func TestAnswerExactBytes(t *testing.T) {
	a := answer{root: filled(0x11), sign: filled(0x22), signature: signature()}
	b := a.append(nil)
	if got := hex.EncodeToString(b); got != fill(0x11, 32)+fill(0x22, 32)+fill(0x55, 64) {
		t.Errorf("got %s", got)
	}
	if got, ok := parseAnswer(b); !ok || got != a {
		t.Errorf("parsed %+v, %v", got, ok)
	}
	for _, bad := range [][]byte{nil, b[1:], append(b, 0)} {
		if _, ok := parseAnswer(bad); ok {
			t.Errorf("accepted %d bytes", len(bad))
		}
	}
}

func TestProofExactBytes(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    proof
		want string
	}{
		{
			"member",
			proof{signature: signature(), hour: 0x01020304, chain: []byte("chain")},
			"01" + fill(0x55, 64) + "01020304" + "0005" + hex.EncodeToString([]byte("chain")),
		},
		{
			"pending",
			proof{signature: signature(), hour: 0x01020304, public: keys.Public{Sign: filled(0x22), WireGuard: filled(0x33), Probe: filled(0x44)}},
			"00" + fill(0x55, 64) + "01020304" + fill(0x22, 32) + fill(0x33, 32) + fill(0x44, 32),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.p.append(nil)
			want := tt.want + fill(0, proofPayload-len(tt.want)/2)
			if got := hex.EncodeToString(b); got != want {
				t.Errorf("got %s", got)
			}
			if got, ok := parseProof(b); !ok || !reflect.DeepEqual(got, tt.p) {
				t.Errorf("parsed %+v, %v", got, ok)
			}
		})
	}
}

func TestProofRefused(t *testing.T) {
	member := proof{hour: 1, chain: []byte("chain")}.append(nil)
	change := func(at int, value byte) []byte {
		b := bytes.Clone(member)
		b[at] = value
		return b
	}
	for _, tt := range []struct {
		name string
		b    []byte
	}{
		{"empty", nil},
		{"short", member[1:]},
		{"unknown flag", change(0, 3)},
		{"empty chain", change(proofFixed+1, 0)},
		{"chain beyond the end", change(proofFixed, 0xff)},
		{"chain shorter than what is there", change(proofFixed+1, 4)},
		{"padding", change(proofPayload-1, 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if p, ok := parseProof(tt.b); ok {
				t.Errorf("accepted as %+v", p)
			}
		})
	}
}

func TestResultExactBytes(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    result
		want string
	}{
		{"member", result{status: statusMember, hour: 0x01020304, chain: []byte("chain")}, "00" + "01020304" + "0005" + hex.EncodeToString([]byte("chain"))},
		{
			"pending",
			result{status: statusPending, hour: 0x01020304, public: keys.Public{WireGuard: filled(0x33), Probe: filled(0x44)}},
			"01" + "01020304" + fill(0x33, 32) + fill(0x44, 32),
		},
		{"refused", result{status: statusRefused, reason: "no"}, "02" + "6e6f"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.r.append(nil)
			if got := hex.EncodeToString(b); got != tt.want {
				t.Errorf("got %s", got)
			}
			if got, ok := parseResult(b); !ok || !reflect.DeepEqual(got, tt.r) {
				t.Errorf("parsed %+v, %v", got, ok)
			}
			if tt.r.status == statusRefused {
				return
			}
			for _, bad := range [][]byte{b[:len(b)-1], append(bytes.Clone(b), 0), b[:3], {3}, {}} {
				if got, ok := parseResult(bad); ok {
					t.Errorf("%x accepted as %+v", bad, got)
				}
			}
		})
	}
}

func TestReasonIsPrintable(t *testing.T) {
	r, ok := parseResult(append([]byte{2}, "\x1b[31mred\x00\x7f\xff\n"+strings.Repeat("x", 200)...))
	if !ok || len(r.reason) != maxReason || !strings.HasPrefix(r.reason, "?[31mred????x") {
		t.Errorf("got %q", r.reason)
	}
	if got := (result{status: statusRefused, reason: strings.Repeat("ä", 200)}).append(nil); len(got) != 1+maxReason || bytes.ContainsAny(got, "ä") {
		t.Errorf("sent %q", got)
	}
}

func FuzzResponder(f *testing.F) {
	n := newNetwork(f)
	r := newResponder(f, n.member(f, "b"))
	l := &link{t: f, i: newInitiator(f, n.member(f, "a")), r: r, src: source1()}
	l.run(start())
	for _, msg := range l.wire {
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		src := netip.MustParseAddrPort("198.18.0.9:1")
		reply, met := r.Receive(src, msg, start())
		if len(reply) > len(msg) || met != nil {
			t.Fatalf("%d bytes get %d, met %v", len(msg), len(reply), met)
		}
	})
}

func FuzzInitiator(f *testing.F) {
	n := newNetwork(f)
	l := &link{t: f, i: newInitiator(f, n.member(f, "a")), r: newResponder(f, n.member(f, "b")), src: source1()}
	l.run(start())
	for _, msg := range l.wire {
		f.Add(msg)
	}
	i := newInitiator(f, n.member(f, "a"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) >= headerLen {
			id := i.Connection()
			copy(msg[4:], id[:])
		}
		i.Receive(msg, start())
		if i.done() {
			t.Fatalf("%x ends it: %v %v", msg, i.Result(), i.Err())
		}
	})
}

// What is inside Noise comes from whoever asks, too.
func FuzzPayloads(f *testing.F) {
	f.Add(proof{chain: []byte("chain")}.append(nil))
	f.Add(proof{}.append(nil))
	f.Add(result{chain: []byte("chain")}.append(nil))
	f.Add(result{status: statusPending}.append(nil))
	f.Add(answer{}.append(nil))
	n := newNetwork(f)
	r := newResponder(f, n.member(f, "b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parseProof(b); ok && !bytes.Equal(p.append(nil), b) {
			t.Fatalf("%x parses as %+v", b, p)
		}
		if res, ok := parseResult(b); ok && res.status != statusRefused && !bytes.Equal(res.append(nil), b) {
			t.Fatalf("%x parses as %+v", b, res)
		}
		if a, ok := parseAnswer(b); ok && !bytes.Equal(a.append(nil), b) {
			t.Fatalf("%x parses as %+v", b, a)
		}
		if verdict, met := r.judge(b, make([]byte, keyLen), start()); met != nil || verdict.status != statusRefused {
			t.Fatalf("%x is accepted", b)
		}
	})
}
