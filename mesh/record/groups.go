package record

import (
	"fmt"
	"net/netip"
	"slices"

	"meshd/keys"
	"meshd/keys/canon"
)

// maxGroupsBody keeps the record within 1,000 bytes, as maxNodeBody does.
const maxGroupsBody = 880

// Flags of a member's groups. A reader ignores bits that it does not know.
const (
	groupsAll    = 1 << iota // it wants everything
	groupsRouter             // it has a multicast router, and wants everything
)

// Groups is which multicast groups the hosts behind a member listen to: frames to others need not be sent there. Who has
// no such record wants all of them.
type Groups struct {
	All    bool // there are more than the record holds, or they are not known yet
	Router bool // a multicast router is there, which wants everything
	VLANs  []GroupsVLAN
}

// GroupsVLAN is one VLAN's, 0 being untagged. In a VLAN that is not mentioned a member wants everything.
type GroupsVLAN struct {
	VLAN uint16
	IPs  []netip.Addr
}

// The VLANs and their addresses are in ascending order on the wire, so that one statement has one encoding.
type wireGroups struct {
	_     struct{} `cbor:",toarray"`
	Flags uint32
	VLANs []wireGroupsVLAN
}

type wireGroupsVLAN struct {
	_    struct{} `cbor:",toarray"`
	VLAN uint16
	IPs  [][]byte // 4 or 16
}

func parseGroups(b []byte) (*Groups, error) {
	var w wireGroups
	if err := canon.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if w.VLANs == nil {
		return nil, fmt.Errorf("%w: null list", ErrMalformed)
	}
	if w.Flags > groupsAll|groupsRouter {
		return nil, fmt.Errorf("%w: flags %x", ErrMalformed, w.Flags)
	}
	g := &Groups{All: w.Flags&groupsAll != 0, Router: w.Flags&groupsRouter != 0}
	for _, v := range w.VLANs {
		if v.IPs == nil {
			return nil, fmt.Errorf("%w: null list", ErrMalformed)
		}
		vlan := GroupsVLAN{VLAN: v.VLAN}
		for _, raw := range v.IPs {
			ip, err := parseIP(raw)
			if err != nil {
				return nil, err
			}
			vlan.IPs = append(vlan.IPs, ip)
		}
		g.VLANs = append(g.VLANs, vlan)
	}
	return g, g.check()
}

func (g Groups) wire() wireGroups {
	w := wireGroups{VLANs: make([]wireGroupsVLAN, 0, len(g.VLANs))}
	if g.All {
		w.Flags |= groupsAll
	}
	if g.Router {
		w.Flags |= groupsRouter
	}
	for _, v := range g.VLANs {
		ips := make([][]byte, 0, len(v.IPs))
		for _, ip := range v.IPs {
			ips = append(ips, ip.AsSlice())
		}
		w.VLANs = append(w.VLANs, wireGroupsVLAN{VLAN: v.VLAN, IPs: ips})
	}
	return w
}

// check holds it to what any member may say, and to the one order.
func (g Groups) check() error {
	if g.All && len(g.VLANs) > 0 {
		return fmt.Errorf("%w: all groups and some", ErrInvalid)
	}
	last := -1
	for _, v := range g.VLANs {
		if int(v.VLAN) <= last || !ascending(v.IPs, netip.Addr.Compare) {
			return fmt.Errorf("%w: groups out of order or twice", ErrMalformed)
		}
		last = int(v.VLAN)
		if v.VLAN > 4094 {
			return fmt.Errorf("%w: VLAN %d", ErrInvalid, v.VLAN)
		}
		for _, ip := range v.IPs {
			if !ip.IsMulticast() || ip.Zone() != "" || ip.Is4In6() {
				return fmt.Errorf("%w: group %v", ErrInvalid, ip)
			}
		}
	}
	return nil
}

// Fit returns what a record can hold of g: g, or that all groups are wanted.
func (g Groups) Fit() Groups {
	if b, err := canon.Marshal(g.wire()); err != nil || len(b) > maxGroupsBody || g.check() != nil {
		return Groups{All: true, Router: g.Router}
	}
	return g
}

// Equal says whether both say the same.
func (g Groups) Equal(o Groups) bool {
	return g.All == o.All && g.Router == o.Router &&
		slices.EqualFunc(g.VLANs, o.VLANs, func(a, b GroupsVLAN) bool { return a.VLAN == b.VLAN && slices.Equal(a.IPs, b.IPs) })
}

// SignGroups makes id's record of multicast groups.
func SignGroups(id *keys.Identity, network keys.NetworkID, v Version, body Groups) ([]byte, error) {
	if err := body.check(); err != nil {
		return nil, fmt.Errorf("sign groups record: %w", err)
	}
	b, err := canon.Marshal(body.wire())
	if err != nil {
		return nil, fmt.Errorf("sign groups record: %w", err)
	}
	return sign(id, network, TypeGroups, v, b)
}
