//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// NAT is what a site's router does to IPv4, in the terms of RFC 4787. Mappings are those of UDP; TCP is masqueraded.
type NAT int

// The kinds of NAT.
const (
	None              NAT = iota // public addresses on the LAN, and no firewall for IPv4
	Home                         // endpoint-independent mapping to another port, address- and port-dependent filtering: the ordinary home router
	HomePortKept                 // the same, but a port is kept where it is free
	FullCone                     // endpoint-independent mapping and filtering
	AddressRestricted            // endpoint-independent mapping, address-dependent filtering
	Symmetric                    // address- and port-dependent mapping and filtering
	CGNAT                        // Home behind a carrier's Home, with 100.64.0.0/10 between them
)

// String is the name of the kind.
func (n NAT) String() string {
	names := [...]string{"none", "home", "home-port-kept", "full-cone", "address-restricted", "symmetric", "cgnat"}
	if n < 0 || int(n) >= len(names) {
		return fmt.Sprintf("NAT(%d)", int(n))
	}
	return names[n]
}

// SiteConfig says what a site is. With neither V4 nor V6 it has both. IPv6 addresses are public, behind a stateful
// firewall that lets only answers in.
type SiteConfig struct {
	NAT        NAT
	V4, V6     bool
	OpenV6     bool          // no firewall for IPv6
	BlockUDP   bool          // let no UDP out but DNS, as some companies and hotels do
	OnlyTCP    uint16        // let nothing out but DNS and TCP to this port
	UDPTimeout time.Duration // how long the router remembers a silent flow; the kernel's 30 s and 120 s if 0
	Hairpin    bool          // hosts behind the NAT reach each other at the outer addresses (RFC 4787, 6), unfiltered; NATs with endpoint-independent mapping to other ports have it
	Accepts    bool          // the router takes for itself what comes unasked, and so remembers a flow: see [HomePortKept]
	Carrier    bool          // the LAN is 100.64.0.0/26, for the routers of customers: see [Site.Customer]
	Link       Link          // between the site and the internet
}

// Site is a router and its LAN.
type Site struct {
	machine
	net     *Network
	cfg     SiteConfig
	up      *uplink
	wan     *nic       // of a customer of another site, in place of up
	carrier *namespace // the second router of CGNAT
	access  *cable     // between carrier and router
	lan     end
	hosts   []*nic
	next    int // number of the next host
}

// The names of a router's interfaces.
const (
	wanName = "wan0"
	lanName = "lan0"
)

// Site connects a router with a LAN behind it to the network.
func (n *Network) Site(name string, cfg SiteConfig) *Site {
	if !cfg.V4 && !cfg.V6 {
		cfg.V4, cfg.V6 = true, true
	}
	s := &Site{machine: machine{lab: n.lab, name: name, resolv: resolvConf(cfg.V4)}, net: n, cfg: cfg, next: firstHost}
	n.lab.build(name, s.build)
	return s
}

func (s *Site) build() (err error) {
	if err := s.cfg.check(); err != nil {
		return err
	}
	if s.ns, err = s.lab.newRouter(s.name); err != nil {
		return err
	}
	outer := s.ns
	if s.cfg.NAT == CGNAT {
		if s.carrier, err = s.lab.newRouter(s.name + "-carrier"); err != nil {
			return err
		}
		outer = s.carrier
	}
	to := plug{ns: outer, name: wanName, v6: s.cfg.V6}
	if s.up, err = s.net.attach(to, s.cfg.Link, s.cfg.V4, s.cfg.NAT == None, 0); err != nil {
		return err
	}
	s.net.customers[s.up.cable.a.name] = s.name
	if s.carrier != nil {
		a, b := plug{ns: s.carrier, name: lanName, v6: s.cfg.V6}, plug{ns: s.ns, name: wanName, v6: s.cfg.V6}
		if s.access, err = s.lab.connect(a, b, Link{MTU: s.cfg.Link.MTU}); err != nil {
			return err
		}
	}
	return s.furnish()
}

// furnish makes what is behind the uplink.
func (s *Site) furnish() error {
	if err := s.bridge(); err != nil {
		return err
	}
	if err := s.number(); err != nil {
		return err
	}
	return s.protect()
}

