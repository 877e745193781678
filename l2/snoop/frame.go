package snoop

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// ProxyMAC is the address that a Table's frames come from, made of its node's own: the
// host behind the TAP must not see its own address in others' mouth.
func ProxyMAC(own [6]byte) [6]byte {
	own[0] ^= 0x04 // stays local and unicast
	return own
}

// proxyAddress is the link-local address of a proxy: high, so that every router's is lower
// and asks in its place (RFC 3810, 7.6.2).
func proxyAddress(mac [6]byte) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80, 8: 0xff, 9: 0xff, 10: mac[0], 11: mac[1], 12: mac[2], 13: mac[3], 14: mac[4], 15: mac[5],
	})
}

var (
	allSystems  = netip.AddrFrom4([4]byte{224, 0, 0, 1})
	allRouters  = netip.AddrFrom4([4]byte{224, 0, 0, 2})
	allReports  = netip.AddrFrom4([4]byte{224, 0, 0, 22})
	allSnoopers = netip.AddrFrom4([4]byte{224, 0, 0, 106})

	allSystems6  = netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 15: 1})
	allRouters6  = netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 15: 2})
	allReports6  = netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 15: 0x16})
	allSnoopers6 = netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 15: 0x6a})
)

const minFrame = 60 // of Ethernet, without FCS

// frame makes a frame from the proxy to a group, with a body of IGMP or MLD whose checksum is missing.
func (t *Table) frame(vlan uint16, dst netip.Addr, body []byte) []byte {
	to := MAC(dst)
	b := append(make([]byte, 0, 128+len(body)), to[:]...)
	b = append(b, t.mac[:]...)
	if vlan != 0 {
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 0), vlan)
	}
	if dst.Is4() {
		b = appendIPv4(binary.BigEndian.AppendUint16(b, etherTypeIPv4), dst.As4(), body)
	} else {
		b = appendIPv6(binary.BigEndian.AppendUint16(b, etherTypeIPv6), t.addr.As16(), dst.As16(), body)
	}
	for len(b) < minFrame {
		b = append(b, 0)
	}
	return b
}

// query asks for one group, or for all when group is zero. Seconds below 128 are their own code.
func (t *Table) query(vlan uint16, v6 bool, group netip.Addr, response time.Duration) []byte {
	const robustness, interval = 2, byte(queryEvery / time.Second)
	dst := group
	if v6 {
		body := make([]byte, 28)
		body[0], body[24], body[25] = mldQuery, robustness, interval
		binary.BigEndian.PutUint16(body[4:], uint16(response/time.Millisecond))
		if group.IsValid() {
			copy(body[8:], group.AsSlice())
		} else {
			dst = allSystems6
		}
		return t.frame(vlan, dst, body)
	}
	body := make([]byte, 12)
	body[0], body[1], body[8], body[9] = igmpQuery, byte(response/(100*time.Millisecond)), robustness, interval
	if group.IsValid() {
		copy(body[4:], group.AsSlice())
	} else {
		dst = allSystems
	}
	return t.frame(vlan, dst, body)
}

// advertisement says that reports are wanted here (RFC 4286, 3.1): snooping bridges send them, and all groups, to who says
// so, while they do not take a query from 0.0.0.0 for a router's (RFC 4541, 2.1.1).
func (t *Table) advertisement(vlan uint16, v6 bool) []byte {
	const again = byte(queryEvery / time.Second)
	if v6 {
		return t.frame(vlan, allSnoopers6, []byte{mldAdvertise, again, 0, 0, 0, again, 0, 2})
	}
	return t.frame(vlan, allSnoopers, []byte{igmpAdvertise, again, 0, 0, 0, again, 0, 2})
}

// reports say for hosts elsewhere that they listen to groups, or no longer do, in the words that who asks understands.
func (t *Table) reports(vlan uint16, v6 bool, version uint8, groups []netip.Addr, c Change) (frames [][]byte) {
	if v6 && version == 1 || !v6 && version != 3 && version != 0 {
		for _, g := range groups {
			frames = append(frames, t.oldReport(vlan, g, version, c))
		}
		return frames
	}
	const toIn, isEx = 3, 2
	kind, size, dst, first := byte(isEx), 8, allReports, byte(igmpReportV3)
	if c == Leave {
		kind = toIn
	}
	if v6 {
		size, dst, first = 20, allReports6, mldReportV2
	}
	for most := 1200 / size; len(groups) > 0; {
		n := min(len(groups), most)
		body := make([]byte, 8, 8+n*size)
		body[0] = first
		binary.BigEndian.PutUint16(body[6:], uint16(n))
		for _, g := range groups[:n] {
			body = append(append(body, kind, 0, 0, 0), g.AsSlice()...)
		}
		frames = append(frames, t.frame(vlan, dst, body))
		groups = groups[n:]
	}
	return frames
}

// oldReport speaks to a querier of IGMPv1, IGMPv2 or MLDv1.
func (t *Table) oldReport(vlan uint16, group netip.Addr, version uint8, c Change) []byte {
	dst := group
	if group.Is6() {
		body := make([]byte, 24)
		body[0] = mldReportV1
		if c == Leave {
			body[0], dst = mldDone, allRouters6
		}
		copy(body[8:], group.AsSlice())
		return t.frame(vlan, dst, body)
	}
	kind := byte(igmpReportV2)
	switch {
	case c == Leave:
		kind, dst = igmpLeave, allRouters
	case version == 1:
		kind = igmpReportV1
	}
	return t.frame(vlan, dst, append([]byte{kind, 0, 0, 0}, group.AsSlice()...))
}
