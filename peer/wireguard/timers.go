package wireguard

import (
	"encoding/binary"
	"time"

	"github.com/flynn/noise"
)

// attempt is a handshake that we have begun: initiations go out until one is
// answered. Only the last of them can be. The zero value is none.
type attempt struct {
	active   bool
	began    time.Time     // RekeyAttemptTime counts from here
	at       time.Time     // when the next initiation goes out
	interval time.Duration // after the one before; 0: none has been sent

	index uint32 // of the last initiation, if state is there
	state *noise.HandshakeState
}

// postpone keeps the next initiation back until t.
func (a *attempt) postpone(t time.Time) {
	if a.active && a.at.Before(t) {
		a.at = t
	}
}

// read makes the keys out of a response to the last initiation. It changes
// nothing but Noise's state, which after an error is good for another try.
func (a *attempt) read(msg []byte) (*transportKeys, error) {
	if t, ok := Type(msg); !ok || t != TypeResponse {
		return nil, ErrMessage
	}
	if a.state == nil || binary.LittleEndian.Uint32(msg[8:]) != a.index {
		return nil, ErrUnexpected
	}
	return readResponse(a.state, msg)
}

// Tick does what is due. It may be called at any time.
func (s *Session) Tick(now time.Time) Output {
	var out Output
	s.settle(&out, now)
	s.refresh(now)
	s.keepalive(&out, now)
	s.proceed(&out, now)
	return s.done(out, now)
}

// settle takes up what the data path and the time have done to the keys.
func (s *Session) settle(out *Output, now time.Time) {
	if s.keys.next != nil && s.keys.next.confirmed.Load() {
		s.keys.confirm(out)
		s.abandon(out)
		s.establish(out, now)
	}
	s.keys.expire(out, s.activity.nanos(now))
	s.send.Store(s.keys.current)
}

// establish notes that a handshake is complete.
func (s *Session) establish(out *Output, now time.Time) {
	s.activity.handshake.Store(now.UnixNano())
	out.Established = true
}

// abandon ends the handshake that we have begun.
func (s *Session) abandon(out *Output) {
	if s.attempt.state != nil {
		out.Removed = append(out.Removed, s.attempt.index)
	}
	s.attempt = attempt{}
}

// refresh begins a handshake if the key is old, or used up, or if nothing comes
// back from the peer.
func (s *Session) refresh(now time.Time) {
	if kp := s.keys.current; kp != nil {
		// Paper, 6.2: after RekeyAfterTime for the initiator that sends, after
		// RekeyAfterMessages for everyone, and shortly before RejectAfterTime
		// for the initiator that receives.
		asked := kp.wishes.Load() & (wishRekeySending | wishRekeyReceiving)
		if asked&^kp.served != 0 {
			kp.served |= asked
			s.begin(now)
		}
	}
	// Paper, 6.5: data was sent and nothing has come for
	// KeepaliveTimeout + RekeyTimeout.
	since := s.activity.unanswered.Load()
	if since != 0 && !now.Before(s.activity.time(since).Add(s.patience)) {
		s.activity.unanswered.CompareAndSwap(since, 0)
		s.patience = KeepaliveTimeout + RekeyTimeout + s.opts.Jitter()
		s.begin(now)
	}
}

// keepalive asks for an empty packet if data came and nothing was sent back for
// KeepaliveTimeout (paper, 6.5), or if it is time for a persistent one.
func (s *Session) keepalive(out *Output, now time.Time) {
	at := s.activity.nanos(now)
	since := s.activity.owed.Load()
	due := since != 0 && time.Duration(at-since) >= KeepaliveTimeout
	if due || s.keys.current == nil {
		s.activity.owed.CompareAndSwap(since, 0)
	}
	if p := s.opts.PersistentKeepalive; p > 0 {
		last := s.activity.last.Load()
		if last == 0 || time.Duration(at-last) >= p {
			due = true
		}
	}
	if !due {
		return
	}
	s.activity.touch(at)
	switch {
	case s.SendKey() != nil:
		out.Keepalive = true
	case s.opts.PersistentKeepalive > 0:
		s.begin(now)
	}
}