// bridge makes the LAN.
func (s *Site) bridge() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = lanName, randomMAC() // else it changes with the first hosts
	snooping := false                                     // nobody queries, so that there is nothing to snoop
	if err := s.ns.link.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("make bridge of %q: %w", s.name, err)
	}
	var err error
	s.lan, err = s.lab.open(plug{ns: s.ns, name: lanName, v6: s.cfg.V6})
	s.lab.forget(s.lan) // it has carrier when a host is plugged in: see take
	return err
}

// number gives routers and hosts their addresses and routes.
func (s *Site) number() error {
	if err := s.numberAccess(); err != nil {
		return err
	}
	var lan []netip.Prefix
	for _, p := range s.prefixes() {
		lan = append(lan, nth(p, 1))
	}
	if err := s.lan.setAddrs(lan...); err != nil {
		return err
	}
	for _, n := range s.hosts {
		if err := n.number(); err != nil {
			return err
		}
	}
	return nil
}

// numberAccess numbers the link between the two routers of CGNAT.
func (s *Site) numberAccess() error {
	if s.access == nil {
		return nil
	}
	var nets []netip.Prefix
	if s.cfg.V4 {
		nets = append(nets, carrierLAN)
	}
	if s.cfg.V6 {
		nets = append(nets, s.up.block.carrier6())
	}
	var carrier, router []netip.Prefix
	for _, p := range nets {
		carrier, router = append(carrier, nth(p, 1)), append(router, nth(p, 2))
	}
	if err := s.access.a.setAddrs(carrier...); err != nil {
		return err
	}
	if err := s.access.b.setAddrs(router...); err != nil {
		return err
	}
	for i, p := range carrier {
		if err := s.access.b.setRoute(netip.Prefix{}, p.Addr(), 0); err != nil {
			return err
		}
		if p.Addr().Is6() {
			if err := s.access.a.setRoute(s.up.block.lan6(), router[i].Addr(), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// protect sets up NAT and firewall.
func (s *Site) protect() error {
	return s.eachRouter(ruleset.load)
}

// eachRouter applies the rules of each of the site's routers to it.
func (s *Site) eachRouter(apply func(ruleset, *namespace) error) error {
	outer := ruleset{
		nat: s.cfg.NAT, public: s.outer4(), inner: s.lan4(), openV6: s.cfg.OpenV6, accepts: s.cfg.Accepts, hairpin: s.cfg.Hairpin,
		blockUDP: s.cfg.BlockUDP, onlyTCP: s.cfg.OnlyTCP, timeout: s.cfg.UDPTimeout,
	}
	if s.carrier == nil {
		return apply(outer, s.ns)
	}
	outer.nat = Home
	inner := outer
	inner.public = nth(carrierLAN, 2).Addr()
	outer.inner, outer.openV6, outer.blockUDP, outer.onlyTCP = carrierLAN, true, false, 0 // the customer's router sees to it
	if err := apply(inner, s.ns); err != nil {
		return err
	}
	return apply(outer, s.carrier)
}

// prefixes are the networks of the LAN.
func (s *Site) prefixes() []netip.Prefix {
	var nets []netip.Prefix
	if s.cfg.V4 {
		nets = append(nets, s.lan4())
	}
	if s.cfg.V6 {
		nets = append(nets, s.up.block.lan6())
	}
	return nets
}

// lan4 is the IPv4 network of the LAN.
func (s *Site) lan4() netip.Prefix {
	switch {
	case s.cfg.NAT == None:
		return s.up.block.lan4()
	case s.cfg.Carrier:
		return carrierLAN
	default:
		return privateLAN
	}
}

// outer4 is the router's own IPv4 address on the way to the internet.
func (s *Site) outer4() netip.Addr {
	if s.wan != nil {
		return nth(s.wan.site.lan4(), s.wan.seat).Addr()
	}
	return nth(s.up.block.wan4(), 2).Addr()
}

// Renumber gives the site another public IPv4 address and another IPv6 prefix, as providers do at night. Hosts with
// public addresses get new ones at once.
func (s *Site) Renumber() error {
	return s.lab.change("renumber "+s.name, func() error {
		if s.up == nil {
			return errors.New("its addresses are its carrier's")
		}
		if err := s.up.renumber(); err != nil {
			return err
		}
		if err := s.number(); err != nil {
			return err
		}
		return s.eachRouter(ruleset.reload)
	})
}

// Rebind has the routers forget all NAT mappings, as they do when they restart: who stays sends from another port.
func (s *Site) Rebind() error {
	return s.lab.change("rebind "+s.name, func() error { return s.eachRouter(ruleset.reload) })
}

// SetLink changes the site's link for frames from now on. The site must have been made with a Link that is not zero.
func (s *Site) SetLink(link Link) error {
	return s.lab.change("change link of "+s.name, func() error {
		if s.up == nil {
			return errors.New("its link is its carrier's")
		}
		return s.up.setLink(link)
	})
}

// Public is the IPv4 address that the internet sees; invalid without IPv4.
func (s *Site) Public() netip.Addr {
	s.lab.mu.Lock()
	defer s.lab.mu.Unlock()
	for s.wan != nil {
		s = s.wan.site
	}
	if s.up == nil || !s.cfg.V4 {
		return netip.Addr{}
	}
	return nth(s.up.block.wan4(), 2).Addr()
}

// Host connects a host to the LAN. Its interface is eth0.
func (s *Site) Host(name string) *Host {
	h := &Host{machine: machine{lab: s.lab, name: name, resolv: resolvConf(s.cfg.V4)}}
	s.lab.build(name, func() (err error) {
		if h.ns, err = s.lab.newNamespace(name); err != nil {
			return err
		}
		return h.plugInto(s)
	})
	return h
}

// randomMAC is a unicast address, locally administered.
func randomMAC() net.HardwareAddr {
	mac := binary.BigEndian.AppendUint64(nil, rand.Uint64())[:6]
	mac[0] = mac[0]&^1 | 2
	return mac
}

// take plugs a host's network interface card into the LAN: its cable's far end is in the router's namespace already.
func (s *Site) take(n *nic, port end) error {
	l, err := port.link()
	if err != nil {
		return err
	}
	bridge, err := s.lan.link()
	if err != nil {
		return err
	}
	if err := s.ns.link.LinkSetMaster(l, bridge); err != nil {
		return fmt.Errorf("plug %s into the LAN of %q: %w", port.name, s.name, err)
	}
	s.lab.await(s.lan)
	n.site, n.far = s, port
	if n.seat, err = s.seat(); err != nil {
		return err
	}
	s.hosts = append(s.hosts, n)
	return n.number()
}

// seat finds a free number for a host: the next one, so that a host that comes back does not get its old one.
func (s *Site) seat() (int, error) {
	for range lastHost - firstHost + 1 {
		seat := s.next
		if s.next++; s.next > lastHost {
			s.next = firstHost
		}
		if !slices.ContainsFunc(s.hosts, func(n *nic) bool { return n.seat == seat }) {
			return seat, nil
		}
	}
	return 0, fmt.Errorf("the LAN of %q is full", s.name)
}

// release forgets a host that leaves.
func (s *Site) release(n *nic) {
	s.hosts = slices.DeleteFunc(s.hosts, func(other *nic) bool { return other == n })
	if len(s.hosts) == 0 { // then the LAN has no carrier
		s.lab.forget(s.lan)
	}
}

// resolvConf points at the network's name server, by the family that works first. The other is refused at once.
func resolvConf(v4 bool) string {
	first, second := dns4, dns6
	if !v4 {
		first, second = dns6, dns4
	}
	return fmt.Sprintf("nameserver %v\nnameserver %v\noptions timeout:1 attempts:3\n", first, second)
}

// Counters are a router's, or a host's, own count of packets. They are nftables': evidence from outside the programs.
func (s *Site) Counters() (Counters, error) {
	if err := s.lab.Ready(context.Background()); err != nil {
		return Counters{}, err
	}
	ns := s.ns
	if s.carrier != nil {
		ns = s.carrier
	}
	return readCounters(ns)
}
