//go:build !linux

package traversal

import (
	"net"
	"net/netip"
)

// interfaceAddrs asks Go, which does not know the addresses' states.
func interfaceAddrs() ([]ifAddr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []ifAddr
	for _, ifi := range interfaces {
		if ifi.Flags&net.FlagUp == 0 || ifi.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			continue // the interface is gone
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					out = append(out, ifAddr{ifname: ifi.Name, addr: ip.Unmap()})
				}
			}
		}
	}
	return out, nil
}
