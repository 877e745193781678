package snoop

import (
	"net/netip"
	"slices"
	"time"
)

// SetRemote says which groups hosts elsewhere listen to, in ascending order.
func (t *Table) SetRemote(groups []Group) { t.remote = groups[:min(len(groups), maxRemote)] }

// speak says what has changed of what hosts elsewhere listen to, in the VLANs that are here. It returns when it will go on.
func (t *Table) speak(now time.Duration) (next time.Duration) {
	var joined, left []Group
	here := func(g Group) bool { return t.vlans[g.VLAN] != nil }
	for _, g := range t.remote {
		if _, spoken := t.spoken[g]; !spoken && here(g) {
			joined = append(joined, g)
		}
	}
	for g := range t.spoken {
		if _, still := slices.BinarySearchFunc(t.remote, g, Group.Compare); !still || !here(g) {
			left = append(left, g)
		}
	}
	if len(joined)+len(left) == 0 {
		return never
	}
	if now < t.quiet {
		return t.quiet
	}
	t.quiet = now + speakEvery
	for _, g := range joined {
		t.spoken[g] = struct{}{}
	}
	for _, g := range left {
		delete(t.spoken, g)
	}
	slices.SortFunc(left, Group.Compare)
	t.say(joined, Join)
	t.say(left, Leave)
	return never
}

// say sends reports of groups, which are in order: those of one VLAN and family together.
func (t *Table) say(groups []Group, c Change) {
	for len(groups) > 0 {
		first, n := groups[0], 0
		var addrs []netip.Addr
		for n < len(groups) && groups[n].VLAN == first.VLAN && groups[n].Addr.Is6() == first.Addr.Is6() {
			addrs = append(addrs, groups[n].Addr)
			n++
		}
		groups = groups[n:]
		if v := t.vlans[first.VLAN]; v != nil {
			f := v.family(first.Addr.Is6())
			t.out = append(t.out, t.reports(v.id, f.v6, f.other.version, addrs, c)...)
		}
	}
}

// speakAll answers a general query for hosts elsewhere.
func (t *Table) speakAll(v *vlan, f *family) {
	var groups []netip.Addr
	for g := range t.spoken {
		if g.VLAN == v.id && g.Addr.Is6() == f.v6 {
			groups = append(groups, g.Addr)
		}
	}
	slices.SortFunc(groups, netip.Addr.Compare)
	t.out = append(t.out, t.reports(v.id, f.v6, f.other.version, groups, Join)...)
}
