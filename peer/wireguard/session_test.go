package wireguard

import (
	"errors"
	"testing"
	"time"
)

func deliver(t *testing.T, from, to *end, text string, now time.Time) {
	t.Helper()
	packet := from.seal(text, now)
	if packet == nil {
		t.Fatalf("no key to send %q with", text)
	}
	got, err := to.open(packet, now)
	if err != nil || got != text {
		t.Fatalf("delivered %q, %v; want %q", got, err, text)
	}
}

func TestRoundTrip(t *testing.T) {
	psk := [32]byte{1, 2, 3}
	for _, tc := range []struct {
		name      string
		low, high Options
	}{
		{"standard", Options{}, Options{}},
		{"members", Options{Member: true}, Options{Member: true}},
		{"preshared key", Options{PSK: psk}, Options{PSK: psk}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := newPair(t, tc.low, tc.high)
			connect(t, a, b, testStart)
			deliver(t, a, b, "there", testStart)
			deliver(t, b, a, "and back", testStart)
			if st := a.session.Stats(); st.TxBytes != 32+32+5 || st.RxBytes != 32+8 || !st.LastHandshake.Equal(testStart) {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

func TestPresharedKeyMismatch(t *testing.T) {
	a, b := newPair(t, Options{PSK: [32]byte{1}}, Options{PSK: [32]byte{2}})
	a.initiate(testStart)
	if err := b.handshake(a.messages()[0], testStart); err != nil {
		t.Fatal(err)
	}
	if err := a.handshake(b.messages()[0], testStart); !errors.Is(err, ErrAuth) {
		t.Fatalf("response under another preshared key: %v", err)
	}
}

// Paper, 5.4.6: the responder may not send before the first data packet.
func TestResponderWaits(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	a.initiate(testStart)
	if err := b.handshake(a.messages()[0], testStart); err != nil {
		t.Fatal(err)
	}
	b.tick(testStart.Add(time.Second))
	if b.session.SendKey() != nil || b.happened().Established {
		t.Fatal("the responder may send without a packet received")
	}
	if err := a.handshake(b.messages()[0], testStart); err != nil {
		t.Fatal(err)
	}
	deliver(t, a, b, "x", testStart)
	if b.session.SendKey() == nil || !b.happened().Established {
		t.Fatal("the responder may not send after a packet received")
	}
}

func TestInitiationChecks(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	now := testStart
	initiation := func(at time.Time) []byte {
		a.do(a.session.Expire(at), at)
		a.initiate(at)
		return a.messages()[0]
	}
	first, second := initiation(now), initiation(now.Add(time.Second))
	third := initiation(now.Add(time.Second + 18*time.Millisecond))
	if err := b.handshake(second, now); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		msg  []byte
		at   time.Time
		want error
	}{
		{"older", first, now.Add(time.Second), ErrReplay},
		{"the same", second, now.Add(time.Second), ErrReplay},
		{"newer, 20 ms later", third, now.Add(InitiationGap), ErrFlood},
		{"newer, 21 ms later", third, now.Add(InitiationGap + time.Millisecond), nil},
		{"newest, clock set back", initiation(now.Add(2 * time.Second)), now.Add(-time.Hour), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := b.handshake(tc.msg, tc.at); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
	_, h, _ := b.local.InitiationKey(initiation(now.Add(3 * time.Second)))
	other, _ := newPair(t, Options{}, Options{})
	if _, err := other.session.HandleInitiation(h, now); !errors.Is(err, ErrKey) {
		t.Errorf("initiation of another peer: %v", err)
	}
	for _, want := range []error{nil, ErrUnexpected} {
		if out, err := b.session.HandleInitiation(h, now); !errors.Is(err, want) || err != nil && len(out.Removed)+len(out.Messages) > 0 {
			t.Errorf("%v, want %v", err, want)
		}
		b.session.clock.acceptedStamp, b.session.clock.accepted = timestamp(now), time.Time{}
	}
}

func TestTimestampsSurviveSession(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	a.initiate(testStart)
	msg := a.messages()[0]
	if err := b.handshake(msg, testStart); err != nil {
		t.Fatal(err)
	}
	again := NewSession(b.local, a.local.public, Options{LastTimestamp: b.session.LastTimestamp()})
	_, h, _ := b.local.InitiationKey(msg)
	if _, err := again.HandleInitiation(h, testStart.Add(time.Minute)); !errors.Is(err, ErrReplay) {
		t.Errorf("initiation replayed to a new Session: %v", err)
	}
}

// Time stamps grow within a process also when its clock is set back.
func TestInitiatorClockSetBack(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	for i, now := range []time.Time{testStart, testStart.Add(-time.Hour), testStart.Add(-time.Hour + time.Millisecond)} {
		a.do(a.session.Expire(now), now)
		a.initiate(now)
		if err := b.handshake(a.messages()[0], testStart.Add(time.Duration(i)*time.Second)); err != nil {
			t.Errorf("initiation %d: %v", i, err)
		}
	}
}

// ...and also for a new Session of the same peer.
func TestInitiatorClockSetBackNewSession(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	connect(t, a, b, testStart)
	past := testStart.Add(-time.Hour)
	a.session = NewSession(a.local, b.local.public, a.session.opts)
	a.initiate(past)
	a.messages() // says the time that was said before, and is refused
	a.tick(past.Add(RekeyTimeout))
	if err := b.handshake(a.messages()[0], testStart.Add(time.Minute)); err != nil {
		t.Error(err)
	}
}

// A response that somebody on the path makes up does not end the handshake.
func TestForgedResponses(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	a.initiate(testStart)
	if err := b.handshake(a.messages()[0], testStart); err != nil {
		t.Fatal(err)
	}
	true_ := b.messages()[0]
	forged := func(change func(m []byte)) []byte {
		m := append([]byte(nil), true_...)
		change(m)
		return m
	}
	lowOrder := lowOrderPoints[2]
	for _, tc := range []struct {
		name string
		msg  []byte
		want error
	}{
		{"tag", forged(func(m []byte) { m[44] ^= 1 }), ErrAuth},
		{"ephemeral", forged(func(m []byte) { m[12] ^= 1 }), ErrAuth},
		{"zero ephemeral", forged(func(m []byte) { clear(m[12:44]) }), ErrKey},
		{"ephemeral of low order", forged(func(m []byte) { copy(m[12:], lowOrder[:]) }), ErrKey},
		{"receiver", forged(func(m []byte) { m[8] ^= 1 }), ErrUnexpected},
		{"size", true_[:ResponseSize-1], ErrMessage},
		{"empty", nil, ErrMessage},
		{"the true one", true_, nil},
		{"the true one again", true_, ErrUnexpected},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := a.session.HandleResponse(tc.msg, testStart)
			a.do(out, testStart)
			if !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
	if a.session.SendKey() == nil {
		t.Error("no key after the true response")
	}
}

func TestUnusableRemote(t *testing.T) {
	for _, k := range lowOrderPoints {
		if _, err := x25519(testKey(1), k); err == nil {
			t.Errorf("%x is not of low order", k[:])
		}
		k[31] |= 0x80
		if ValidKey(k) {
			t.Errorf("%x is a valid key", k[:])
		}
		s := NewSession(NewLocal(testKey(1), testStart), k, Options{})
		if out := s.Initiate(testStart); !out.GaveUp || len(out.Messages) != 0 || !out.Wake.IsZero() {
			t.Errorf("initiation towards %x: %+v", k[:], out)
		}
	}
	if !ValidKey(testKey(1).PublicKey()) {
		t.Error("an honest key is not valid")
	}
}

func TestOpenRefuses(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	connect(t, a, b, testStart)
	kp := b.session.SendKey()
	fresh := func(change func(m []byte)) []byte {
		m := a.seal("some plaintext", testStart)
		change(m)
		return m
	}
	seen := fresh(func([]byte) {})
	if _, err := kp.Open(append([]byte(nil), seen...)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		packet []byte
		want   error
	}{
		{"replay", seen, ErrReplay},
		{"tag", fresh(func(m []byte) { m[len(m)-1] ^= 1 }), ErrAuth},
		{"ciphertext", fresh(func(m []byte) { m[16] ^= 1 }), ErrAuth},
		{"counter", fresh(func(m []byte) { m[8] ^= 1 }), ErrAuth},
		{"index", fresh(func(m []byte) { m[4] ^= 1 }), ErrAuth},
		{"counter at its limit", fresh(func(m []byte) { copy(m[8:], "\xff\xdf\xff\xff\xff\xff\xff\xff") }), ErrReplay},
		{"reserved byte", fresh(func(m []byte) { m[1] = 1 }), ErrMessage},
		{"31 bytes", fresh(func([]byte) {})[:31], ErrMessage},
		{"empty", nil, ErrMessage},
		{"too long", append([]byte{4, 0, 0, 0}, make([]byte, 1<<16)...), ErrMessage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if p, err := kp.Open(tc.packet); !errors.Is(err, tc.want) {
				t.Errorf("%q, %v; want %v", p, err, tc.want)
			}
		})
	}
	if _, err := kp.Seal(nil, make([]byte, MaxPlaintext+1)); !errors.Is(err, ErrTooLong) {
		t.Errorf("plaintext that is too long: %v", err)
	}
}

// Seal works where the plaintext lies already, and leaves what dst holds.
func TestSealInPlace(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	connect(t, a, b, testStart)
	buf := make([]byte, 200)
	copy(buf, "prefix")
	copy(buf[6+HeaderSize:], "plaintext")
	out, err := a.session.SendKey().Seal(buf[:6], buf[6+HeaderSize:6+HeaderSize+9])
	if err != nil || &out[0] != &buf[0] || string(out[:6]) != "prefix" {
		t.Fatalf("%q, %v", out, err)
	}
	if got, err := b.open(out[6:], testStart); err != nil || got != "plaintext" {
		t.Fatalf("%q, %v", got, err)
	}
}
