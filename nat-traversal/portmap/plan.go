package portmap

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// wanted is the lifetime that we ask for: what a node that is killed leaves
	// behind ends by then (RFC 6886, 3.3 recommends two hours).
	wanted = 2 * time.Hour
	// shortest and longest bound what a router grants, so that a bad one neither
	// keeps us busy nor is never asked again.
	shortest = time.Minute
	longest  = 24 * time.Hour
	// checkEvery is how often the router is asked whether all is as it was: it
	// may have restarted, or have another address.
	checkEvery = time.Minute
	// checkAgain is for a router that has not answered.
	checkAgain = 15 * time.Second
	// missedChecks in a row mean that the router has gone.
	missedChecks = 3
	// retryFirst doubles up to retryMost while nothing can be had.
	retryFirst = time.Minute
	retryMost  = 30 * time.Minute
	// settle is how long a router that has nothing to offer is left alone, however
	// often the network changes.
	settle = 10 * time.Second
)

// step is what a plan wants to be done.
type step int

const (
	rest  step = iota // nothing until a time, or an event
	probe             // find out which protocols the router speaks
	open              // ask for a mapping, or for more of its time
	check             // ask whether it is still there
)

// plan is the life of one family's mapping. It is pure: its owner does what Next
// says and reports how that went.
type plan struct {
	route    Route
	found    [protocols]bool
	used     Protocol       // what worked last; remembered while the router is the same
	order    []Protocol     // still to be tried
	mapping  *Mapping       // what is open
	last     netip.AddrPort // the external address to suggest
	renewAt  time.Time
	endsAt   time.Time // zero: never
	checkAt  time.Time
	missed   int
	probing  bool
	retryAt  time.Time
	probedAt time.Time
	openedAt time.Time
	failures int
}

// setRoute tells where the way out leads now; the zero Route: nowhere. What has
// been opened at another router, or for another address, counts no more. It also
// ends waiting: the network has changed.
func (p *plan) setRoute(r Route, now time.Time) {
	if r == p.route {
		if p.mapping == nil {
			p.probing, p.failures, p.retryAt = true, 0, later(now, p.probedAt.Add(settle))
		} else {
			p.checkAt = now
		}
		return
	}
	remembered := p.used
	if r.Gateway != p.route.Gateway {
		remembered = PCP
	}
	*p = plan{route: r, used: remembered, probing: r.Gateway.IsValid(), retryAt: now}
}

// next is what to do now, or until when to rest (zero: until the route changes).
// use is the protocol for open and check.
func (p *plan) next(now time.Time) (s step, use Protocol, until time.Time) {
	switch {
	case !p.route.Gateway.IsValid():
		return rest, 0, time.Time{}
	case p.mapping != nil && !p.endsAt.IsZero() && !now.Before(p.endsAt):
		p.lose(now)
		return p.next(now)
	case p.probing && !now.Before(p.retryAt):
		return probe, 0, time.Time{}
	case len(p.order) > 0:
		return open, p.order[0], time.Time{}
	case p.mapping == nil || p.probing:
		return rest, 0, p.retryAt
	case !now.Before(p.renewAt):
		return open, p.mapping.Protocol, time.Time{}
	case !now.Before(p.checkAt):
		return check, p.mapping.Protocol, time.Time{}
	}
	return rest, 0, earliest(p.checkAt, p.renewAt, p.endsAt)
}

// probed takes the result of probe.
func (p *plan) probed(found [protocols]bool, now time.Time) {
	p.probing, p.found, p.probedAt = false, found, now
	p.order = p.order[:0]
	for _, proto := range []Protocol{p.used, PCP, NATPMP, UPnP} {
		if found[proto] && !slices.Contains(p.order, proto) {
			p.order = append(p.order, proto)
		}
	}
	if len(p.order) == 0 {
		p.lose(now)
	}
}

// opened takes the result of open; nil is a failure.
func (p *plan) opened(m *Mapping, now time.Time) {
	if m == nil {
		p.failed(now)
		return
	}
	p.mapping, p.used, p.last = m, m.Protocol, m.External
	p.order, p.failures, p.missed = nil, 0, 0
	p.checkAt, p.openedAt = now.Add(checkEvery), now
	if m.Lifetime == 0 {
		p.endsAt, p.renewAt = time.Time{}, now.Add(wanted/2)
		return
	}
	life := min(max(m.Lifetime, shortest), longest)
	p.endsAt, p.renewAt = now.Add(life), now.Add(life/2)
}

// failed goes on to the next protocol. Where there is none, a mapping that could
// not be renewed is kept for as long as it lasts, and asked for again.
func (p *plan) failed(now time.Time) {
	if len(p.order) > 0 {
		if p.order = p.order[1:]; len(p.order) > 0 {
			return
		}
	}
	if p.mapping != nil && (p.endsAt.IsZero() || p.endsAt.Sub(now) > 2*shortest) {
		p.renewAt = now.Add(max(shortest/2, p.endsAt.Sub(now)/4)) // as RFC 6887, 11.2.1
		if p.endsAt.IsZero() {
			p.renewAt = now.Add(wanted / 2)
		}
		return
	}
	p.lose(now)
}

// checked takes the result of check: changed says that the mapping is not as it
// was, silent that no answer came.
func (p *plan) checked(changed, silent bool, now time.Time) {
	p.checkAt = now.Add(checkEvery)
	switch {
	case silent:
		p.checkAt = now.Add(checkAgain)
		if p.missed++; p.missed >= missedChecks {
			p.lose(now)
			p.retryAt = now
		}
	case changed, p.missed > 0: // who was silent may have restarted, also where its count does not tell
		p.missed, p.renewAt = 0, now
	}
}

// announced takes the router's word that it has restarted: whether or not its
// count bears that out, asking again does no harm, if not too often.
func (p *plan) announced(now time.Time) {
	if p.mapping != nil {
		p.renewAt = earliest(p.renewAt, later(now, p.openedAt.Add(settle)))
	}
}

// lose gives the mapping up, and has the router probed again later.
func (p *plan) lose(now time.Time) {
	p.mapping, p.order, p.missed, p.probing = nil, nil, 0, true
	p.retryAt = now.Add(min(retryFirst<<min(p.failures, 10), retryMost))
	p.failures++
}

func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
