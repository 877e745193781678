package mesh

import (
	"time"

	limit "golang.org/x/time/rate"

	"meshd/l2/snoop"
	"meshd/mesh/directory"
	"meshd/mesh/record"
)

// Records of groups: so many at once, and one in so long. A join waits for no more than that; a host that joins and
// leaves all the time does not keep the mesh busy.
const (
	groupsBurst = 8
	groupsEvery = 3 * time.Second
)

// multicast is what the control loop keeps of multicast groups.
type multicast struct {
	told *snoop.Set    // what our record says
	body record.Groups // the same as it says it
	pace *limit.Limiter
}

// publishGroups signs what our hosts listen to anew when that has changed.
func (n *Node) publishGroups(now time.Time) {
	s, g := n.state.segment, &n.state.multicast
	if s == nil {
		return
	}
	set := s.sw.Groups()
	if g.pace == nil {
		g.pace = limit.NewLimiter(limit.Every(groupsEvery), groupsBurst)
	}
	if g.told != nil && !g.told.Equal(set) && !g.pace.AllowN(now, 1) {
		set = g.told // reconcile comes again
	}
	if g.told != set {
		g.told, g.body = set, groupsOf(set)
	}
	raw, err := n.state.dir.SetGroups(g.body)
	if err != nil {
		n.log.Error("sign our record of groups", "err", err)
		return
	}
	if raw != nil {
		n.keepEpoch()
		n.push(nil, [][]byte{raw})
	}
}

// tellGroups tells the switch which groups are wanted behind a member.
func (n *Node) tellGroups(d *directory.Member, m *member) {
	if m.port != nil && d.Groups != m.groups {
		m.groups = d.Groups
		m.port.SetGroups(setOf(d.Groups))
	}
}

// groupsOf is a switch's set as a record says it.
func groupsOf(set *snoop.Set) record.Groups {
	out := record.Groups{All: set.All, Router: set.Router}
	if set.All {
		return out
	}
	for _, vlan := range set.VLANs {
		v := record.GroupsVLAN{VLAN: vlan}
		for _, g := range set.Groups {
			if g.VLAN == vlan {
				v.IPs = append(v.IPs, g.Addr)
			}
		}
		out.VLANs = append(out.VLANs, v)
	}
	return out.Fit()
}

// setOf is its inverse. Who has said nothing wants everything: nil.
func setOf(g *record.Groups) *snoop.Set {
	if g == nil {
		return nil
	}
	set := &snoop.Set{All: g.All, Router: g.Router}
	for _, v := range g.VLANs {
		set.VLANs = append(set.VLANs, v.VLAN)
		for _, ip := range v.IPs {
			set.Groups = append(set.Groups, snoop.Group{VLAN: v.VLAN, Addr: ip})
		}
	}
	return set
}
