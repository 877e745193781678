package wireguard

import (
	"errors"
	"testing"
	"time"
)

// initiations runs the timers of e until to and returns when it initiated,
// relative to from. Nothing that it sends arrives.
func initiations(e *end, from, to time.Time) (at []time.Duration) {
	for now := from; !now.After(to); now = e.wake {
		e.tick(now)
		for _, m := range e.messages() {
			if t, _ := Type(m); t == TypeInitiation {
				at = append(at, now.Sub(from))
			}
		}
		if e.wake.IsZero() {
			return at
		}
		if !e.wake.After(now) {
			e.t.Fatalf("wake at %v is not after %v", e.wake, now)
		}
	}
	return at
}

func equal(t *testing.T, got []time.Duration, want ...time.Duration) {
	t.Helper()
	if len(got) < len(want) {
		t.Fatalf("%v, want %v and more", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%v, want %v", got, want)
		}
	}
}

func TestRepeatedInitiations(t *testing.T) {
	const ms = time.Millisecond
	member := Options{Member: true}
	for _, tc := range []struct {
		name   string
		opts   Options
		higher bool
		want   []time.Duration
	}{
		{"standard", Options{}, false, []time.Duration{0, 5000 * ms, 10000 * ms, 15000 * ms}},
		{"standard, higher key", Options{}, true, []time.Duration{0, 5000 * ms, 10000 * ms}},
		{"member", member, false, []time.Duration{0, 300 * ms, 900 * ms, 2100 * ms, 4500 * ms, 9300 * ms, 14300 * ms, 19300 * ms}},
		{"member, higher key", member, true, []time.Duration{300 * ms, 600 * ms, 1200 * ms, 2400 * ms, 4800 * ms, 9600 * ms, 14600 * ms}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, high := newPair(t, tc.opts, tc.opts)
			if tc.higher {
				e = high
			}
			e.do(e.session.Initiate(testStart), testStart)
			e.wake = testStart
			first := len(e.messages())
			at := initiations(e, testStart, testStart.Add(time.Hour))
			if first == 1 {
				at = append([]time.Duration{0}, at...)
			}
			equal(t, at, tc.want...)
			if last := at[len(at)-1]; last < 85*time.Second || last >= RekeyAttemptTime {
				t.Errorf("last initiation after %v", last)
			}
			if !e.happened().GaveUp || !e.wake.IsZero() || len(e.owned) != 0 {
				t.Error("it has not given up, or something is left")
			}
			now := testStart.Add(time.Hour)
			e.initiate(now)
			if len(e.messages()) != 1 && !tc.higher {
				t.Error("no new start after it gave up")
			}
		})
	}
}

// Paper, 6.4: as long as somebody wants to send, it does not give up.
func TestInitiateExtendsAttempt(t *testing.T) {
	e, _ := newPair(t, Options{}, Options{})
	for now := testStart; now.Before(testStart.Add(5 * time.Minute)); now = now.Add(time.Second) {
		e.initiate(now)
		e.tick(now)
	}
	if e.happened().GaveUp {
		t.Error("gave up while packets kept coming")
	}
	if n := len(e.messages()); n < 55 || n > 61 {
		t.Errorf("%d initiations in five minutes", n)
	}
}

func TestInitiateWithKeyDoesNothing(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	connect(t, a, b, testStart)
	a.initiate(testStart.Add(time.Minute))
	b.initiate(testStart.Add(time.Minute))
	if len(a.messages())+len(b.messages()) != 0 {
		t.Error("a handshake although there is a key")
	}
}

// Every initiation is a fresh one, so that the responder takes it.
func TestLostFirstInitiations(t *testing.T) {
	a, b := newPair(t, Options{Member: true}, Options{Member: true})
	now := testStart
	a.initiate(now)
	for range 3 {
		a.messages() // lost
		now = a.wake
		a.tick(now)
	}
	if err := b.handshake(a.messages()[0], now); err != nil {
		t.Fatal(err)
	}
	b.messages() // lost too
	now = a.wake
	a.tick(now)
	if err := b.handshake(a.messages()[0], now); err != nil {
		t.Fatal(err)
	}
	if err := a.handshake(b.messages()[0], now); err != nil {
		t.Fatal(err)
	}
	deliver(t, a, b, "x", now)
	deliver(t, b, a, "y", now)
}

