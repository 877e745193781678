package l2

import (
	"encoding/binary"
	"net/netip"
)

// IPv6 next header values (IANA "Protocol Numbers").
const (
	nextHopByHop = 0
	nextRouting  = 43
	nextICMPv6   = 58
	nextDstOpts  = 60

	// maxExtensions bounds the walk along a chain of extension headers.
	maxExtensions = 8
)

// ICMPv6 types and options of neighbour discovery (RFC 4861).
const (
	ndRouterSolicitation    = 133
	ndRouterAdvertisement   = 134
	ndNeighborSolicitation  = 135
	ndNeighborAdvertisement = 136

	ndOptSource = 1
	ndOptTarget = 2
)

// snoop returns the IP address that the sender of an ARP or neighbour discovery
// frame says is its own. What speaks for another station (a proxy), or contradicts
// the Ethernet source, says nothing. h must be the header of frame.
func snoop(h Header, frame []byte) (netip.Addr, bool) {
	switch h.EtherType {
	case etherTypeARP:
		return snoopARP(frame[h.Payload:], h.Src)
	case etherTypeIPv6:
		return snoopND(frame[h.Payload:], h.Src)
	}
	return netip.Addr{}, false
}

// snoopARP reads an ARP packet for IPv4 over Ethernet (RFC 826):
//
//	 0         2          4      5      6       8             14        18
//	+---------+----------+------+------+-------+-------------+---------+----
//	| hw = 1  | 08 00    | 6    | 4    | op    | sender MAC  | sender  | target …
//	+---------+----------+------+------+-------+-------------+---------+----
func snoopARP(p []byte, src MAC) (netip.Addr, bool) {
	if len(p) < 28 || binary.BigEndian.Uint16(p) != 1 || binary.BigEndian.Uint16(p[2:]) != 0x0800 || p[4] != 6 || p[5] != 4 {
		return netip.Addr{}, false
	}
	if MAC(p[8:14]) != src {
		return netip.Addr{}, false
	}
	return usable(netip.AddrFrom4([4]byte(p[14:18])))
}

// snoopND reads an IPv6 packet that may be neighbour discovery.
func snoopND(p []byte, src MAC) (netip.Addr, bool) {
	if len(p) < 40 || p[0]>>4 != 6 || p[7] != 255 { // RFC 4861 7.1: hop limit 255
		return netip.Addr{}, false
	}
	sender := netip.AddrFrom16([16]byte(p[8:24]))
	next, body := p[6], p[40:]
	if size := int(binary.BigEndian.Uint16(p[4:])); size < len(body) {
		body = body[:size] // what follows is padding of the frame
	}
	for range maxExtensions {
		switch next {
		case nextICMPv6:
			return snoopICMPv6(body, sender, src)
		case nextHopByHop, nextRouting, nextDstOpts:
			if len(body) < 8 || len(body) < 8*(int(body[1])+1) {
				return netip.Addr{}, false
			}
			next, body = body[0], body[8*(int(body[1])+1):]
		default: // also fragments: RFC 6980 forbids them for neighbour discovery
			return netip.Addr{}, false
		}
	}
	return netip.Addr{}, false
}

func snoopICMPv6(p []byte, sender netip.Addr, src MAC) (netip.Addr, bool) {
	if len(p) < 8 {
		return netip.Addr{}, false
	}
	claim, fixed, option := sender, 0, byte(ndOptSource)
	switch p[0] {
	case ndRouterSolicitation:
		fixed = 8
	case ndRouterAdvertisement:
		fixed = 16
	case ndNeighborSolicitation:
		fixed = 24
	case ndNeighborAdvertisement:
		if len(p) < 24 {
			return netip.Addr{}, false
		}
		claim, fixed, option = netip.AddrFrom16([16]byte(p[8:24])), 24, ndOptTarget
	default:
		return netip.Addr{}, false
	}
	if len(p) < fixed || !linkLayerIs(p[fixed:], option, src) {
		return netip.Addr{}, false
	}
	return usable(claim)
}

// linkLayerIs walks options (type, length in 8 bytes, value) and reports whether
// none of the given type names another MAC than src. Broken options are no.
func linkLayerIs(options []byte, kind byte, src MAC) bool {
	for len(options) > 0 {
		if len(options) < 8 || options[1] == 0 || len(options) < 8*int(options[1]) {
			return false
		}
		if options[0] == kind && MAC(options[2:8]) != src {
			return false
		}
		options = options[8*int(options[1]):]
	}
	return true
}

// usable keeps addresses that a host can have.
func usable(ip netip.Addr) (netip.Addr, bool) {
	if ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() || ip.Is4In6() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}, false
	}
	return ip, true
}
