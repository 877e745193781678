package nat64

import (
	"net/netip"
	"slices"
)

// Name is what every DNS64 answers for, with the addresses of wellKnown inside a
// prefix of its own (RFC 7050, section 3).
const Name = "ipv4only.arpa"

// maxPrefixes are used of what a DNS server names.
const maxPrefixes = 4

// wellKnown are Name's only true addresses.
func wellKnown() [2]netip.Addr {
	return [2]netip.Addr{netip.AddrFrom4([4]byte{192, 0, 0, 170}), netip.AddrFrom4([4]byte{192, 0, 0, 171})}
}

// lengths are those that a prefix can have (RFC 6052, 2.2), the most usual first.
func lengths() [6]int { return [6]int{96, 64, 56, 48, 40, 32} }

// positions are where the four bytes of an IPv4 address stand behind a prefix of
// so many bits. The ninth byte of the whole, "u", is always zero.
func positions(bits int) (at [4]int, ok bool) {
	l := lengths()
	if !slices.Contains(l[:], bits) {
		return at, false
	}
	next := bits / 8
	for i := range at {
		if next == 8 {
			next++
		}
		at[i] = next
		next++
	}
	return at, true
}

// Synthesize is an IPv4 address behind a prefix. Not ok for a prefix that cannot
// be one, and for addresses that no NAT64 leads to: those that mean something
// only where they are.
func Synthesize(prefix netip.Prefix, v4 netip.Addr) (netip.Addr, bool) {
	v4 = v4.Unmap()
	at, ok := positions(prefix.Bits())
	if !ok || !prefix.Addr().Is6() || !reachable(v4) {
		return netip.Addr{}, false
	}
	b, in := prefix.Masked().Addr().As16(), v4.As4()
	if b[8] != 0 {
		return netip.Addr{}, false
	}
	for i, p := range at {
		b[p] = in[i]
	}
	return netip.AddrFrom16(b), true
}

// Extract is the IPv4 address that an address of the prefix stands for.
func Extract(prefix netip.Prefix, a netip.Addr) (netip.Addr, bool) {
	at, ok := positions(prefix.Bits())
	if !ok || !a.Is6() || !prefix.Contains(a) {
		return netip.Addr{}, false
	}
	b := a.As16()
	if b[8] != 0 {
		return netip.Addr{}, false
	}
	var v4 [4]byte
	for i, p := range at {
		v4[i] = b[p]
	}
	return netip.AddrFrom4(v4), true
}

func reachable(v4 netip.Addr) bool {
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10)
	return v4.Is4() && v4.IsGlobalUnicast() && !v4.IsPrivate() && !shared.Contains(v4) && v4.As4()[0] != 0 && v4.As4()[0] < 240
}

// Prefixes are those in the IPv6 addresses that a DNS server has answered for
// Name (RFC 7050, section 3). An answer in which the well-known addresses stand
// at no place, or at two, says nothing.
func Prefixes(answers []netip.Addr) (list []netip.Prefix) {
	for _, a := range answers {
		if !a.Is6() || a.Is4In6() {
			continue
		}
		a = a.WithZone("")
		p, ok := prefixOf(a)
		if ok && !slices.Contains(list, p) && len(list) < maxPrefixes {
			list = append(list, p)
		}
	}
	return list
}

func prefixOf(a netip.Addr) (found netip.Prefix, ok bool) {
	for _, bits := range lengths() {
		p := netip.PrefixFrom(a, bits).Masked()
		v4, good := Extract(p, a)
		if w := wellKnown(); !good || v4 != w[0] && v4 != w[1] {
			continue
		}
		if ok {
			return netip.Prefix{}, false
		}
		found, ok = p, true
	}
	usable := found.IsValid() && !found.Addr().IsUnspecified() && !found.Addr().IsLinkLocalUnicast() && !found.Addr().IsMulticast()
	return found, ok && usable
}
