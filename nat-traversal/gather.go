package traversal

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ifAddr is an address of an interface, as the system tells it.
type ifAddr struct {
	ifname     string
	addr       netip.Addr
	tentative  bool // duplicate address detection has not finished, or has failed
	deprecated bool // not to be used for new connections (RFC 4862, 5.5.4)
}

// Gather lists the addresses of this host's interfaces that are up, with port,
// the most promising first; equal ones are in the order of interface name and
// address, so that an unchanged host gives an unchanged list.
//
// exclude (which may be nil) keeps out what must not be a candidate: the mesh's
// own TAP and prefixes. Loopback and multicast are never in, nor is link-local
// IPv6, even if it is all there is: another host would need a zone of its own to
// send to it.
func Gather(port uint16, exclude func(ifname string, a netip.Addr) bool) ([]Candidate, error) {
	addrs, err := interfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces' addresses: %w", err)
	}
	var sources []netip.Addr
	for _, dst := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // documentation prefixes
		if a, ok := sourceFor(dst); ok {
			sources = append(sources, a)
		}
	}
	return rank(addrs, sources, port, exclude), nil
}

// sourceFor is the address that this host would send from to the rest of the
// world. Connecting a UDP socket sends nothing.
func sourceFor(dst string) (netip.Addr, bool) {
	c, err := net.Dial("udp", dst)
	if err != nil {
		return netip.Addr{}, false // no route
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), true
}

// rank is Gather without the system. sources are the addresses that the host
// sends from by default.
func rank(addrs []ifAddr, sources []netip.Addr, port uint16, exclude func(string, netip.Addr) bool) []Candidate {
	type ranked struct {
		ifAddr
		penalty int
	}
	var list []ranked
	for _, a := range addrs {
		a.addr = a.addr.Unmap()
		if !Usable(a.addr) || exclude != nil && exclude(a.ifname, a.addr) {
			continue
		}
		list = append(list, ranked{a, penalty(a, slices.Contains(sources, a.addr))})
	}
	slices.SortFunc(list, func(a, b ranked) int {
		return cmp.Or(
			cmp.Compare(a.penalty, b.penalty),
			cmp.Compare(a.ifname, b.ifname),
			a.addr.Compare(b.addr),
		)
	})
	var out []Candidate
	for _, r := range list {
		c := Candidate{netip.AddrPortFrom(r.addr, port), Host}
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// penalty puts what is unlikely to work last: from a default source (0) over
// other addresses, interfaces of containers and VPNs and link-local IPv4 to
// addresses that are not, or no longer, good.
func penalty(a ifAddr, source bool) int {
	switch {
	case a.tentative:
		return 5
	case a.deprecated:
		return 4
	case a.addr.IsLinkLocalUnicast():
		return 3
	case virtual(a.ifname):
		return 2
	case source:
		return 0
	}
	return 1
}

// virtual guesses by its name that an interface leads to containers, guests or
// another VPN. veth and eth are not in the list: inside a container or a
// namespace they are the way out.
func virtual(ifname string) bool {
	for _, prefix := range []string{
		"docker", "br-", "virbr", "lxc", "lxdbr", "incusbr", "podman", "cni", "cali", "flannel", "cilium", "kube", "nodelocaldns", // containers
		"vmnet", "vboxnet", "vnet", "vEthernet", "bridge1", // guests
		"tun", "tap", "utun", "wg", "zt", "tailscale", "nebula", "nordlynx", "ppp", "ipsec", "feth", // VPNs
	} {
		if strings.HasPrefix(ifname, prefix) {
			return true
		}
	}
	return false
}
