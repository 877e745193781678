package keys

import (
	"net/netip"
	"testing"
)

// TestRouterMAC holds what all members must agree on.
func TestRouterMAC(t *testing.T) {
	a, b := netip.MustParsePrefix("2001:db8:1::/64"), netip.MustParsePrefix("2001:db8:2::/64")
	var network NetworkID
	one, other := RouterMAC(network, a), RouterMAC(network, b)
	if one == other || [3]byte(one[:3]) != [3]byte(other[:3]) || one[0]&3 != 2 {
		t.Errorf("%x, %x", one, other)
	}
	network[0] = 1
	if RouterMAC(network, a) == one {
		t.Error("two networks have one router")
	}
}
