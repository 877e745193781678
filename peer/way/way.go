package way

import (
	"encoding/binary"
	"net/netip"
)

// Class is a kind of way, the better the smaller.
type Class uint8

// The classes.
const (
	Direct  Class = iota // a UDP path between the two nodes
	Relayed              // through a circuit of a member that relays
	TCP                  // framed over TLS
	SSH                  // framed over the standard streams of ssh
)

// String implements fmt.Stringer.
func (c Class) String() string {
	switch c {
	case Direct:
		return "direct"
	case Relayed:
		return "relayed"
	case TCP:
		return "tcp"
	case SSH:
		return "ssh"
	}
	return "unknown"
}

// port of every virtual address: a netip.AddrPort with port 0 is not a candidate.
const port = 1

// prefix is the discard-only prefix (RFC 6666).
var prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 1}), 64)

// Virtual returns the address of a way. Only the lower 48 bits of the id count.
func Virtual(c Class, id uint64) netip.AddrPort {
	a := [16]byte{0: 1}
	binary.BigEndian.PutUint64(a[8:], uint64(c)<<48|id&(1<<48-1))
	return netip.AddrPortFrom(netip.AddrFrom16(a), port)
}

// ClassOf returns the class of an address: Direct for all outside 100::/64.
func ClassOf(a netip.AddrPort) Class {
	if !IsVirtual(a.Addr()) {
		return Direct
	}
	b := a.Addr().As16()
	return Class(min(binary.BigEndian.Uint16(b[8:]), 255))
}

// ID returns the id of a virtual address.
func ID(a netip.AddrPort) uint64 {
	b := a.Addr().As16()
	return binary.BigEndian.Uint64(b[8:]) & (1<<48 - 1)
}

// IsVirtual reports whether an address is in 100::/64: nothing from outside may
// be.
func IsVirtual(a netip.Addr) bool { return a.Is6() && prefix.Contains(a.WithZone("")) }

// Source is what one sender can hardly change, to hold it to its share: an IPv4
// address, an IPv6 /64, or a virtual address, which this node has given out.
func Source(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 64
	switch {
	case a.Is4():
		bits = 32
	case IsVirtual(a):
		bits = 128
	}
	p, _ := a.Prefix(bits) // of no address: the zero prefix
	return p
}
