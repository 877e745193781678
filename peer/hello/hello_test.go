package hello

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"meshd/keys"
)

func start() time.Time { return time.Unix(1_800_000_000, 0) }

func source1() netip.AddrPort { return netip.MustParseAddrPort("198.18.0.1:51830") }

// network is one with a signer.
type network struct {
	trust  keys.Trust
	signer *keys.Signer
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	root, err := keys.NewRoot("home", start())
	if err != nil {
		t.Fatal(err)
	}
	admin := newIdentity(t)
	der, err := root.IssueSigner(admin.Public(), start())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.NewSigner(admin, der)
	if err != nil {
		t.Fatal(err)
	}
	return &network{keys.Trust{Root: root.Public()}, signer}
}

func newIdentity(t testing.TB) *keys.Identity {
	t.Helper()
	identity, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// member is the configuration of a new member.
func (n *network) member(t testing.TB, name string) Config {
	t.Helper()
	identity := newIdentity(t)
	chain, err := n.signer.Issue(identity.Public(), name, keys.Roles{keys.RoleMember}, start())
	if err != nil {
		t.Fatal(err)
	}
	return Config{Identity: identity, Trust: &n.trust, Chain: chain}
}

// joiner is the configuration of somebody with an invite.
func (n *network) joiner(t testing.TB) Config {
	return Config{Identity: newIdentity(t), Trust: &n.trust}
}

func newInitiator(t testing.TB, cfg Config) *Initiator {
	t.Helper()
	i, err := NewInitiator(cfg, start())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newResponder(t testing.TB, cfg Config) *Responder {
	t.Helper()
	r, err := NewResponder(cfg, start())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// link joins an initiator to a responder without delay, and checks on the way
// what must hold for every exchange: no answer is larger than its question, and
// the sizes are those of the protocol.
type link struct {
	t    testing.TB
	i    *Initiator
	r    *Responder
	src  netip.AddrPort
	edit func(step Step, msg []byte) []byte // nil drops; nil func: nothing is changed
	wire [][]byte
	met  []*Result
}

func (l *link) pass(msg []byte) []byte {
	step, _, ok := ParseHeader(msg)
	if !ok {
		l.t.Fatalf("sent %x, which is no hello", msg)
	}
	if step.FromInitiator() != (len(msg) == paddedLen) || len(msg) > paddedLen {
		l.t.Fatalf("step %d has %d bytes", step, len(msg))
	}
	l.wire = append(l.wire, bytes.Clone(msg))
	if l.edit != nil {
		msg = l.edit(step, bytes.Clone(msg))
	}
	return msg
}

// tick runs the initiator's timer and delivers everything that follows from it.
func (l *link) tick(now time.Time) (wake time.Time) {
	out, wake := l.i.Tick(now)
	for out != nil {
		sent := l.pass(out)
		if sent == nil {
			return wake
		}
		reply, met := l.r.Receive(l.src, sent, now)
		if met != nil {
			l.met = append(l.met, met)
		}
		if len(reply) > len(sent) {
			l.t.Fatalf("%d bytes answered with %d", len(sent), len(reply))
		}
		if reply == nil {
			return wake
		}
		if reply = l.pass(reply); reply == nil {
			return wake
		}
		out = l.i.Receive(reply, now)
	}
	return wake
}

// run ticks until the attempt has ended, and returns when.
func (l *link) run(now time.Time) time.Time {
	l.t.Helper()
	for range 100 {
		wake := l.tick(now)
		if l.i.done() {
			return now
		}
		if !wake.After(now) {
			l.t.Fatalf("at %v asks to be woken at %v", now, wake)
		}
		now = wake
	}
	l.t.Fatal("the attempt does not end")
	return now
}

func meet(t testing.TB, initiator, responder Config) (*link, time.Time) {
	t.Helper()
	l := &link{t: t, i: newInitiator(t, initiator), r: newResponder(t, responder), src: source1()}
	return l, l.run(start())
}

func TestMembersMeet(t *testing.T) {
	n := newNetwork(t)
	a, b := n.member(t, "alice"), n.member(t, "bob")
	l, at := meet(t, a, b)
	if err := l.i.Err(); err != nil {
		t.Fatal(err)
	}
	if !at.Equal(start()) || len(l.wire) != 6 {
		t.Errorf("took %v and %d datagrams, want 0 s and 6", at.Sub(start()), len(l.wire))
	}
	got := l.i.Result()
	if got.Remote != b.Identity.Public() || got.Pending || got.Certificate.Name != "bob" || !got.Root.Equal(n.trust.Root) {
		t.Errorf("the initiator met %+v", got)
	}
	if len(l.met) != 1 {
		t.Fatalf("the responder met %d", len(l.met))
	}
	got = l.met[0]
	if got.Remote != a.Identity.Public() || got.Pending || got.Certificate.Name != "alice" || !got.Root.Equal(n.trust.Root) {
		t.Errorf("the responder met %+v", got)
	}
	if out, wake := l.i.Tick(at.Add(time.Second)); out != nil || !wake.IsZero() {
		t.Error("an attempt that has ended goes on")
	}
}

func TestJoinersAreShownKeysOnly(t *testing.T) {
	n := newNetwork(t)
	bob := n.member(t, "bob")
	for _, tt := range []struct {
		name string
		cfg  Config
	}{
		{"with an invite", n.joiner(t)},
		{"trusting on first use", Config{Identity: newIdentity(t)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, _ := meet(t, tt.cfg, bob)
			if err := l.i.Err(); err != nil {
				t.Fatal(err)
			}
			got := l.i.Result()
			if got.Remote != bob.Identity.Public() || !got.Pending || got.Certificate != nil || !got.Root.Equal(n.trust.Root) {
				t.Errorf("the initiator met %+v", got)
			}
			got = l.met[0]
			if got.Remote != tt.cfg.Identity.Public() || !got.Pending || got.Certificate != nil {
				t.Errorf("the responder met %+v", got)
			}
			want := result{status: statusPending, hour: hour(start()), public: bob.Identity.Public()}.append(nil)
			if size := len(l.wire[5]); size != headerLen+len(want)+sealTag {
				t.Errorf("the result has %d bytes: more than keys", size)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	n, other := newNetwork(t), newNetwork(t)
	bob := n.member(t, "bob")
	revoked := func(cfg Config) Config {
		cfg.Verify = func([]byte, time.Time) (*keys.Certificate, error) {
			return nil, fmt.Errorf("verify: %w", keys.ErrRevoked)
		}
		return cfg
	}
	wrongChain := n.member(t, "carol")
	wrongChain.Chain = other.member(t, "carol").Chain
	stolen := n.member(t, "mallory")
	stolen.Chain = n.member(t, "carol").Chain
	garbage := n.member(t, "mallory")
	garbage.Chain = []byte("garbage")
	noMember := n.joiner(t)

	for _, tt := range []struct {
		name      string
		i, r      Config
		want      error
		reason    string // of a refusal
		shown     bool   // the initiator sent its proof
		responder bool   // the responder has met the initiator
	}{
		{name: "another network", i: n.member(t, "a"), r: other.member(t, "b"), want: ErrWrongNetwork},
		{name: "joiner at another network", i: n.joiner(t), r: other.member(t, "b"), want: ErrWrongNetwork},
		{name: "responder without chain", i: n.member(t, "a"), r: noMember, reason: "it is not a member of a network itself"},
		{name: "responder knows no network", i: Config{Identity: newIdentity(t)}, r: Config{Identity: newIdentity(t)}, reason: "it is not a member of a network itself"},
		{name: "self", i: bob, r: bob, want: ErrSelf},
		{name: "revoked initiator", i: n.member(t, "a"), r: revoked(n.member(t, "b")), reason: "the certificate is revoked", shown: true},
		{name: "revoked responder", i: revoked(n.member(t, "a")), r: n.member(t, "b"), want: keys.ErrRevoked, shown: true, responder: true},
		{name: "chain of another network", i: wrongChain, r: bob, reason: "the certificate is of another network", shown: true},
		{name: "responder's chain of another network", i: bob, r: wrongChain, want: ErrBadCertificate, shown: true, responder: true},
		{name: "another's chain", i: stolen, r: bob, reason: "the signature of the proof is wrong", shown: true},
		{name: "responder with another's chain", i: bob, r: stolen, want: ErrBadCertificate, shown: true, responder: true},
		{name: "garbage for a chain", i: garbage, r: bob, reason: "the certificate is not accepted", shown: true},
		{name: "responder with garbage for a chain", i: bob, r: garbage, want: ErrBadCertificate, shown: true, responder: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, at := meet(t, tt.i, tt.r)
			err := l.i.Err()
			if l.i.Result() != nil || err == nil {
				t.Fatalf("met %+v", l.i.Result())
			}
			var refused ErrRefused
			switch {
			case tt.reason != "" && (!errors.As(err, &refused) || refused.Reason != tt.reason):
				t.Errorf("got %v, want a refusal: %s", err, tt.reason)
			case tt.want != nil && !errors.Is(err, tt.want):
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if !at.Equal(start()) {
				t.Errorf("took %v", at.Sub(start()))
			}
			if shown := len(l.wire) > 4; shown != tt.shown {
				t.Errorf("the initiator showed itself: %v", shown)
			}
			if (len(l.met) > 0) != tt.responder {
				t.Errorf("the responder met %d", len(l.met))
			}
		})
	}
}

func TestExpiredCertificate(t *testing.T) {
	n := newNetwork(t)
	late := start().Add(400 * 24 * time.Hour)
	run := func(a, b Config) (*link, error) {
		i, err := NewInitiator(a, late)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewResponder(b, late)
		if err != nil {
			t.Fatal(err)
		}
		l := &link{t: t, i: i, r: r, src: source1()}
		l.run(late)
		return l, i.Err()
	}
	a, b := n.member(t, "a"), n.member(t, "b")
	var refused ErrRefused
	if _, err := run(a, b); !errors.As(err, &refused) || refused.Reason != "the certificate has expired" {
		t.Errorf("got %v", err)
	}
	lenient := func(cfg Config) Config {
		cfg.Verify = func(chain []byte, now time.Time) (*keys.Certificate, error) {
			cert, err := n.trust.Verify(chain, now)
			if errors.Is(err, keys.ErrExpired) {
				return cert, nil
			}
			return cert, err
		}
		return cfg
	}
	if l, err := run(lenient(a), lenient(b)); err != nil || len(l.met) != 1 {
		t.Errorf("lenient: %v", err)
	}
}

func TestHourOffset(t *testing.T) {
	n := newNetwork(t)
	now := start().Add(24 * time.Hour)
	i, err := NewInitiator(n.member(t, "a"), now)
	if err != nil {
		t.Fatal(err)
	}
	r := newResponder(t, n.member(t, "b"))
	// The responder's clock is five hours behind.
	var met *Result
	for msg, _ := i.Tick(now); msg != nil; {
		reply, m := r.Receive(source1(), msg, now.Add(-5*time.Hour))
		if m != nil {
			met = m
		}
		msg = i.Receive(reply, now)
	}
	if i.Result() == nil || i.Result().HourOffset != -5 || met == nil || met.HourOffset != 5 {
		t.Errorf("offsets %+v and %+v", i.Result(), met)
	}
}

func TestLossyMeetings(t *testing.T) {
	n := newNetwork(t)
	a, b := n.member(t, "a"), n.member(t, "b")
	for lost := range 6 { // each datagram of the exchange, once
		t.Run(fmt.Sprintf("datagram %d", lost+1), func(t *testing.T) {
			l := &link{t: t, i: newInitiator(t, a), r: newResponder(t, b), src: source1()}
			count := 0
			l.edit = func(_ Step, msg []byte) []byte {
				if count++; count == lost+1 {
					return nil
				}
				return msg
			}
			at := l.run(start())
			if l.i.Err() != nil || len(l.met) != 1 {
				t.Fatalf("err %v, met %d", l.i.Err(), len(l.met))
			}
			if at.Sub(start()) > firstRepeat {
				t.Errorf("took %v", at.Sub(start()))
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	l := &link{t: t, i: newInitiator(t, newNetwork(t).member(t, "a")), src: source1()}
	l.edit = func(Step, []byte) []byte { return nil }
	at := l.run(start())
	if !errors.Is(l.i.Err(), ErrNoAnswer) || at.Sub(start()) != patience {
		t.Errorf("%v after %v", l.i.Err(), at.Sub(start()))
	}
	// 0, 0.3, 0.9, 2.1, 4.1, 6.1, 8.1 s
	if len(l.wire) != 7 {
		t.Errorf("sent %d datagrams", len(l.wire))
	}
	for _, msg := range l.wire {
		if !bytes.Equal(msg, l.wire[0]) {
			t.Error("the repetitions differ")
		}
	}
}

// To an address of hearsay few opens go, but one that sends cookies gets all.
func TestFewOpens(t *testing.T) {
	n := newNetwork(t)
	cfg := n.member(t, "a")
	cfg.Opens = 2
	l := &link{t: t, i: newInitiator(t, cfg), src: source1()}
	l.edit = func(Step, []byte) []byte { return nil }
	if l.run(start()); !errors.Is(l.i.Err(), ErrNoAnswer) || len(l.wire) != 2 {
		t.Errorf("%v after %d datagrams", l.i.Err(), len(l.wire))
	}
	l = &link{t: t, i: newInitiator(t, cfg), r: newResponder(t, n.member(t, "b")), src: source1()}
	l.edit = func(step Step, msg []byte) []byte {
		if step == StepAnswer && len(l.wire) < 10 {
			return nil
		}
		return msg
	}
	if l.run(start()); l.i.Err() != nil {
		t.Error(l.i.Err())
	}
}

// Both ends start at once, and all four machines come to their end.
func TestMeetingFromBothEnds(t *testing.T) {
	n := newNetwork(t)
	a, b := n.member(t, "a"), n.member(t, "b")
	ra, rb := newResponder(t, a), newResponder(t, b)
	there := &link{t: t, i: newInitiator(t, a), r: rb, src: source1()}
	back := &link{t: t, i: newInitiator(t, b), r: ra, src: netip.MustParseAddrPort("198.18.0.2:51830")}
	there.run(start())
	back.run(start())
	for _, l := range []*link{there, back} {
		if l.i.Err() != nil || len(l.met) != 1 {
			t.Errorf("err %v, met %d", l.i.Err(), len(l.met))
		}
	}
}

func TestConfigRefused(t *testing.T) {
	n := newNetwork(t)
	good := n.member(t, "a")
	for _, tt := range []struct {
		name   string
		change func(*Config)
	}{
		{"no identity", func(c *Config) { c.Identity = nil }},
		{"chain without network", func(c *Config) { c.Trust = nil }},
		{"chain too long", func(c *Config) { c.Chain = make([]byte, maxChain+1) }},
		{"no root key", func(c *Config) { c.Trust = &keys.Trust{} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			if _, err := NewInitiator(cfg, start()); err == nil {
				t.Error("an initiator was made")
			}
			if _, err := NewResponder(cfg, start()); err == nil {
				t.Error("a responder was made")
			}
		})
	}
}

// The longest chain that is issued fits both ways.
func TestLongestChain(t *testing.T) {
	n := newNetwork(t)
	a, b := n.member(t, "a"), n.member(t, "b")
	accept := func(cfg, other Config) Config {
		cert, err := n.trust.Verify(other.Chain, start())
		if err != nil {
			t.Fatal(err)
		}
		cfg.Verify = func(chain []byte, _ time.Time) (*keys.Certificate, error) {
			if len(chain) != maxChain {
				return nil, keys.ErrMalformed
			}
			return cert, nil
		}
		cfg.Chain = make([]byte, maxChain)
		return cfg
	}
	l, _ := meet(t, accept(a, b), accept(b, a))
	if l.i.Err() != nil || len(l.met) != 1 {
		t.Errorf("err %v, met %d", l.i.Err(), len(l.met))
	}
}
