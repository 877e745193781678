package underlay

import (
	"hash/crc32"
	"net/netip"
)

// Mark is the mark of the sockets of the node with that TAP; also the number of
// the TAP's interface group and of the routing table. 0 for no TAP: then there is
// nothing to go around.
func Mark(tap string) uint32 {
	if tap == "" {
		return 0
	}
	const space = 0x6d65_0000 // "me"
	return space | crc32.ChecksumIEEE([]byte(tap))&0xffff
}

// route is one of the main table. A default route has a prefix of length 0.
type route struct {
	dst    netip.Prefix
	inside bool // leads into the TAP
}

// hidden says which routes those into the TAP may keep from being found: others
// of the same family whose destination is the same or contains it.
func hidden(routes []route) []int {
	var list []int
	for i, r := range routes {
		if r.inside {
			continue
		}
		for _, in := range routes {
			if in.inside && covers(r.dst, in.dst) {
				list = append(list, i)
				break
			}
		}
	}
	return list
}

// covers reports whether all of b is in a.
func covers(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }
