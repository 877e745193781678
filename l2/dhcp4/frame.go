package dhcp4

import (
	"encoding/binary"
	"net/netip"
)

const (
	ethernetHeader = 14
	ipv4Header     = 20
	udpHeader      = 8
	protoUDP       = 17
	maxHeader      = ethernetHeader + ipv4Header + udpHeader
)

// parse takes a datagram from a DHCP client out of an untagged frame that is not cut.
// (Checksums are the host's to verify; inside a session frames are intact.)
func parse(f []byte) (payload []byte, src MAC, ok bool) {
	if len(f) < maxHeader || binary.BigEndian.Uint16(f[12:]) != 0x0800 {
		return nil, MAC{}, false
	}
	ip := f[ethernetHeader:]
	header, size := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	const fragment = 0x3fff // offset and more fragments
	if ip[0]>>4 != 4 || header < ipv4Header || ip[9] != protoUDP || size > len(ip) || size < header+udpHeader ||
		binary.BigEndian.Uint16(ip[6:])&fragment != 0 {
		return nil, MAC{}, false
	}
	udp := ip[header:size]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp) != portClient || binary.BigEndian.Uint16(udp[2:]) != portServer || length < udpHeader || length > len(udp) {
		return nil, MAC{}, false
	}
	return udp[udpHeader:length], MAC(f[6:12]), true
}

// frame puts a datagram to a client into IPv4 and Ethernet. The UDP checksum is left
// out, as IPv4 allows.
//
//	 0         6         12      14       34       42
//	+---------+---------+-------+--------+--------+-----
//	| dst MAC | src MAC | 08 00 | IPv4   | UDP    | DHCP
//	+---------+---------+-------+--------+--------+-----
func frame(dst, src MAC, from, to netip.Addr, payload []byte) []byte {
	f := make([]byte, maxHeader, maxHeader+len(payload))
	copy(f, dst[:])
	copy(f[6:], src[:])
	binary.BigEndian.PutUint16(f[12:], 0x0800)
	ip := f[ethernetHeader:]
	ip[0], ip[8], ip[9] = 0x45, 64, protoUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(ipv4Header+udpHeader+len(payload)))
	a, b := from.As4(), to.As4()
	copy(ip[12:], a[:])
	copy(ip[16:], b[:])
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:ipv4Header]))
	udp := ip[ipv4Header:]
	binary.BigEndian.PutUint16(udp, portServer)
	binary.BigEndian.PutUint16(udp[2:], portClient)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeader+len(payload)))
	return append(f, payload...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// probe asks who has an address without saying that we want it (RFC 5227, section 2.1.1).
func (s *Server) probe(ip netip.Addr) []byte {
	f := make([]byte, ethernetHeader+28)
	copy(f, []byte{255, 255, 255, 255, 255, 255})
	copy(f[6:], s.cfg.MAC[:])
	binary.BigEndian.PutUint16(f[12:], 0x0806)
	arp := f[ethernetHeader:]
	copy(arp, []byte{0, 1, 8, 0, 6, 4, 0, 1})
	copy(arp[8:], s.cfg.MAC[:])
	a := ip.As4()
	copy(arp[24:], a[:])
	return f
}
