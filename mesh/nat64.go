package mesh

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"meshd/nat-traversal"
	"meshd/nat-traversal/nat64"
)

const (
	// nat64Every is how often the prefix is looked up anew; sooner when the
	// network changes, or the last attempt failed.
	nat64Every = 10 * time.Minute
	nat64Retry = 15 * time.Second
	// nat64Patience is how long a DNS server has to name the prefix.
	nat64Patience = 5 * time.Second
)

// routeHost is what a Host may offer: which ways lead out of it.
type routeHost interface {
	Routes() traversal.Routes
}

// Routes are those that the underlay's packets take.
func (m machine) Routes() traversal.Routes { return traversal.FindRoutes(m.mark) }

// onlyIPv6 reports whether this host has no way to the rest of the world but
// IPv6, so that IPv4 may be reached through a NAT64.
func (n *Node) onlyIPv6() bool {
	h, ok := n.cfg.Host.(routeHost)
	if !ok {
		return false
	}
	r := h.Routes()
	return !r.V4.IsValid() && r.V6.IsValid()
}

// findNAT64 asks the DNS for the prefix of the network's NAT64 (RFC 7050).
func (n *Node) findNAT64(ctx context.Context) []netip.Prefix {
	ctx, cancel := context.WithTimeout(ctx, nat64Patience)
	defer cancel()
	answers, err := n.resolveHost(ctx, nat64.Name)
	list := nat64.Prefixes(answers)
	if len(list) == 0 {
		n.log.Debug("no NAT64 found", "err", err)
	}
	return list
}

// watchNAT64 keeps the prefix known, until ctx ends.
func (n *Node) watchNAT64(ctx context.Context) error {
	if _, ok := n.cfg.Host.(routeHost); !ok {
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-n.nat64.changed:
		}
		var list []netip.Prefix
		wait := nat64Every
		if n.onlyIPv6() {
			if list = n.findNAT64(ctx); len(list) == 0 {
				wait = nat64Retry
			}
		}
		if old := n.nat64.prefixes.Load(); old == nil || !slices.Equal(*old, list) {
			n.nat64.prefixes.Store(&list)
			n.wake()
		}
		timer.Reset(wait)
	}
}

// throughNAT64 adds to addresses how IPv4 ones are written for the network's
// NAT64, where there is one and IPv4 leads nowhere.
func (n *Node) throughNAT64(ctx context.Context, addrs []netip.AddrPort) []netip.AddrPort {
	if !slices.ContainsFunc(addrs, func(a netip.AddrPort) bool { return a.Addr().Is4() }) || !n.onlyIPv6() {
		return addrs
	}
	list := n.nat64.prefixes.Load()
	if list == nil || len(*list) == 0 {
		found := n.findNAT64(ctx)
		list = &found
	}
	return synthesize(*list, addrs)
}

// synthesize adds IPv4 addresses as the prefixes write them.
func synthesize(prefixes []netip.Prefix, addrs []netip.AddrPort) []netip.AddrPort {
	out := slices.Clone(addrs)
	for _, a := range addrs {
		for _, p := range prefixes {
			if v6, ok := nat64.Synthesize(p, a.Addr()); ok && a.Addr().Is4() && !slices.Contains(out, netip.AddrPortFrom(v6, a.Port())) {
				out = append(out, netip.AddrPortFrom(v6, a.Port()))
			}
		}
	}
	return out
}
