package record

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"

	"meshd/keys"
	"meshd/keys/canon"
)

func somePage() Stations {
	return Stations{Page: 3, Stations: []Station{
		{MAC: [6]byte{2, 0, 0, 0, 0, 1}, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")}},
		{MAC: [6]byte{2, 0, 0, 0, 0, 2}, Seq: 300, Router: true, Segment: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{VLAN: 7, MAC: [6]byte{2, 0, 0, 0, 0, 1}},
	}}
}

func TestStationsOnTheWire(t *testing.T) {
	b, err := canon.Marshal(somePage().wire())
	check(t, err)
	const want = "82" + "03" + "83" +
		"86" + "00" + "46020000000001" + "00" + "00" + "40" + "82" + "440a000007" + "50fd000000000000000000000000000007" +
		"86" + "00" + "46020000000002" + "19012c" + "01" + "480102030405060708" + "80" +
		"86" + "07" + "46020000000001" + "00" + "00" + "40" + "80"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

func TestStationsRoundTrip(t *testing.T) {
	id, network := identity(t), keys.NetworkID{1}
	raw, err := SignStations(id, network, Version{3, 4}, somePage())
	check(t, err)
	r, err := Parse(raw)
	check(t, err)
	check(t, r.Verify(network, id.Public()))
	if !r.Stations.Equal(somePage()) || r.Key != (Key{Type: TypeStations, Owner: id.ID(), Page: 3}) || r.Version != (Version{3, 4}) {
		t.Errorf("%v %v %v", r.Key, r.Version, r.Stations)
	}
	if err := r.Verify(keys.NetworkID{2}, id.Public()); !errors.Is(err, ErrSignature) {
		t.Errorf("in another network: %v", err)
	}
}

func TestStationsThatNobodyMayHave(t *testing.T) {
	mac := [6]byte{2, 0, 0, 0, 0, 1}
	var nine []netip.Addr
	for i := range byte(MaxIPs + 1) {
		nine = append(nine, netip.AddrFrom4([4]byte{10, 0, 0, i + 1}))
	}
	ip := func(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }
	for name, list := range map[string][]Station{
		"a group":           {{MAC: [6]byte{3}}},
		"no MAC":            {{}},
		"VLAN 4095":         {{VLAN: 4095, MAC: mac}},
		"an address of all": {{MAC: mac, IPs: ip("255.255.255.255")}},
		"loopback":          {{MAC: mac, IPs: ip("::1")}},
		"a group's address": {{MAC: mac, IPs: ip("ff02::1")}},
		"nothing":           {{MAC: mac, IPs: ip("::")}},
		"an invalid one":    {{MAC: mac, IPs: []netip.Addr{{}}}},
		"nine addresses":    {{MAC: mac, IPs: nine}},
		"twice":             {{MAC: mac}, {MAC: mac}},
		"out of order":      {{VLAN: 1, MAC: mac}, {MAC: mac}},
		"addresses twice":   {{MAC: mac, IPs: append(ip("fd00::1"), ip("fd00::1")...)}},
		"too many":          make([]Station, MaxStations+1),
	} {
		if _, err := SignStations(identity(t), keys.NetworkID{}, Version{}, Stations{Stations: list}); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := SignStations(identity(t), keys.NetworkID{}, Version{}, Stations{Page: MaxPages}); !errors.Is(err, ErrInvalid) {
		t.Errorf("page %d: %v", MaxPages, err)
	}
	ws := wireStation{MAC: mac, Segment: []byte{}, IPs: [][]byte{}}
	for name, change := range map[string]func(w *wireStation){
		"an unknown flag":      func(w *wireStation) { w.Flags = 2 },
		"a segment of 7 bytes": func(w *wireStation) { w.Segment = make([]byte, 7) },
		"a segment of zeros":   func(w *wireStation) { w.Segment = make([]byte, 8) },
		"an address of 5":      func(w *wireStation) { w.IPs = [][]byte{{1, 2, 3, 4, 5}} },
	} {
		bad := ws
		change(&bad)
		b, err := canon.Marshal(wireStations{Stations: []wireStation{bad}})
		check(t, err)
		if _, err := parseStations(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
