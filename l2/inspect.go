package l2

import (
	"encoding/binary"
	"net/netip"

	"meshd/l2/snoop"
)

// finding is what a guard has to know of a frame beyond its Ethernet header.
type finding struct {
	why    reason     // not passed: no origin may send it
	needs  duty       // what its origin must have been given
	nd     byte       // type of what the control plane looks at; 0: it is nothing of the kind
	router bool       // the frame says that its source routes
	claim  netip.Addr // and that this address is at its Ethernet source; zero: it says nothing
}

// duty is a set of roles that hosts obey.
type duty uint8

const (
	dutyRouter duty = 1 << iota // advertises routers and redirects
	dutyDHCP                    // hands out addresses

	// dutySpeakToRouters is to say what multicast one listens to, or to ask for that. Hosts of this side alone have it.
	dutySpeakToRouters
)

func refused(why reason) finding { return finding{why: why} }

// inspect reads what hosts on the segment believe without asking: ARP, neighbour
// discovery, redirects, DHCP. h must be the header of frame. What hosts could read
// but this cannot is refused: behind more tags than two, in an LLC encapsulation,
// behind headers that are cut off (RFC 7113, RFC 7112, RFC 6980).
func inspect(h Header, frame []byte) finding {
	body := frame[h.Payload:]
	switch h.EtherType {
	case etherTypeIPv4:
		return inspectIPv4(body)
	case etherTypeIPv6:
		return inspectIPv6(body, h.Src)
	case etherTypeARP:
		return inspectARP(body, h.Src)
	case etherTypeVLAN, etherTypeSVID:
		return refused(hidden)
	case etherTypeLLDP, etherTypePause, etherTypeSlow, etherTypeEAPOL:
		return refused(linkProtocol)
	}
	if h.EtherType < etherTypeMin {
		return inspectLLC(body)
	}
	return finding{}
}

// inspectLLC reads an 802.2 header, which frames have whose EtherType is a length.
//
//	 0      1      2         3          6
//	+------+------+---------+----------+-----------
//	| DSAP | SSAP | control | OUI (3)  | EtherType      the latter two with SNAP (AA AA 03)
//	+------+------+---------+----------+-----------
func inspectLLC(p []byte) finding {
	if len(p) < 3 {
		return refused(hidden)
	}
	const stp, snap = 0x42, 0xaa
	switch {
	case p[0]&^1 == stp:
		return refused(linkProtocol)
	case p[0]&^1 != snap || len(p) < 8:
		return finding{}
	}
	switch oui, kind := [3]byte(p[3:6]), binary.BigEndian.Uint16(p[6:8]); oui {
	case [3]byte{0, 0, 0}, [3]byte{0, 0, 0xf8}: // RFC 1042, 802.1H: some hosts take these for Ethernet
		switch kind {
		case etherTypeIPv4, etherTypeIPv6, etherTypeARP, etherTypeVLAN, etherTypeSVID:
			return refused(hidden)
		}
	case [3]byte{0, 0, 0x0c}: // Cisco's spanning tree, VLAN and discovery protocols
		return refused(linkProtocol)
	}
	return finding{}
}

// inspectARP reads an ARP packet for IPv4 over Ethernet (RFC 826):
//
//	 0         2          4      5      6       8             14        18
//	+---------+----------+------+------+-------+-------------+---------+----
//	| hw = 1  | 08 00    | 6    | 4    | op    | sender MAC  | sender  | target …
//	+---------+----------+------+------+-------+-------------+---------+----
//
// Hosts take a hardware type of 6 (IEEE 802) as well.
func inspectARP(p []byte, src MAC) finding {
	if len(p) < 28 {
		return refused(hidden)
	}
	hw := binary.BigEndian.Uint16(p)
	if hw != 1 && hw != 6 || binary.BigEndian.Uint16(p[2:]) != etherTypeIPv4 || p[4] != 6 || p[5] != 4 {
		return refused(hidden)
	}
	if MAC(p[8:14]) != src {
		return refused(spoofed)
	}
	return finding{claim: usable(netip.AddrFrom4([4]byte(p[14:18])))}
}

// The UDP ports of DHCP servers and clients (RFC 2131, RFC 8415).
const (
	portDHCP, portDHCPClient     = 67, 68
	portDHCPv6, portDHCPv6Client = 547, 546

	bootReply = 2 // first byte of a message to a client
)

// inspectIPv4 reads an IPv4 packet: DHCP, redirects and router advertisements (RFC 792, RFC 1256).
func inspectIPv4(p []byte) finding {
	if len(p) < 20 || p[0]>>4 != 4 {
		return finding{} // no host takes it for IPv4
	}
	header := int(p[0]&15) * 4
	if header < 20 || len(p) < header {
		return finding{}
	}
	size, flags := int(binary.BigEndian.Uint16(p[2:])), binary.BigEndian.Uint16(p[6:])
	const offsetMask, moreFragments = 0x1fff, 0x2000
	if flags&offsetMask != 0 {
		return finding{} // its first fragment was judged
	}
	body := p[header:]
	if rest := size - header; size != 0 && rest >= 0 && rest < len(body) {
		body = body[:rest] // what follows is padding of the frame
	}
	cut := flags&moreFragments != 0
	switch p[9] {
	case protoICMP:
		const redirect, routerAdvertisement = 5, 9
		switch {
		case len(body) == 0 && cut:
			return refused(hidden)
		case len(body) > 0 && (body[0] == redirect || body[0] == routerAdvertisement):
			return finding{needs: dutyRouter}
		}
	case protoIGMP:
		if cut || len(body) == 0 || snoop.IGMPControl(body[0]) {
			return finding{needs: dutySpeakToRouters}
		}
	case protoUDP:
		return inspectUDP(body, cut, portDHCP, portDHCPClient)
	}
	return finding{}
}

// asksDHCP is, as finding.nd, a request to DHCP servers.
const asksDHCP = 1

// inspectUDP looks for what DHCP servers send. cut says that p is the first fragment of more.
func inspectUDP(p []byte, cut bool, server, client uint16) finding {
	if len(p) < 9 {
		if cut {
			return refused(hidden)
		}
		if len(p) < 4 {
			return finding{}
		}
	}
	if source := binary.BigEndian.Uint16(p); source != server {
		if source == portDHCPClient && client == portDHCPClient && binary.BigEndian.Uint16(p[2:]) == server {
			return finding{nd: asksDHCP}
		}
		return finding{}
	}
	toClient := binary.BigEndian.Uint16(p[2:]) == client
	if toClient || server == portDHCP && len(p) > 8 && p[8] == bootReply {
		return finding{needs: dutyDHCP}
	}
	return finding{}
}

// usable returns an address that a host can have, zero for others.
func usable(ip netip.Addr) netip.Addr {
	if ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() || ip.Is4In6() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}
	}
	return ip
}
