//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// HostConfig says what a host on the internet is. With neither V4 nor V6 it has both.
type HostConfig struct {
	V4, V6 bool
	Link   Link
}

// Host is a machine with one interface or several: eth0, eth1 and so on.
type Host struct {
	machine
	nics []*nic // guarded by the lab's lock
}

// nic is a host's network interface. It is plugged into a site's LAN or connected to a network.
type nic struct {
	end    // at the host
	far    end
	metric int // of its default routes
	site   *Site
	seat   int     // number of the host in the site's LAN
	up     *uplink // when there is no site
}

// Host connects a host with public addresses to the network. Its interface is eth0.
func (n *Network) Host(name string, cfg HostConfig) *Host {
	if !cfg.V4 && !cfg.V6 {
		cfg.V4, cfg.V6 = true, true
	}
	h := &Host{machine: machine{lab: n.lab, name: name, resolv: resolvConf(cfg.V4)}}
	n.lab.build(name, func() (err error) {
		if h.ns, err = n.lab.newNamespace(name); err != nil {
			return err
		}
		return h.connectTo(n, cfg)
	})
	return h
}

// Plug adds an interface to the host and plugs it into another site's LAN. It returns the interface's name. Routes by
// the interfaces that were there before are preferred.
func (h *Host) Plug(to *Site) (string, error) {
	name := ""
	err := h.lab.change(fmt.Sprintf("plug %s into %s", h.name, to.name), func() error {
		name = h.nicName()
		return h.plugInto(to)
	})
	return name, err
}

// Connect adds an interface to the host and connects it to a network. It returns the interface's name.
func (h *Host) Connect(to *Network, cfg HostConfig) (string, error) {
	if !cfg.V4 && !cfg.V6 {
		cfg.V4, cfg.V6 = true, true
	}
	name := ""
	err := h.lab.change(fmt.Sprintf("connect %s to %s", h.name, to.name), func() error {
		name = h.nicName()
		return h.connectTo(to, cfg)
	})
	return name, err
}

func (h *Host) nicName() string { return fmt.Sprintf("eth%d", len(h.nics)) }

// metric lets the first interface's default route win.
func (h *Host) metric() int { return 100 + len(h.nics) }

func (h *Host) connectTo(n *Network, cfg HostConfig) error {
	up, err := n.attach(plug{ns: h.ns, name: h.nicName(), v6: cfg.V6}, cfg.Link, cfg.V4, false, h.metric())
	if err != nil {
		return err
	}
	n.customers[up.cable.a.name] = h.name
	h.nics = append(h.nics, &nic{end: up.cable.b, far: up.cable.far, metric: up.metric, up: up})
	return nil
}

func (h *Host) plugInto(s *Site) error {
	n := &nic{metric: h.metric()}
	if err := h.cableTo(s, n, h.nicName()); err != nil {
		return err
	}
	h.nics = append(h.nics, n)
	return nil
}

// cableTo makes a cable from the host to a site's switch.
func (h *Host) cableTo(s *Site, n *nic, name string) error {
	if s.ns == nil || (s.up == nil && s.wan == nil) {
		return fmt.Errorf("site %q is not built", s.name)
	}
	port := plug{ns: s.ns, name: fmt.Sprintf("p%d", s.lab.id())}
	far, near, err := h.lab.pair(port, plug{ns: h.ns, name: name, v6: s.cfg.V6}, defaultMTU)
	if err != nil {
		return err
	}
	n.end = near
	return s.take(n, far)
}

// number gives the interface its addresses and default routes.
func (n *nic) number() error {
	if n.up != nil {
		return n.up.number()
	}
	prefixes := n.site.prefixes()
	addrs := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		addrs[i] = nth(p, n.seat)
	}
	if err := n.setAddrs(addrs...); err != nil {
		return err
	}
	for _, p := range prefixes {
		if err := n.setRoute(netip.Prefix{}, nth(p, 1).Addr(), n.metric); err != nil {
			return err
		}
	}
	return nil
}

// current are the addresses that the interface has from the lab.
func (n *nic) current() []netip.Prefix {
	if n.up != nil {
		return n.up.cable.b.addrs
	}
	return n.addrs
}

// Addrs are the addresses of the host's interfaces, not counting link-local ones and those that programs have set.
func (h *Host) Addrs() []netip.Addr {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	var addrs []netip.Addr
	for _, n := range h.nics {
		for _, p := range n.current() {
			addrs = append(addrs, p.Addr())
		}
	}
	return addrs
}

// Addr4 is the first IPv4 address; invalid without one.
func (h *Host) Addr4() netip.Addr { return h.first(netip.Addr.Is4) }

// Addr6 is the first IPv6 address; invalid without one.
func (h *Host) Addr6() netip.Addr { return h.first(netip.Addr.Is6) }

func (h *Host) first(is func(netip.Addr) bool) netip.Addr {
	for _, a := range h.Addrs() {
		if is(a) {
			return a
		}
	}
	return netip.Addr{}
}

// Move unplugs eth0 and plugs it into another site's LAN, as a laptop is carried from one place to another: the
// interface stays, loses its carrier, finds it again, and has other addresses. It returns when the new link carries.
func (h *Host) Move(to *Site) error {
	return h.lab.change(fmt.Sprintf("move %s to %s", h.name, to.name), func() error {
		n := h.nics[0]
		if n.up != nil {
			if err := n.up.detach(); err != nil {
				return err
			}
			n.up = nil
			if err := h.cableTo(to, n, n.name); err != nil {
				return err
			}
			return h.lab.ready(context.Background())
		}
		if err := n.carryTo(to); err != nil {
			return err
		}
		if err := n.setFamily(to.cfg.V6); err != nil {
			return err
		}
		if err := to.take(n, n.far); err != nil {
			return err
		}
		h.lab.await(n.end)
		return h.lab.ready(context.Background())
	})
}

