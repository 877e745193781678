//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"
)

// Network is an internet: a core router that sites and hosts are connected to. Networks of a lab do not know each other,
// and use the same addresses.
type Network struct {
	lab    *Lab
	name   string
	core   *namespace
	blocks blocks
	names  *nameServer

	customers map[string]string // by the core's interface
}

// Internet makes a network.
func (l *Lab) Internet(name string) *Network {
	n := &Network{lab: l, name: name, customers: make(map[string]string)}
	l.build(name, func() (err error) {
		if n.core, err = l.newRouter(name); err != nil {
			return err
		}
		lo := end{ns: n.core, name: "lo", index: 1}
		if err := lo.setAddrs(netip.PrefixFrom(dns4, 32), netip.PrefixFrom(dns6, 128)); err != nil {
			return err
		}
		if n.names, err = serveNames(n.core); err != nil {
			return err
		}
		l.own(n.names)
		return nil
	})
	return n
}

// SetName makes a name resolve to addrs on every host of the network; without addrs it exists no longer. Answers are
// valid for a second.
func (n *Network) SetName(name string, addrs ...netip.Addr) {
	if n.names != nil {
		n.names.set(name, addrs)
	}
}

// uplink is a customer's connection to the network.
type uplink struct {
	net    *Network
	block  block
	cable  *cable // a is the core's end, b the customer's
	v4, v6 bool
	routed bool // lan4 is routed to the customer
	metric int
}

// attach connects a customer's namespace to the core by an interface with that name.
func (n *Network) attach(to plug, link Link, v4, routed bool, metric int) (*uplink, error) {
	b, ok := n.blocks.take()
	if !ok {
		return nil, fmt.Errorf("network %q has no addresses left", n.name)
	}
	u := &uplink{net: n, block: b, v4: v4, v6: to.v6, routed: routed, metric: metric}
	var err error
	core := plug{ns: n.core, name: fmt.Sprintf("w%d", n.lab.id()), v6: to.v6}
	if u.cable, err = n.lab.connect(core, to, link); err != nil {
		return nil, err
	}
	return u, u.number()
}

// number gives both ends the addresses of the block, and routes.
func (u *uplink) number() error {
	var core, customer []netip.Prefix
	if u.v4 {
		core, customer = append(core, nth(u.block.wan4(), 1)), append(customer, nth(u.block.wan4(), 2))
	}
	if u.v6 {
		core, customer = append(core, nth(u.block.wan6(), 1)), append(customer, nth(u.block.wan6(), 2))
	}
	if err := u.cable.b.setAddrs(customer...); err != nil {
		return err
	}
	if err := u.cable.a.setAddrs(core...); err != nil {
		return err
	}
	for i, p := range core {
		if err := u.cable.b.setRoute(netip.Prefix{}, p.Addr(), u.metric); err != nil {
			return err
		}
		dst := u.block.lan4()
		if p.Addr().Is6() {
			dst = u.block.site6()
		} else if !u.routed {
			continue
		}
		if u.cable.a.isDown() {
			continue // unplugged there: LinkUp numbers again
		}
		if err := u.cable.a.setRoute(dst, customer[i].Addr(), 0); err != nil {
			return err
		}
	}
	return nil
}

// renumber moves the connection to other addresses. Routes over the old ones go with them.
func (u *uplink) renumber() error {
	b, ok := u.net.blocks.take()
	if !ok {
		return fmt.Errorf("network %q has no addresses left", u.net.name)
	}
	old := u.block
	u.block = b
	if err := u.number(); err != nil {
		return err
	}
	u.net.blocks.give(old)
	return nil
}

// detach unplugs the customer.
func (u *uplink) detach() error {
	u.net.blocks.give(u.block)
	return u.cable.remove()
}

// setLink changes the link.
func (u *uplink) setLink(link Link) error {
	if err := link.check(); err != nil {
		return err
	}
	if u.cable.relay == nil {
		return errors.New("the link was made without a relay: give it Link{Adjustable: true}")
	}
	if link.mtu() != u.cable.relay.link().mtu() {
		return errors.New("the MTU of a link with a relay does not change")
	}
	u.cable.relay.set(link)
	return u.cable.limitSegments(link)
}

// SetMTU changes the MTU of a customer's links, as when a tunnel takes the place of a cable. They must have been made
// without a relay.
func (n *Network) SetMTU(c Customer, mtu int) error {
	return n.lab.change(fmt.Sprintf("let links of %s carry %d bytes", c.Name(), mtu), func() error {
		if err := (Link{MTU: mtu}).check(); err != nil {
			return err
		}
		for _, up := range c.uplinks() {
			if up.cable.relay != nil {
				return errors.New("the link has a relay")
			}
			for _, e := range []end{up.cable.a, up.cable.b} {
				l, err := e.link()
				if err != nil {
					return err
				}
				if err := e.ns.link.LinkSetMTU(l, mtu); err != nil {
					return fmt.Errorf("set MTU of %s of %q: %w", e.name, e.ns.name, err)
				}
			}
		}
		return nil
	})
}
