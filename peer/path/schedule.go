package path

import (
	"io"
	"net/netip"
	"time"

	"meshd/peer/inner"
	"meshd/peer/way"
)

const (
	quick       = 300 * time.Millisecond // between pings that are urgent
	recovering  = 5 * time.Second        // after its last pong an address that fell silent is pinged so, later each second
	slow        = time.Second
	busyPing    = 2 * time.Second  // on the active path while data flows
	busyHeld    = time.Second      // the same where others carry for us
	quietPing   = 25 * time.Second // and while none does, at most: many NATs take 30 s; see quiet.go
	quietLeast  = 15 * time.Second // and at least
	standbyPing = 15 * time.Second // on other paths that are up
	spareHeld   = time.Minute      // on circuits and streams in reserve while none does: each ping costs their carrier four packets
	busyFor     = 3 * time.Second  // after a frame, more are expected

	burstSize  = 3                // quick pings to an unverified address
	unverified = 30 * time.Second // between those after them
)

// Tick returns the probes that are due and when to call it next; the zero time
// if nothing is to be done until another method is called. Every other method
// may bring that forward: call Tick after any of them. The slice is valid until
// the next call.
func (t *Table) Tick(now time.Time) (pings []Ping, wake time.Time) {
	t.prune(now)
	for _, c := range t.candidates {
		c.expire(now)
	}
	t.judge(now)
	t.alarm(now)
	t.pings = t.pings[:0]
	for _, c := range t.candidates {
		if at, ok := t.due(c, now); ok && !at.After(now) {
			t.ping(c, 0, now)
		}
		if at, ok := t.paddedDue(c, now); ok && !at.After(now) {
			t.ping(c, c.mtu.test(), now)
		}
	}
	return t.pings, t.next(now)
}

// alarm rouses all other addresses when the active path has failed a test.
func (t *Table) alarm(now time.Time) {
	failing := t.active != nil && t.active.suspect(now) && t.active.lostPongs > 0
	if failing && !t.alarmed {
		for _, c := range t.candidates {
			if c != t.active {
				c.rouse()
			}
		}
	}
	t.alarmed = failing
}

// due is when a candidate is to be pinged; ok is false when it is not.
func (t *Table) due(c *candidate, now time.Time) (at time.Time, ok bool) {
	switch {
	case c.ghost():
		return at, false
	case !t.wanted:
		return at, false
	case c.up:
		return t.dueUp(c, now), true
	case !c.verified(now) && t.paced(c):
		return at, false
	case !c.verified(now):
		return c.dueUnverified(), true
	case now.Sub(c.pong) < recovering || c.poked:
		return c.pinged.Add(quick), true
	}
	return c.pinged.Add(slow), true
}

func (t *Table) dueUp(c *candidate, now time.Time) time.Time {
	switch {
	case c.held && c != t.active && !c.poked && !t.alarmed && !t.busy(now):
		return c.pinged.Add(spareHeld)
	case c == t.active && t.busy(now) && (c.lostPongs > 0 || c.loss.high > 0):
		return c.pinged.Add(quick)
	case c.held && c == t.active && t.busy(now):
		return c.pinged.Add(busyHeld)
	case c.poked || c.questioned || c.suspect(now) || t.alarmed || c.rtt.samples < enough || c.mtu.wantsSmall():
		return c.pinged.Add(quick)
	case c != t.active:
		return c.pinged.Add(min(standbyPing, t.pause(c)))
	case t.busy(now) && c.mtu.known == 0: // else the tests of the size in use do
		return c.pinged.Add(busyPing)
	}
	return later(c.pinged, c.heard).Add(t.pause(c))
}

// paced says that an address is left in peace until it is asked for again: there is
// a way to the remote, and both sides agree on when they seek a direct one (package
// punch). A NAT on the way that has taken our probe for an attempt from outside
// needs the pause to forget it.
func (t *Table) paced(c *candidate) bool {
	return !c.held && !c.poked && c.burst >= burstSize && t.active != nil && t.active.class > way.Direct
}

// dueUnverified keeps to the budget of an address that has not answered.
func (c *candidate) dueUnverified() time.Time {
	wait := unverified
	switch {
	case c.held:
		return c.pinged.Add(heldPause(c.burst))
	case c.burst < burstSize:
		wait = time.Duration(c.burst) * quick
	case c.poked:
		wait = quick
	}
	return later(c.pinged.Add(wait), c.budget.free())
}

// paddedDue is when a candidate is to be sent a padded ping. Only the active path
// is searched for its MTU.
func (t *Table) paddedDue(c *candidate, now time.Time) (at time.Time, ok bool) {
	if c != t.active || !t.wanted || c.doubted {
		return at, false
	}
	return c.mtu.due(now, t.busy(now), c.suspect(now))
}

// busy says that frames flow.
func (t *Table) busy(now time.Time) bool {
	return !t.used.IsZero() && now.Sub(t.used) < busyFor
}

// ping sends one; a size of 0 is a small one.
func (t *Table) ping(c *candidate, mtu int, now time.Time) {
	p := sentPing{at: now, mtu: mtu, sent: c.loss.out}
	if _, err := io.ReadFull(t.cfg.Rand, p.transaction[:]); err != nil {
		return // no randomness, no probe
	}
	c.stuck = false
	if !c.verified(now) {
		p.spent, p.over = true, c.budget.spend(now)
		c.burst++
	}
	c.pause = quietLeast + (quietPing-quietLeast)*time.Duration(p.transaction[0])/256
	out := Ping{Addr: c.addr, Transaction: p.transaction}
	if mtu == 0 {
		c.pinged, c.poked = now, false
		if c.waiting.IsZero() {
			c.waiting = now
		}
		if c.waitingPong.IsZero() {
			c.waitingPong = now
		}
	} else {
		c.mtu.sentAt = now
		out.Size = inner.UDPPayload(mtu, is6(c.addr))
	}
	c.pings = append(c.pings, p)
	t.pings = append(t.pings, out)
}

// next is when something will be due, or a verdict may change.
func (t *Table) next(now time.Time) (wake time.Time) {
	consider := func(at time.Time) {
		if at.IsZero() {
			return
		}
		if at = later(at, now.Add(time.Millisecond)); wake.IsZero() || at.Before(wake) {
			wake = at
		}
	}
	for _, c := range t.candidates {
		if at, ok := t.due(c, now); ok {
			consider(at)
		}
		if at, ok := t.paddedDue(c, now); ok {
			consider(at)
		}
		consider(c.overdue())
	}
	if a := t.active; a != nil && t.wanted && !a.suspect(now) {
		if !a.waiting.IsZero() {
			consider(a.waiting.Add(suspicion))
		}
		if !a.waitingPong.IsZero() {
			consider(a.waitingPong.Add(deaf))
		}
	}
	return wake
}

func is6(a netip.AddrPort) bool { return a.Addr().Is6() }
