package peer

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"meshd/peer/probe"
	"meshd/peer/udp"
	"meshd/peer/way"
	"meshd/peer/wireguard"
)

const (
	// askEvery bounds how often a wish for a session is checked.
	askEvery = 500 * time.Millisecond
	// A remote names new addresses by sending from them: learnBurst at once, and
	// one every learnEvery. Each is probed a few times, and the sources of what
	// one node sends, or of what somebody replays, may be forged: without a bound
	// we would multiply their packets.
	learnBurst = 16
	learnEvery = 2 * time.Second
)

// datagram is one that waits for the engine's goroutine.
type datagram struct {
	buf  [maxDatagram]byte
	n    int
	from netip.AddrPort
	port udp.Conn // the spare port that it came to; nil: none
}

func (d *datagram) bytes() []byte { return d.buf[:d.n] }

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

// enqueue copies a datagram for the engine's goroutine. A full queue drops it
// and counts.
func (e *Engine) enqueue(q chan *datagram, from netip.AddrPort, b []byte, dropped *atomic.Uint64) {
	e.enqueueFrom(nil, q, from, b, dropped)
}

// enqueueFrom is enqueue for what has come to a spare port.
func (e *Engine) enqueueFrom(port udp.Conn, q chan *datagram, from netip.AddrPort, b []byte, dropped *atomic.Uint64) {
	if len(b) > maxDatagram {
		dropped.Add(1)
		return
	}
	d := datagrams.Get().(*datagram)
	d.n, d.from, d.port = copy(d.buf[:], b), from, port
	select {
	case q <- d:
	default:
		datagrams.Put(d)
		dropped.Add(1)
	}
}

// handleProbe answers a ping and takes a pong to the paths.
func (e *Engine) handleProbe(d *datagram, now time.Time) {
	defer datagrams.Put(d)
	if e.control.leaving {
		return
	}
	tag, ok := probe.Tag(d.bytes())
	if !ok {
		e.counts.Malformed.Add(1)
		return
	}
	entry, ok := e.control.tags.table.Lookup(tag)
	if !ok {
		e.counts.UnknownProbe.Add(1)
		return
	}
	r := entry.Value
	m, err := r.pair.Open(d.bytes())
	if err != nil {
		e.counts.Unopened.Add(1)
		return
	}
	if d.port != nil && (m.Kind != probe.Ping || !e.adopt(d.port, r, d.from, now)) {
		return
	}
	switch m.Kind {
	case probe.Ping:
		r.answerPing(m, d.from, now)
	case probe.Pong:
		fresh := r.paths.Pong(d.from, m.Transaction, m.Received, now)
		if fresh && m.Flags&flagUnheard != 0 && r.paths.Calm() && !e.wasTardy(now) {
			e.keepMappings(now)
		}
		if fresh {
			r.arrived(m.Transaction, now)
		}
		if fresh && m.Transaction == r.asked {
			r.asked = [12]byte{}
			r.lastUsed.Store(e.stamp(now))
			r.rekeyForOther(now)
		}
		// A pong that answers nothing is a replay and says nothing.
		if fresh && m.Observed.IsValid() && m.Observed != r.observed && !way.IsVirtual(m.Observed.Addr()) {
			r.observed = m.Observed
			e.control.later = append(e.control.later, func() { e.observer.Changed(r) })
		}
	}
	r.advance(now)
}

// answerPing sends a pong, or in its place a ping of ours, and has the address probed.
func (r *Remote) answerPing(m probe.Message, from netip.AddrPort, now time.Time) {
	r.engine.noteReached(r, from, now)
	unheard := false
	if since := r.paths.Unheard(); !since.IsZero() && !r.engine.wasTardy(now) {
		unheard = r.engine.heardOthers(r, since)
	}
	if !r.mayLearn(from, now) {
		return // replayed from everywhere, it seems: a forged source is none of ours to answer
	}
	r.paths.Learn(from, now)
	if m.Flags&flagWant != 0 && r.ask(from, now) {
		return
	}
	pong := probe.Message{Kind: probe.Pong, Transaction: m.Transaction, Received: r.receivedFrom(from)}
	if !way.IsVirtual(from.Addr()) { // which means nothing to others
		pong.Observed = from
		if unheard {
			pong.Flags = flagUnheard
		}
	}
	r.engine.send(from, r.pair.Append(nil, pong, probe.Hour(now), 0))
}

// heardOthers reports whether something has come from another remote since then, or there is no
// other to hear: when all fall silent together, nothing is said of one.
func (e *Engine) heardOthers(but *Remote, since time.Time) bool {
	alone := true
	for _, r := range e.control.byID {
		heard := r.paths.LastHeard()
		if r == but || r.wantSince.IsZero() || since.Sub(heard) > time.Minute { // it is away anyhow
			continue
		}
		if alone = false; heard.After(since) {
			return true
		}
	}
	return alone
}

