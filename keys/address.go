package keys

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

// MAC is the node's Ethernet address on the segment: unicast, locally
// administered, the same wherever the node is.
func MAC(id NodeID) [6]byte {
	sum := digest("meshd/1/mac", id[:])
	mac := [6]byte(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// InterfaceID is the lower half of the node's address in a prefix: opaque,
// stable for the prefix, different between prefixes (RFC 7217, with the node's
// id in place of the secret, so that every member can compute it).
func InterfaceID(id NodeID, prefix netip.Prefix) [8]byte {
	network := prefix.Addr().As16()
	for counter := byte(0); ; counter++ {
		sum := digest("meshd/1/address", network[:8], id[:], []byte{counter})
		if iid := [8]byte(sum[:8]); !reservedInterfaceID(iid) {
			return iid
		}
	}
}

// reservedInterfaceID lists what RFC 5453 keeps from hosts.
func reservedInterfaceID(iid [8]byte) bool {
	v := binary.BigEndian.Uint64(iid[:])
	return v == 0 || // subnet-router anycast
		v>>24 == 0x02005efffe || // IANA's Ethernet block
		v >= 0xfdffffffffffff80 && v <= 0xfdffffffffffffff // anycast
}

// Address is the node's address in an IPv6 /64. A shorter prefix counts as the
// /64 that its address is in. Otherwise the result is the zero Addr.
func Address(id NodeID, prefix netip.Prefix) netip.Addr {
	if !prefix.IsValid() || !prefix.Addr().Is6() || prefix.Addr().Is4In6() || prefix.Bits() > 64 {
		return netip.Addr{}
	}
	address := prefix.Addr().As16()
	iid := InterfaceID(id, prefix)
	copy(address[8:], iid[:])
	return netip.AddrFrom16(address)
}

// RouterMAC is the address of a prefix's virtual router, which whoever routes for it
// has. Those of one network begin with the same three bytes.
func RouterMAC(n NetworkID, prefix netip.Prefix) [6]byte {
	network := prefix.Addr().As16()
	all, one := digest("meshd/1/router", n[:]), digest("meshd/1/router/prefix", n[:], network[:8])
	mac := [6]byte(append(all[:3:3], one[:3]...))
	mac[0] = mac[0]&^1 | 2
	return mac
}

// ULA is the network's own /64: a unique local prefix (RFC 4193) whose global id
// comes from the network's identity; subnet 0.
func ULA(n NetworkID) netip.Prefix {
	sum := digest("meshd/1/ula", n[:])
	address := [16]byte{0: 0xfd}
	copy(address[1:6], sum[:5])
	return netip.PrefixFrom(netip.AddrFrom16(address), 64)
}

// digest is SHA-256 over a label and parts. Parts that vary in length come last
// or with their length before them; the callers see to it.
func digest(label string, parts ...[]byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(label))
	h.Write([]byte{0})
	for _, part := range parts {
		h.Write(part)
	}
	return [32]byte(h.Sum(nil))
}
