package join

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/keys"
)

// TestStolenProof lets one who sees the whole exchange try it for itself.
func TestStolenProof(t *testing.T) {
	o := newOffice(t)
	j := o.joiner(t, "laptop", o.invite(t, 1))
	msg, _ := j.Tick(o.now)
	thief := must(keys.NewIdentity())(t)
	var a ask
	if err := decode(msg, &a); err != nil {
		t.Fatal(err)
	}
	a.Signature = ed25519.Sign(thief.Sign, a.signable(thief.Public()))
	resigned := must(encode(typeAsk, a))(t)
	a.Name = "thief"
	renamed := must(encode(typeAsk, a))(t)
	for name, stolen := range map[string][]byte{"replayed": msg, "signed anew": resigned, "renamed": renamed} {
		for _, as := range []keys.Public{thief.Public(), {Sign: j.public.Sign, WireGuard: thief.Public().WireGuard, Probe: j.public.Probe}} {
			reply := o.desk.Receive(as, stolen, o.now)
			if len(reply) != 1 || !bytes.Equal(reply[0], refuse(refOf(stolen), CodeProof)) {
				t.Errorf("%s: got %x", name, reply)
			}
		}
	}
	if record := o.log.Invites()[0]; len(record.Redeemed) != 0 {
		t.Error("the invite was used")
	}
	o.run(t, j, perfect(), 5)
	o.check(t, j, "laptop")
}

// TestManInTheMiddle puts a node between two honest machines that ends both
// conversations itself. It can do so only with keys of its own, and then the two
// sides show different words.
func TestManInTheMiddle(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		home, rogue := newOffice(t), newOffice(t) // the rogue shows its own root to the joiner
		rogue.now = home.now
		victim := rogue.joiner(t, "laptop", nil)
		spy := home.joiner(t, "laptop", nil)
		rogue.run(t, victim, perfect(), 5)
		home.run(t, spy, perfect(), 5)
		if victim.Stage() != Waiting || spy.Stage() != Waiting {
			t.Fatalf("stages %v and %v", victim.Stage(), spy.Stage())
		}
		if slices.Equal(victim.Words(), spy.Words()) {
			t.Fatal("the same words on both sides of a man in the middle")
		}
		if _, err := home.desk.Approve(strings.Join(victim.Words(), " "), nil, home.now); !errors.Is(err, ErrNoRequest) {
			t.Fatalf("the words of the victim admit: %v", err)
		}
		text := strings.Join(victim.Words(), " ")
		if seen[text] {
			t.Fatal("words come twice")
		}
		seen[text] = true
	}
}

// TestMiddleCannotPassOn lets the man in the middle pass honest messages on
// under his own keys, or change them.
func TestMiddleCannotPassOn(t *testing.T) {
	o := newOffice(t)
	victim := o.joiner(t, "laptop", nil)
	spy := must(keys.NewIdentity())(t).Public()
	msg, _ := victim.Tick(o.now)
	if reply := o.desk.Receive(spy, msg, o.now); !bytes.Equal(reply[0], refuse(refOf(msg), CodeMalformed)) {
		t.Fatalf("another's commit was taken: %x", reply)
	}
	reply := o.desk.Receive(victim.public, msg, o.now)
	var c challenge
	if err := decode(reply[0], &c); err != nil {
		t.Fatal(err)
	}
	rogue := newOffice(t)
	for name, change := range map[string]func(*challenge){
		"other nonce":     func(c *challenge) { c.Nonce[0]++ },
		"other request":   func(c *challenge) { c.Ref[0]++ },
		"other signature": func(c *challenge) { c.Signature[0]++ },
		"no signature":    func(c *challenge) { c.Signature = nil },
		"other network's signer": func(c *challenge) {
			c.SignerDER = rogue.signer.Certificate()
			c.Signature = rogue.signer.Sign(c.signable(o.trust().NetworkID(), victim.public))
		},
		"no signer": func(c *challenge) { c.SignerDER = nil },
	} {
		bad := c
		bad.Signature = bytes.Clone(c.Signature)
		change(&bad)
		if err := victim.Receive(must(encode(typeChallenge, bad))(t), o.now); err == nil || victim.Words() != nil {
			t.Fatalf("%s: taken, words %v", name, victim.Words())
		}
	}
	if err := victim.Receive(reply[0], o.now); err != nil {
		t.Fatal(err)
	}
	words := victim.Words()
	reopened := must(encode(typeChallenge, c))(t)
	if err := victim.Receive(reopened, o.now); err == nil || !slices.Equal(words, victim.Words()) {
		t.Error("a second challenge changes the words")
	}
	msg, _ = victim.Tick(o.now)
	var r reveal
	if err := decode(msg, &r); err != nil {
		t.Fatal(err)
	}
	r.Nonce[0]++
	if reply := o.desk.Receive(victim.public, must(encode(typeReveal, r))(t), o.now); !bytes.Equal(reply[0], refuse(r.Ref, CodeMalformed)) {
		t.Errorf("a nonce that was not committed to: %x", reply)
	}
	if len(o.desk.Requests(o.now)) != 0 {
		t.Error("shown to the admin before it was revealed")
	}
}

