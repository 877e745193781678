package peer

import (
	"context"
	"net/netip"
	"time"

	"meshd/nat-traversal"
	"meshd/peer/hello"
	"meshd/peer/udp"
	"meshd/peer/way"
)

// meeting is a hello that this node has begun.
type meeting struct {
	machine *hello.Initiator
	to      netip.AddrPort
	wake    time.Time
	done    func(*hello.Result, error) // called without the lock
}

// Meet says hello to whoever answers at an address, and returns who it is. The
// result is reported to the observer as well.
func (e *Engine) Meet(ctx context.Context, to netip.AddrPort, cfg hello.Config) (*hello.Result, error) {
	type outcome struct {
		result *hello.Result
		err    error
	}
	done := make(chan outcome, 1)
	var machine *hello.Initiator
	var err error
	e.call(func(now time.Time) {
		machine, err = e.meet(to, cfg, now, func(r *hello.Result, err error) { done <- outcome{r, err} })
	})
	if err != nil {
		return nil, err
	}
	select {
	case o := <-done:
		return o.result, o.err
	case <-ctx.Done():
		e.call(func(time.Time) { delete(e.control.meetings, machine.Connection()) })
		return nil, ctx.Err()
	}
}

// SetHello changes what this node shows and accepts in a hello, after it has
// joined or renewed its certificate.
func (e *Engine) SetHello(cfg hello.Config) (err error) {
	e.call(func(time.Time) {
		e.control.helloCfg = cfg
		err = e.control.responder.SetConfig(cfg)
	})
	return err
}

func (e *Engine) meet(to netip.AddrPort, cfg hello.Config, now time.Time, done func(*hello.Result, error)) (*hello.Initiator, error) {
	machine, err := hello.NewInitiator(cfg, now)
	if err != nil {
		return nil, err
	}
	m := &meeting{machine: machine, to: to, done: done}
	e.control.meetings[machine.Connection()] = m
	e.advanceMeeting(m, now)
	return machine, nil
}

// advanceMeetings repeats the hellos whose time has come.
func (e *Engine) advanceMeetings(now time.Time) {
	c := &e.control
	if c.meetAgain.IsZero() || c.meetAgain.After(now) {
		return
	}
	c.meetAgain = time.Time{}
	for _, m := range c.meetings {
		if !m.wake.IsZero() && !m.wake.After(now) {
			e.advanceMeeting(m, now)
			continue
		}
		c.meetAgain = earliest(c.meetAgain, m.wake)
	}
}

func (e *Engine) advanceMeeting(m *meeting, now time.Time) {
	out, wake := m.machine.Tick(now)
	if out != nil {
		e.send(m.to, out)
	}
	m.wake = wake
	e.control.meetAgain = earliest(e.control.meetAgain, wake)
	e.finishMeeting(m)
}

// finishMeeting reports a hello that has an end.
func (e *Engine) finishMeeting(m *meeting) {
	c := &e.control
	result, err := m.machine.Result(), m.machine.Err()
	if result == nil && err == nil {
		return
	}
	delete(c.meetings, m.machine.Connection())
	c.later = append(c.later, func() {
		if result != nil {
			e.observer.Met(result, m.to)
		}
		if m.done != nil {
			m.done(result, err)
		}
	})
}

// handleStranger takes hellos and STUN.
func (e *Engine) handleStranger(d *datagram, now time.Time) {
	defer datagrams.Put(d)
	if e.control.leaving {
		return
	}
	if udp.Classify(d.bytes()) == udp.KindSTUN {
		e.handleSTUN(d, now)
		return
	}
	c := &e.control
	step, connection, ok := hello.ParseHeader(d.bytes())
	if !ok {
		e.counts.Malformed.Add(1)
		return
	}
	if !step.FromInitiator() {
		m := c.meetings[connection]
		if m == nil || m.to != d.from {
			e.counts.Malformed.Add(1)
			return
		}
		if out := m.machine.Receive(d.bytes(), now); out != nil {
			e.send(m.to, out)
		}
		e.advanceMeeting(m, now)
		return
	}
	reply, result := c.responder.Receive(d.from, d.bytes(), now)
	if reply != nil {
		e.send(d.from, reply)
	}
	if result != nil {
		from := d.from
		if r := c.byID[result.Remote.ID()]; !way.IsVirtual(from.Addr()) && (r == nil || !r.paths.Pinged(from.Addr())) {
			c.relay.reached = now
		}
		c.later = append(c.later, func() { e.observer.Met(result, from) })
	}
}

// handleSTUN answers a request and hands an answer to mesh, which asked.
func (e *Engine) handleSTUN(d *datagram, now time.Time) {
	if way.IsVirtual(d.from.Addr()) { // it says nothing of how others see us
		e.counts.Unknown.Add(1)
		return
	}
	if reply, ok := e.control.stun.Answer(now, d.bytes(), d.from); ok {
		e.send(d.from, reply)
		return
	}
	msg, from := append([]byte(nil), d.bytes()...), d.from
	e.control.later = append(e.control.later, func() { e.observer.STUN(from, msg) })
}

// AnsweredSTUN reports whether a STUN request with this id was answered lately, to
// that address: who knows the id is there.
func (e *Engine) AnsweredSTUN(txid traversal.TxID, to netip.AddrPort) bool {
	return e.control.stun.Answered(e.now(), txid, to)
}

// greet asks by a hello whether the other side knows us, when it has left our
// probes unanswered: we may have been admitted at different places and never met.
func (r *Remote) greet(wanted bool, now time.Time) {
	if !wanted || Class(r.class.Load()) != Member || r.paths.Answered() || now.Before(r.helloAt) {
		return
	}
	r.helloAt = now.Add(r.helloWait)
	r.helloWait = min(2*r.helloWait, helloAtMost)
	cfg := r.engine.control.helloCfg
	if cfg.Chain == nil {
		return
	}
	cfg.Opens = 1 // it shares the budget of an address that has not answered
	for _, p := range r.paths.Snapshot() {
		if len(r.engine.control.meetings) < maxMeetings && r.paths.Afford(p.Addr, now) {
			_, _ = r.engine.meet(p.Addr, cfg, now, nil) // its end is told to the observer
		}
	}
}

// helloDeadline is when greet wants to act next.
func (r *Remote) helloDeadline(wanted bool) time.Time {
	if !wanted || Class(r.class.Load()) != Member || r.paths.Answered() {
		return time.Time{}
	}
	return r.helloAt
}

// Learn says that the remote was met at an address, which a hello has shown to be
// its own. It is probed before it is used.
func (r *Remote) Learn(addr netip.AddrPort) {
	r.engine.call(func(now time.Time) {
		if !r.closed {
			r.paths.Vouch(addr, now)
			r.paths.Learn(addr, now)
			r.advance(now)
		}
	})
}