// A responder that wants to send does not wait 5 s for a packet that was lost.
func TestLostConfirmation(t *testing.T) {
	for _, tc := range []struct {
		name   string
		member bool
		after  time.Duration
	}{{"standard", false, RekeyTimeout}, {"member", true, FirstRetry}} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := newPair(t, Options{Member: tc.member}, Options{Member: tc.member})
			a.initiate(testStart)
			if err := b.handshake(a.messages()[0], testStart); err != nil {
				t.Fatal(err)
			}
			b.messages()
			b.initiate(testStart)
			if len(b.messages()) != 0 || !b.wake.Equal(testStart.Add(tc.after)) {
				t.Errorf("initiates after %v", b.wake.Sub(testStart))
			}
			b.tick(b.wake)
			if len(b.messages()) != 1 {
				t.Error("no initiation")
			}
		})
	}
}

// Both start at once: whatever crosses on the way, one round is enough, and in
// the end one side is the initiator of the key that both use.
func TestSimultaneousStart(t *testing.T) {
	for _, member := range []bool{false, true} {
		a, b := newPair(t, Options{Member: member}, Options{Member: member})
		now := testStart
		a.session.begin(now)
		b.session.begin(now)
		a.session.attempt.at, b.session.attempt.at = now, now // no wait: the worst case
		a.tick(now)
		b.tick(now)
		ia, ib := a.messages()[0], b.messages()[0]
		if err := errors.Join(a.handshake(ib, now), b.handshake(ia, now)); err != nil {
			t.Fatal(err)
		}
		ra, rb := a.messages()[0], b.messages()[0]
		if err := errors.Join(a.handshake(rb, now), b.handshake(ra, now)); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			pa, pb := a.seal("a", now), b.seal("b", now)
			if _, err := b.open(pa, now); err != nil {
				t.Error(err)
			}
			if _, err := a.open(pb, now); err != nil {
				t.Error(err)
			}
		}
		ka, kb := a.session.SendKey(), b.session.SendKey()
		if member && (ka.RemoteIndex() != kb.LocalIndex() || ka.initiator == kb.initiator || !ka.initiator) {
			t.Error("members do not agree on the key of the lower side")
		}
	}
}

func TestHigherKeyWaitsForTheFirstOnly(t *testing.T) {
	a, b := newPair(t, Options{Member: true}, Options{Member: true})
	b.initiate(testStart)
	if len(b.messages()) != 0 || !b.wake.Equal(testStart.Add(FirstRetry)) {
		t.Fatal("the higher key does not wait")
	}
	a.initiate(testStart)
	if err := b.handshake(a.messages()[0], testStart); err != nil {
		t.Fatal(err)
	}
	if err := a.handshake(b.messages()[0], testStart); err != nil {
		t.Fatal(err)
	}
	deliver(t, a, b, "x", testStart)
	if got := initiations(b, testStart, testStart.Add(10*time.Second)); len(got) != 0 {
		t.Errorf("initiations after the session is there: %v", got)
	}
	later := testStart.Add(time.Hour)
	b.tick(later)
	b.initiate(later)
	if len(b.messages()) != 1 {
		t.Error("it waits before a later session as well")
	}
}

