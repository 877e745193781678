package mesh

import (
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/ndp"

	"meshd/keys"
	"meshd/l2/radv"
	"meshd/mesh/directory"
	"meshd/mesh/election"
	"meshd/mesh/names"
	"meshd/mesh/record"
	"meshd/peer"
)

// Who of the routers speaks for a prefix, and what it says.

// standing is how fit this node is to speak for the prefixes.
func (n *Node) standing() election.Standing {
	d := n.state.dir.Member(n.self)
	switch {
	case d == nil || !d.Certificate.Roles.Has(keys.RoleRouter):
		return election.Absent
	case n.cfg.Gateway && n.state.routing.up:
		return election.Uplinked
	}
	return election.Local
}

// otherRouters are the other members with the role.
func (n *Node) otherRouters(now time.Time) (list []election.Router) {
	for _, d := range n.state.dir.Members() {
		m := n.state.members[d.ID]
		if d.ID == n.self || m == nil || !d.Certificate.Roles.Has(keys.RoleRouter) {
			continue
		}
		list = append(list, election.Router{
			ID: d.ID, Gateway: isGateway(d), Alive: n.peerState(m, m.remote.Status(), now).Alive(),
		})
	}
	return list
}

func isGateway(d *directory.Member) bool {
	return d.Node != nil && d.Node.Capabilities&record.CapGateway != 0
}

// elect decides who speaks for each prefix, and does so if it is us.
func (n *Node) elect(others []election.Router, now time.Time) time.Time {
	r := &n.state.routing
	r.election.Keep(others)
	own := n.standing()
	for _, slot := range r.slots {
		chosen := r.election.Choose(slot.prefix, own, others, n.speaker(slot), now)
		if chosen != n.self {
			if slot.advert.Active() {
				n.log.Info("another routes", "prefix", slot.prefix)
			}
			slot.advert.Set(nil, now)
			continue
		}
		began := !slot.advert.Active()
		slot.advert.Set(n.advertised(slot, own), now)
		if began {
			n.log.Info("this node speaks for a prefix", "prefix", slot.prefix, "uplink", r.uplink.Name)
			n.announce(slot.prefix)
		}
	}
	return r.election.Wake(now)
}

// speaker is who spoke for a prefix last, zero for nobody.
func (n *Node) speaker(s *slot) keys.NodeID {
	name, known := n.state.segment.sw.RouterAt(s.mac)
	if !known {
		return keys.NodeID{}
	}
	if name == "" {
		return n.self
	}
	id, err := keys.ParseNodeID(name)
	if err != nil {
		return keys.NodeID{}
	}
	return id
}

// advertised is what hosts are told of a prefix.
func (n *Node) advertised(s *slot, own election.Standing) *radv.Config {
	_, _, mtu := n.state.dir.Network()
	t := record.ParseTerms(n.state.dir.Settings(), s.prefix)
	c := &radv.Config{
		MAC: s.mac, Addr: s.addr, MTU: mtu, DNS: slices.DeleteFunc(slices.Clone(n.cfg.RouterDNS), netip.Addr.Is4),
		Prefixes: []radv.Prefix{{Prefix: s.prefix, Valid: t.Lifetime, Preferred: t.Lifetime / 2, Until: t.Until}},
	}
	// A unique local prefix leads nowhere (RFC 7084, L-4).
	c.Preference = map[string]ndp.Preference{"low": ndp.Low, "high": ndp.High}[n.cfg.RouterPreference]
	if len(c.DNS) > 0 {
		c.Search = []string{names.Domain}
	}
	c.Quiet = own != election.Uplinked && !n.state.segment.sw.Strangers()
	if own == election.Uplinked && !s.prefix.Addr().IsPrivate() {
		c.Lifetime = radv.DefaultLifetime
	}
	return c
}

// sendBeats tells the other gateways how this one is.
func (n *Node) sendBeats(others []election.Router, now time.Time) time.Time {
	r := &n.state.routing
	if !n.cfg.Gateway || n.standing() == election.Absent {
		return time.Time{}
	}
	beat := election.Beat{Uplink: r.up}
	for _, slot := range r.slots {
		if slot.advert.Active() {
			beat.Active = append(beat.Active, slot.prefix)
		}
	}
	same := beat.Uplink == r.beat.Uplink && slices.Equal(beat.Active, r.beat.Active)
	if r.proxy != nil && r.proxy.News() {
		r.beats = 0 // tell it soon
	}
	if due := r.beaten.Add(election.BeatEvery); same && now.Before(due) {
		return due
	}
	r.beat, r.beaten = beat, now
	if r.proxy != nil && len(beat.Active) > 0 && r.beats%shareEveryBeats == 0 {
		beat.Sought = r.proxy.Sought(election.MaxSought)
	}
	r.beats++
	n.tellGateways(others, beat)
	return now.Add(election.BeatEvery)
}

func (n *Node) tellGateways(others []election.Router, beat election.Beat) {
	body := beat.Append(nil)
	for _, o := range others {
		if m := n.state.members[o.ID]; o.Gateway && m != nil {
			m.remote.Want()
			sendControl(m.remote, kindBeat, body)
		}
	}
}

// handleBeat takes another gateway's.
func (n *Node) handleBeat(from *peer.Remote, body []byte) {
	r := &n.state.routing
	d := n.state.dir.Member(from.ID)
	if r.election == nil || d == nil || !d.Certificate.Roles.Has(keys.RoleRouter) {
		return
	}
	beat, err := election.ParseBeat(body)
	if err != nil {
		return
	}
	r.election.Receive(from.ID, beat, time.Now())
	if r.proxy != nil {
		r.proxy.Remember(beat.Sought)
	}
	n.reroute()
}

// routingCapabilities are what our record says of it.
func (n *Node) routingCapabilities() record.Capabilities {
	switch {
	case !n.cfg.Gateway:
		return 0
	case n.state.routing.up:
		return record.CapGateway | record.CapUplink
	}
	return record.CapGateway
}
