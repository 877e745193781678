package record

import (
	"net/netip"
	"testing"
	"time"
)

func TestTerms(t *testing.T) {
	p := netip.MustParsePrefix("2001:db8:1:2::/64")
	at := time.Unix(2_000_000_000, 0)
	for _, c := range []struct {
		name, value string
		want        Terms
	}{
		{"none", "", Terms{DefaultLifetime, time.Time{}}},
		{"lifetime", "60", Terms{time.Minute, time.Time{}}},
		{"removed", "60 2000000000", Terms{time.Minute, at}},
		{"too short", "1", Terms{MinLifetime, time.Time{}}},
		{"too long", "2147483647", Terms{MaxLifetime, time.Time{}}},
		{"negative", "-5 -7", Terms{MinLifetime, time.Time{}}},
		{"of a later version", "x y z", Terms{DefaultLifetime, time.Time{}}},
	} {
		n := Network{Settings: map[string]string{"prefix/2001:db8:1:2::/64": c.value}}
		if got := n.Terms(p); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestPrefixesComeAndGo(t *testing.T) {
	old, young := netip.MustParsePrefix("2001:db8::/64"), netip.MustParsePrefix("2001:db8:ffff:ffff::/64")
	before := Network{Name: "home", Prefixes: []netip.Prefix{old}, MTU: 1500}
	until := time.Unix(2_000_000_000, 0)
	n := before.WithPrefix(young, Terms{Lifetime: DefaultLifetime}).WithPrefix(old, Terms{time.Hour, until})
	if err := n.check(); err != nil {
		t.Fatal(err)
	}
	if len(before.Prefixes) != 1 || before.Settings != nil {
		t.Errorf("the record before has changed: %+v", before)
	}
	if got := n.Settings["prefix/2001:db8::/64"]; got != "3600 2000000000" || len(n.Settings) != 1 {
		t.Errorf("settings: %q", n.Settings)
	}
	if got := n.WithoutGone(until.Add(-time.Second)); !got.Equal(n) {
		t.Errorf("a second before: %+v", got)
	}
	if got := n.WithoutGone(until); len(got.Prefixes) != 1 || got.Prefixes[0] != young || len(got.Settings) != 0 {
		t.Errorf("after: %+v", got)
	}
	if again := n.WithPrefix(old, Terms{Lifetime: DefaultLifetime}); len(again.Settings) != 0 || len(again.Prefixes) != 2 {
		t.Errorf("taken back: %+v", again)
	}
}
