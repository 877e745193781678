package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/integration/lab"
)

// connect makes the veth pair, and routes over it.
func (p *Pair) connect(ctx context.Context, offloads bool) error {
	p.offloads = offloads
	if err := p.cable(ctx, p.Hosts, wire, under); err != nil {
		return err
	}
	for i, h := range p.Hosts {
		if err := h.Do(func() error { return routes(under[1-i]) }); err != nil {
			return fmt.Errorf("set up %s of host %s: %w", wire, h.Name(), err)
		}
	}
	return nil
}

// cable makes a veth pair between two hosts, with one name at both, and waits until it carries frames.
func (p *Pair) cable(ctx context.Context, ends [2]*lab.Host, name string, addrs [2]addresses) error {
	var far *os.File
	err := ends[1].Do(func() (err error) {
		far, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return err
	}
	defer far.Close()
	err = ends[0].Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.TxQLen = name, 1500, 1000
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerMTU, veth.PeerTxQLen = name, 1500, 1000
		veth.PeerNamespace = netlink.NsFd(far.Fd())
		return netlink.LinkAdd(veth)
	})
	if err != nil {
		return fmt.Errorf("make veth pair %s: %w", name, err)
	}
	for i, h := range ends {
		err := h.Do(func() error {
			if !p.offloads {
				if err := offloadsOff(name); err != nil {
					return err
				}
			}
			return number(name, addrs[i])
		})
		if err != nil {
			return fmt.Errorf("set up %s of host %s: %w", name, h.Name(), err)
		}
	}
	return awaitCarrier(ctx, ends, name)
}

// awaitCarrier waits until a veth carries frames both ways: until then it drops them silently.
func awaitCarrier(ctx context.Context, ends [2]*lab.Host, name string) error {
	for _, h := range ends {
		err := poll(ctx, func() bool {
			return h.Do(func() error {
				link, err := netlink.LinkByName(name)
				if err == nil && link.Attrs().OperState != netlink.OperUp {
					err = errNoCarrier
				}
				return err
			}) == nil
		})
		if err != nil {
			return fmt.Errorf("wait for carrier of %s at %s: %w", name, h.Name(), err)
		}
	}
	return nil
}

var errNoCarrier = errors.New("no carrier")

// number gives an interface of the calling thread's namespace its addresses and takes it up. A lost question for a
// neighbour's address must not cost a second, or it would be what is measured.
func number(name string, a addresses) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, prefix := range []netip.Prefix{a.v4, a.v6} {
		addr, err := netlink.ParseAddr(prefix.String())
		if err != nil {
			return err
		}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("set %v: %w", prefix, err)
		}
	}
	if err := setParameters(map[string]string{
		"ipv4/neigh/" + name + "/retrans_time_ms": "100",
		"ipv6/neigh/" + name + "/retrans_time_ms": "100",
	}); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// routes lead to the other host: directly, and as a default route by which programs find their uplink. They name the
// congestion control for programs that use TCP below; a namespace's own default cannot be set everywhere.
func routes(via addresses) error {
	link, err := netlink.LinkByName(wire)
	if err != nil {
		return err
	}
	for _, prefix := range []netip.Prefix{via.v4, via.v6} {
		to := prefix.Addr()
		host := netlink.NewIPNet(to.AsSlice())
		for _, route := range []*netlink.Route{
			{Dst: host, LinkIndex: link.Attrs().Index, Congctl: "cubic"},
			{Gw: to.AsSlice(), LinkIndex: link.Attrs().Index, Congctl: "cubic"},
		} {
			if err := netlink.RouteReplace(route); err != nil {
				return fmt.Errorf("route to %v: %w", to, err)
			}
		}
	}
	return nil
}
