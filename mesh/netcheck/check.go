package netcheck

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"meshd/mesh/api"
	"meshd/nat-traversal"
	"meshd/nat-traversal/portmap"
)

const (
	// answerTime is how long servers may take in all, with three repetitions.
	answerTime = 2500 * time.Millisecond
	// elsewhereTime is how long the packets from elsewhere may take.
	elsewhereTime = 1500 * time.Millisecond
	// maxServers are asked.
	maxServers = 16
	// maxHelpers are asked to have somebody else answer.
	maxHelpers = 3
	// Limit is more than a whole check takes.
	Limit = 20 * time.Second
)

// Config says whom to ask.
type Config struct {
	Servers []netip.AddrPort // STUN servers, members among them; the most trusted first
	Mark    uint32           // of packets that go around the mesh
	NAT64   []netip.Prefix   // known to be in front of us
	// Elsewhere asks the member that answered a request to have an answer sent
	// from another port of its own, and from another member. It says which of
	// them was sent. May be nil.
	Elsewhere func(ctx context.Context, server netip.AddrPort, txid traversal.TxID, seen netip.AddrPort) (port, host bool, err error)
	// Routers are what is known of them already; nil: they are asked.
	Routers []portmap.State
}

// Run measures. It takes some seconds, and no longer than ctx.
func Run(ctx context.Context, cfg Config) *api.Netcheck {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	r := &api.Netcheck{NAT64: cfg.NAT64}
	routes := traversal.FindRoutes(cfg.Mark)
	families := [2]family{{cfg: cfg, v6: false, source: routes.V4}, {cfg: cfg, v6: true, source: routes.V6}}
	var group sync.WaitGroup
	for i := range families {
		group.Go(func() { families[i].measure(ctx) })
	}
	routers := cfg.Routers
	if routers == nil {
		group.Go(func() { routers = portmap.Survey(ctx, cfg.Mark) })
	}
	group.Wait()
	for i := range families {
		f := &families[i]
		r.Families = append(r.Families, f.report)
		r.Servers = append(r.Servers, f.servers...)
		r.UDP = r.UDP || f.report.UDP
	}
	r.Asked = len(r.Servers)
	for _, st := range routers {
		if st.Route.Gateway.IsValid() {
			r.Routers = append(r.Routers, describe(st))
		}
	}
	return r
}

// describe is a router as the report has it.
func describe(st portmap.State) api.Router {
	r := api.Router{Addr: st.Route.Gateway.String(), Family: familyName(st.Route.Gateway.Is6()), Protocols: []string{}}
	for _, p := range st.Found {
		r.Protocols = append(r.Protocols, p.String())
	}
	if st.Mapping != nil {
		r.Mapped, r.Used = st.Mapping.External.String(), st.Mapping.Protocol.String()
		r.DoubleNAT = !st.Mapping.Public()
	}
	if st.Err != nil {
		r.Problem = st.Err.Error()
	}
	return r
}

func familyName(v6 bool) string {
	if v6 {
		return "ipv6"
	}
	return "ipv4"
}
