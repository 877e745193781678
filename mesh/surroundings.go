package mesh

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"meshd/mesh/api"
	"meshd/mesh/outside"
	"meshd/nat-traversal"
	"meshd/peer/way"
)

const (
	// lookEvery is how often the surroundings are looked at while all is well.
	lookEvery = 5 * time.Second
	// portalEvery is how often a portal is looked for while nobody is reached.
	portalEvery = time.Minute
	// portalMembers are tried at a time.
	portalMembers = 2
)

// surroundings is what is known of the network that this node stands in. Its
// lock is held for a moment only.
type surroundings struct {
	sync.Mutex
	routes traversal.Routes
	known  bool
	dns    string // why names are not resolved
	portal string

	// Owned by the control goroutine: since when no member is reached, and since
	// when members are over IPv4 alone whose IPv6 addresses are silent.
	aloneSince, dead6Since time.Time
}

// resolveHost is Host.Resolve, and notes whether there is a name server at all. A
// name that does not exist is an answer.
func (n *Node) resolveHost(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := n.cfg.Host.Resolve(ctx, host)
	why := ""
	if noNameServer(err) {
		why = err.Error()
	}
	n.around.Lock()
	n.around.dns = why
	n.around.Unlock()
	return addrs, err
}

// noNameServer says that a name was not resolved for want of a server that answers.
func noNameServer(err error) bool {
	e := (*net.DNSError)(nil)
	return errors.As(err, &e) && !e.IsNotFound || errors.Is(err, context.DeadlineExceeded)
}

// lookAround watches the surroundings until ctx ends.
func (n *Node) lookAround(ctx context.Context) error {
	host, ok := n.cfg.Host.(routeHost)
	if !ok {
		return nil
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var asked time.Time // for a portal
	for {
		routes := host.Routes()
		portal := ""
		if n.mayBeCaptive(ctx) {
			n.around.Lock()
			portal = n.around.portal
			n.around.Unlock()
			if now := time.Now(); asked.IsZero() || now.Sub(asked) >= portalEvery {
				asked = now
				portal = n.findPortal(ctx)
			}
		}
		n.around.Lock()
		n.around.routes, n.around.known, n.around.portal = routes, true, portal
		n.around.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// mayBeCaptive reports whether nobody has been reached for a while.
func (n *Node) mayBeCaptive(ctx context.Context) (alone bool) {
	_ = n.do(ctx, func() {
		since := n.around.aloneSince
		alone = !since.IsZero() && time.Since(since) >= outside.Patience
	})
	return alone
}

// findPortal asks where members were reached before.
func (n *Node) findPortal(ctx context.Context) string {
	host, ok := n.cfg.Host.(interface {
		DialTCP(ctx context.Context, address string) (net.Conn, error)
	})
	if !ok {
		return ""
	}
	var addrs []netip.Addr
	_ = n.do(ctx, func() {
		for at := range maps.Values(n.state.lastGood) {
			if traversal.Global(at.Addr()) && way.ClassOf(at) == way.Direct && !slices.Contains(addrs, at.Addr()) && len(addrs) < portalMembers {
				addrs = append(addrs, at.Addr())
			}
		}
	})
	for _, a := range addrs {
		if portal := outside.FindPortal(ctx, host.DialTCP, a); portal != "" {
			return portal
		}
	}
	return ""
}

// noteReached keeps since when nobody is reached, and nobody over IPv6.
func (n *Node) noteReached(now time.Time) {
	var f outside.Facts
	for _, m := range n.state.members {
		if m.up {
			countPaths(m, &f)
		}
	}
	since(&n.around.aloneSince, f.Reached == 0, now)
	since(&n.around.dead6Since, f.Dead6 > 0 && f.By6 == 0, now)
}

// since keeps when a condition began to hold; zero while it does not.
func since(at *time.Time, holds bool, now time.Time) {
	if !holds {
		*at = time.Time{}
	} else if at.IsZero() {
		*at = now
	}
}

// surroundingHealth is what is wrong with the network around us.
func (n *Node) surroundingHealth(now time.Time) (list []api.Health) {
	f := outside.Facts{Now: now, AloneSince: n.around.aloneSince}
	n.around.Lock()
	f.V4, f.V6, f.Known = n.around.routes.V4, n.around.routes.V6, n.around.known
	f.DNS, f.Portal = n.around.dns, n.around.portal
	n.around.Unlock()
	for _, c := range n.state.self.gathered {
		f.Addresses = append(f.Addresses, c.Addr.Addr())
	}
	for _, m := range n.state.members {
		if m.left {
			continue
		}
		f.Members++
		countPaths(m, &f)
		if ahead, told := m.remote.ClockAhead(now); told && m.up {
			f.Clocks = append(f.Clocks, ahead)
		}
	}
	if dead := n.around.dead6Since; dead.IsZero() || now.Sub(dead) < outside.Patience {
		f.Dead6 = 0
	}
	for _, finding := range outside.Judge(f) {
		list = append(list, api.Health{Code: finding.Code, Severity: api.SeverityWarning, Text: finding.Text, Remedy: finding.Remedy})
	}
	return list
}

// countPaths adds how one member is reached.
func countPaths(m *member, f *outside.Facts) {
	st := m.remote.Status()
	if !st.Up {
		return
	}
	f.Reached++
	var by4, by6, dead6 bool
	for _, p := range st.Paths {
		a := p.Addr.Addr()
		switch {
		case way.IsVirtual(a):
		case a.Is4():
			by4 = by4 || p.Up
		case p.Up:
			by6 = true
		case traversal.Global(a):
			dead6 = true
		}
	}
	switch {
	case by6:
		f.By6++
	case by4 && dead6:
		f.Dead6++
	}
}
