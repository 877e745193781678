package l2

import (
	"encoding/binary"
	"net/netip"

	"meshd/l2/snoop"
)

// IP protocol numbers and IPv6 next header values (IANA "Protocol Numbers").
const (
	nextHopByHop  = 0
	protoICMP     = 1
	protoIGMP     = 2
	protoUDP      = 17
	nextRouting   = 43
	nextFragment  = 44
	nextAuth      = 51
	protoICMPv6   = 58
	nextDstOpts   = 60
	nextMobility  = 135
	nextHIP       = 139
	nextShim6     = 140
	maxExtensions = 8 // of a chain that is walked
)

// ICMPv6 types and options of neighbour discovery (RFC 4861).
const (
	ndRouterSolicitation    = 133
	ndRouterAdvertisement   = 134
	ndNeighborSolicitation  = 135
	ndNeighborAdvertisement = 136
	ndRedirect              = 137

	ndOptSource = 1
	ndOptTarget = 2
)

// inspectIPv6 reads an IPv6 packet as far as neighbour discovery and DHCPv6 may be in it.
func inspectIPv6(p []byte, src MAC) finding {
	if len(p) < 40 || p[0]>>4 != 6 {
		return finding{} // no host takes it for IPv6
	}
	body := p[40:]
	if size := int(binary.BigEndian.Uint16(p[4:])); size < len(body) {
		body = body[:size] // what follows is padding of the frame
	}
	plain, cut := true, false
	next := p[6]
	for range maxExtensions {
		unit, first := 8, 1 // of a header's length field, and how many units it does not count
		switch next {
		case protoICMPv6:
			return inspectICMPv6(body, netip.AddrFrom16([16]byte(p[8:24])), p[7], src, plain, cut)
		case protoUDP:
			return inspectUDP(body, cut, portDHCPv6, portDHCPv6Client)
		case nextHopByHop, nextRouting, nextDstOpts, nextMobility, nextHIP, nextShim6:
		case nextAuth:
			unit, first = 4, 2
		case nextFragment:
			if len(body) < 8 {
				return refused(hidden)
			}
			if binary.BigEndian.Uint16(body[2:])>>3 != 0 {
				return finding{} // its first fragment was judged
			}
			plain, cut = false, true
			next, body = body[0], body[8:]
			continue
		default:
			return finding{}
		}
		plain = false
		if len(body) < 8 || len(body) < unit*(int(body[1])+first) {
			return refused(hidden)
		}
		next, body = body[0], body[unit*(int(body[1])+first):]
	}
	return refused(hidden)
}

// inspectICMPv6 judges neighbour discovery: never behind extension headers or in
// fragments (RFC 6980), and saying of its sender's address what the frame says.
func inspectICMPv6(p []byte, sender netip.Addr, hops byte, src MAC, plain, cut bool) finding {
	if len(p) == 0 {
		if cut {
			return refused(hidden)
		}
		return finding{}
	}
	claim, fixed, option, needs := usable(sender), 0, byte(ndOptSource), duty(0)
	switch p[0] {
	case ndRouterSolicitation:
		fixed = 8
	case ndRouterAdvertisement:
		fixed, needs = 16, dutyRouter
	case ndNeighborSolicitation:
		fixed = 24
	case ndNeighborAdvertisement:
		fixed, option = 24, ndOptTarget
	case ndRedirect:
		// Its target option names the next hop's address, which is another's.
		fixed, option, needs = 40, 0, dutyRouter
	default:
		if snoop.MLDControl(p[0]) {
			return finding{needs: dutySpeakToRouters}
		}
		return finding{}
	}
	if !plain || len(p) < fixed {
		return refused(hidden)
	}
	if hops != 255 { // it was routed here (RFC 4861, 7.1)
		return refused(spoofed)
	}
	if option == ndOptTarget {
		claim = usable(netip.AddrFrom16([16]byte(p[8:24])))
	}
	switch linkLayer(p[fixed:], option, src) {
	case optionsBroken:
		return refused(hidden)
	case optionsForeign:
		return refused(spoofed)
	}
	routes := p[0] == ndRouterAdvertisement || p[0] == ndNeighborAdvertisement && p[4]&0x80 != 0
	f := finding{needs: needs, claim: claim, router: routes}
	if p[0] <= ndNeighborSolicitation {
		f.nd = p[0]
	}
	return f
}

type optionsVerdict uint8

const (
	optionsFine optionsVerdict = iota
	optionsBroken
	optionsForeign // another's link-layer address is among them
)

// linkLayer walks options (type, length in 8 bytes, value) and looks whether one
// of the given type names another MAC than src.
func linkLayer(options []byte, kind byte, src MAC) optionsVerdict {
	for len(options) > 0 {
		if len(options) < 8 || options[1] == 0 || len(options) < 8*int(options[1]) {
			return optionsBroken
		}
		if options[0] == kind && MAC(options[2:8]) != src {
			return optionsForeign
		}
		options = options[8*int(options[1]):]
	}
	return optionsFine
}
