//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// AddPublic gives the site's router another IPv4 address, and the internet a route to it. The lab's own addresses are of
// the range for benchmarks (RFC 2544), and some programs do not take them for public.
func (s *Site) AddPublic(a netip.Addr) error {
	return s.lab.change(fmt.Sprintf("give %s the address %v", s.name, a), func() error {
		if s.carrier != nil || !s.cfg.V4 {
			return errors.New("the router has no public IPv4 address of its own")
		}
		addrs := append(slices.Clone(s.up.cable.b.addrs), netip.PrefixFrom(a, a.BitLen()))
		if err := s.up.cable.b.setAddrs(addrs...); err != nil {
			return err
		}
		return s.up.cable.a.setRoute(netip.PrefixFrom(a, a.BitLen()), nth(s.up.block.wan4(), 2).Addr(), 0)
	})
}
