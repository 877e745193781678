package traversal

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// source is the address that a socket with this mark would send from to the rest
// of the world. One of another interface than the packets leave by does not
// count: the kernel takes it, such as the mesh's own, when that has none.
func source(v6 bool, mark uint32) (netip.Addr, bool) {
	dst := outside(v6)
	routes, err := netlink.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{Mark: mark})
	if err != nil || len(routes) == 0 {
		return netip.Addr{}, false
	}
	a, ok := netip.AddrFromSlice(routes[0].Src)
	a = a.Unmap()
	if !ok || a.Is6() != v6 || a.IsUnspecified() || a.Is6() && a.IsLinkLocalUnicast() {
		return netip.Addr{}, false
	}
	return a, belongs(a, routes[0].LinkIndex)
}

// belongs reports whether an address is the interface's, or of loopback, where
// routers have theirs.
func belongs(a netip.Addr, link int) bool {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return true // not known
	}
	for _, own := range addrs {
		ip, ok := netip.AddrFromSlice(own.IP)
		if !ok || ip.Unmap() != a {
			continue
		}
		if own.LinkIndex == link {
			return true
		}
		if l, err := net.InterfaceByIndex(own.LinkIndex); err == nil && l.Flags&net.FlagLoopback != 0 {
			return true
		}
	}
	return false
}