// noteReached notes that a remote came from where nothing had been sent to.
func (e *Engine) noteReached(r *Remote, from netip.AddrPort, now time.Time) {
	if !way.IsVirtual(from.Addr()) && !r.paths.Pinged(from.Addr()) {
		e.control.relay.reached = now
	}
}

// ask makes sure that a ping that wants a session is no replay: a tag is good
// for hours, the answer to a fresh ping proves that the remote is there now. It
// reports whether it took the place of the pong, so that a source, which may be
// forged, gets no more than it sent and the budget of its address allows.
func (r *Remote) ask(from netip.AddrPort, now time.Time) (instead bool) {
	if now.Before(r.askAt) {
		return false
	}
	p, extra, ok := r.paths.Ask(from, now)
	if !ok {
		return false
	}
	r.askAt, r.asked = now.Add(askEvery), p.Transaction
	r.ping(p, now)
	return !extra
}

// mayLearn reports whether an address that something authentic came from may be
// remembered, and takes new ones off the remote's budget.
func (r *Remote) mayLearn(from netip.AddrPort, now time.Time) bool {
	if r.paths.Known(from) {
		return true
	}
	full := now.Add(-learnBurst * learnEvery)
	if r.learnt.Before(full) {
		r.learnt = full
	}
	if r.learnt.Add(learnEvery).After(now) {
		return false
	}
	r.learnt = r.learnt.Add(learnEvery)
	return true
}

// rekeyForOther makes new keys for a remote that asks for a session although we
// have one: it has lost its own, by a restart. Without this our data would go
// nowhere until WireGuard's 15 s without an answer are over.
func (r *Remote) rekeyForOther(now time.Time) {
	if r.session.SendKey() == nil || now.Before(r.rekeyAt) || now.Sub(r.session.Stats().LastHandshake) < time.Second {
		return
	}
	r.rekeyAt = now.Add(time.Second)
	r.act(r.session.Rekey(now), netip.AddrPort{}, now)
}

// handleHandshake takes WireGuard's messages 1 to 3.
func (e *Engine) handleHandshake(d *datagram, now time.Time) {
	defer datagrams.Put(d)
	if e.control.leaving {
		return
	}
	c := &e.control
	msg := d.bytes()
	if len(e.handshakeQ) >= underLoadAt {
		c.loadUntil = now.Add(underLoadFor)
	}
	kind, ok := wireguard.Type(msg)
	if !ok {
		e.counts.Malformed.Add(1)
		return
	}
	if kind == wireguard.TypeCookie {
		if r := e.byIndex(msg); r != nil {
			_ = r.session.HandleCookie(msg, d.from, now) // what does not open is not ours
		}
		return
	}
	if !e.admit(msg, d.from, now) {
		e.counts.HandshakesRefused.Add(1)
		return
	}
	if kind == wireguard.TypeInitiation {
		e.initiation(msg, d.from, now)
		return
	}
	e.response(msg, d.from, now)
}

// admit checks a handshake message's MACs; under load also its cookie and the
// rate of its source.
func (e *Engine) admit(msg []byte, from netip.AddrPort, now time.Time) bool {
	c := &e.control
	underLoad := now.Before(c.loadUntil)
	ok, reply := c.local.CheckMACs(msg, cookieSource(from), underLoad, now)
	if reply != nil {
		e.send(from, reply)
	}
	return ok && (!underLoad || c.local.Allow(from.Addr(), now))
}

// cookieSource is what a cookie is bound to: address and port.
func cookieSource(from netip.AddrPort) []byte {
	b, _ := from.MarshalBinary() // has no error
	return b
}

func (e *Engine) response(msg []byte, from netip.AddrPort, now time.Time) {
	r := e.byIndex(msg)
	if r == nil {
		e.counts.HandshakesRefused.Add(1)
		return
	}
	out, err := r.session.HandleResponse(msg, now)
	if err != nil {
		e.counts.HandshakesRefused.Add(1)
		return
	}
	r.act(out, from, now)
	r.advance(now)
}

// initiation answers the first message of a handshake where it came from. Data
// waits until a probe has confirmed that address.
func (e *Engine) initiation(msg []byte, from netip.AddrPort, now time.Time) {
	key, h, err := e.control.local.InitiationKey(msg)
	if err != nil {
		e.counts.HandshakesRefused.Add(1)
		return
	}
	r := e.control.byKey[key]
	if r == nil {
		e.counts.HandshakesRefused.Add(1)
		return
	}
	out, err := r.session.HandleInitiation(h, now)
	if err != nil {
		e.counts.HandshakesRefused.Add(1)
		return
	}
	r.lastUsed.Store(e.stamp(now))
	r.act(out, from, now)
	if len(out.Added) > 0 {
		r.answered = answered{out.Added[len(out.Added)-1], from}
	}
	if r.mayLearn(from, now) {
		r.paths.Learn(from, now)
	}
	r.advance(now)
}

// byIndex finds the remote whose handshake or key has the message's receiver index.
func (e *Engine) byIndex(msg []byte) *Remote {
	index, ok := wireguard.Receiver(msg)
	if !ok {
		return nil
	}
	return e.control.indexes[index]
}
