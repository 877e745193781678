package directory

import (
	"net/netip"
	"testing"

	"meshd/mesh/record"
)

func listensTo(ips ...string) record.Groups {
	v := record.GroupsVLAN{}
	for _, s := range ips {
		v.IPs = append(v.IPs, netip.MustParseAddr(s))
	}
	return record.Groups{VLANs: []record.GroupsVLAN{v}}
}

func TestGroupsAreSignedOnlyWhenChanged(t *testing.T) {
	a := newAuthority(t)
	id, cert := a.member("self")
	d := New(a.trust, id.ID())
	if _, err := d.SetGroups(listensTo()); err == nil {
		t.Error("signed without identity")
	}
	d.Own(id, 5)
	d.Merge([][]byte{cert}, testNow())
	if d.Member(id.ID()).Groups != nil {
		t.Error("groups before anything was said")
	}
	first, err := d.SetGroups(listensTo("239.1.1.1"))
	check(t, err)
	again, err := d.SetGroups(listensTo("239.1.1.1"))
	check(t, err)
	second, err := d.SetGroups(listensTo())
	check(t, err)
	if first == nil || again != nil || second == nil || !d.Member(id.ID()).Groups.Equal(listensTo()) {
		t.Errorf("first %d bytes, again %d, second %d: %+v", len(first), len(again), len(second), d.Member(id.ID()).Groups)
	}

	other := New(a.trust, a.signer.ID())
	_, res := other.Merge([][]byte{second, cert, first}, testNow()) // in any order
	if m := other.Member(id.ID()); !m.Groups.Equal(listensTo()) || len(res.Changed) != 1 {
		t.Errorf("another has %+v, changed %v", m.Groups, res.Changed)
	}
	restarted := New(a.trust, id.ID())
	restarted.Own(id, 6)
	if res := restarted.Load(d.Snapshot(), testNow()); len(res.Alarms) > 0 {
		t.Errorf("an ordinary restart alarms: %v", res.Alarms)
	}
	third, err := restarted.SetGroups(listensTo())
	check(t, err)
	if third == nil || restarted.Epoch() != 6 {
		t.Errorf("a new start says nothing of its own, or in epoch %d", restarted.Epoch())
	}
	if _, res := other.Merge([][]byte{third}, testNow()); len(res.Alarms) > 0 || len(res.Rejected) > 0 {
		t.Errorf("it is refused: %+v", res)
	}
}

// A node whose state was lost finds its own records at others, ahead of it.
func TestGroupsMoveAboveWhatComesBack(t *testing.T) {
	a := newAuthority(t)
	id, cert := a.member("self")
	d := New(a.trust, id.ID())
	d.Own(id, 2)
	d.Merge([][]byte{cert}, testNow())
	_, err := d.SetGroups(listensTo("239.1.1.1"))
	check(t, err)
	back, err := record.SignGroups(id, a.trust.NetworkID(), record.Version{Epoch: 9, Counter: 3}, listensTo("239.9.9.9"))
	check(t, err)
	d.Merge([][]byte{back}, testNow())
	raw, err := d.SetGroups(listensTo("239.1.1.1"))
	check(t, err)
	r, err := record.Parse(raw)
	check(t, err)
	if (r.Version != record.Version{Epoch: 10, Counter: 1}) || d.Epoch() != 10 || !d.Member(id.ID()).Groups.Equal(listensTo("239.1.1.1")) {
		t.Errorf("version %v, epoch %d, %+v", r.Version, d.Epoch(), d.Member(id.ID()).Groups)
	}
}
