package wireguard

import (
	"bytes"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Options of a Session.
type Options struct {
	PSK                 [32]byte
	Member              bool                 // fast repetition of the first session's initiations, PROTOCOL.md section 4
	PersistentKeepalive time.Duration        // 0 for none; the caller then calls Tick once to start it
	NewIndex            func() uint32        // draws and registers an unused index, see the package comment; nil draws blindly
	Jitter              func() time.Duration // random, less than MaxJitter; nil for the usual
	LastTimestamp       tai64n.Timestamp     // of a former Session of this peer, so that its initiations cannot be replayed
}

// Output is what the caller has to do after a call, in this order. With an
// error it may be ignored.
type Output struct {
	Removed     []uint32   // forget these indexes; a Keypair under one of them is dead
	Added       []*Keypair // receive with these from now on
	Messages    [][]byte   // handshake messages to Stamp and send
	Keepalive   bool       // send a transport packet: what waits in the queue, or else SendKey().Seal(buf, nil), then MarkKeepaliveSent
	Established bool       // a handshake has completed: SendKey has a fresh key
	GaveUp      bool       // RekeyAttemptTime without an answer: drop what waits; a new Initiate starts again
	Wake        time.Time  // call Tick then; zero: no need. Replaces the Wake of all Outputs before
}

// Stats are the counters of a Session since it was made.
type Stats struct {
	LastHandshake    time.Time // zero: none yet
	TxBytes, RxBytes uint64    // of transport messages, with their overhead
}

// Session is the state machine of one remote peer. Its methods are called by
// one goroutine at a time, but for SendKey, Remote and Stats.
//
// It has more methods than is usual here: each rule of the paper is one, and
// they share all of the state. Those for the timers are in timers.go.
type Session struct {
	local  *Local
	remote wgtypes.Key
	opts   Options
	target targetKeys // for messages to the peer
	jars   jars
	higher bool // our public key is the higher one

	keys    keyring
	send    atomic.Pointer[Keypair] // keys.current, for SendKey
	attempt attempt
	clock   handshakeClock

	activity activity
	patience time.Duration // without an answer, until the next handshake
}

// handshakeClock is when handshake messages went which way.
type handshakeClock struct {
	sent          time.Time        // the last initiation or response that we made
	sentStamp     tai64n.Timestamp // in our last initiation
	accepted      time.Time        // when the peer's last initiation was
	acceptedStamp tai64n.Timestamp // what it said
}

// NewSession returns the Session of remote, without a key. It takes remote
// even if it is not a ValidKey, but then never gets to a key.
func NewSession(l *Local, remote wgtypes.Key, opts Options) *Session {
	if opts.NewIndex == nil {
		opts.NewIndex = rand.Uint32
	}
	if opts.Jitter == nil {
		opts.Jitter = func() time.Duration { return rand.N(MaxJitter) }
	}
	return &Session{
		local:    l,
		remote:   remote,
		opts:     opts,
		target:   newTargetKeys(remote),
		jars:     make(jars),
		higher:   bytes.Compare(l.public[:], remote[:]) > 0,
		clock:    handshakeClock{acceptedStamp: opts.LastTimestamp},
		activity: activity{epoch: l.epoch, persistent: opts.PersistentKeepalive > 0},
		patience: KeepaliveTimeout + RekeyTimeout + opts.Jitter(),
	}
}

// Remote returns the peer's public key.
func (s *Session) Remote() wgtypes.Key { return s.remote }

// Stats may be called at any time.
func (s *Session) Stats() Stats {
	st := Stats{TxBytes: s.activity.tx.Load(), RxBytes: s.activity.rx.Load()}
	if n := s.activity.handshake.Load(); n != 0 {
		st.LastHandshake = time.Unix(0, n)
	}
	return st
}

// LastTimestamp is the time stamp of the last initiation that was accepted.
func (s *Session) LastTimestamp() tai64n.Timestamp { return s.clock.acceptedStamp }

// SendKey returns the key to send with, nil when there is none (call
// Initiate). It is one atomic load and may be called at any time.
func (s *Session) SendKey() *Keypair {
	if kp := s.send.Load(); kp != nil && kp.usable() {
		return kp
	}
	return nil
}

// Initiate says that somebody wants to send and SendKey was nil. It does
// nothing if there is a key by now. If a handshake is on its way, it only lets
// that go on for another RekeyAttemptTime (paper, 6.4).
func (s *Session) Initiate(now time.Time) Output {
	var out Output
	s.settle(&out, now)
	if s.SendKey() == nil {
		s.begin(now)
		s.attempt.began = now
		s.proceed(&out, now)
	}
	return s.done(out, now)
}

// Rekey starts a handshake although there may be a good key, which stays in
// use meanwhile.
func (s *Session) Rekey(now time.Time) Output {
	var out Output
	s.settle(&out, now)
	s.begin(now)
	s.proceed(&out, now)
	return s.done(out, now)
}

// HandleInitiation answers an initiation of this peer. An error changes nothing.
func (s *Session) HandleInitiation(h *Initiation, now time.Time) (Output, error) {
	var out Output
	if err := s.judge(h, now); err != nil {
		return s.done(out, now), err
	}
	index := s.opts.NewIndex()
	msg, keys, err := h.writeResponse(s.opts.PSK, index)
	if err != nil { // no entropy: judge has seen to the rest
		out.Removed = append(out.Removed, index)
		return s.done(out, now), err
	}
	s.settle(&out, now)
	s.clock.accepted, s.clock.acceptedStamp, s.clock.sent = now, h.timestamp, now
	s.activity.received(now, false)
	s.activity.sent(now, false)
	s.keys.respond(&out, s.newKeypair(keys, index, h.sender, false, now))
	s.attempt.postpone(now.Add(s.gap()))
	out.Messages = append(out.Messages, msg)
	return s.done(out, now), nil
}

// judge says whether h is to be answered.
func (s *Session) judge(h *Initiation, now time.Time) error {
	if h.remote != s.remote || !ValidKey(s.remote) {
		return ErrKey
	}
	if h.state.MessageIndex() != 1 {
		return ErrUnexpected // answered before
	}
	// Paper, 5.1: the greatest timestamp is kept, so that initiations cannot be replayed.
	if !h.timestamp.After(s.clock.acceptedStamp) {
		return ErrReplay
	}
	if gap := now.Sub(s.clock.accepted); gap >= 0 && gap <= InitiationGap {
		return ErrFlood
	}
	return nil
}

// HandleResponse takes the answer to our initiation. An error changes nothing.
func (s *Session) HandleResponse(msg []byte, now time.Time) (Output, error) {
	var out Output
	keys, err := s.attempt.read(msg)
	if err != nil {
		return s.done(out, now), err
	}
	index := s.attempt.index
	s.attempt = attempt{}
	s.settle(&out, now)
	s.activity.received(now, false)
	s.keys.initiate(&out, s.newKeypair(keys, index, senderOf(msg), true, now), s.opts.Member && s.higher)
	s.establish(&out, now)
	out.Keepalive = true // confirms the key to the responder
	return s.done(out, now), nil
}

// HandleCookie takes a cookie reply that came over path: any comparable value
// that names the path in Stamp as well. The cookie is used from the next Stamp
// on; until then the paper (6.6) has the initiator wait for its usual repetition.
func (s *Session) HandleCookie(msg []byte, path any, now time.Time) error {
	if t, ok := Type(msg); !ok || t != TypeCookie {
		return ErrMessage
	}
	j := s.jars[path]
	if j == nil {
		return ErrUnexpected
	}
	if !j.take(&s.target, msg, now) {
		return ErrAuth
	}
	return nil
}

// Stamp sets mac1 and mac2 of a message of Output.Messages, in place, for the
// path that it is about to take.
func (s *Session) Stamp(msg []byte, path any, now time.Time) {
	if _, ok := Sender(msg); ok {
		s.jars.at(path).stamp(&s.target, msg, now)
	}
}

// Expire forgets all keys and the handshake that is on its way: after resume
// from suspend (then call Initiate), or on close.
func (s *Session) Expire(now time.Time) Output {
	var out Output
	s.keys.clear(&out)
	s.abandon(&out)
	s.clock.sent = time.Time{}
	s.activity.unanswered.Store(0)
	s.activity.touch(s.activity.nanos(now))
	return s.done(out, now)
}

// newKeypair makes a key; that of an initiator is confirmed by the response.
func (s *Session) newKeypair(keys *transportKeys, local, remote uint32, initiator bool, now time.Time) *Keypair {
	kp := &Keypair{
		session:     s,
		keys:        keys,
		localIndex:  local,
		remoteIndex: remote,
		initiator:   initiator,
		born:        s.activity.nanos(now),
	}
	kp.confirmed.Store(initiator)
	return kp
}

// done publishes what SendKey returns and says when to come back.
func (s *Session) done(out Output, now time.Time) Output {
	s.send.Store(s.keys.current)
	out.Wake = s.wake(now)
	return out
}
