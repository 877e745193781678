package traversal

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestRank(t *testing.T) {
	host := func(ifname, a string) ifAddr { return ifAddr{ifname: ifname, addr: addr(a)} }
	for _, c := range []struct {
		name    string
		addrs   []ifAddr
		sources []string
		exclude func(string, netip.Addr) bool
		want    string
	}{
		{name: "nothing"},
		{
			name:  "never usable",
			addrs: []ifAddr{host("lo", "127.0.0.1"), host("eth0", "fe80::1"), host("lo", "::1"), host("eth0", "ff02::1")},
		},
		{
			name:    "default sources first",
			addrs:   []ifAddr{host("eth0", "10.0.0.1"), host("eth1", "198.18.0.1"), host("eth1", "2001:db8::1"), host("eth0", "2001:db8:1::1")},
			sources: []string{"198.18.0.1", "2001:db8:1::1"},
			want:    "2001:db8:1::1 198.18.0.1 10.0.0.1 2001:db8::1",
		},
		{
			name: "worse and worse",
			addrs: []ifAddr{
				{ifname: "eth0", addr: addr("2001:db8::5"), tentative: true},
				{ifname: "eth0", addr: addr("2001:db8::4"), deprecated: true},
				host("eth0", "169.254.3.3"),
				host("docker0", "172.17.0.1"),
				host("wg0", "10.9.0.1"),
				host("eth1", "192.168.0.9"),
				host("eth0", "192.168.0.1"),
			},
			sources: []string{"192.168.0.9", "10.9.0.1"}, // a VPN's default route does not make it better
			want:    "192.168.0.9 192.168.0.1 172.17.0.1 10.9.0.1 169.254.3.3 2001:db8::4 2001:db8::5",
		},
		{
			name:  "excluded by interface and by address",
			addrs: []ifAddr{host("mesh0", "10.1.1.1"), host("br0", "fd00::1"), host("br0", "192.168.7.1")},
			exclude: func(ifname string, a netip.Addr) bool {
				return ifname == "mesh0" || netip.MustParsePrefix("fd00::/64").Contains(a)
			},
			want: "192.168.7.1",
		},
		{
			name:  "twice the same",
			addrs: []ifAddr{host("eth0", "10.0.0.1"), host("eth1", "10.0.0.1"), host("eth0", "::ffff:10.0.0.1")},
			want:  "10.0.0.1",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sources []netip.Addr
			for _, s := range c.sources {
				sources = append(sources, addr(s))
			}
			addrs := slices.Clone(c.addrs)
			for range 2 { // in any order
				var got []string
				for _, k := range rank(addrs, sources, 7, c.exclude) {
					if k.Kind != Host || k.Addr.Port() != 7 {
						t.Errorf("candidate %v", k)
					}
					got = append(got, k.Addr.Addr().String())
				}
				if s := strings.Join(got, " "); s != c.want {
					t.Errorf("got  %s\nwant %s", s, c.want)
				}
				slices.Reverse(addrs)
			}
		})
	}
}

func TestGatherHere(t *testing.T) {
	first, err := Gather(51830, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range first {
		if !UsableEndpoint(c.Addr) {
			t.Errorf("candidate %v is not usable", c)
		}
	}
	none, err := Gather(51830, func(string, netip.Addr) bool { return true })
	if err != nil || len(none) != 0 {
		t.Errorf("with all excluded: %v, %v", none, err)
	}
}
