package mesh

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"meshd/keys"
	"meshd/mesh/api"
	"meshd/mesh/netcheck"
	"meshd/nat-traversal"
	"meshd/peer"
	"meshd/peer/way"
)

// Netcheck implements api.Node: what the network in front of this host does, with
// the help of the members that can be reached.
func (s service) Netcheck(ctx context.Context, servers []string) (*api.Netcheck, error) {
	n := s.n
	cfg := netcheck.Config{}
	if m, ok := n.cfg.Host.(machine); ok {
		cfg.Mark = m.mark
	} else {
		return nil, &api.Error{Code: api.CodeUnsupported, What: "netcheck", Why: "this node has no network to measure"}
	}
	for _, server := range servers {
		addrs, err := n.resolve(ctx, server)
		if err != nil {
			return nil, &api.Error{Code: api.CodeFailed, What: "netcheck", Why: err.Error(), Err: err}
		}
		cfg.Servers = append(cfg.Servers, addrs...)
	}
	helpers := map[netip.AddrPort]*peer.Remote{}
	err := n.do(ctx, func() {
		cfg.Servers = append(cfg.Servers, n.stun...)
		for id, m := range n.state.members {
			st := m.remote.Status()
			if !st.Up || way.ClassOf(st.Endpoint) != way.Direct {
				if last := n.state.lastGood[id]; last.IsValid() {
					cfg.Servers = append(cfg.Servers, last)
				}
				continue
			}
			helpers[st.Endpoint] = m.remote
		}
	})
	if err != nil {
		return nil, err
	}
	for addr := range helpers { // first: they are there
		cfg.Servers = slices.Insert(cfg.Servers, 0, addr)
	}
	cfg.Servers = slices.DeleteFunc(n.throughNAT64(ctx, cfg.Servers), func(a netip.AddrPort) bool {
		return way.IsVirtual(a.Addr()) || a.Addr().IsLinkLocalUnicast() && a.Addr().Is6()
	})
	cfg.Elsewhere = func(ctx context.Context, server netip.AddrPort, txid traversal.TxID, seen netip.AddrPort) (bool, bool, error) {
		if helpers[server] == nil {
			return false, false, errors.New("no member is there")
		}
		return n.askElsewhere(ctx, helpers[server], txid, seen)
	}
	if n.mapper != nil {
		cfg.Routers = n.mapper.States()
	}
	if prefixes := n.nat64.prefixes.Load(); prefixes != nil {
		cfg.NAT64 = *prefixes
	}
	report := netcheck.Run(ctx, cfg)
	report.Node = true
	return report, nil
}

// Netcheck measures without a node: with these servers, and with the members that
// a node with this state has known.
func Netcheck(ctx context.Context, stateDir string, servers []string) (*api.Netcheck, error) {
	host := machine{}
	n := &Node{cfg: Config{Host: host}}
	cfg := netcheck.Config{}
	for _, server := range servers {
		addrs, err := n.resolve(ctx, server)
		if err != nil {
			return nil, &api.Error{Code: api.CodeFailed, What: "netcheck", Why: err.Error(), Err: err}
		}
		cfg.Servers = append(cfg.Servers, addrs...)
	}
	if len(servers) == 0 {
		cfg.Servers = knownMembers(stateDir)
	}
	if n.onlyIPv6() {
		cfg.NAT64 = n.findNAT64(ctx)
		cfg.Servers = synthesize(cfg.NAT64, cfg.Servers)
	}
	return netcheck.Run(ctx, cfg), nil
}

// knownMembers are where a node with this state has reached members. Who may not
// read the state, or has none, knows nobody.
func knownMembers(stateDir string) (list []netip.AddrPort) {
	if _, err := os.Stat(stateDir); err != nil {
		return nil // and it is not made
	}
	store, err := keys.Open(stateDir)
	if err != nil {
		return nil
	}
	defer store.Close()
	raw, err := store.Load(stateCache)
	var c cache
	if err != nil || cbor.Unmarshal(raw, &c) != nil {
		return nil
	}
	for _, text := range c.LastGood {
		if at, err := netip.ParseAddrPort(text); err == nil && !way.IsVirtual(at.Addr()) {
			list = append(list, at)
		}
	}
	return list
}
