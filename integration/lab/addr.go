//go:build linux

package lab

import (
	"encoding/binary"
	"net/netip"
)

// maxBlocks is how many connections to a network have addresses at a time. (The name server has the next one's.)
const maxBlocks = 1023

// Addresses that every network has. They are routed to the core.
var (
	dns4 = netip.AddrFrom4([4]byte{198, 19, 255, 253})
	dns6 = netip.MustParseAddr("2001:db8:ffff::53")
)

// Addresses behind a NAT; every site has the same, as in life.
var (
	privateLAN = netip.MustParsePrefix("192.168.1.0/24")
	carrierLAN = netip.MustParsePrefix("100.64.0.0/26")
)

// Numbers of hosts in a LAN. Lower ones are routers'; a /26 has no higher ones.
const (
	firstHost = 10
	lastHost  = 60
)

// block is the addresses of one connection to a network: what a provider gives a customer.
type block int

// wan4 is 198.18.x.y/26: the core has its first address, the customer its second.
func (b block) wan4() netip.Prefix { return b.quarter(18) }

// lan4 is 198.19.x.y/26, routed to the customer, for sites without NAT.
func (b block) lan4() netip.Prefix { return b.quarter(19) }

func (b block) quarter(second byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, second, byte(b / 4), byte(b%4) * 64}), 26)
}

// site6 is 2001:db8:x::/48, routed to the customer.
func (b block) site6() netip.Prefix { return b.subnet6(0, 48) }

// wan6 is the first /64: the core has its first address, the customer its second.
func (b block) wan6() netip.Prefix { return b.subnet6(0, 64) }

// lan6 is the /64 of the customer's LAN.
func (b block) lan6() netip.Prefix { return b.subnet6(1, 64) }

// carrier6 is the /64 between a carrier's NAT and the customer's router.
func (b block) carrier6() netip.Prefix { return b.subnet6(0xff, 64) }

func (b block) subnet6(n uint16, bits int) netip.Prefix {
	a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	binary.BigEndian.PutUint16(a[4:], uint16(b))
	binary.BigEndian.PutUint16(a[6:], n)
	return netip.PrefixFrom(netip.AddrFrom16(a), bits)
}

// nth returns the address with number n in a prefix, with the prefix's length. Only the last byte is counted in.
func nth(p netip.Prefix, n int) netip.Prefix {
	a := p.Addr().AsSlice()
	a[len(a)-1] += byte(n)
	addr, _ := netip.AddrFromSlice(a)
	return netip.PrefixFrom(addr, p.Bits())
}

// blocks hands out blocks: new ones as long as there are, so that a renumbered customer does not soon meet old addresses.
type blocks struct {
	next int
	free []block // given back, oldest first
}

func (bs *blocks) take() (block, bool) {
	if bs.next < maxBlocks {
		bs.next++
		return block(bs.next - 1), true
	}
	if len(bs.free) == 0 {
		return 0, false
	}
	b := bs.free[0]
	bs.free = bs.free[1:]
	return b, true
}

func (bs *blocks) give(b block) { bs.free = append(bs.free, b) }
