package keys

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// What a certificate may allow.
const (
	RoleMember = "member" // to be here
	RoleAdmin  = "admin"  // to admit and revoke
	RoleRouter = "router" // to send router advertisements
	RoleDHCP   = "dhcp"   // to answer as a DHCP server
	RoleBridge = "bridge" // to bring other hosts' MACs
)

// vlanPrefix begins the one role with a value: the VLANs whose tags may pass.
const vlanPrefix = "vlan="

// maxVLANs bounds the text of a VLAN list, so that a certificate fits its datagram.
const maxVLANs = 48

// Roles are sorted, each at most once, and include member.
type Roles []string

// AllRoles is what a founder holds. No VLAN list: all tags are allowed.
func AllRoles() Roles {
	return Roles{RoleAdmin, RoleBridge, RoleDHCP, RoleMember, RoleRouter}
}

// ParseRoles validates roles, sorts them and adds member. An argument may hold
// several, separated by spaces. Of a VLAN list it makes the shortest form.
func ParseRoles(roles ...string) (Roles, error) {
	out := Roles{RoleMember}
	for _, role := range strings.Fields(strings.Join(roles, " ")) {
		switch list, isVLAN := strings.CutPrefix(role, vlanPrefix); {
		case isVLAN:
			vlans, err := parseVLANs(list)
			if err != nil {
				return nil, fmt.Errorf("parse role %.80q: %w", role, err)
			}
			role = vlanPrefix + vlans.String()
			if len(role) > len(vlanPrefix)+maxVLANs {
				return nil, fmt.Errorf("parse role %.80q: the list is longer than %d characters", role, maxVLANs)
			}
		case !slices.Contains(AllRoles(), role):
			return nil, fmt.Errorf("parse role %.80q: want member, admin, router, dhcp, bridge or vlan=LIST", role)
		}
		if !slices.Contains(out, role) {
			out = append(out, role)
		}
	}
	slices.Sort(out)
	lists := 0
	for _, role := range out {
		if strings.HasPrefix(role, vlanPrefix) {
			lists++
		}
	}
	if lists > 1 {
		return nil, fmt.Errorf("parse roles: more than one vlan= list")
	}
	return out, nil
}

// Has says whether role is among them.
func (r Roles) Has(role string) bool { return slices.Contains(r, role) }

// String is the roles with a space between.
func (r Roles) String() string { return strings.Join(r, " ") }

// AllowsVLAN says whether frames with this tag may pass: all of them, unless
// there is a vlan= list without it. Tag 0 only carries a priority.
func (r Roles) AllowsVLAN(id uint16) bool {
	for _, role := range r {
		if list, ok := strings.CutPrefix(role, vlanPrefix); ok {
			vlans, err := parseVLANs(list)
			return id == 0 || err == nil && vlans.has(id)
		}
	}
	return true
}

// vlanRange is first to last, both included.
type vlanRange struct{ first, last uint16 }

type vlanSet []vlanRange

// parseVLANs reads "10,20-29" or "none".
func parseVLANs(list string) (vlanSet, error) {
	if list == "none" {
		return nil, nil
	}
	var set vlanSet
	for item := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(item, "-")
		if !isRange {
			high = low
		}
		first, err1 := strconv.ParseUint(low, 10, 12)
		last, err2 := strconv.ParseUint(high, 10, 12)
		if err1 != nil || err2 != nil || first < 1 || last > 4094 || first > last {
			return nil, fmt.Errorf("%.20q is no VLAN: want none, or numbers and ranges from 1 to 4094 such as 10,20-29", item)
		}
		set = append(set, vlanRange{uint16(first), uint16(last)})
		if len(set) > 64 {
			return nil, fmt.Errorf("more than 64 ranges")
		}
	}
	return set.merge(), nil
}

// merge sorts ranges and joins those that touch.
func (s vlanSet) merge() vlanSet {
	slices.SortFunc(s, func(a, b vlanRange) int { return int(a.first) - int(b.first) })
	out := s[:1]
	for _, r := range s[1:] {
		if last := &out[len(out)-1]; r.first <= last.last+1 {
			last.last = max(last.last, r.last)
			continue
		}
		out = append(out, r)
	}
	return out
}

func (s vlanSet) has(id uint16) bool {
	return slices.ContainsFunc(s, func(r vlanRange) bool { return r.first <= id && id <= r.last })
}

// String is the one form that parseVLANs gives back.
func (s vlanSet) String() string {
	if len(s) == 0 {
		return "none"
	}
	items := make([]string, len(s))
	for i, r := range s {
		items[i] = strconv.Itoa(int(r.first))
		if r.last != r.first {
			items[i] += "-" + strconv.Itoa(int(r.last))
		}
	}
	return strings.Join(items, ",")
}
