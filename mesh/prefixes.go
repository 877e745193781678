package mesh

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"meshd/mesh/api"
	"meshd/mesh/record"
)

// prefixes are the network's, the deprecated ones among them until they end.
func (n *Node) prefixes() []netip.Prefix {
	_, list, _ := n.state.dir.Network()
	settings, now := n.state.dir.Settings(), time.Now()
	return slices.DeleteFunc(list, func(p netip.Prefix) bool { return record.ParseTerms(settings, p).Gone(now) })
}

// deprecated are those of the network's prefixes that an admin has removed and that
// have not ended yet (RFC 4192, section 2.5).
func (n *Node) deprecated() []netip.Prefix {
	settings := n.state.dir.Settings()
	return slices.DeleteFunc(n.prefixes(), func(p netip.Prefix) bool { return record.ParseTerms(settings, p).Until.IsZero() })
}

// Prefixes implements api.Node.
func (s service) Prefixes(ctx context.Context, change api.PrefixChange) ([]api.Prefix, error) {
	var list []api.Prefix
	var failed error
	err := s.n.do(ctx, func() {
		if failed = s.n.changePrefixes(change, time.Now()); failed == nil {
			list = s.n.listPrefixes(time.Now())
		}
	})
	return list, firstOf(failed, err)
}

func (n *Node) listPrefixes(now time.Time) []api.Prefix {
	if n.state.dir == nil {
		return nil
	}
	settings := n.state.dir.Settings()
	list := []api.Prefix{}
	for _, p := range n.prefixes() {
		t := record.ParseTerms(settings, p)
		a := api.Prefix{Prefix: p, State: api.PrefixInUse, ValidSeconds: t.Lifetime.Seconds(), PreferredSeconds: t.Lifetime.Seconds() / 2}
		if !t.Until.IsZero() {
			a.State, a.ValidSeconds, a.PreferredSeconds = api.PrefixDeprecated, t.Until.Sub(now).Seconds(), 0
		}
		list = append(list, a)
	}
	return list
}

// changePrefixes says, as an admin, which prefixes the network has. One that is
// removed stays for its lifetime, deprecated, so that connections can end.
func (n *Node) changePrefixes(c api.PrefixChange, now time.Time) error {
	const what = "prefix"
	if c.Empty() {
		return nil
	}
	if err := n.mustSign(); err != nil {
		return &api.Error{
			Code: api.CodeDenied, What: what, Why: "this node is not an admin of the network",
			Remedy: "run it on an admin's node; `meshd status` shows who is one",
		}
	}
	body := n.network().WithoutGone(now)
	for _, p := range c.Remove {
		t := body.Terms(p)
		switch {
		case !slices.Contains(body.Prefixes, p):
			return &api.Error{Code: api.CodeUsage, What: what, Why: fmt.Sprintf("the network has no %v", p), Remedy: "meshd prefix lists those it has"}
		case !t.Until.IsZero():
			continue
		}
		t.Until = now.Add(t.Lifetime).Truncate(time.Second)
		body = body.WithPrefix(p, t)
	}
	for _, p := range c.Add {
		t := record.Terms{Lifetime: record.DefaultLifetime}
		if c.Lifetime > 0 {
			t.Lifetime = min(max(c.Lifetime, record.MinLifetime), record.MaxLifetime)
		}
		body = body.WithPrefix(p, t)
	}
	inUse := slices.ContainsFunc(body.Prefixes, func(p netip.Prefix) bool { return body.Terms(p).Until.IsZero() })
	switch {
	case !inUse:
		return &api.Error{Code: api.CodeUsage, What: what, Why: "the network would be without a prefix", Remedy: "add another first"}
	case len(body.Prefixes) > record.MaxPrefixes:
		return &api.Error{
			Code: api.CodeUsage, What: what, Why: fmt.Sprintf("a network has at most %d prefixes", record.MaxPrefixes),
			Remedy: "remove one, and wait until it has ended",
		}
	}
	raw, err := n.state.dir.SetNetwork(body)
	if err != nil {
		return err
	}
	if raw != nil {
		n.push(nil, [][]byte{raw})
		n.state.schedule.all = time.Time{}
		n.cacheSoon()
		n.wake()
	}
	return nil
}

// network is what the admins say of the network, to be said anew.
func (n *Node) network() record.Network {
	name, prefixes, mtu := n.state.dir.Network()
	return record.Network{Name: name, Prefixes: prefixes, MTU: mtu, Settings: maps.Clone(n.state.dir.Settings())}
}
