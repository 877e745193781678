package peer

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"time"

	"meshd/peer/inner"
	"meshd/peer/path"
	"meshd/peer/probe"
	"meshd/peer/udp"
	"meshd/peer/wireguard"
)

// How a remote comes to have what it should have: probes, route, session. All of
// it runs under the engine's control lock.

// advance compares what should be with what is, and acts on the difference. It
// is called whenever something may have changed, and when its deadline comes.
func (r *Remote) advance(now time.Time) {
	if r.closed {
		return
	}
	hadKey := r.session.SendKey() != nil
	wanted := r.wanted(now)
	if a := r.answered; a.key != nil && r.session.SendKey() == a.key {
		r.paths.Vouch(a.to, now)
		r.answered = answered{}
	}
	r.feedPaths(now)
	r.paths.Want(wanted, now)
	r.paths.Quiet(r.pause(now))
	call := r.seekDirect(wanted, now)
	pings, wake := r.paths.Tick(now)
	for _, p := range pings {
		r.ping(p, now)
	}
	r.chooseRoute(now)
	r.handedOver(now)
	r.advanceSession(wanted, now)
	if r.waiting.length.Load() > 0 {
		r.drain(now)
	}
	r.greet(wanted, now)
	r.noteMoved()
	seek := r.seek(wanted, now)
	pieces := r.expirePieces(now)
	wake = earliest(wake, r.moving.until, pieces, r.wgWake, r.waiting.expires(), r.helloDeadline(wanted), r.idleDeadline(wanted, now), seek, call)
	if at := r.keepDeadline(); at.After(now) { // when it has passed, a handshake is on its way
		wake = earliest(wake, at)
	}
	if hadKey && r.session.SendKey() == nil { // which may end the wish for a session
		wake = now
	}
	if !wake.IsZero() && wake.Before(now.Add(time.Millisecond)) {
		wake = now.Add(time.Millisecond)
	}
	r.engine.control.schedule(r, wake)
	r.report()
}

// wanted reports whether a session should exist.
func (r *Remote) wanted(now time.Time) bool {
	want := r.kept.Load() || now.Before(r.wantedUntil(now))
	switch {
	case want && r.wantSince.IsZero():
		r.wantSince = now
		r.helloAt, r.helloWait = now.Add(helloAfter), helloEvery
	case !want && !r.wantSince.IsZero():
		// Its keys go by themselves when they are 180 s old, and nothing makes
		// new ones. Until then the other side may still send.
		r.wantSince = time.Time{}
	}
	return want
}

// wantedUntil is until when a session is wanted for its use, or for a control message that found none. One that
// has ended was not used much, or its keys would have been renewed: what uses it next begins another.
func (r *Remote) wantedUntil(now time.Time) (until time.Time) {
	if used := r.lastUsed.Load(); used != 0 {
		lasts, last := idleAfter, r.session.Stats().LastHandshake
		if r.session.SendKey() == nil && !last.IsZero() && now.Sub(last) >= idleAfter { // RejectAfterTime, and the time that a handshake takes
			lasts = tryFor
		}
		until = r.engine.at(used).Add(lasts)
	}
	if tried := r.lastTried.Load(); tried != 0 && r.engine.at(tried).Add(tryFor).After(until) {
		until = r.engine.at(tried).Add(tryFor)
	}
	return until
}

// feedPaths tells the path table what the data path saw.
func (r *Remote) feedPaths(now time.Time) {
	if to := r.route.Load(); to != nil {
		r.paths.Count(to.addr, to.out.Load())
		if t := to.heard.Load(); t != 0 {
			r.paths.Heard(to.addr, r.engine.at(t))
		}
		if t := to.sent.Load(); t != 0 {
			r.paths.Sent(r.engine.at(t))
		}
		if t := to.asked.Load(); t != 0 {
			r.paths.SentControl(r.engine.at(t))
		}
	}
	if t := r.carried.Load(); t != 0 {
		r.paths.Used(r.engine.at(t))
	}
	if from := r.strange.Swap(nil); from != nil && r.mayLearn(*from, now) {
		r.paths.Learn(*from, now)
		r.paths.Heard(*from, r.engine.at(r.strangeAt.Load()))
	}
}

// chooseRoute publishes the path to use.
func (r *Remote) chooseRoute(now time.Time) {
	addr, ok := r.paths.Best()
	old := r.route.Load()
	if !ok {
		if old != nil {
			r.route.Store(nil)
		}
		return
	}
	mtu := r.paths.MTU()
	via := r.engine.circuits.Load().byWay[addr]
	conn := r.engine.connTo(addr)
	if old != nil && old.addr == addr && old.mtu == mtu && old.via == via && old.conn == conn {
		return
	}
	payload := inner.UDPPayload(mtu, addr.Addr().Is6())
	next := &route{
		conn:     conn,
		addr:     addr,
		via:      via,
		out:      new(atomic.Uint32),
		maxBody:  inner.MaxBody(payload),
		maxPlain: inner.MaxPlaintext(payload),
		mtu:      mtu,
	}
	switch {
	case old != nil && old.addr == addr:
		next.out = old.out
		next.heard.Store(old.heard.Load())
		next.sent.Store(old.sent.Load())
		next.asked.Store(old.asked.Load())
		if r.moving.route == old {
			next.held.Store(old.held.Load())
			r.moving.route = next
		}
	case old != nil:
		r.handOver(old, next, now)
	}
	r.route.Store(next)
	r.engine.log.Debug("path chosen", "peer", r.ID.String(), "addr", addr.String(), "mtu", mtu)
}