// TestGrantMustFit gives a joiner grants that are good, for somebody else.
func TestGrantMustFit(t *testing.T) {
	o, rogue := newOffice(t), newOffice(t)
	invite := o.invite(t, 3)
	j := o.joiner(t, "laptop", invite)
	other := o.joiner(t, "other", invite)
	o.run(t, other, perfect(), 5)
	msg, _ := j.Tick(o.now)
	replies := o.desk.Receive(j.public, msg, o.now)
	var g grant
	var s state
	if err := errors.Join(decode(replies[0], &g), decode(replies[1], &s)); err != nil {
		t.Fatal(err)
	}
	second := must(keys.NewIdentity())(t)
	secondSigner := must(keys.NewSigner(second, must(o.root.IssueSigner(second.Public(), o.now))(t)))(t)
	bySecond := must(secondSigner.Issue(j.public, "laptop", nil, o.now))(t)
	byRogue := must(rogue.signer.Issue(j.public, "laptop", nil, o.now))(t)
	badState := func(change func(*state)) []byte {
		v := s
		v.Bytes, v.Signature = bytes.Clone(s.Bytes), bytes.Clone(s.Signature)
		change(&v)
		return must(encode(typeState, v))(t)
	}
	for name, bad := range map[string][]byte{
		"another's chain":      must(encode(typeGrant, grant{Ref: g.Ref, Chain: other.Result().Chain}))(t),
		"another request":      must(encode(typeGrant, grant{Ref: ref{1}, Chain: g.Chain}))(t),
		"another signer":       must(encode(typeGrant, grant{Ref: g.Ref, Chain: bySecond}))(t),
		"another network":      must(encode(typeGrant, grant{Ref: g.Ref, Chain: byRogue}))(t),
		"cut":                  must(encode(typeGrant, grant{Ref: g.Ref, Chain: g.Chain[:100]}))(t),
		"state unsigned":       badState(func(s *state) { s.Signature[0]++ }),
		"state of another":     badState(func(s *state) { s.Ref[0]++ }),
		"state's hash changed": badState(func(s *state) { s.Hash[0]++ }),
		"more parts":           badState(func(s *state) { s.Parts++ }),
		"no parts":             badState(func(s *state) { s.Parts = 0 }),
		"desk's message cut":   replies[0][:50],
		"joiner's message":     msg,
		"empty":                nil,
	} {
		if err := j.Receive(bad, o.now); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if j.Stage() != Asking {
		t.Fatalf("stage %v after messages that do not fit", j.Stage())
	}
	// A part exchanged under a good signature: never taken for the state.
	if err := j.Receive(badState(func(s *state) { s.Bytes[0]++ }), o.now); err != nil {
		t.Fatal(err)
	}
	if err := j.Receive(replies[0], o.now); err != nil || j.Result() != nil {
		t.Fatalf("took a forged state: %v", err)
	}
	o.run(t, j, perfect(), 5)
	o.check(t, j, "laptop")
}

// TestWrongClock joins with a clock that is years off: the certificate was made
// a moment ago, so it is the clock that is wrong.
func TestWrongClock(t *testing.T) {
	for _, off := range []time.Duration{-20 * 365 * 24 * time.Hour, 10 * 365 * 24 * time.Hour} {
		o := newOffice(t)
		j := NewJoiner(JoinerConfig{
			Identity: must(keys.NewIdentity())(t), Name: "laptop", Root: o.root.Public(), Now: o.now.Add(off),
		})
		for range 4 {
			out, _ := j.Tick(o.now.Add(off))
			for _, reply := range o.desk.Receive(j.public, out, o.now) {
				if err := j.Receive(reply, o.now.Add(off)); err != nil {
					t.Fatal(err)
				}
			}
			if requests := o.desk.Requests(o.now); len(requests) == 1 {
				must(o.desk.Approve(strings.Join(j.Words(), " "), nil, o.now))(t)
			}
			off += 3 * time.Second
		}
		if j.Result() == nil || j.Result().ClockError == nil {
			t.Fatalf("off by %v: %v, %v", off, j.Result(), j.Err())
		}
	}
}

// TestInviteByWrongClock redeems an invite that holds by its signer's clock, and has ended long ago by the joiner's.
func TestInviteByWrongClock(t *testing.T) {
	for _, off := range []time.Duration{25 * time.Hour, 10 * 365 * 24 * time.Hour} {
		o := newOffice(t)
		j := NewJoiner(JoinerConfig{
			Identity: must(keys.NewIdentity())(t), Name: "laptop", Invite: o.invite(t, 1), Root: o.root.Public(), Now: o.now.Add(off),
		})
		out, _ := j.Tick(o.now.Add(off))
		for _, reply := range o.desk.Receive(j.public, out, o.now) {
			if err := j.Receive(reply, o.now.Add(off)); err != nil {
				t.Fatal(err)
			}
		}
		if j.Result() == nil {
			t.Fatalf("off by %v: %v", off, j.Err())
		}
	}
}

// TestRace lets 50 joiners race for one invite, through desks that share a log,
// as when several introducers forward at once.
func TestRace(t *testing.T) {
	for round := range 20 {
		o := newOffice(t)
		uses := 1 + round%3
		invite := o.invite(t, uses)
		joiners := make([]*Joiner, 50)
		var wg sync.WaitGroup
		for i := range joiners {
			j := o.joiner(t, "laptop", invite)
			joiners[i] = j
			desk := NewDesk(DeskConfig{Signer: o.signer, Trust: o.trust(), Log: o.log})
			wg.Go(func() {
				for range 3 {
					msg, _ := j.Tick(o.now)
					for _, reply := range desk.Receive(j.public, msg, o.now) {
						_ = j.Receive(reply, o.now)
					}
				}
			})
		}
		wg.Wait()
		won := 0
		for _, j := range joiners {
			switch {
			case j.Result() != nil:
				won++
			case !errors.Is(j.Err(), keys.ErrUsed):
				t.Fatalf("loser: %v", j.Err())
			}
		}
		if won != uses || len(o.log.Issues()) != uses {
			t.Fatalf("%d of %d won, %d certificates", won, uses, len(o.log.Issues()))
		}
	}
}

// TestKilledSigner kills the signer before and after each write of its log,
// restarts it, and lets everybody try again: one certificate, the same bytes.
func TestKilledSigner(t *testing.T) {
	errKilled := errors.New("killed")
	for _, byWords := range []bool{false, true} {
		for at := range 3 {
			for _, kept := range []bool{false, true} {
				t.Run(fmt.Sprintf("words %v, write %d, kept %v", byWords, at, kept), func(t *testing.T) {
					o := newOffice(t)
					var invite *keys.Invite
					if !byWords {
						invite = o.invite(t, 1)
					}
					writes := 0
					o.store.fail = func([]byte) (bool, error) {
						writes++
						if writes-1 == at {
							return kept, errKilled
						}
						return false, nil
					}
					joiners := []*Joiner{o.joiner(t, "laptop", invite), o.joiner(t, "laptop", invite)}
					l := perfect()
					for range 40 {
						for _, j := range joiners {
							if byWords && j == joiners[0] && j.Words() != nil {
								_, _ = o.desk.Approve(strings.Join(j.Words(), " "), nil, o.now)
							}
							if j.Stage() != Joined && j.Stage() != Failed {
								o.round(t, j, l)
							}
							if writes == at+1 {
								writes++
								o.restart(t) // the killed one says nothing more
							}
						}
					}
					won := 0
					for _, j := range joiners {
						if j.Result() != nil {
							won++
							if !bytes.Equal(j.Result().Chain, o.log.Issues()[0].Chain) {
								t.Error("another certificate than the log has")
							}
						}
					}
					if won != 1 || len(o.log.Issues()) != 1 {
						t.Fatalf("%d joined, %d certificates", won, len(o.log.Issues()))
					}
				})
			}
		}
	}
}

// TestDiskTrouble keeps the joiner waiting, with the reason, until the signer
// can write again.
func TestDiskTrouble(t *testing.T) {
	o := newOffice(t)
	j := o.joiner(t, "laptop", o.invite(t, 1))
	o.store.fail = func([]byte) (bool, error) { return false, errors.New("no space left on device") }
	o.run(t, j, perfect(), 5)
	if j.Stage() != Asking || j.Notice() == "" {
		t.Fatalf("stage %v, notice %q", j.Stage(), j.Notice())
	}
	o.store.fail = nil
	o.run(t, j, perfect(), 5)
	o.check(t, j, "laptop")
}

// TestDeskForgets restarts the signer while the joiner waits: other words.
func TestDeskForgets(t *testing.T) {
	o := newOffice(t)
	j := o.joiner(t, "laptop", nil)
	o.run(t, j, perfect(), 5)
	before := j.Words()
	o.restart(t)
	for range 5 {
		o.round(t, j, perfect())
	}
	if j.Stage() != Waiting || slices.Equal(before, j.Words()) {
		t.Fatalf("stage %v, words %v, then %v", j.Stage(), before, j.Words())
	}
	must(o.desk.Approve(strings.Join(j.Words(), " "), nil, o.now))(t)
	o.restart(t) // granted before, so it holds
	o.run(t, j, perfect(), 5)
	o.check(t, j, "laptop")
}

// TestReplay gives every message of finished joins again, in any order, to a
// desk and a joiner that are alive.
func TestReplay(t *testing.T) {
	o := newOffice(t)
	invite := o.invite(t, 2)
	var toDesk, toJoiner [][]byte
	var from []keys.Public
	record := func(j *Joiner) {
		for range 8 {
			msg, _ := j.Tick(o.now)
			if msg == nil {
				o.now = o.now.Add(time.Second)
				continue
			}
			toDesk, from = append(toDesk, msg), append(from, j.public)
			for _, reply := range o.desk.Receive(j.public, msg, o.now) {
				toJoiner = append(toJoiner, reply)
				_ = j.Receive(reply, o.now)
			}
			if w := j.Words(); w != nil {
				_, _ = o.desk.Approve(strings.Join(w, " "), nil, o.now)
			}
		}
		if j.Result() == nil {
			t.Fatal(j.Err())
		}
	}
	record(o.joiner(t, "one", invite))
	record(o.joiner(t, "two", nil))
	issued, entries := len(o.log.Issues()), len(o.store.entries)
	fresh := o.joiner(t, "three", invite)
	r := rand.New(rand.NewPCG(5, 5))
	for range 500 {
		k := r.IntN(len(toDesk))
		o.desk.Receive(from[k], toDesk[k], o.now)
		_ = fresh.Receive(toJoiner[r.IntN(len(toJoiner))], o.now)
	}
	if len(o.log.Issues()) != issued || len(o.store.entries) != entries {
		t.Errorf("replay wrote to the log: %d certificates, were %d", len(o.log.Issues()), issued)
	}
	if fresh.Stage() != Asking {
		t.Errorf("replay moved a joiner to %v: %v", fresh.Stage(), fresh.Err())
	}
	o.run(t, fresh, perfect(), 5)
	o.check(t, fresh, "three")
}

func TestNames(t *testing.T) {
	o := newOffice(t)
	o.taken["printer"], o.taken["printer-2"] = true, true
	long := strings.Repeat("x", 63)
	invite := o.invite(t, 100)
	for _, tt := range []struct{ ask, want string }{
		{"laptop", "laptop"},
		{"laptop", "laptop-2"}, // given a moment ago, not a member yet
		{"laptop", "laptop-3"},
		{"printer", "printer-3"},
		{long, long},
		{long, strings.Repeat("x", 61) + "-2"},
	} {
		j := o.joiner(t, tt.ask, invite)
		o.run(t, j, perfect(), 5)
		o.check(t, j, tt.want)
	}
	// The same node again, its certificate lost: its own name, though taken by itself.
	first := o.joiner(t, "laptop", invite)
	o.run(t, first, perfect(), 5)
	o.check(t, first, "laptop-4")
	o.taken["laptop-4"] = true
	again := NewJoiner(JoinerConfig{Identity: first.config.Identity, Name: "laptop", Root: o.root.Public(), Now: o.now})
	o.run(t, again, perfect(), 5)
	must(o.desk.Approve(strings.Join(again.Words(), " "), nil, o.now))(t)
	o.run(t, again, perfect(), 5)
	o.check(t, again, "laptop-4")
	// A revoked node's name is free.
	o.gone[first.public.Sign] = true
	o.taken["laptop-4"] = false
	next := o.joiner(t, "laptop-4", invite)
	o.run(t, next, perfect(), 5)
	o.check(t, next, "laptop-4")
}

// A member that makes joiners up fills a quarter of the desk and no more.
func TestIntroducerIsBounded(t *testing.T) {
	o := newOffice(t)
	refused := 0
	for n := range 3 * maxCarried {
		j := o.joiner(t, "x", nil)
		msg, _ := j.Tick(o.now)
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(n + 1)}), 1)
		if o.desk.ReceiveFrom(j.public, Origin{At: at, By: keys.NodeID{1}}, msg, o.now)[0][0] == typeRefusal {
			refused++
		}
	}
	if refused != 2*maxCarried {
		t.Errorf("%d of %d requests by one member are refused", refused, 3*maxCarried)
	}
	j := o.joiner(t, "x", nil)
	msg, _ := j.Tick(o.now)
	if o.desk.ReceiveFrom(j.public, Origin{By: keys.NodeID{2}}, msg, o.now)[0][0] != typeChallenge {
		t.Error("another member's joiner is refused too")
	}
}

