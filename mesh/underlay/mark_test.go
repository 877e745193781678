package underlay

import (
	"net/netip"
	"slices"
	"testing"
)

func TestMark(t *testing.T) {
	if Mark("") != 0 {
		t.Error("no TAP has a mark")
	}
	if Mark("mesh0") == Mark("mesh1") || Mark("mesh0")>>16 != 0x6d65 {
		t.Errorf("%#x, %#x", Mark("mesh0"), Mark("mesh1"))
	}
}

func TestHidden(t *testing.T) {
	in := func(s string) route { return route{netip.MustParsePrefix(s), true} }
	out := func(s string) route { return route{netip.MustParsePrefix(s), false} }
	for _, c := range []struct {
		name   string
		routes []route
		want   []int
	}{
		{"none inside", []route{out("::/0"), out("2001:db8::/64")}, nil},
		{"the same /64", []route{in("2001:db8::/64"), out("2001:db8::/64"), out("::/0")}, []int{1, 2}},
		{"a more specific one is found anyway", []route{in("2001:db8::/64"), out("2001:db8::1/128")}, nil},
		{"beside it", []route{in("fd00::/64"), out("2001:db8::/64"), out("fd00:0:0:1::/64")}, nil},
		{"a default route inside hides the other", []route{in("::/0"), out("::/0"), out("2001:db8::/32")}, []int{1}},
		{"other family", []route{in("::/0"), out("0.0.0.0/0")}, nil},
	} {
		if got := hidden(c.routes); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
