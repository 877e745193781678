package offload

import "encoding/binary"

const (
	etherLen = 14
	tagLen   = 4
	maxTags  = 2
	ip4Len   = 20
	ip6Len   = 40
	tcpLen   = 20
	udpLen   = 8

	protoTCP = 6
	protoUDP = 17

	csumOfTCP = 16 // offsets of checksums in their headers
	csumOfUDP = 6

	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd
	etherTypeVLAN = 0x8100
	etherTypeSVID = 0x88a8

	ip4DF       = 0x40 // in the byte at offset 6
	ip4Fragment = 0x3fff
)

// Bits of TCP's flags.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
	flagURG
	flagECE
	flagCWR
)

// TCP options (RFC 9293, 2385, 5925).
const (
	optEnd = 0
	optNop = 1
	optMD5 = 19
	optAO  = 29
)

// network finds the IP header of a frame: behind at most two tags. l3 is 0 when
// there is none, or when it is cut off.
func network(b []byte) (l3 int, v6 bool) {
	if len(b) < etherLen {
		return 0, false
	}
	at, kind := etherLen, binary.BigEndian.Uint16(b[12:])
	for tags := 0; tags < maxTags && (kind == etherTypeVLAN || kind == etherTypeSVID); tags++ {
		if len(b) < at+tagLen {
			return 0, false
		}
		kind = binary.BigEndian.Uint16(b[at+2:])
		at += tagLen
	}
	switch {
	case kind == etherTypeIPv4 && len(b) >= at+ip4Len && b[at]>>4 == 4:
		return at, false
	case kind == etherTypeIPv6 && len(b) >= at+ip6Len && b[at]>>4 == 6:
		return at, true
	}
	return 0, false
}

// packet is where things are in a frame that carries TCP or UDP directly over IP,
// in one piece, without IPv4 options or IPv6 extension headers, and without
// anything behind the IP packet.
type packet struct {
	l3, l4 int
	end    int // of the transport header
	v6     bool
	proto  uint8
}

// parse reports false for every other frame.
func parse(b []byte) (p packet, ok bool) {
	p.l3, p.v6 = network(b)
	switch {
	case p.l3 == 0:
		return packet{}, false
	case p.v6:
		p.l4, p.proto = p.l3+ip6Len, b[p.l3+6]
		ok = int(binary.BigEndian.Uint16(b[p.l3+4:])) == len(b)-p.l4
	default:
		ip := b[p.l3:]
		p.l4, p.proto = p.l3+ip4Len, ip[9]
		ok = ip[0] == 0x45 && int(binary.BigEndian.Uint16(ip[2:])) == len(ip) &&
			binary.BigEndian.Uint16(ip[6:])&ip4Fragment == 0
	}
	if !ok {
		return packet{}, false
	}
	switch {
	case p.proto == protoTCP && len(b) >= p.l4+tcpLen:
		p.end = p.l4 + tcpHeaderLen(b[p.l4:])
		ok = p.end >= p.l4+tcpLen && p.end <= len(b)
	case p.proto == protoUDP && len(b) >= p.l4+udpLen:
		p.end = p.l4 + udpLen
		ok = int(binary.BigEndian.Uint16(b[p.l4+4:])) == len(b)-p.l4
	default:
		ok = false
	}
	return p, ok
}

// tcpHeaderLen is what the header says; it may be less than tcpLen.
func tcpHeaderLen(tcp []byte) int { return int(tcp[12]>>4) * 4 }

// addresses sums the part of the pseudo-header that is the same in all segments.
func addresses(b []byte, l3 int, v6 bool, proto uint8) uint64 {
	if v6 {
		return uint64(fold(sum(b[l3+8:l3+ip6Len], word(uint16(proto)))))
	}
	return uint64(fold(sum(b[l3+12:l3+ip4Len], word(uint16(proto)))))
}

// plain reports of a super-frame whether parse will find in its segments what p says.
func (p packet) plain(b []byte) bool {
	if p.v6 {
		return p.l4 == p.l3+ip6Len && b[p.l3+6] == p.proto
	}
	return p.l4 == p.l3+ip4Len && binary.BigEndian.Uint16(b[p.l3+6:])&ip4Fragment == 0
}

// csumOffset is where the checksum is in the transport header.
func (p packet) csumOffset() int {
	if p.proto == protoUDP {
		return csumOfUDP
	}
	return csumOfTCP
}

// leaveOut puts the sum of the pseudo-header where the checksum belongs.
func (p packet) leaveOut(b []byte) {
	size := uint16(len(b) - p.l4)
	putSum(b[p.l4+p.csumOffset():], fold(addresses(b, p.l3, p.v6, p.proto)+word(size)))
}

// complete fills in a checksum that was left out.
func (p packet) complete(b []byte) {
	complete(Frame{Data: b, Header: p.partial()})
}

// partial is the header of a frame whose checksum is left out.
func (p packet) partial() Header {
	return Header{Flags: FlagNeedsCsum, CsumStart: uint16(p.l4), CsumOffset: uint16(p.csumOffset())}
}

// sound verifies the checksums of the frame that p describes, but for that of the
// transport header when it was left out. A UDP checksum of zero says that there is
// none, which is not sound.
func (p packet) sound(b []byte, leftOut bool) bool {
	if !p.v6 && fold(sum(b[p.l3:p.l4], 0)) != 0xffff {
		return false
	}
	if leftOut {
		return true
	}
	if p.proto == protoUDP && b[p.l4+csumOfUDP] == 0 && b[p.l4+csumOfUDP+1] == 0 {
		return false
	}
	acc := addresses(b, p.l3, p.v6, p.proto) + word(uint16(len(b)-p.l4))
	return fold(sum(b[p.l4:], acc)) == 0xffff
}

// sizable reports whether the sender of a TCP segment would not mind, or notice,
// that its data comes in smaller ones.
func sizable(tcp []byte) bool {
	if tcp[13]&(flagSYN|flagRST|flagURG) != 0 {
		return false
	}
	options := tcp[tcpLen:min(tcpHeaderLen(tcp), len(tcp))]
	for len(options) > 0 {
		switch kind := options[0]; kind {
		case optEnd:
			return true
		case optNop:
			options = options[1:]
		case optMD5, optAO: // signatures over each segment
			return false
		default:
			if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
				return false
			}
			options = options[options[1]:]
		}
	}
	return true
}

// setIP4 sets total length and header checksum.
func setIP4(ip []byte, headerLen, total int) {
	binary.BigEndian.PutUint16(ip[2:], uint16(total))
	ip[10], ip[11] = 0, 0
	putSum(ip[10:], ^fold(sum(ip[:headerLen], 0)))
}
