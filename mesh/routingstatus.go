package mesh

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"meshd/keys"
	"meshd/l2/dhcp4"
	"meshd/mesh/api"
	"meshd/mesh/directory"
	"meshd/mesh/election"
	"meshd/mesh/record"
)

// Gateway implements api.Node.
func (s service) Gateway(ctx context.Context) (*api.Gateway, error) {
	g := &api.Gateway{}
	err := s.n.do(ctx, func() {
		if s.n.state.routing.election != nil {
			s.n.describeRouting(g, time.Now())
		}
	})
	return g, err
}

func (n *Node) describeRouting(g *api.Gateway, now time.Time) {
	r := &n.state.routing
	for _, slot := range r.slots {
		speaks := n.speaker(slot)
		if speaks == n.self && !slot.advert.Active() {
			speaks = keys.NodeID{}
		}
		from := len(g.Routers)
		for _, d := range n.state.dir.Members() {
			if !d.Certificate.Roles.Has(keys.RoleRouter) {
				continue
			}
			a := api.PrefixRouter{
				Prefix: slot.prefix, Member: d.Display, State: api.RouterStandby, Uplink: uplinkOf(d),
				Address: slot.addr, MAC: slot.mac.String(),
			}
			if d.ID == n.self {
				a.Uplink = uplinkState(n.cfg.Gateway, r.up)
				if n.cfg.Gateway {
					a.Interface = r.uplink.Name
				}
			} else if m := n.state.members[d.ID]; m == nil || !n.peerState(m, m.remote.Status(), now).Alive() && d.ID != speaks {
				continue
			}
			if d.ID == speaks {
				a.State = api.RouterActive
			}
			g.Routers = append(g.Routers, a)
		}
		slices.SortStableFunc(g.Routers[from:], func(a, b api.PrefixRouter) int { return cmp.Compare(a.State, b.State) })
	}
	if s := r.dhcp.server; s != nil {
		g.DHCP4 = &api.DHCP4{Subnet: n.cfg.DHCP4, Router: dhcp4.Config{Subnet: n.cfg.DHCP4}.Router(), Leases: []api.Lease{}}
		for _, l := range s.Leases() {
			g.DHCP4.Leases = append(g.DHCP4.Leases, api.Lease{Address: l.IP, Client: fmt.Sprintf("%x", l.Key), Until: l.Until.UTC()})
		}
	}
	for _, h := range n.routersFor(now) {
		g.DefaultRoutes = append(g.DefaultRoutes, api.DefaultRoute{
			Router: h.Addr, Seconds: h.Until.Sub(now).Seconds(), Taken: r.applied.Default == h.Addr,
		})
	}
}

func uplinkOf(d *directory.Member) string {
	return uplinkState(isGateway(d), d.Node != nil && d.Node.Capabilities&record.CapUplink != 0)
}

func uplinkState(gateway, up bool) string {
	switch {
	case !gateway:
		return api.UplinkNone
	case up:
		return api.UplinkUp
	}
	return api.UplinkDown
}

// routingHealth says what keeps this host from routing as it was told.
func (n *Node) routingHealth() (list []api.Health) {
	r := &n.state.routing
	warn := func(code, text, remedy string) {
		list = append(list, api.Health{Code: code, Severity: api.SeverityWarning, Text: text, Remedy: remedy})
	}
	if n.state.dir == nil || r.election == nil {
		return nil
	}
	if r.trouble != nil {
		warn("routes", "routes are not as they should be: "+r.trouble.Error(), "run meshd with CAP_NET_ADMIN, and /proc/sys/net writable")
	}
	if r.noProxy != nil {
		warn("neighbour-proxy", "nobody answers on the uplink for the segment, which does where a prefix is routed to this host, and not where it is on-link there: "+r.noProxy.Error(),
			"grant CAP_NET_RAW; packaging/meshd-gateway.conf is for systemd")
	}
	if r.host != nil {
		for _, p := range r.host.Problems(r.applied) {
			warn("host-routing", p.Text, p.Remedy)
		}
	}
	if why := r.dhcp.trouble; why != "" {
		warn("dhcp4", "no IPv4 addresses are handed out: "+why, "see meshd hosts; meshd role "+n.ownName()+" dhcp router, on an admin's node")
	}
	if !n.cfg.Gateway {
		return list
	}
	if n.standing() == election.Absent {
		warn("gateway-role", "this node is to be a gateway and has not the role router: others take no advertisement from it",
			"on an admin's node: meshd role "+n.ownName()+" router")
	} else if n.ownBeside() {
		warn("gateway-uplink", "this node is to be a gateway, and its IPv6 default route leaves by the bridge that the mesh is on: hosts of the mesh reach the router there without it",
			"leave out --gateway: with the role router the advertisements of the LAN's router pass; or give this host an uplink beside the bridge")
	} else if !r.up {
		warn("gateway-uplink", "this node is to be a gateway and has no IPv6 default route of its own: it has nowhere to route to", "give this host IPv6; ip -6 route show default")
	}
	return list
}