// carryTo takes the far end of the interface's cable from one site to another, and waits on the way until the host has
// noticed: the kernel reports a change of carrier up to a second late, and one that is short never.
func (n *nic) carryTo(to *Site) error {
	port, err := n.far.link()
	if err != nil {
		return err
	}
	if err := n.far.ns.link.LinkSetDown(port); err != nil { // for the case that it is the same site
		return fmt.Errorf("unplug %s: %w", n.far.name, err)
	}
	if err := n.far.ns.link.LinkSetNsFd(port, to.ns.fd); err != nil {
		return fmt.Errorf("carry %s to %q: %w", n.far.name, to.name, err)
	}
	n.site.release(n)
	if err := poll(context.Background(), n.silent); err != nil {
		return fmt.Errorf("wait for %s to lose its carrier: %w", n.name, err)
	}
	n.far, err = to.lab.open(plug{ns: to.ns, name: n.far.name})
	return err
}

// setFamily turns IPv6 on the interface on or off.
func (n *nic) setFamily(v6 bool) error {
	value := "1"
	if v6 {
		value = "0"
	}
	return n.ns.sysctl(map[string]string{"ipv6/conf/" + n.name + "/disable_ipv6": value})
}

// Renumber gives eth0 other addresses: of another network on the internet, or another host's on a LAN.
func (h *Host) Renumber() error {
	return h.lab.change("renumber "+h.name, func() error {
		n := h.nics[0]
		if n.up != nil {
			return n.up.renumber()
		}
		seat, err := n.site.seat()
		if err != nil {
			return err
		}
		n.seat = seat
		return n.number()
	})
}

// SetAddrs replaces the addresses that the lab has given to eth0. Routes by the old ones go with them, and are not
// replaced unless the new ones are of the same networks.
func (h *Host) SetAddrs(addrs ...netip.Prefix) error {
	return h.lab.change(fmt.Sprintf("set addresses of %s", h.name), func() error {
		n := h.nics[0]
		if n.up != nil {
			return n.up.cable.b.setAddrs(addrs...)
		}
		return n.setAddrs(addrs...)
	})
}

// Impersonate gives a host on the internet addresses that others have given up, and routes to them: those who send
// there now reach this host.
func (h *Host) Impersonate(addrs ...netip.Addr) error {
	return h.lab.change(fmt.Sprintf("let %s have %v", h.name, addrs), func() error {
		n := h.nics[0]
		if n.up == nil {
			return errors.New("the host is in a LAN")
		}
		mine := n.current()
		all := slices.Clone(mine)
		for _, a := range addrs {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
		if err := n.up.cable.b.setAddrs(all...); err != nil {
			return err
		}
		for _, a := range addrs {
			for _, own := range mine {
				if own.Addr().Is4() != a.Is4() {
					continue
				}
				if err := n.up.cable.a.setRoute(netip.PrefixFrom(a, a.BitLen()), own.Addr(), 0); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// SetLink changes the link of a host on the internet. It must have been made with a Link that is not zero.
func (h *Host) SetLink(link Link) error {
	return h.lab.change("change link of "+h.name, func() error {
		n := h.nics[0]
		if n.up == nil {
			return errors.New("the host is in a LAN: change the link of its site")
		}
		return n.up.setLink(link)
	})
}

// LinkDown takes the carrier from an interface, and returns when the host has noticed.
func (h *Host) LinkDown(name string) error { return h.setCarrier(name, false) }

// LinkUp gives the carrier back and waits until the link carries.
func (h *Host) LinkUp(name string) error { return h.setCarrier(name, true) }

func (h *Host) setCarrier(name string, up bool) error {
	what := map[bool]string{false: "unplug ", true: "plug in "}[up] + name + " of " + h.name
	return h.lab.change(what, func() error {
		n, err := h.nic(name)
		if err != nil {
			return err
		}
		far, err := n.far.link()
		if err != nil {
			return err
		}
		if !up {
			if err := n.far.ns.link.LinkSetDown(far); err != nil {
				return err
			}
			if n.site != nil {
				h.lab.forget(n.site.lan)
			}
			return poll(context.Background(), n.silent)
		}
		if err := n.far.ns.link.LinkSetUp(far); err != nil {
			return err
		}
		h.lab.await(n.end, n.far)
		if n.site != nil {
			h.lab.await(n.site.lan)
		}
		if err := n.number(); err != nil { // the far end's addresses went when it was set down
			return err
		}
		return h.lab.ready(context.Background())
	})
}

func (h *Host) nic(name string) (*nic, error) {
	for _, n := range h.nics {
		if n.name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("%s has no interface %q", h.name, name)
}

// Routed6 is a /64 that the network routes to a host on the internet, and that none of its links has; invalid where the
// host has no IPv6. It changes with the host's addresses.
func (h *Host) Routed6() netip.Prefix {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	if len(h.nics) == 0 || h.nics[0].up == nil || !h.nics[0].up.v6 {
		return netip.Prefix{}
	}
	return h.nics[0].up.block.lan6()
}
