package path

import (
	"net/netip"
	"time"
)

// Call has addresses probed at once, as the remote, which is there, has asked for.
// Each keeps to its budget.
func (t *Table) Call(addrs []netip.AddrPort, now time.Time) {
	for _, addr := range addrs {
		if c := t.add(addr, now); c != nil && !c.up {
			c.learnt = later(c.learnt, now)
			c.rouse()
		}
	}
}

// Unsent says that the ping returned last to an address could not be sent: this host
// has no route there. It does not count against the address.
func (t *Table) Unsent(p Ping) {
	c, i := t.pinged(p.Transaction)
	if c == nil {
		return
	}
	c.stuck = true
	if c.pings[i].spent {
		c.budget.refund(c.pings[i].over)
		c.pings[i].spent = false
	}
}
