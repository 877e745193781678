package snoop

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// ICMPv6 types (RFC 2710, 3810, 4286).
const (
	mldQuery     = 130
	mldReportV1  = 131
	mldDone      = 132
	mldReportV2  = 143
	mldAdvertise = 151
	mldSolicit   = 152
	mldTerminate = 153
)

// MLDControl reports whether an ICMPv6 type stays on its side.
func MLDControl(kind byte) bool {
	switch kind {
	case mldQuery, mldReportV1, mldDone, mldReportV2, mldAdvertise, mldSolicit, mldTerminate:
		return true
	}
	return false
}

// parseIPv6 finds MLD, directly or behind one hop-by-hop header as it ought to be (RFC 3810, 5), and PIM.
func parseIPv6(m *Message, p []byte) Verdict {
	if len(p) < 40 || p[0]>>4 != 6 {
		return Other
	}
	next, hops, size := p[6], p[7], int(be16(p[4:]))
	body := p[40:]
	if size > len(body) {
		return Other // cut off: nobody takes it
	}
	body = body[:size]
	if next == hopByHop {
		if len(body) < 8 || len(body) < 8+8*int(body[1]) {
			return Other
		}
		next, body = body[0], body[8+8*int(body[1]):]
	}
	m.Source = netip.AddrFrom16([16]byte(p[8:24]))
	switch {
	case next == protoPIM:
		return parsePIM(m, body)
	case next != protoICMPv6 || len(body) == 0 || !MLDControl(body[0]):
		return Other
	case len(body) < 4 || hops != 1 || checksum(pseudo(p[8:40], len(body)), body) != 0 || !parseMLD(m, body):
		return Broken
	}
	return Control
}

// pseudo is the sum over the header that ICMPv6's checksum covers (RFC 8200, 8.1): addresses, length, protocol.
func pseudo(addresses []byte, size int) (sum uint32) {
	for i := 0; i < 32; i += 2 {
		sum += uint32(be16(addresses[i:]))
	}
	return sum + uint32(size) + protoICMPv6
}

// parseMLD reads
//
//	 0      1   2          4              6   8
//	+------+---+----------+--------------+---+------------
//	| type | 0 | checksum | response, ms | 0 | group (16)           query, report and done of version 1, 24 bytes
//	+------+---+----------+--------------+---+------------
//	| 130  | 0 | checksum | response     | 0 | group | S, QRV (1) | interval (1) | n (2) | n sources      version 2
//	| 143  | 0 | checksum | 0 (2)        | n (2) | n records
func parseMLD(m *Message, p []byte) bool {
	linkLocal := m.Source.IsLinkLocalUnicast()
	switch {
	case p[0] >= mldAdvertise:
		return linkLocal && parseDiscovery(m, p[0]-mldAdvertise, p[1])
	case p[0] == mldReportV2:
		if len(p) < 8 || !linkLocal && !m.Source.IsUnspecified() {
			return false
		}
		m.Kind, m.Version = Report, 2
		return parseRecords(m, p[8:], int(be16(p[6:])), 16)
	case len(p) < 24:
		return false
	}
	group := netip.AddrFrom16([16]byte(p[8:24]))
	if p[0] != mldQuery {
		m.Kind, m.Version = Report, 1
		change := Join
		if p[0] == mldDone {
			change = Leave
		}
		return (linkLocal || m.Source.IsUnspecified()) && m.add(group, change)
	}
	m.Kind, m.Version = Query, 1
	m.Response = time.Duration(be16(p[4:])) * time.Millisecond
	if !group.IsUnspecified() {
		m.Group = group
	}
	if len(p) >= 28 {
		m.Version, m.Response = 2, time.Duration(code(be16(p[4:]), 12))*time.Millisecond
		m.Suppress, m.Interval = p[24]&8 != 0, time.Duration(code(uint16(p[25]), 4))*time.Second
	} else if len(p) != 24 {
		return false
	}
	return linkLocal && (!m.Group.IsValid() || group.IsMulticast()) // RFC 3810, 6.2
}

// appendIPv6 begins an IPv6 packet with the router alert option for MLD (RFC 2711) and hop limit 1.
func appendIPv6(b []byte, src, dst [16]byte, body []byte) []byte {
	const header, option = 40, 8
	h := [header + option]byte{0: 0x60, 6: hopByHop, 7: 1, 40: protoICMPv6, 42: 5, 43: 2, 46: 1}
	binary.BigEndian.PutUint16(h[4:], uint16(option+len(body)))
	copy(h[8:], src[:])
	copy(h[24:], dst[:])
	binary.BigEndian.PutUint16(body[2:], checksum(pseudo(h[8:40], len(body)), body))
	return append(append(b, h[:]...), body...)
}
