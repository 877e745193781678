//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"
)

// Bare is a host without any network, for tests that wire their own: a virtual machine, a router of a LAN.
func (l *Lab) Bare(name string) *Host {
	h := &Host{machine: machine{lab: l, name: name}}
	l.build(name, func() (err error) {
		h.ns, err = l.newNamespace(name)
		return err
	})
	return h
}

// Cable connects two hosts by a cable beside their other interfaces. Its ends are up and have no addresses.
func (l *Lab) Cable(a *Host, nameA string, b *Host, nameB string) error {
	return l.change(fmt.Sprintf("connect %s and %s", a.name, b.name), func() error {
		_, _, err := l.pair(plug{ns: a.ns, name: nameA, v6: true}, plug{ns: b.ns, name: nameB, v6: true}, defaultMTU)
		return err
	})
}

// Route has the network send a prefix to one of its hosts, by the host's IPv6 address.
func (n *Network) Route(prefix netip.Prefix, to *Host) error {
	return n.lab.change(fmt.Sprintf("route %v to %s", prefix, to.name), func() error {
		up := to.nics[0].up
		if up == nil || !up.v6 {
			return errors.New("the host has no IPv6 address on the network")
		}
		return up.cable.a.setRoute(prefix, nth(up.block.wan6(), 2).Addr(), 0)
	})
}
