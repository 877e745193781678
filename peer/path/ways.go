package path

import (
	"net/netip"
	"slices"
	"time"

	"meshd/peer/way"
)

// Ways that this node holds open: circuits through relays, streams. Who carries
// them has agreed to it, so that they have no budget.

const (
	// strainLate is how much longer than twice the least a round trip may be.
	strainLate = 10 * time.Millisecond
	// strainLoss is how much of the data may be lost, measured within strainFor.
	strainLoss = 0.02
	strainFor  = 3 * time.Second
)

// heldBurst is how many quick pings a way gets that has not answered.
const heldBurst = 5

func newCandidate(addr netip.AddrPort) *candidate {
	c := &candidate{addr: addr, class: way.ClassOf(addr)}
	c.mtu = c.newSearch()
	return c
}

// newSearch is a search for the MTU that has not begun.
func (c *candidate) newSearch() mtuSearch {
	if c.class == way.Relayed {
		return mtuSearch{less: relayedLess}
	}
	return mtuSearch{}
}

// Hold adds a way that this node holds open. It stays until Release. With eager it
// may be used before anything has come back over it: for the first handshake,
// which shows soon enough whether it leads anywhere.
func (t *Table) Hold(addr netip.AddrPort, eager bool, now time.Time) {
	c := t.add(addr, now)
	if c == nil || c.held {
		return
	}
	c.held, c.eager = true, eager
	c.rouse()
	t.judge(now)
}

// Release forgets a way that has ended: one that was held open here, or at the
// other end.
func (t *Table) Release(addr netip.AddrPort, now time.Time) {
	c := t.find(addr)
	if c == nil || !c.held && c.class == way.Direct {
		return
	}
	t.drop(c)
	t.candidates = slices.DeleteFunc(t.candidates, func(o *candidate) bool { return o == c })
	t.judge(now)
}

// Slow says by how much longer the round trip over a way that is held open counts when it is compared
// with another's: who carries it gives it little bandwidth.
func (t *Table) Slow(addr netip.AddrPort, by time.Duration, now time.Time) {
	if c := t.find(addr); c != nil && c.held && c.slower != by {
		c.slower = by
		t.judge(now)
	}
}

// RTT is the round trip of the active path, 0 if there is none.
func (t *Table) RTT() time.Duration {
	if t.active == nil {
		return 0
	}
	return t.active.rtt.smoothed
}

// Doubted says that a sign of life from the active path is overdue, also after it
// was asked for one: frames that want no answer are no reason for doubt.
func (t *Table) Doubted(now time.Time) bool {
	a := t.active
	return a != nil && a.suspect(now) && (a.doubted || a.lostPongs > 0)
}

// Doubt says that there is reason to think that the remote is not there any more: it is
// asked for a sign of life, often until there is one.
func (t *Table) Doubt() {
	if t.active != nil {
		t.active.questioned, t.active.poked = true, true
	}
}

// Mute says that the remote answers nothing for now, on a path that may still be the right one.
func (t *Table) Mute(now time.Time) bool {
	return t.active != nil && t.active.mute(now, t.active.rtt.smoothed)
}

// Pinged reports whether a ping was sent to a host, at any port.
func (t *Table) Pinged(host netip.Addr) bool {
	host = host.Unmap()
	for _, c := range t.candidates {
		if c.addr.Addr() == host && !c.pinged.IsZero() {
			return true
		}
	}
	return false
}

// Delivers reports whether what was sent to an address of late is likely to arrive:
// the path may be in doubt, but nothing says that it is dead.
func (t *Table) Delivers(addr netip.AddrPort, now time.Time) bool {
	c := t.find(addr)
	return c != nil && c.up && c.lost < 2 && !c.bad(now)
}

// Mark makes a ping to follow what has been sent to an address, and says how long
// its answer should take.
func (t *Table) Mark(addr netip.AddrPort, now time.Time) (p Ping, rtt time.Duration, ok bool) {
	c := t.find(addr)
	if c == nil || !c.up || c.rtt.samples == 0 {
		return p, 0, false
	}
	t.pings = t.pings[:0]
	t.ping(c, 0, now)
	if len(t.pings) == 0 {
		return p, 0, false
	}
	return t.pings[0], c.rtt.smoothed + 2*c.rtt.variation, true
}

// Strained reports whether what is sent on the active path is lost or waits
// somewhere: its round trip is much longer than it can be.
func (t *Table) Strained(now time.Time) bool {
	c := t.active
	if c == nil {
		return false
	}
	return c.rtt.samples >= enough && c.late(c.rtt.last) || c.loss.rate > strainLoss && now.Sub(c.loss.began) < strainFor
}

// late says that a round trip is much longer than it can be.
func (c *candidate) late(d time.Duration) bool { return d > 2*c.rtt.least+strainLate }

// Answered reports whether something has come back over the active path.
func (t *Table) Answered() bool { return t.active != nil && t.active.tried() }

// Bad reports whether data is lost on a path that is not in use for it.
func (t *Table) Bad(addr netip.AddrPort, now time.Time) bool {
	c := t.find(addr)
	return c != nil && c != t.active && c.bad(now)
}

// Dead reports whether nothing comes back on a path that is not in use for it.
func (t *Table) Dead(addr netip.AddrPort) bool {
	c := t.find(addr)
	return c != nil && c != t.active && !c.up && c.lostPongs >= lostForDeath
}

// Failing says that the active path would yield to another if there were one.
func (t *Table) Failing(now time.Time) bool {
	return t.active != nil && t.active.silent(now, t.active.rtt.smoothed)
}

// AppendUp appends the addresses that are up, the active one first.
func (t *Table) AppendUp(list []netip.AddrPort) []netip.AddrPort {
	if t.active != nil {
		list = append(list, t.active.addr)
	}
	for _, c := range t.candidates {
		if c.up && c != t.active {
			list = append(list, c.addr)
		}
	}
	return list
}

// assumed is a way to use although nothing has come back over it yet, nil if
// there is none.
func (t *Table) assumed() (best *candidate) {
	for _, c := range t.candidates {
		if c.held && c.eager && !c.tried() && c.lostPongs < lostForDeath && (best == nil || c.class < best.class) {
			best = c
		}
	}
	return best
}

// tried says that something has come back over the path, ever. What is active
// without it yields to the first that answers.
func (c *candidate) tried() bool { return !c.heard.IsZero() }

// before says that a path is the better one: it does not lose data, is of a better
// class, or faster.
func (c *candidate) before(o *candidate, now time.Time) bool {
	if bad := c.bad(now); bad != o.bad(now) {
		return !bad
	}
	if c.class != o.class {
		return c.class < o.class
	}
	return c.cost() < o.cost()
}

// cost is what paths of one class are compared by: the round trip, and for want of bandwidth more.
func (c *candidate) cost() time.Duration { return c.rtt.smoothed + c.slower }

// heldPause is the pause before the next ping to a way that has not answered n.
func heldPause(n int) time.Duration {
	if n < heldBurst {
		return quick
	}
	return slow
}
