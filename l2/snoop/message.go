package snoop

import (
	"net/netip"
	"time"
)

// Kind is what a message is about.
type Kind uint8

// Kinds of messages.
const (
	Query       Kind = iota + 1 // asks for reports
	Report                      // says what a host listens to, or no longer does
	RouterHere                  // a multicast router is there (RFC 4286, or a PIM hello)
	RouterGone                  // and now it is not
	RouterAsked                 // somebody looks for multicast routers
)

// Change is what a report says of a group.
type Change uint8

// Changes. Filters of sources are taken for the whole group: a host that listens to
// some sources listens.
const (
	Join  Change = iota
	Leave        // perhaps others listen still
)

// Record is what a report says of one group.
type Record struct {
	Group  netip.Addr
	Change Change
}

// Message is a parsed message.
type Message struct {
	Kind    Kind
	Version uint8      // of IGMP, 1 to 3, or MLD, 1 or 2
	Source  netip.Addr // of the packet

	// Of a query.
	Group    netip.Addr    // zero: all groups
	Response time.Duration // hosts answer within it
	Interval time.Duration // between general queries, 0: not said; of RouterHere how long that holds
	Suppress bool          // it shortens no timer (RFC 3376, 4.1.5)

	Records []Record // of a report
}

// V6 reports whether it is MLD.
func (m *Message) V6() bool { return m.Source.Is6() }

// Verdict is what Parse made of a packet.
type Verdict uint8

// Verdicts.
const (
	Other   Verdict = iota // not between hosts and multicast routers
	Control                // stays on its side of the overlay; Message holds it
	Broken                 // stays too, and says nothing
	Hello                  // of routers to each other: Message holds it, and it goes where others go
)

// EtherTypes.
const (
	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd
)

// Parse reads what follows an Ethernet header into m, whose Records are used again.
func Parse(m *Message, etherType uint16, packet []byte) Verdict {
	*m = Message{Records: m.Records[:0]}
	switch etherType {
	case etherTypeIPv4:
		return parseIPv4(m, packet)
	case etherTypeIPv6:
		return parseIPv6(m, packet)
	}
	return Other
}

// parsePIM reads a PIM hello (RFC 7761, 4.9.2): version 2, type 0, then options of type (2),
// length (2), value; option 1 is how long it holds, in s.
func parsePIM(m *Message, p []byte) Verdict {
	const helloVersionType, optionHold = 0x20, 1
	if len(p) < 4 || p[0] != helloVersionType {
		return Other
	}
	m.Kind, m.Interval = RouterHere, helloHolds
	for p = p[4:]; len(p) >= 4; {
		kind, size := be16(p), int(be16(p[2:]))
		if len(p) < 4+size {
			break
		}
		if kind == optionHold && size == 2 {
			if m.Interval = time.Duration(be16(p[4:])) * time.Second; m.Interval == 0 {
				m.Kind = RouterGone
			}
		}
		p = p[4+size:]
	}
	return Hello
}

func be16(p []byte) uint16 { return uint16(p[0])<<8 | uint16(p[1]) }

// code reads a response time or interval of IGMPv3 or MLDv2 (RFC 3376, 4.1.1; RFC 3810, 5.1.3):
// from 2^bits on it is a number with exponent.
func code(v uint16, mantissa uint) int {
	top := uint16(1) << (mantissa + 3)
	if v < top {
		return int(v)
	}
	exponent := uint(v>>mantissa) & 7
	return int(v&(1<<mantissa-1)|1<<mantissa) << (exponent + 3)
}

// checksum is the one of the Internet (RFC 1071); 0 says that a packet's is right.
func checksum(sum uint32, p []byte) uint16 {
	for ; len(p) > 1; p = p[2:] {
		sum += uint32(be16(p))
	}
	if len(p) == 1 {
		sum += uint32(p[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Flooded reports whether a group goes to everybody whoever listens: what hosts find
// each other and their routers by, where a lost report would cost more than a few frames.
// These are 224.0.0.0/24 (RFC 4541, 2.1.2), the assigned groups of IPv6's link-local scope,
// solicited-node groups, and the groups of SSDP and mDNS in every scope.
func Flooded(group netip.Addr) bool {
	if group.Is4() {
		a := group.As4()
		return a[0] == 224 && a[1] == 0 && a[2] == 0 || a == [4]byte{239, 255, 255, 250}
	}
	a := group.As16()
	for _, b := range a[2:11] {
		if b != 0 {
			return false
		}
	}
	const linkLocal, ssdp, mdns = 2, 0x0c, 0xfb
	if a[11] == 0 && a[12] == 0 && a[13] == 0 && a[14] == 0 && (a[15] == ssdp || a[15] == mdns) {
		return true
	}
	if a[1]&15 > linkLocal {
		return false
	}
	solicited := a[11] <= 2 && a[12] == 0xff // RFC 4291, 2.7.1; RFC 4620, 5
	assigned := a[11] == 0 && a[12] == 0 && a[13] <= 1
	return solicited || assigned
}

// MAC is the address of a group's frames (RFC 1112, 6.4; RFC 2464, 7).
func MAC(group netip.Addr) [6]byte {
	if group.Is4() {
		a := group.As4()
		return [6]byte{0x01, 0x00, 0x5e, a[1] & 0x7f, a[2], a[3]}
	}
	a := group.As16()
	return [6]byte{0x33, 0x33, a[12], a[13], a[14], a[15]}
}
