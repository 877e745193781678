package snoop

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// IP protocols.
const (
	protoIGMP   = 2
	protoPIM    = 103
	protoICMPv6 = 58
	hopByHop    = 0
)

// IGMP types (RFC 1112, 2236, 3376, 4286).
const (
	igmpQuery     = 0x11
	igmpReportV1  = 0x12
	igmpReportV2  = 0x16
	igmpLeave     = 0x17
	igmpReportV3  = 0x22
	igmpAdvertise = 0x30
	igmpSolicit   = 0x31
	igmpTerminate = 0x32
)

// IGMPControl reports whether an IGMP type stays on its side.
func IGMPControl(kind byte) bool {
	switch kind {
	case igmpQuery, igmpReportV1, igmpReportV2, igmpLeave, igmpReportV3, igmpAdvertise, igmpSolicit, igmpTerminate:
		return true
	}
	return false
}

// parseIPv4 finds IGMP and PIM in an IPv4 packet.
func parseIPv4(m *Message, p []byte) Verdict {
	if len(p) < 20 || p[0]>>4 != 4 || p[9] != protoIGMP && p[9] != protoPIM {
		return Other
	}
	header, size := int(p[0]&15)*4, int(be16(p[2:]))
	if header < 20 || size < header || len(p) < size {
		return Broken
	}
	m.Source = netip.AddrFrom4([4]byte(p[12:16]))
	const notOne = 0x3fff // more fragments, or an offset
	if be16(p[6:])&notOne != 0 {
		return Broken
	}
	body, ttl := p[header:size], p[8]
	switch {
	case p[9] == protoPIM:
		return parsePIM(m, body)
	case len(body) > 0 && !IGMPControl(body[0]):
		return Other
	case len(body) < 4 || ttl != 1 || checksum(0, body) != 0 || !parseIGMP(m, body):
		return Broken
	}
	return Control
}

// parseIGMP reads
//
//	 0      1          2          4
//	+------+----------+----------+-----------
//	| type | response | checksum | group (4)       query, 8 bytes: versions 1 and 2; their reports; leave
//	+------+----------+----------+-----------
//	| 0x11 | response | checksum | group | S, QRV (1) | interval (1) | n (2) | n sources     version 3
//	| 0x22 | 0        | checksum | 0 (2) | n (2) | n records
func parseIGMP(m *Message, p []byte) bool {
	group := func() netip.Addr { return netip.AddrFrom4([4]byte(p[4:8])) }
	switch p[0] {
	case igmpAdvertise, igmpSolicit, igmpTerminate:
		return parseDiscovery(m, p[0]-igmpAdvertise, p[1])
	}
	if len(p) < 8 {
		return false
	}
	switch p[0] {
	case igmpQuery:
		m.Kind = Query
		if g := group(); !g.IsUnspecified() {
			m.Group = g
		}
		switch {
		case len(p) == 8 && p[1] == 0:
			m.Version, m.Response = 1, 10*time.Second
		case len(p) == 8:
			m.Version, m.Response = 2, time.Duration(p[1])*100*time.Millisecond
		case len(p) >= 12:
			m.Version, m.Response = 3, time.Duration(code(uint16(p[1]), 4))*100*time.Millisecond
			m.Suppress, m.Interval = p[8]&8 != 0, time.Duration(code(uint16(p[9]), 4))*time.Second
		default:
			return false
		}
		return !m.Group.IsValid() || m.Group.IsMulticast()
	case igmpReportV1, igmpReportV2:
		m.Kind, m.Version = Report, 1
		if p[0] == igmpReportV2 {
			m.Version = 2
		}
		return m.add(group(), Join)
	case igmpLeave:
		m.Kind, m.Version = Report, 2
		return m.add(group(), Leave)
	}
	m.Kind, m.Version = Report, 3
	return parseRecords(m, p[8:], int(be16(p[6:])), 4)
}

// parseDiscovery reads a message of multicast router discovery (RFC 4286, 3): which is 0 for an
// advertisement, whose interval is in s, 1 for a solicitation, 2 for a termination.
func parseDiscovery(m *Message, which, interval byte) bool {
	switch which {
	case 0:
		m.Kind, m.Interval = RouterHere, max(3*time.Duration(interval)*time.Second, 12*time.Second)
	case 1:
		m.Kind = RouterAsked
	default:
		m.Kind = RouterGone
	}
	return true
}

// parseRecords reads the records of IGMPv3 (addresses of 4 bytes) and MLDv2 (16):
//
//	+------+------------+-------+-------+-----------+--------------------
//	| type | auxiliary  | n (2) | group | n sources | auxiliary (4 each)
//	+------+------------+-------+-------+-----------+--------------------
func parseRecords(m *Message, p []byte, n, size int) bool {
	const isIn, isEx, toIn, toEx, allow, block = 1, 2, 3, 4, 5, 6
	for range n {
		if len(p) < 4+size {
			return false
		}
		sources := int(be16(p[2:]))
		length := 4 + size + sources*size + int(p[1])*4
		if len(p) < length {
			return false
		}
		group, _ := netip.AddrFromSlice(p[4 : 4+size])
		ok := true
		switch p[0] {
		case isEx, toEx:
			ok = m.add(group, Join)
		case isIn, toIn, allow:
			switch {
			case sources > 0:
				ok = m.add(group, Join)
			case p[0] == toIn:
				ok = m.add(group, Leave)
			}
		case block: // perhaps the last sources of its host: who still listens says so when asked
			ok = m.add(group, Leave)
		}
		if !ok {
			return false
		}
		p = p[length:]
	}
	return true
}

func (m *Message) add(group netip.Addr, c Change) bool {
	if !group.IsMulticast() {
		return false
	}
	m.Records = append(m.Records, Record{group, c})
	return true
}

// appendIPv4 begins an IPv4 packet with the router alert option (RFC 2113), TTL 1, from 0.0.0.0.
func appendIPv4(b []byte, dst [4]byte, body []byte) []byte {
	const header = 24
	h := [header]byte{0: 0x46, 1: 0xc0, 8: 1, 9: protoIGMP, 20: 0x94, 21: 0x04}
	binary.BigEndian.PutUint16(h[2:], uint16(header+len(body)))
	copy(h[16:], dst[:])
	binary.BigEndian.PutUint16(h[10:], checksum(0, h[:]))
	binary.BigEndian.PutUint16(body[2:], checksum(0, body))
	return append(append(b, h[:]...), body...)
}
