package hotpath

import (
	"encoding/binary"

	"meshd/l2"
	"meshd/l2/offload"
)

const (
	etherLen = 14
	ipLen    = 20
	tcpLen   = 20
	udpLen   = 8
)

// ip4 puts Ethernet and IPv4 headers in front of a transport header and payload
// of so many bytes. The payload is a pattern.
func ip4(dst, src l2.MAC, protocol byte, size int) []byte {
	b := make([]byte, etherLen+ipLen+size)
	copy(b, dst[:])
	copy(b[6:], src[:])
	b[12] = 8
	ip := b[etherLen:]
	ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, 64, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(ipLen+size))
	copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(ip[10:], ^fold(ip[:ipLen], 0))
	for i := etherLen + ipLen; i < len(b); i++ {
		b[i] = byte(3 * i)
	}
	return b
}

// fold is the Internet checksum's sum (RFC 1071).
func fold(b []byte, sum uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// Datagram is a frame with a UDP datagram of so many bytes of payload, from a
// port of its own, as a host hands it over that leaves checksums to its network
// card: what stands in it is the pseudo-header's sum.
func Datagram(dst, src l2.MAC, port uint16, payload int) l2.Frame {
	b := ip4(dst, src, 17, udpLen+payload)
	udp := b[etherLen+ipLen:]
	binary.BigEndian.PutUint16(udp, port)
	binary.BigEndian.PutUint16(udp[2:], 9)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLen+payload))
	binary.BigEndian.PutUint16(udp[6:], pseudo(b, 17, udpLen+payload))
	return l2.Frame{Data: b, Header: offload.Header{
		Flags: offload.FlagNeedsCsum, HdrLen: etherLen + ipLen + udpLen, CsumStart: etherLen + ipLen, CsumOffset: 6,
	}}
}

// Datagram6 is the same over IPv6.
func Datagram6(dst, src l2.MAC, port uint16, payload int) l2.Frame {
	const ip6Len = 40
	four := Datagram(dst, src, port, payload).Data
	b := make([]byte, etherLen+ip6Len, etherLen+ip6Len+udpLen+payload)
	copy(b, four[:etherLen])
	b[12], b[13] = 0x86, 0xdd
	ip := b[etherLen:]
	ip[0], ip[6], ip[7] = 0x60, 17, 64
	binary.BigEndian.PutUint16(ip[4:], uint16(udpLen+payload))
	ip[8], ip[23], ip[24], ip[39] = 0xfd, 1, 0xfd, 2
	b = append(b, four[etherLen+ipLen:]...)
	binary.BigEndian.PutUint16(b[etherLen+ip6Len+6:], fold(ip[8:ip6Len], uint32(17+udpLen+payload)))
	return l2.Frame{Data: b, Header: offload.Header{
		Flags: offload.FlagNeedsCsum, HdrLen: etherLen + ip6Len + udpLen, CsumStart: etherLen + ip6Len, CsumOffset: 6,
	}}
}

// pseudo is the sum of the pseudo-header of the IPv4 packet in a frame.
func pseudo(b []byte, protocol byte, size int) uint16 {
	return fold(b[etherLen+12:etherLen+ipLen], uint32(protocol)+uint32(size))
}

// Super is a super-frame of TCP with so many bytes of payload, in segments of so
// many, as a host hands it over: its checksum is the pseudo-header's sum.
func Super(dst, src l2.MAC, payload, segment int) l2.Frame {
	b := ip4(dst, src, 6, tcpLen+payload)
	tcp := b[etherLen+ipLen:]
	clear(tcp[:tcpLen])
	binary.BigEndian.PutUint16(tcp, 40000)
	binary.BigEndian.PutUint16(tcp[2:], 5201)
	tcp[12], tcp[13] = 0x50, 0x10
	binary.BigEndian.PutUint16(tcp[16:], pseudo(b, 6, tcpLen+payload))
	return l2.Frame{Data: b, Header: offload.Header{
		Flags: offload.FlagNeedsCsum, GSOType: offload.GSOTCPv4, GSOSize: uint16(segment),
		HdrLen: etherLen + ipLen + tcpLen, CsumStart: etherLen + ipLen, CsumOffset: 16,
	}}
}
