package l2

import (
	"encoding/binary"
	"net/netip"
)

// Frames that the switch makes itself: answers for hosts elsewhere, and questions to
// hosts on our side.

// minFrame is the least size of a frame without FCS (802.3).
const minFrame = 60

// probe is the address that questions of the switch to hosts come from. It is not this
// node's own, so that a bridge that the TAP is in sends the answers here and not to the
// host itself.
func (m MAC) probe() MAC {
	m[5] ^= 0x80
	return m
}

// answerTo makes the answer to an enquiry in frame, whose header is h: mac has the address.
func answerTo(h Header, frame []byte, q enquiry, mac MAC, router bool) []byte {
	dst := q.replyTo
	to := q.from
	if q.target.Is6() && to.IsUnspecified() {
		to = netip.AddrFrom16([16]byte{0xff, 2, 15: 1}) // all nodes (RFC 4861, 7.2.4)
		dst = MAC{0x33, 0x33, 0, 0, 0, 1}
	}
	out := append(append(make([]byte, 0, 96), dst[:]...), mac[:]...)
	out = append(out, frame[12:h.Payload]...) // tags and EtherType
	if q.target.Is4() {
		return pad(appendARP(out, 2, mac, q.target, q.replyTo, q.from))
	}
	flags := byte(0x20) // override
	if router {
		flags |= 0x80
	}
	if !q.from.IsUnspecified() {
		flags |= 0x40 // solicited
	}
	return pad(appendND(out, ndNeighborAdvertisement, flags, q.target, to, q.target, ndOptTarget, mac))
}

// askFor asks station k alone whether it has an address: an ARP probe (RFC 5227) or a
// neighbour solicitation.
func askFor(k station, probe MAC, ip netip.Addr) []byte {
	mac := k.mac()
	out := append(append(make([]byte, 0, 96), mac[:]...), probe[:]...)
	if vlan := k.vlan(); vlan != 0 {
		out = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(out, etherTypeVLAN), vlan)
	}
	if ip.Is4() {
		out = binary.BigEndian.AppendUint16(out, etherTypeARP)
		return pad(appendARP(out, arpRequest, probe, netip.IPv4Unspecified(), MAC{}, ip))
	}
	out = binary.BigEndian.AppendUint16(out, etherTypeIPv6)
	return pad(appendND(out, ndNeighborSolicitation, 0, linkLocal(probe), ip, ip, ndOptSource, probe))
}

func pad(frame []byte) []byte {
	if len(frame) < minFrame {
		frame = append(frame, make([]byte, minFrame-len(frame))...)
	}
	return frame
}

// appendARP appends an ARP packet for IPv4 over Ethernet (RFC 826).
func appendARP(b []byte, op uint16, sender MAC, senderIP netip.Addr, target MAC, targetIP netip.Addr) []byte {
	b = append(b, 0, 1, 8, 0, 6, 4)
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, sender[:]...), senderIP.AsSlice()...)
	return append(append(b, target[:]...), targetIP.AsSlice()...)
}

// appendND appends an IPv6 packet with a neighbour solicitation or advertisement (RFC
// 4861, 4.3 and 4.4) that has one link-layer option.
//
//	 0      1      2            4       8             24       26     32
//	+------+------+------------+-------+-------------+--------+------+
//	| type | 0    | checksum   | flags | target (16) | opt, 1 | MAC  |
//	+------+------+------------+-------+-------------+--------+------+
func appendND(b []byte, kind, flags byte, src, dst, target netip.Addr, option byte, mac MAC) []byte {
	const size = 32
	b = append(b, 0x60, 0, 0, 0, 0, size, protoICMPv6, 255)
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	at := len(b)
	b = append(b, kind, 0, 0, 0, flags, 0, 0, 0)
	b = append(b, target.AsSlice()...)
	b = append(append(b, option, 1), mac[:]...)
	binary.BigEndian.PutUint16(b[at+2:], ^sumND(b[at-32:]))
	return b
}

// sumND is the ones' complement sum over addresses and message, and what the pseudo
// header has besides (RFC 8200, 8.1).
func sumND(b []byte) uint16 {
	sum := uint32(len(b)-32) + protoICMPv6
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
