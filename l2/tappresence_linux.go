package l2

import (
	"bytes"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Presence says which IP addresses the host has at the TAP's MAC, and whether the TAP is
// in a bridge, so that other hosts may be behind it.
func (t *TAP) Presence() (addrs []netip.Addr, bridged bool) {
	link, err := t.nl.LinkByIndex(t.index)
	if err != nil {
		return nil, false
	}
	links := []netlink.Link{link}
	if at := link.Attrs().MasterIndex; at != 0 {
		bridged = true
		master, err := t.nl.LinkByIndex(at)
		if err == nil && bytes.Equal(master.Attrs().HardwareAddr, link.Attrs().HardwareAddr) {
			links = append(links, master)
		}
	}
	for _, link := range links {
		list, err := t.nl.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			continue
		}
		for _, a := range list {
			if ip, ok := netip.AddrFromSlice(a.IP); ok {
				addrs = append(addrs, ip.Unmap())
			}
		}
	}
	return addrs, bridged
}