// advanceSession starts a handshake where a key is wanted and a path is there,
// and lets the session's own timers act.
func (r *Remote) advanceSession(wanted bool, now time.Time) {
	if wanted && r.route.Load() != nil && r.session.SendKey() == nil {
		r.act(r.session.Initiate(now), netip.AddrPort{}, now)
	}
	if at := r.keepDeadline(); !at.IsZero() && !at.After(now) && r.session.SendKey() != nil && r.route.Load() != nil {
		r.act(r.session.Rekey(now), netip.AddrPort{}, now)
	}
	if r.tickSession.Swap(false) || (!r.wgWake.IsZero() && !r.wgWake.After(now)) {
		r.act(r.session.Tick(now), netip.AddrPort{}, now)
	}
}

// act carries out what the session's machine decided. Messages go to the given
// address, or to the route where it is zero.
func (r *Remote) act(out wireguard.Output, to netip.AddrPort, now time.Time) {
	r.engine.setKeys(r, out.Added, out.Removed)
	r.wgWake = out.Wake
	if out.Established {
		r.forgive(now)
	}
	if !to.IsValid() {
		if way := r.route.Load(); way != nil {
			to = way.addr
		}
	}
	if to.IsValid() {
		for _, msg := range out.Messages {
			r.session.Stamp(msg, to, now)
			r.engine.send(to, msg)
		}
	}
	if out.Keepalive {
		r.keepalive(now)
	}
}

// keepalive sends an empty transport message.
func (r *Remote) keepalive(now time.Time) {
	key, to := r.session.SendKey(), r.route.Load()
	if key == nil || to == nil {
		return
	}
	if b, err := key.Seal(make([]byte, 0, wireguard.Overhead), nil); err == nil {
		key.MarkKeepaliveSent(now)
		_ = to.conn.Send([]udp.Packet{{Addr: to.addr, Data: b}})
		to.out.Add(1)
	}
}

// flagWant in a ping says that its sender wants a session. Between two members
// the side with the lower key is the one to begin (PROTOCOL.md, section 4), and
// it may have no reason of its own.
const flagWant = 1

// flagUnheard in a pong says that pings to the asker went unanswered before it asked.
const flagUnheard = 2

// ping sends a probe that the path table asked for.
func (r *Remote) ping(p path.Ping, now time.Time) {
	m := probe.Message{Kind: probe.Ping, Transaction: p.Transaction}
	if !r.wantSince.IsZero() && r.session.SendKey() == nil {
		m.Flags = flagWant
	}
	if err := r.engine.trySend(p.Addr, r.pair.Append(nil, m, probe.Hour(now), p.Size)); err != nil && p.Size == 0 {
		r.paths.Unsent(p)
	}
}

// expirePieces gives up frames whose pieces do not come. A socket's goroutine
// that has the pieces in hand may be busy with a TAP; nobody waits for that here.
func (r *Remote) expirePieces(now time.Time) time.Time {
	if !r.pieceMu.TryLock() {
		return now.Add(time.Second)
	}
	defer r.pieceMu.Unlock()
	return r.pieces.Expire(now)
}

func (r *Remote) idleDeadline(wanted bool, now time.Time) time.Time {
	if !wanted || r.kept.Load() {
		return time.Time{}
	}
	return r.wantedUntil(now)
}

// keepDeadline is when a kept session gets new keys; zero: never.
func (r *Remote) keepDeadline() time.Time {
	if !r.kept.Load() {
		return time.Time{}
	}
	last, own := r.session.Stats().LastHandshake, r.engine.control.local.PublicKey()
	switch {
	case last.IsZero():
		return last
	case bytes.Compare(own[:], r.Public.WireGuard[:]) < 0:
		return last.Add(keepRekey)
	}
	return last.Add(keepRekeyOther)
}

// report tells the observer when the remote became reachable, ceased to be or moved.
func (r *Remote) report() {
	up, at := r.Up(), netip.AddrPort{}
	if to := r.route.Load(); to != nil && up {
		at = to.addr
	}
	if up == r.up && at == r.at {
		return
	}
	r.up, r.at = up, at
	r.everUp = r.everUp || up
	if r.onCircuits {
		r.engine.control.relay.dirty = true
	}
	c := &r.engine.control
	c.later = append(c.later, func() { r.engine.observer.Changed(r) })
}

// earliest returns the first of the times that are set, zero if none is.
func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
