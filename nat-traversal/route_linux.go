package traversal

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// source is the address that a socket with this mark would send from to the rest
// of the world.
func source(v6 bool, mark uint32) (netip.Addr, bool) {
	dst := outside(v6)
	routes, err := netlink.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{Mark: mark})
	if err != nil || len(routes) == 0 {
		return netip.Addr{}, false
	}
	a, ok := netip.AddrFromSlice(routes[0].Src)
	return a.Unmap(), ok && a.Unmap().Is6() == v6 && !a.IsUnspecified()
}
