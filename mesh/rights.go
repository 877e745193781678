package mesh

import (
	"net/netip"
	"slices"

	"meshd/keys"
	"meshd/l2"
	"meshd/mesh/directory"
)

// What the switch and the names are told of members.

// allowFor is what the switch lets a member do, by its certificate.
func (n *Node) allowFor(d *directory.Member) l2.Allow {
	roles := d.Certificate.Roles
	a := l2.Allow{
		MAC: macOf(d.ID), Addresses: addrsOf(ownAddresses(d.ID, n.prefixes())), VLANs: allowedVLANs(roles),
		Bridge: roles.Has("bridge"), Hosts: mayHaveHosts(d), Router: roles.Has("router"), DHCP: roles.Has("dhcp"),
	}
	if a.Bridge { // else it is not, any more, what it has said
		a.Segment, a.LAN = n.segmentOf(d.ID), n.lanOf(d.ID)
	}
	return a
}

// allowedVLANs lists the tags that roles allow, nil for all.
func allowedVLANs(roles keys.Roles) []uint16 {
	const all = 4094 // IEEE 802.1Q: 1 to 4094
	list := make([]uint16, 0, all)
	for id := uint16(1); id <= all; id++ {
		if roles.AllowsVLAN(id) {
			list = append(list, id)
		}
	}
	if len(list) == all {
		return nil
	}
	return list
}

// connectAgain tells the switch which addresses the members have, after the
// network's prefixes have changed.
func (n *Node) connectAgain() {
	for _, d := range n.state.dir.Members() {
		if m := n.state.members[d.ID]; m != nil && m.port != nil {
			m.port = n.state.segment.sw.Connect(d.ID.String(), lanes{m.remote}, n.allowFor(d))
		}
	}
}

// reconcileSegment keeps addresses and names, of the members too where those have
// changed.
func (n *Node) reconcileSegment(members bool) {
	s := n.state.segment
	if s == nil {
		return
	}
	prefixes := n.prefixes()
	own := ownAddresses(n.self, prefixes)
	if members || !slices.Equal(own, s.addresses) {
		n.exclude(prefixes)
	}
	if !slices.Equal(own, s.addresses) {
		if err := s.setAddresses(own); err != nil {
			n.log.Warn("set addresses", "err", err)
			return
		}
		s.addresses, s.named, s.roles = own, nil, ""
		s.hostChanged(n)
		n.connectAgain()
	}
	if d := n.state.dir.Member(n.self); d != nil && d.Certificate.Roles.String() != s.roles {
		s.roles = d.Certificate.Roles.String()
		s.sw.SetOwn(n.allowFor(d))
	}
	if s.names == nil || !members && s.named != nil {
		return
	}
	table := map[string][]netip.Addr{}
	for _, d := range n.state.dir.Members() {
		table[d.Display] = addrsOf(ownAddresses(d.ID, prefixes))
	}
	if !sameNames(table, s.named) {
		s.names.SetNames(table)
		s.named = table
	}
}

func sameNames(a, b map[string][]netip.Addr) bool {
	if len(a) != len(b) {
		return false
	}
	for name, addrs := range a {
		if !slices.Equal(addrs, b[name]) {
			return false
		}
	}
	return true
}
