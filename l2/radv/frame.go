package radv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/ndp"
)

// MAC is an Ethernet address.
type MAC = [6]byte

// Packet is one neighbour discovery message with what is around it.
type Packet struct {
	SrcMAC, DstMAC MAC
	Src, Dst       netip.Addr
	Message        ndp.Message
}

// ErrPacket is returned by Parse for what is no valid neighbour discovery message.
var ErrPacket = errors.New("no neighbour discovery message")

const (
	ethernetHeader = 14
	ipv6Header     = 40
	etherTypeIPv6  = 0x86dd
	nextICMPv6     = 58
	hopLimit       = 255 // it was not routed here (RFC 4861, section 3.1)
)

// AllNodes and AllRouters are the groups of all on the link (RFC 4291, section 2.7.1).
func allNodes() netip.Addr   { return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 15: 1}) }
func allRouters() netip.Addr { return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 15: 2}) }

// SolicitedNode is the group that asks for ip (RFC 4291, section 2.7.1).
func SolicitedNode(ip netip.Addr) netip.Addr {
	a := ip.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
}

// GroupMAC is the Ethernet address of a multicast group (RFC 2464, section 7).
func GroupMAC(group netip.Addr) MAC {
	a := group.As16()
	return MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// LinkLocal is the address that follows from a MAC (RFC 4291, appendix A).
func LinkLocal(mac MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}

// Frame encodes a packet:
//
//	 0          6          12      14            54        58
//	+----------+----------+-------+-------------+---------+------------
//	| dst MAC  | src MAC  | 86 dd | IPv6 header | ICMPv6  | message …
//	+----------+----------+-------+-------------+---------+------------
func (p Packet) Frame() ([]byte, error) {
	body, err := ndp.MarshalMessageChecksum(p.Message, p.Src, p.Dst)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", p.Message, err)
	}
	f := make([]byte, ethernetHeader+ipv6Header, ethernetHeader+ipv6Header+len(body))
	copy(f, p.DstMAC[:])
	copy(f[6:], p.SrcMAC[:])
	binary.BigEndian.PutUint16(f[12:], etherTypeIPv6)
	ip := f[ethernetHeader:]
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], uint16(len(body)))
	ip[6], ip[7] = nextICMPv6, hopLimit
	src, dst := p.Src.As16(), p.Dst.As16()
	copy(ip[8:], src[:])
	copy(ip[24:], dst[:])
	return append(f, body...), nil
}

// Parse decodes a frame. It checks what RFC 4861, sections 6.1 and 7.1 want of every
// message, and what package ndp does of each kind.
func Parse(frame []byte) (Packet, error) {
	var p Packet
	if len(frame) < ethernetHeader+ipv6Header+4 || binary.BigEndian.Uint16(frame[12:]) != etherTypeIPv6 {
		return p, ErrPacket
	}
	p.DstMAC, p.SrcMAC = MAC(frame), MAC(frame[6:])
	ip := frame[ethernetHeader:]
	size := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || ip[6] != nextICMPv6 || ip[7] != hopLimit || size < 4 || size > len(ip)-ipv6Header {
		return p, ErrPacket
	}
	p.Src, p.Dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	body := ip[ipv6Header : ipv6Header+size]
	if body[1] != 0 || checksum(p.Src, p.Dst, body) != 0 {
		return p, ErrPacket
	}
	m, err := ndp.ParseMessage(body)
	if err != nil {
		return p, fmt.Errorf("%w: %w", ErrPacket, err)
	}
	p.Message = m
	return p, nil
}

// checksum is 0 for a message whose checksum is right (RFC 4443, section 2.3).
func checksum(src, dst netip.Addr, body []byte) uint16 {
	sum := uint32(len(body)) + nextICMPv6
	add := func(b []byte) {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	s, d := src.As16(), dst.As16()
	add(s[:])
	add(d[:])
	add(body)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// linkLayer is the link-layer address that options of one kind name.
func linkLayer(options []ndp.Option, kind ndp.Direction) (MAC, bool) {
	for _, o := range options {
		if lla, ok := o.(*ndp.LinkLayerAddress); ok && lla.Direction == kind && len(lla.Addr) == 6 {
			return MAC(lla.Addr), true
		}
	}
	return MAC{}, false
}