// Paper, 6.2.
func TestRekey(t *testing.T) {
	for _, tc := range []struct {
		name      string
		initiator bool // who acts
		send      bool // or receives
		at        time.Duration
		want      bool
	}{
		{"initiator sends early", true, true, RekeyAfterTime - time.Millisecond, false},
		{"initiator sends", true, true, RekeyAfterTime, true},
		{"responder sends", false, true, RekeyAfterTime, false},
		{"initiator receives", true, false, RekeyAfterTime, false},
		{"initiator receives late", true, false, RejectAfterTime - KeepaliveTimeout - RekeyTimeout, true},
		{"responder receives late", false, false, RejectAfterTime - time.Millisecond, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := newPair(t, Options{}, Options{})
			connect(t, a, b, testStart)
			now := testStart.Add(tc.at)
			who, other := a, b
			if !tc.initiator {
				who, other = b, a
			}
			if tc.send {
				who.seal("x", now)
			} else {
				packet, err := other.session.SendKey().Seal(nil, []byte("x"))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := who.open(packet, now); err != nil {
					t.Fatal(err)
				}
			}
			if got := len(who.messages()) == 1; got != tc.want {
				t.Errorf("initiation: %v", got)
			}
			if who.session.SendKey() == nil {
				t.Error("the key is gone")
			}
			who.seal("again", now)
			if len(who.messages()) != 0 && tc.want {
				t.Error("a second initiation")
			}
		})
	}
}

// A handshake that was given up does not use up the chance to rekey a key that
// has grown old meanwhile.
func TestRekeyAfterGivingUp(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	connect(t, a, b, testStart)
	now := testStart.Add(40 * time.Second)
	a.do(a.session.Rekey(now), now)
	a.seal("x", testStart.Add(RekeyAfterTime))
	now = now.Add(RekeyAttemptTime)
	a.tick(now)
	if a.messages(); !a.happened().GaveUp {
		t.Fatal("not given up")
	}
	now = now.Add(RekeyTimeout)
	a.seal("x", now)
	if len(a.messages()) != 1 {
		t.Error("no initiation")
	}
}

// Who has just answered gives the peer time to confirm before it goes on with
// its own handshake.
func TestAnswerPostponesOwnInitiation(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	b.initiate(testStart)
	b.messages() // lost
	now := testStart.Add(4 * time.Second)
	a.initiate(now)
	if err := b.handshake(a.messages()[0], now); err != nil {
		t.Fatal(err)
	}
	b.messages() // the response is lost, too
	if got := initiations(b, now, now.Add(8*time.Second)); len(got) != 1 || got[0] != RekeyTimeout {
		t.Errorf("initiations after %v", got)
	}
}

func TestCounterLimits(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	connect(t, a, b, testStart)
	later := testStart.Add(RekeyTimeout) // after the handshake before
	key := b.session.SendKey()
	key.nonce.Store(RekeyAfterMessages - 1)
	deliver(t, b, a, "the last", later)
	if n := len(b.messages()); n != 1 {
		t.Errorf("%d initiations of the responder after 2^60 packets", n)
	}
	key.nonce.Store(RejectAfterMessages - 1)
	deliver(t, b, a, "the very last", later)
	for range 3 {
		if _, err := key.Seal(nil, nil); !errors.Is(err, ErrExhausted) {
			t.Errorf("one packet too many: %v", err)
		}
	}
	if b.session.SendKey() != nil {
		t.Error("a used-up key is offered")
	}
}

// No key is used for RejectAfterTime, whether Tick comes or not, and nothing is left.
func TestKeysExpire(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	connect(t, a, b, testStart)
	ka, kb := a.session.SendKey(), b.session.SendKey()
	packet, err := ka.Seal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	end := testStart.Add(RejectAfterTime)
	if !ka.MarkSent(end) || a.session.SendKey() != nil {
		t.Error("an old key is offered to the sender")
	}
	if !kb.MarkReceived(end, true) {
		t.Error("no tick for an old key on receive")
	}
	if _, err := kb.Open(packet); !errors.Is(err, ErrExpired) {
		t.Errorf("packet under an old key: %v", err)
	}
	a.tick(end)
	b.tick(end)
	if len(b.owned) != 0 || !b.wake.IsZero() {
		t.Errorf("%d indexes left, wake %v", len(b.owned), b.wake)
	}
}

