package traversal

import "net/netip"

// Usable reports whether a may be an address to send to that somebody else has
// named (THREATS.md): a unicast address of another host, in its canonical form.
//
// Not usable are loopback and "this host" (0.0.0.0/8, ::), multicast and
// broadcast, the reserved 240.0.0.0/4, IPv4 dressed up as IPv6, and link-local
// IPv6: without a zone it means nothing, and the zone of another host neither;
// and the discard-only 100::/64.
// Private addresses are usable: both nodes may be in one of them.
func Usable(a netip.Addr) bool {
	switch {
	case !a.IsValid(), a.Is4In6(), a.Zone() != "":
		return false
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast():
		return false
	case a.Is4():
		b := a.As4()
		return b[0] != 0 && b[0] < 240
	}
	return !a.IsLinkLocalUnicast() && !v4Compatible(a) && !discardOnly().Contains(a)
}

// discardOnly is 100::/64 (RFC 6666): nothing is there, and this program has its
// own meaning for it (package way).
func discardOnly() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 1}), 64) }

// v4Compatible is for ::/96, which is long deprecated (RFC 4291, 2.5.5.1).
func v4Compatible(a netip.Addr) bool {
	b := a.As16()
	return [12]byte(b[:12]) == [12]byte{}
}

// UsableEndpoint is Usable with a port.
func UsableEndpoint(ap netip.AddrPort) bool { return ap.Port() != 0 && Usable(ap.Addr()) }

// Global reports the usable addresses that are of the public internet.
func Global(a netip.Addr) bool { return Usable(a) && !private(a) }

// private reports the addresses that are not of the public internet: RFC 1918,
// RFC 4193, shared (CGNAT, RFC 6598) and link-local.
func private(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLinkLocalUnicast() || sharedSpace().Contains(a)
}

func sharedSpace() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10)
}
