package l2

import "encoding/binary"

// EtherTypes that the switch looks at.
const (
	etherTypeMin  = 0x0600 // below, it is the length of an 802.3 frame
	etherTypeIPv4 = 0x0800
	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd
	etherTypeVLAN = 0x8100 // 802.1Q
	etherTypeSVID = 0x88a8 // 802.1ad, the outer tag of QinQ

	// Between neighbours on one link, and never across a bridge.
	etherTypePause = 0x8808
	etherTypeSlow  = 0x8809 // LACP
	etherTypeEAPOL = 0x888e
	etherTypeLLDP  = 0x88cc
)

const (
	headerLen = 14
	tagLen    = 4
	maxTags   = 2 // whose bytes do not count towards the MTU
	vidMask   = 0x0fff
)

// Header is what the switch reads of a frame.
//
//	 0             6             12            14
//	+-------------+-------------+-------------+---------
//	| destination | source      | EtherType   | payload      untagged
//	+-------------+-------------+-------------+---------
//	                            | 81 00 | pri, VID (12) | EtherType | payload
//
// Frames carry no FCS.
type Header struct {
	Dst, Src  MAC
	VLAN      uint16 // of the outermost tag that names one; 0 for untagged and priority-tagged frames
	EtherType uint16 // behind at most two tags; below 1536 it is an 802.3 length
	Payload   int    // offset of what follows the EtherType
}

// ParseHeader reads the Ethernet header of frame. It reports false when the header
// or a tag in it is cut off, and when a tag stands behind two that name no VLAN: hosts
// strip priority tags, so what is behind them must not escape the check.
func ParseHeader(frame []byte) (h Header, ok bool) {
	if len(frame) < headerLen {
		return Header{}, false
	}
	h.Dst = MAC(frame[0:6])
	h.Src = MAC(frame[6:12])
	h.EtherType = binary.BigEndian.Uint16(frame[12:14])
	h.Payload = headerLen
	for tags := 0; tags < maxTags && isTag(h.EtherType); tags++ {
		if len(frame) < h.Payload+tagLen {
			return Header{}, false
		}
		if h.VLAN == 0 {
			h.VLAN = binary.BigEndian.Uint16(frame[h.Payload:]) & vidMask
		}
		h.EtherType = binary.BigEndian.Uint16(frame[h.Payload+2:])
		h.Payload += tagLen
	}
	if h.VLAN == 0 && isTag(h.EtherType) {
		return Header{}, false
	}
	return h, true
}

func isTag(etherType uint16) bool {
	return etherType == etherTypeVLAN || etherType == etherTypeSVID
}

// reserved reports whether dst is one of 01:80:c2:00:00:00 to 0f: spanning tree,
// pause, LACP, LLDP. A bridge never forwards them (802.1Q 8.6.3), nor Cisco's twins
// of those, 01:00:0c:cc:cc:cc and cd. Nor does this one forward meshd's own discovery
// of members on a link (mesh/lan): whoever heard of a member that way would try to
// reach it through the segment.
func reserved(dst MAC) bool {
	switch {
	case !dst.Multicast():
		return false
	case dst == MAC{0x01, 0x00, 0x5e, 0x7f, 0x33, 0x53}, dst == MAC{0x33, 0x33, 0x00, 0x00, 0x51, 0x83}:
		return true
	case dst == lanGroup:
		return true
	case dst[0] == 0x01 && dst[1] == 0 && dst[2] == 0x0c:
		return dst[3] == 0xcc && dst[4] == 0xcc && dst[5]&^1 == 0xcc
	}
	return dst[0] == 0x01 && dst[1] == 0x80 && dst[2] == 0xc2 && dst[3] == 0 && dst[4] == 0 && dst[5] < 0x10
}

// lawful checks what holds for frames of every origin. It returns passed or why
// the frame is dropped.
func lawful(h Header, size, mtu int) reason {
	switch {
	case size-h.Payload > mtu:
		return oversize
	case reserved(h.Dst):
		return reservedMulticast
	case h.Src.Multicast():
		return sourceMulticast
	case h.Src == MAC{}:
		return sourceZero
	}
	return passed
}