// begin starts a handshake unless one is on its way. The first initiation goes
// out with proceed, at once if nothing speaks against it.
func (s *Session) begin(now time.Time) {
	if s.attempt.active {
		return
	}
	s.attempt = attempt{active: true, began: now, at: now}
	if s.opts.Member && s.higher && s.activity.handshake.Load() == 0 {
		s.attempt.at = now.Add(FirstRetry) // the peer may be about to start as well
	}
	if !now.Before(s.clock.sent) {
		s.attempt.postpone(s.clock.sent.Add(s.gap()))
	}
}

// gap is the least time between two handshake messages that we send of our own
// accord (paper, 6.1: RekeyTimeout). A response counts, as its initiator is
// about to confirm the key.
func (s *Session) gap() time.Duration {
	if s.fast() {
		return FirstRetry
	}
	return RekeyTimeout
}

// fast reports whether initiations are repeated sooner than the paper has it:
// between members that have no key to send with.
func (s *Session) fast() bool { return s.opts.Member && s.keys.current == nil }

// proceed sends the next initiation, or gives up (paper, 6.4).
func (s *Session) proceed(out *Output, now time.Time) {
	switch a := &s.attempt; {
	case !a.active:
	case now.Sub(a.began) >= RekeyAttemptTime || !ValidKey(s.remote):
		s.abandon(out)
		out.GaveUp = true
		if kp := s.keys.current; kp != nil {
			kp.wishes.And(^uint32(wishRekeySending | wishRekeyReceiving))
			kp.served = 0
		}
	case !now.Before(a.at):
		s.initiation(out, now)
	}
}

// initiation sends a fresh initiation in place of the one before.
func (s *Session) initiation(out *Output, now time.Time) {
	a := &s.attempt
	if a.state != nil {
		out.Removed = append(out.Removed, a.index)
		a.state = nil
	}
	t := s.local.timestamp(now, s.clock.sentStamp)
	index := s.opts.NewIndex()
	msg, state, err := s.local.writeInitiation(s.remote, s.opts.PSK, index, t)
	if err != nil { // not with a ValidKey
		out.Removed = append(out.Removed, index)
		s.attempt = attempt{}
		out.GaveUp = true
		return
	}
	a.index, a.state = index, state
	a.interval = s.repeat(a.interval)
	a.at = now.Add(a.interval)
	s.clock.sent, s.clock.sentStamp = now, t
	s.activity.sent(now, false)
	out.Messages = append(out.Messages, msg)
}

// repeat is the time until the initiation after this one.
func (s *Session) repeat(before time.Duration) time.Duration {
	next := RekeyTimeout
	if s.fast() {
		next = min(max(2*before, FirstRetry), RekeyTimeout)
	}
	if next == RekeyTimeout {
		next += s.opts.Jitter()
	}
	return next
}

// wake is when Tick next has something to do.
func (s *Session) wake(now time.Time) time.Time {
	var w time.Time
	at := func(t time.Time) {
		if w.IsZero() || t.Before(w) {
			w = t
		}
	}
	a := &s.activity
	if s.attempt.active {
		at(s.attempt.at)
		at(s.attempt.began.Add(RekeyAttemptTime))
	}
	for kp := range s.keys.all {
		at(a.time(kp.born).Add(RejectAfterTime))
		at(now.Add(KeepaliveTimeout)) // to see what the data path has noted
	}
	if t := a.owed.Load(); t != 0 && s.keys.current != nil {
		at(a.time(t).Add(KeepaliveTimeout))
	}
	if t := a.unanswered.Load(); t != 0 {
		at(a.time(t).Add(s.patience))
	}
	if p := s.opts.PersistentKeepalive; p > 0 {
		at(a.time(a.last.Load()).Add(p))
	}
	return w
}