func TestKeepalives(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	connect(t, a, b, testStart)
	a.happened()
	now := testStart.Add(time.Second)
	b.tick(now)
	deliver(t, a, b, "x", now)
	deliver(t, a, b, "y", now.Add(5*time.Second))
	step := func(e *end) time.Duration {
		e.tick(e.wake)
		return e.wake.Sub(now)
	}
	for step(b) < KeepaliveTimeout {
		if b.happened().Keepalive {
			t.Fatal("keepalive too soon")
		}
	}
	b.tick(now.Add(KeepaliveTimeout))
	if !b.happened().Keepalive {
		t.Fatal("no keepalive 10 s after data that nothing was sent back for")
	}
	b.tick(b.wake)
	if b.happened().Keepalive {
		t.Error("a second keepalive")
	}
	deliver(t, a, b, "", b.wake)
	deliver(t, a, b, "x", b.wake)
	deliver(t, b, a, "answer", b.wake)
	for at := b.wake; b.wake.Before(at.Add(time.Minute)); {
		b.tick(b.wake)
		if b.happened().Keepalive {
			t.Fatal("keepalive for a keepalive, or for data that was answered")
		}
	}
}

// Paper, 6.5: data sent, nothing back for 15 s.
func TestNoReply(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer string
		data   string
		want   bool
	}{
		{"silence", "none", "x", true},
		{"a keepalive", "", "x", false},
		{"only a keepalive was sent", "none", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := newPair(t, Options{}, Options{})
			connect(t, a, b, testStart)
			a.tick(testStart)
			now := testStart.Add(time.Second)
			deliver(t, b, a, tc.data, now)
			if tc.answer != "none" {
				deliver(t, a, b, tc.answer, now.Add(time.Second))
			}
			b.tick(now)
			got := initiations(b, now, now.Add(20*time.Second))
			if (len(got) > 0) != tc.want || tc.want && got[0] != 15*time.Second {
				t.Errorf("initiations after %v", got)
			}
		})
	}
}

func TestPersistentKeepalive(t *testing.T) {
	a, b := newPair(t, Options{PersistentKeepalive: 25 * time.Second}, Options{})
	a.tick(testStart)
	if n := len(a.messages()); n != 1 {
		t.Fatalf("%d initiations at the first Tick", n)
	}
	a.do(a.session.Expire(testStart), testStart)
	connect(t, a, b, testStart)
	a.happened()
	count := 0
	for now := a.wake; now.Before(testStart.Add(101 * time.Second)); now = a.wake {
		a.tick(now)
		if a.happened().Keepalive {
			count++
			if _, err := b.open(a.seal("", now), now); err != nil {
				t.Fatal(err)
			}
		}
	}
	if count != 4 {
		t.Errorf("%d keepalives in 101 s, want one every 25 s", count)
	}
}

func TestExpire(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	connect(t, a, b, testStart)
	kp := a.session.SendKey()
	now := testStart.Add(time.Second)
	a.do(a.session.Rekey(now), now) // waits for RekeyTimeout since the last
	a.do(a.session.Expire(now), now)
	if a.session.SendKey() != nil || len(a.owned) != 0 || !a.wake.IsZero() {
		t.Error("something is left")
	}
	if _, err := kp.Seal(nil, nil); !errors.Is(err, ErrExpired) {
		t.Errorf("Seal with a forgotten key: %v", err)
	}
	a.initiate(now)
	if len(a.messages()) != 1 {
		t.Error("no initiation at once")
	}
	connect(t, b, a, now.Add(time.Minute))
	a.seal("unanswered", now.Add(time.Minute))
	a.do(a.session.Expire(now.Add(time.Minute)), now.Add(time.Minute))
	if !a.wake.IsZero() {
		t.Error("it still waits for an answer")
	}
}

// A key that was replaced still opens what is on its way.
func TestRekeyLosesNothing(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	connect(t, a, b, testStart)
	now := testStart
	for i := range 6 {
		fromA, fromB := a.seal("late a", now), b.seal("late b", now)
		now = now.Add(RekeyAfterTime)
		if i%2 == 0 {
			connect(t, a, b, now)
		} else {
			connect(t, b, a, now)
		}
		if _, err := b.open(fromA, now); err != nil {
			t.Errorf("rekey %d, a to b: %v", i, err)
		}
		if _, err := a.open(fromB, now); err != nil {
			t.Errorf("rekey %d, b to a: %v", i, err)
		}
	}
}
