package wireguard

import (
	"testing"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

var testStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// testKey is a private key that depends on n alone.
func testKey(n byte) wgtypes.Key {
	k := labelledKey("test", wgtypes.Key{n})
	return wgtypes.Key(k)
}

// end is one side of a pair, as the caller of a Session would drive it: it
// keeps the indexes and stamps messages.
type end struct {
	t       testing.TB
	local   *Local
	session *Session
	index   uint32
	owned   map[uint32]*Keypair // every index of the session; nil while a handshake has it
	wake    time.Time
	events  Output // what was put out since the last look, without Messages
	sent    [][]byte
}

// newPair returns two ends that know each other; low has the lower public key.
func newPair(t testing.TB, low, high Options) (l, h *end) {
	t.Helper()
	a, b := testKey(1), testKey(2)
	if pa, pb := a.PublicKey(), b.PublicKey(); string(pa[:]) > string(pb[:]) {
		a, b = b, a
	}
	return newEnd(t, a, b.PublicKey(), low), newEnd(t, b, a.PublicKey(), high)
}

func newEnd(t testing.TB, private, remote wgtypes.Key, opts Options) *end {
	e := &end{t: t, local: NewLocal(private, testStart), owned: make(map[uint32]*Keypair)}
	e.index = uint32(e.local.public[0]) << 24
	opts.NewIndex = func() uint32 {
		e.index++
		e.owned[e.index] = nil
		return e.index
	}
	if opts.Jitter == nil {
		opts.Jitter = func() time.Duration { return 0 }
	}
	e.session = NewSession(e.local, remote, opts)
	return e
}

// do acts on an Output.
func (e *end) do(out Output, now time.Time) {
	e.t.Helper()
	for _, i := range out.Removed {
		kp, ok := e.owned[i]
		if !ok {
			e.t.Fatalf("index %x removed that is not owned", i)
		}
		if kp != nil && !kp.dead.Load() {
			e.t.Fatalf("index %x removed with a living key", i)
		}
		delete(e.owned, i)
	}
	for _, kp := range out.Added {
		if old, ok := e.owned[kp.LocalIndex()]; !ok || old != nil {
			e.t.Fatalf("key added at index %x that is not reserved", kp.LocalIndex())
		}
		e.owned[kp.LocalIndex()] = kp
	}
	if len(e.owned) > 2+maxOld+1 {
		e.t.Fatalf("%d indexes owned", len(e.owned))
	}
	for _, msg := range out.Messages {
		e.session.Stamp(msg, "path", now)
		e.sent = append(e.sent, msg)
	}
	e.events.Keepalive = e.events.Keepalive || out.Keepalive
	e.events.Established = e.events.Established || out.Established
	e.events.GaveUp = e.events.GaveUp || out.GaveUp
	e.wake = out.Wake
}

// messages returns what was sent since the last look.
func (e *end) messages() [][]byte {
	m := e.sent
	e.sent = nil
	return m
}

// happened returns the events since the last look.
func (e *end) happened() Output {
	out := e.events
	e.events = Output{}
	return out
}

func (e *end) initiate(now time.Time) { e.t.Helper(); e.do(e.session.Initiate(now), now) }
func (e *end) tick(now time.Time)     { e.t.Helper(); e.do(e.session.Tick(now), now) }

// handshake hands a handshake message to e.
func (e *end) handshake(msg []byte, now time.Time) (err error) {
	e.t.Helper()
	if ok, _ := e.local.CheckMACs(msg, nil, false, now); !ok {
		e.t.Fatal("MACs of a handshake message are wrong")
	}
	var out Output
	switch t, _ := Type(msg); t {
	case TypeInitiation:
		remote, h, err := e.local.InitiationKey(msg)
		if err != nil {
			return err
		}
		if remote != e.session.Remote() {
			e.t.Fatalf("initiation from %v", remote)
		}
		out, err = e.session.HandleInitiation(h, now)
		e.do(out, now)
		return err
	case TypeResponse:
		index, _ := Receiver(msg)
		if _, ok := e.owned[index]; !ok {
			return ErrUnexpected
		}
		out, err = e.session.HandleResponse(msg, now)
		e.do(out, now)
	}
	return err
}

// seal makes a transport message, or returns nil without a key.
func (e *end) seal(plaintext string, now time.Time) []byte {
	e.t.Helper()
	kp := e.session.SendKey()
	if kp == nil {
		return nil
	}
	packet, err := kp.Seal(nil, []byte(plaintext))
	if err != nil {
		return nil
	}
	mark := kp.MarkSent
	if plaintext == "" {
		mark = kp.MarkKeepaliveSent
	}
	if mark(now) {
		e.tick(now)
	}
	return packet
}

// open takes a transport message.
func (e *end) open(packet []byte, now time.Time) (string, error) {
	e.t.Helper()
	index, _ := Receiver(packet)
	kp := e.owned[index]
	if kp == nil {
		return "", ErrUnexpected
	}
	plaintext, err := kp.Open(packet)
	if err != nil {
		return "", err
	}
	if kp.MarkReceived(now, len(plaintext) == 0) {
		e.tick(now)
	}
	return string(plaintext), nil
}

// connect runs a whole handshake from a to b without any loss.
func connect(t testing.TB, a, b *end, now time.Time) {
	t.Helper()
	a.do(a.session.Rekey(now), now)
	if a.session.attempt.state == nil { // it waits, as the higher key does
		a.tick(a.wake)
	}
	for _, msg := range a.messages() {
		if err := b.handshake(msg, now); err != nil {
			t.Fatal(err)
		}
	}
	for _, msg := range b.messages() {
		if err := a.handshake(msg, now); err != nil {
			t.Fatal(err)
		}
	}
	if !a.happened().Keepalive {
		t.Fatal("a new key is not confirmed to the responder")
	}
	if _, err := b.open(a.seal("", now), now); err != nil {
		t.Fatal(err)
	}
	if !b.happened().Established || a.session.SendKey() == nil || b.session.SendKey() == nil {
		t.Fatal("no keys after a handshake")
	}
}

func x25519(private, public wgtypes.Key) ([]byte, error) {
	return curve25519.X25519(private[:], public[:])
}

// wgKey is the private key of a Local.
func wgKey(l *Local) wgtypes.Key { return wgtypes.Key(l.static.Private) }