func TestPendingIsBounded(t *testing.T) {
	o := newOffice(t)
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	commitFrom := func(from netip.AddrPort) []byte {
		j := o.joiner(t, "x", nil)
		msg, _ := j.Tick(o.now)
		return o.desk.ReceiveFrom(j.public, Origin{At: from}, msg, o.now)[0]
	}
	for n := range maxFromOne + 1 {
		reply := commitFrom(at(fmt.Sprintf("[2001:db8::%x]:%d", n+1, n+1000)))
		if busy := reply[0] == typeRefusal; busy != (n == maxFromOne) {
			t.Fatalf("request %d of one /64: %x", n, reply[:2])
		}
	}
	if reply := commitFrom(at("[2001:db8:0:1::1]:1")); reply[0] != typeChallenge {
		t.Fatal("the next /64 is refused too")
	}
	for n := maxFromOne + 1; n < maxPending; n++ {
		commitFrom(at(fmt.Sprintf("198.51.100.%d:1", n)))
	}
	if len(o.desk.pending) != maxPending {
		t.Fatalf("%d pending", len(o.desk.pending))
	}
	if reply := commitFrom(at("192.0.2.1:1")); reply[0] != typeRefusal {
		t.Error("one too many")
	}
	invited := o.joiner(t, "guest", o.invite(t, 1))
	o.run(t, invited, perfect(), 5)
	o.check(t, invited, "guest") // invites need no place
	o.now = o.now.Add(revealLife)
	if reply := commitFrom(at("192.0.2.1:1")); reply[0] != typeChallenge || len(o.desk.pending) != 1 {
		t.Error("commits that nobody followed up keep their places")
	}
}

