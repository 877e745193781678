//go:build !linux

package traversal

import "net/netip"

// source is the address that a socket would send from to the rest of the world;
// packets have no mark on this system.
func source(v6 bool, _ uint32) (netip.Addr, bool) {
	return sourceFor(netip.AddrPortFrom(outside(v6), 9).String())
}
