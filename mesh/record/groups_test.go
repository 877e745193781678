package record

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"

	"meshd/keys"
	"meshd/keys/canon"
)

func group(s string) netip.Addr { return netip.MustParseAddr(s) }

func someGroups() Groups {
	return Groups{VLANs: []GroupsVLAN{
		{IPs: []netip.Addr{group("224.0.1.129"), group("239.1.2.3"), group("ff15::4d:1")}}, {VLAN: 5}, {VLAN: 4094, IPs: []netip.Addr{group("239.1.2.3")}},
	}}
}

func TestGroupsRoundTrip(t *testing.T) {
	id, network := identity(t), keys.NetworkID{1}
	for name, g := range map[string]Groups{
		"none": {}, "some": someGroups(), "all": {All: true}, "a router": {Router: true, VLANs: []GroupsVLAN{{}}}, "both": {All: true, Router: true},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := SignGroups(id, network, Version{3, 4}, g)
			check(t, err)
			r, err := Parse(raw)
			check(t, err)
			check(t, r.Verify(network, id.Public()))
			if !r.Groups.Equal(g) || r.Version != (Version{3, 4}) || r.Key != (Key{Type: TypeGroups, Owner: id.ID()}) {
				t.Errorf("%v %v %+v", r.Key, r.Version, r.Groups)
			}
			if err := r.Verify(network, identity(t).Public()); !errors.Is(err, ErrSignature) {
				t.Errorf("as another's: %v", err)
			}
		})
	}
}

// The body, byte for byte: flags, then VLANs with their addresses.
func TestGroupsBytes(t *testing.T) {
	for want, g := range map[string]Groups{
		"820080": {}, "820180": {All: true}, "820380": {All: true, Router: true},
		"820282820083" + "44e0000181" + "44ef010203" + "50ff1500000000000000000000004d0001" + "820580": {
			Router: true, VLANs: someGroups().VLANs[:2],
		},
	} {
		b, err := canon.Marshal(g.wire())
		check(t, err)
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("%+v:\n%s, want\n%s", g, got, want)
		}
		back, err := parseGroups(b)
		if err != nil || !back.Equal(g) {
			t.Errorf("%s: %+v, %v", want, back, err)
		}
	}
}

func TestGroupsFit(t *testing.T) {
	if g := someGroups(); !g.Fit().Equal(g) {
		t.Errorf("what fits was changed: %+v", g.Fit())
	}
	for name, g := range map[string]Groups{
		"IPv4": {VLANs: []GroupsVLAN{{}}}, "IPv6, behind a router": {Router: true, VLANs: []GroupsVLAN{{}}},
	} {
		ips, most := &g.VLANs[0].IPs, 0
		for i := range 1000 {
			a := netip.AddrFrom4([4]byte{239, 1, byte(i >> 8), byte(i)})
			if g.Router {
				a = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x15, 14: byte(i >> 8), 15: byte(i)})
			}
			*ips = append(*ips, a)
			raw, err := SignGroups(identity(t), keys.NetworkID{}, Version{}, g.Fit())
			if err != nil || len(raw) > 1000 {
				t.Fatalf("%s: %d groups make %d bytes: %v", name, i+1, len(raw), err)
			}
			if !g.Fit().All {
				most = i + 1
			}
		}
		if f := g.Fit(); !f.All || f.Router != g.Router || most < 50 {
			t.Errorf("%s: %d groups fit; a thousand became %+v", name, most, f)
		}
		t.Logf("%s: %d groups fit", name, most)
	}
}

func TestGroupsThatNoneMaySay(t *testing.T) {
	vlan := func(id uint16, ips ...string) (v GroupsVLAN) {
		v.VLAN = id
		for _, s := range ips {
			v.IPs = append(v.IPs, group(s))
		}
		return v
	}
	for name, g := range map[string]Groups{
		"unicast":          {VLANs: []GroupsVLAN{vlan(0, "10.0.0.1")}},
		"unicast 6":        {VLANs: []GroupsVLAN{vlan(0, "fd00::1")}},
		"zone":             {VLANs: []GroupsVLAN{vlan(0, "ff02::1%x")}},
		"twice":            {VLANs: []GroupsVLAN{vlan(0, "239.1.1.1", "239.1.1.1")}},
		"out of order":     {VLANs: []GroupsVLAN{vlan(0, "239.1.1.2", "239.1.1.1")}},
		"VLAN twice":       {VLANs: []GroupsVLAN{vlan(1), vlan(1)}},
		"VLANs in a mess":  {VLANs: []GroupsVLAN{vlan(2), vlan(1)}},
		"VLAN 4095":        {VLANs: []GroupsVLAN{vlan(4095)}},
		"all and some too": {All: true, VLANs: []GroupsVLAN{vlan(0)}},
	} {
		if _, err := SignGroups(identity(t), keys.NetworkID{}, Version{}, g); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s was signed: %v", name, err)
		}
		if name == "zone" { // the encoding has no place for it
			continue
		}
		if _, err := Parse(forge(t, TypeGroups, g.wire())); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s was taken: %v", name, err)
		}
	}
	for name, body := range map[string]any{
		"unknown flag": []any{4, []any{}}, "null list": []any{0, nil}, "null IPs": []any{0, []any{[]any{0, nil}}}, "five bytes": []any{0, []any{[]any{0, []any{make([]byte, 5)}}}},
		"unknown field": []any{0, []any{}, 1}, "IPv4 in IPv6": []any{0, []any{[]any{0, []any{append(make([]byte, 10), 255, 255, 239, 1, 1, 1)}}}},
	} {
		if _, err := Parse(forge(t, TypeGroups, body)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
