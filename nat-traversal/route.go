package traversal

import "net/netip"

// Routes are this host's ways to the rest of the world: the address that it sends
// from, for each family; invalid where there is no route.
type Routes struct{ V4, V6 netip.Addr }

// FindRoutes asks the system, for packets with this mark.
func FindRoutes(mark uint32) (r Routes) {
	if a, ok := source(false, mark); ok {
		r.V4 = a
	}
	if a, ok := source(true, mark); ok {
		r.V6 = a
	}
	return r
}

// outside is an address beyond the default route: of the prefixes for documentation.
func outside(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr("2001:db8::1")
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, 1})
}