func TestUnreachable(t *testing.T) {
	o := newOffice(t)
	for _, invite := range []*keys.Invite{nil, o.invite(t, 1)} {
		j := o.joiner(t, "laptop", invite)
		msg, _ := j.Tick(o.now)
		id, ok := Signer(msg)
		if !ok || id.IsZero() != (invite == nil) || invite != nil && id != o.signer.ID() {
			t.Errorf("signer of the first message: %v, %v", id, ok)
		}
		if err := j.Receive(Unreachable(msg), o.now); err != nil || j.Notice() == "" || j.Err() != nil {
			t.Errorf("got %v, notice %q", err, j.Notice())
		}
		o.run(t, j, perfect(), 5)
		if j.Notice() != "" {
			t.Errorf("notice stays: %q", j.Notice())
		}
		if invite == nil {
			o.now = o.now.Add(lastRepeat)
			msg, _ = j.Tick(o.now)
			if id, _ := Signer(msg); id != o.signer.ID() {
				t.Errorf("signer of the reveal: %v", id)
			}
			if err := j.Receive(Unreachable(msg), o.now); err != nil || j.Notice() == "" {
				t.Errorf("got %v, notice %q", err, j.Notice())
			}
		}
	}
	if Unreachable([]byte{typeGrant, 0}) != nil || Unreachable(nil) != nil {
		t.Error("answers what is no joiner's message")
	}
}

// TestDeskChecksEachPart sends messages that are right but for one thing, made
// with all that the sender may know.
func TestDeskChecksEachPart(t *testing.T) {
	o := newOffice(t)
	victim := must(keys.NewIdentity())(t)
	for _, tt := range []struct {
		name   string
		change func(*ask, *keys.Identity)
		want   Code
	}{
		{"signed by the holder of the invite, not by the node", func(a *ask, i *keys.Identity) {
			a.Signature = ed25519.Sign(victim.Sign, a.signable(i.Public()))
		}, CodeProof},
		{"for another signer", func(a *ask, i *keys.Identity) {
			a.Issuer[0]++
			a.Signature = ed25519.Sign(i.Sign, a.signable(i.Public()))
		}, CodeUnreachable},
		{"for another network", func(a *ask, i *keys.Identity) {
			a.Network[0]++
			a.Signature = ed25519.Sign(i.Sign, a.signable(i.Public()))
		}, CodeWrongNetwork},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := o.joiner(t, "laptop", o.invite(t, 1))
			msg, _ := j.Tick(o.now)
			var a ask
			if err := decode(msg, &a); err != nil {
				t.Fatal(err)
			}
			tt.change(&a, j.config.Identity)
			msg = must(encode(typeAsk, a))(t)
			if reply := o.desk.Receive(j.public, msg, o.now); len(reply) != 1 || !bytes.Equal(reply[0], refuse(refOf(msg), tt.want)) {
				t.Errorf("got %x", reply)
			}
		})
	}
	for _, tt := range []struct {
		name   string
		change func(*reveal) bool // whether to sign anew
		want   Code
	}{
		{"a nonce other than committed", func(r *reveal) bool { r.Nonce[0]++; return true }, CodeMalformed},
		{"a signature that fails", func(r *reveal) bool { r.Signature[0]++; return false }, CodeMalformed},
		{"for another signer", func(r *reveal) bool { r.Signer[0]++; return true }, CodeUnreachable},
		{"of another request", func(r *reveal) bool { r.Ref[0]++; return true }, CodeAgain},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := o.joiner(t, "laptop", nil)
			msg, _ := j.Tick(o.now)
			reply := o.desk.Receive(j.public, msg, o.now)
			var c challenge
			var r reveal
			err := errors.Join(decode(reply[0], &c), j.Receive(reply[0], o.now))
			msg, _ = j.Tick(o.now)
			if err = errors.Join(err, decode(msg, &r)); err != nil {
				t.Fatal(err)
			}
			if tt.change(&r) {
				r.Signature = ed25519.Sign(j.config.Identity.Sign, r.signable(o.trust().NetworkID(), j.public, c.Nonce))
			}
			if reply := o.desk.Receive(j.public, must(encode(typeReveal, r))(t), o.now); len(reply) != 1 || !bytes.Equal(reply[0], refuse(r.Ref, tt.want)) {
				t.Errorf("got %x", reply)
			}
			if len(o.desk.Requests(o.now)) != 0 {
				t.Error("it is shown to the admin")
			}
		})
	}
	if len(o.log.Issues()) != 0 {
		t.Error("a certificate was issued")
	}
}
