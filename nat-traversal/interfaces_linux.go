package traversal

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// interfaceAddrs asks by netlink, which also knows each address's state.
func interfaceAddrs() ([]ifAddr, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // what came is good; Watch will have us look again
		return nil, err
	}
	names := make(map[int]string)
	for _, l := range links {
		if attrs := l.Attrs(); attrs.Flags&net.FlagUp != 0 && attrs.Flags&net.FlagLoopback == 0 {
			names[attrs.Index] = attrs.Name
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	var out []ifAddr
	for _, a := range addrs {
		name, up := names[a.LinkIndex]
		ip, ok := netip.AddrFromSlice(a.IP)
		if !up || !ok {
			continue
		}
		out = append(out, ifAddr{
			ifname:     name,
			addr:       ip.Unmap(),
			tentative:  a.Flags&unix.IFA_F_TENTATIVE != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0 || a.Flags&unix.IFA_F_DADFAILED != 0,
			deprecated: a.Flags&unix.IFA_F_DEPRECATED != 0,
		})
	}
	return out, nil
}
