package main

import (
	"net/netip"
	"strings"
	"testing"

	"meshd/mesh"
	"meshd/mesh/api"
)

func TestRoutingFlags(t *testing.T) {
	c := upConfig(t, "")
	if c.Gateway || c.DefaultRoute != mesh.DefaultAuto || c.DHCP4.IsValid() || len(c.RouterDNS) != 0 {
		t.Errorf("by default: %+v", c)
	}
	c = upConfig(t, "", "--gateway", "--default-route", "never", "--dhcp4", "192.0.2.0/24", "--ra-dns", "2001:db8::53", "--ra-dns", "192.0.2.1")
	if !c.Gateway || c.DefaultRoute != mesh.DefaultNever || c.DHCP4.String() != "192.0.2.0/24" || len(c.RouterDNS) != 2 {
		t.Errorf("%+v", c)
	}
	for _, bad := range [][]string{
		{"--default-route", "maybe"},
		{"--gateway", "--no-tap"},
		{"--ra-preference", "highest"},
		{"--dhcp4", "192.0.2.0"},
		{"--dhcp4", "192.0.2.1/24"},
		{"--dhcp4", "10.0.0.0/8"},
		{"--dhcp4", "192.0.2.0/30"},
		{"--dhcp4", "224.0.0.0/24"},
		{"--dhcp4", "fd00::/64"},
		{"--dhcp4", "192.0.2.0/24", "--no-tap"},
		{"--ra-dns", "home.example"},
		{"--ra-dns", "::1"},
	} {
		f := &upFlags{}
		cmd := newUp(&app{})
		if err := cmd.ParseFlags(bad); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"default-route", "dhcp4", "ra-preference"} {
			v, err := cmd.Flags().GetString(name)
			if err != nil {
				t.Fatal(err)
			}
			*map[string]*string{"default-route": &f.defaultRoute, "dhcp4": &f.dhcp4, "ra-preference": &f.raPreference}[name] = v
		}
		f.gateway, _ = cmd.Flags().GetBool("gateway")
		f.noTAP, _ = cmd.Flags().GetBool("no-tap")
		f.raDNS, _ = cmd.Flags().GetStringArray("ra-dns")
		if err := f.routing(new(nodeConfig)); api.CodeOf(err) != api.CodeUsage {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestGatewayRows(t *testing.T) {
	p := netip.MustParsePrefix("2001:db8::/64")
	g := &api.Gateway{
		Routers: []api.PrefixRouter{
			{Prefix: p, Member: "home", State: api.RouterActive, Uplink: api.UplinkUp, Interface: "eth0", Address: netip.MustParseAddr("fe80::1"), MAC: "02:00:00:00:00:01"},
			{Prefix: p, Member: "evil\x1b[2J", State: api.RouterStandby, Uplink: api.UplinkNone, Address: netip.MustParseAddr("fe80::1")},
		},
		DefaultRoutes: []api.DefaultRoute{{Router: netip.MustParseAddr("fe80::1"), Seconds: 1800, Taken: true}},
		DHCP4:         &api.DHCP4{Subnet: netip.MustParsePrefix("192.0.2.0/24"), Router: netip.MustParseAddr("192.0.2.1"), Leases: []api.Lease{{}, {}}},
	}
	text := style{}.table(gatewayRows(g))
	for _, want := range []string{
		"2001:db8::/64", "home", "active     uplink up (eth0)  fe80::1 at 02:00:00:00:00:01", "standby    uplink none", "192.0.2.1", "2 leases", "taken", "for 30m0s",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("a name that speaks to the terminal: %q", text)
	}
}
