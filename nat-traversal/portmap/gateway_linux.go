package portmap

import (
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// defaultRoute is the way to the rest of the world for one family, as a socket
// with this mark would go. Not ok without a router: nobody is there to be asked.
func defaultRoute(v6 bool, mark uint32) (Route, bool) {
	dst := net.ParseIP("192.0.2.1") // documentation prefixes
	if v6 {
		dst = net.ParseIP("2001:db8::1")
	}
	routes, err := netlink.RouteGetWithOptions(dst, &netlink.RouteGetOptions{Mark: mark})
	if err != nil || len(routes) == 0 {
		return Route{}, false
	}
	gateway, ok := netip.AddrFromSlice(routes[0].Gw)
	source, ok2 := netip.AddrFromSlice(routes[0].Src)
	gateway, source = gateway.Unmap(), source.Unmap()
	if !ok || !ok2 || gateway.IsUnspecified() || source.IsUnspecified() || gateway.Is6() != v6 {
		return Route{}, false
	}
	if gateway.IsLinkLocalUnicast() && v6 {
		link, err := net.InterfaceByIndex(routes[0].LinkIndex)
		if err != nil {
			return Route{}, false
		}
		gateway = gateway.WithZone(link.Name)
	}
	return Route{Gateway: gateway, Source: source}, true
}

// marker prepares sockets so that they go around the mesh. Who may not mark goes
// without, as the node's other sockets do.
func marker(mark uint32) control {
	if mark == 0 {
		return nil
	}
	return func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) })
	}
}
