package nat64

import (
	"net/netip"
	"slices"
	"testing"
)

// TestRFC6052 has the examples of section 2.4, with the network-specific prefixes; 192.0.2.33 each time.
func TestRFC6052(t *testing.T) {
	v4 := netip.MustParseAddr("192.0.2.33")
	for prefix, want := range map[string]string{
		"2001:db8::/32":         "2001:db8:c000:221::",
		"2001:db8:100::/40":     "2001:db8:1c0:2:21::",
		"2001:db8:122::/48":     "2001:db8:122:c000:2:2100::",
		"2001:db8:122:300::/56": "2001:db8:122:3c0:0:221::",
		"2001:db8:122:344::/64": "2001:db8:122:344:c0:2:2100:0",
		"2001:db8:122:344::/96": "2001:db8:122:344::c000:221",
		"64:ff9b::/96":          "64:ff9b::c000:221",
	} {
		p := netip.MustParsePrefix(prefix)
		got, ok := Synthesize(p, v4)
		if !ok || got != netip.MustParseAddr(want) {
			t.Errorf("%s: %v, %v; want %s", prefix, got, ok, want)
			continue
		}
		if back, ok := Extract(netip.PrefixFrom(got, p.Bits()).Masked(), got); !ok || back != v4 {
			t.Errorf("%s: back to %v, %v", prefix, back, ok)
		}
	}
}

func TestSynthesizeRefuses(t *testing.T) {
	good := netip.MustParsePrefix("64:ff9b::/96")
	for _, v4 := range []string{"192.168.1.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.1.1", "224.0.0.1", "0.0.0.0", "255.255.255.255", "2001:db8::1"} {
		if a, ok := Synthesize(good, netip.MustParseAddr(v4)); ok {
			t.Errorf("%s becomes %v", v4, a)
		}
	}
	for _, p := range []string{"64:ff9b::/95", "2001:db8::/0", "2001:db8::/128", "10.0.0.0/32"} {
		if a, ok := Synthesize(netip.MustParsePrefix(p), netip.MustParseAddr("8.8.8.8")); ok {
			t.Errorf("behind %s: %v", p, a)
		}
	}
	if _, ok := Synthesize(netip.Prefix{}, netip.MustParseAddr("8.8.8.8")); ok {
		t.Error("behind no prefix")
	}
}

func TestPrefixes(t *testing.T) {
	for _, test := range []struct {
		name    string
		answers []string
		want    []string
	}{
		{"none", nil, nil},
		{"no DNS64", []string{"192.0.0.170", "192.0.0.171"}, nil},
		{"the well-known prefix, both addresses", []string{"64:ff9b::c000:aa", "64:ff9b::c000:ab"}, []string{"64:ff9b::/96"}},
		{"a /64", []string{"2001:db8:122:344:c0:0:aa00:0"}, []string{"2001:db8:122:344::/64"}},
		{"a /32", []string{"2001:db8:c000:aa::"}, []string{"2001:db8::/32"}},
		{"two", []string{"64:ff9b::c000:aa", "2001:db8:1::c000:ab"}, []string{"64:ff9b::/96", "2001:db8:1::/96"}},
		{"a lie", []string{"2001:db8::1", "::1", "::ffff:192.0.0.170"}, nil},
		{"ambiguous", []string{"2001:db8:c000:aa::c000:aa"}, nil},
		{"no prefix at all", []string{"::c000:aa"}, nil},
		{"u is not zero", []string{"2001:db8:1:2:3030::c000:aa"}, nil},
		{"link-local", []string{"fe80::c000:aa"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var answers []netip.Addr
			for _, a := range test.answers {
				answers = append(answers, netip.MustParseAddr(a))
			}
			var want []netip.Prefix
			for _, p := range test.want {
				want = append(want, netip.MustParsePrefix(p))
			}
			if got := Prefixes(answers); !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
}

func FuzzPrefixes(f *testing.F) {
	for _, s := range []string{"64:ff9b::c000:aa", "2001:db8:122:344:c0:0:aa00:0", "2001:db8:c000:aa::", "3030:3030:3030:3030:3030:3030:c000:aa"} {
		a := netip.MustParseAddr(s).As16()
		f.Add(a[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != 16 {
			return
		}
		a := netip.AddrFrom16([16]byte(b))
		for _, p := range Prefixes([]netip.Addr{a}) {
			v4, ok := Extract(p, a)
			if w := wellKnown(); !ok || v4 != w[0] && v4 != w[1] {
				t.Fatalf("%v: prefix %v has %v in it", a, p, v4)
			}
			if got, ok := Synthesize(p, netip.MustParseAddr("198.18.0.1")); !ok || !p.Contains(got) {
				t.Fatalf("behind %v: %v, %v", p, got, ok)
			}
		}
	})
}
