package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// veth is no tunnel at all: what the machine can do.
type veth struct{}

func (*veth) Name() string                       { return "veth" }
func (*veth) About() string                      { return "no tunnel: the veth pair itself" }
func (*veth) Find(context.Context, *Tools) error { return nil }

func (*veth) Start(_ context.Context, p *Pair) (*Tunnel, error) {
	p.Mark()
	t := new(Tunnel)
	for i, u := range under {
		t.V4[i], t.V6[i] = u.v4.Addr(), u.v6.Addr()
	}
	return t, nil
}

// vxlan is the kernel's, without encryption.
type vxlan struct{}

func (*vxlan) Name() string                       { return "vxlan" }
func (*vxlan) About() string                      { return "kernel VXLAN over IPv4, not encrypted, MTU 1450" }
func (*vxlan) Find(context.Context, *Tools) error { return nil }

func (*vxlan) Start(_ context.Context, p *Pair) (*Tunnel, error) {
	p.Mark()
	ends := [2]netip.Addr{under[0].v4.Addr(), under[1].v4.Addr()}
	return tunnel(nil, nil), addVXLAN(p, ends, 1500, over)
}

// vxlanOverhead is Ethernet, VXLAN, UDP and IPv4.
const vxlanOverhead = 14 + 8 + 8 + 20

// addVXLAN makes a VXLAN between two addresses with a given MTU between them.
func addVXLAN(p *Pair, ends [2]netip.Addr, mtu int, addrs [2]addresses) error {
	for i, h := range p.Hosts {
		err := h.Do(func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.MTU = tap, mtu-vxlanOverhead
			link := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 7, SrcAddr: ends[i].AsSlice(), Group: ends[1-i].AsSlice(), Port: 4789, Learning: true}
			if err := netlink.LinkAdd(link); err != nil {
				return err
			}
			return number(tap, addrs[i])
		})
		if err != nil {
			return fmt.Errorf("make VXLAN on %s: %w", h.Name(), err)
		}
	}
	return nil
}
