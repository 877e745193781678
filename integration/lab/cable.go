//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// defaultMTU is that of links whose Link names none.
const defaultMTU = 1500

// end is an interface at the end of a cable.
type end struct {
	ns    *namespace
	name  string
	index int
	addrs []netip.Prefix // that the lab has set
}

// cable is a link between two namespaces: a veth pair, or two with a relay between them.
type cable struct {
	a, b  end
	far   end    // the other side of b's veth pair
	relay *relay // nil when the cable is as fast as the machine
}

// plug says where an end of a cable goes.
type plug struct {
	ns   *namespace
	name string
	v6   bool
}

// connect makes a cable and takes both ends up.
func (l *Lab) connect(a, b plug, link Link) (*cable, error) {
	if err := link.check(); err != nil {
		return nil, err
	}
	if !link.shaped() {
		ea, eb, err := l.pair(a, b, link.mtu())
		return &cable{a: ea, b: eb, far: ea}, err
	}
	if l.wire == nil {
		var err error
		if l.wire, err = l.newNamespace("wire"); err != nil {
			return nil, err
		}
	}
	n := l.id()
	wa, wb := plug{ns: l.wire, name: fmt.Sprintf("r%da", n)}, plug{ns: l.wire, name: fmt.Sprintf("r%db", n)}
	ea, ra, err := l.pair(a, wa, link.mtu())
	if err != nil {
		return nil, err
	}
	eb, rb, err := l.pair(b, wb, link.mtu())
	if err != nil {
		return nil, errors.Join(err, ea.remove())
	}
	c := &cable{a: ea, b: eb, far: rb}
	if c.relay, err = newRelay(ra, rb, link); err != nil {
		return nil, errors.Join(err, c.remove())
	}
	l.own(c.relay)
	return c, c.limitSegments(link)
}

// pair makes a veth pair and takes both ends up.
func (l *Lab) pair(a, b plug, mtu int) (ea, eb end, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.TxQLen = a.name, mtu, 1000
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU, veth.PeerTxQLen = b.name, uint32(mtu), 1000
	veth.PeerNamespace = netlink.NsFd(b.ns.fd)
	if err := a.ns.link.LinkAdd(veth); err != nil {
		return ea, eb, fmt.Errorf("make veth %s of %q to %s of %q: %w", a.name, a.ns.name, b.name, b.ns.name, err)
	}
	if ea, err = l.open(a); err != nil {
		return ea, eb, err
	}
	eb, err = l.open(b)
	return ea, eb, err
}

// open sets an interface up, after what must be set before: no duplicate address detection, no autoconfiguration.
func (l *Lab) open(p plug) (end, error) {
	link, err := p.ns.link.LinkByName(p.name)
	if err != nil {
		return end{}, fmt.Errorf("find %s in %q: %w", p.name, p.ns.name, err)
	}
	e := end{ns: p.ns, name: p.name, index: link.Attrs().Index}
	v6 := "ipv6/conf/" + p.name + "/"
	values := map[string]string{v6 + "disable_ipv6": "1"}
	if p.v6 {
		values = map[string]string{v6 + "accept_dad": "0", v6 + "accept_ra": "0"}
	}
	if err := p.ns.sysctl(values); err != nil {
		return e, err
	}
	if err := p.ns.link.LinkSetUp(link); err != nil {
		return e, fmt.Errorf("set %s of %q up: %w", p.name, p.ns.name, err)
	}
	l.await(e)
	return e, nil
}

// limitSegments makes the kernel cut super-frames before a relay that loses, delays or paces by the frame.
func (c *cable) limitSegments(link Link) error {
	segs := 65535
	if link.byFrame() {
		segs = 1
	}
	for _, e := range []end{c.a, c.b} {
		l, err := e.link()
		if err != nil {
			return err
		}
		if err := e.ns.link.LinkSetGSOMaxSegs(l, segs); err != nil {
			return fmt.Errorf("limit segments of %s of %q: %w", e.name, e.ns.name, err)
		}
	}
	return nil
}

// remove unplugs and removes a cable with its addresses and routes.
func (c *cable) remove() error {
	err := errors.Join(c.a.remove())
	if c.relay != nil {
		err = errors.Join(err, c.b.remove(), c.relay.Close())
	}
	return err
}

func (e *end) link() (netlink.Link, error) {
	l, err := e.ns.link.LinkByIndex(e.index)
	if err != nil {
		return nil, fmt.Errorf("find %s of %q: %w", e.name, e.ns.name, err)
	}
	return l, nil
}

func (e *end) remove() error {
	l, err := e.link()
	if err != nil {
		return err
	}
	if err := e.ns.link.LinkDel(l); err != nil {
		return fmt.Errorf("remove %s of %q: %w", e.name, e.ns.name, err)
	}
	return nil
}

// carries reports whether there is nothing to wait for: the link has a queue, and its addresses are in use; or it is
// gone, or down, or unplugged. (The two ends of a cable have carrier as soon as both are up, and a bridge a little later.)
func (e *end) carries() bool {
	l, err := e.ns.link.LinkByIndex(e.index)
	if err != nil || l.Attrs().Flags&net.FlagUp == 0 {
		return true
	}
	if l.Attrs().OperState != netlink.OperUp {
		return l.Attrs().RawFlags&unix.IFF_LOWER_UP == 0 && e.name != lanName
	}
	addrs, err := e.ns.link.AddrList(l, netlink.FAMILY_V6)
	if err != nil || slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.Flags&unix.IFA_F_TENTATIVE != 0 }) {
		return false
	}
	return !slices.ContainsFunc(e.addrs, func(p netip.Prefix) bool { return p.Addr().Is6() && !e.answers(p.Addr()) })
}

// answers reports whether an IPv6 address is in use. Also without detection of duplicates the kernel shows an address
// before it joins the group by which neighbours ask for it. The address's own route comes last.
func (e *end) answers(addr netip.Addr) bool {
	routes, err := e.ns.link.RouteGet(addr.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}

// isDown reports whether the interface has been set down.
func (e *end) isDown() bool {
	l, err := e.ns.link.LinkByIndex(e.index)
	return err == nil && l.Attrs().Flags&net.FlagUp == 0
}

// silent reports whether the system knows that the carrier is gone.
func (e *end) silent() bool {
	l, err := e.ns.link.LinkByIndex(e.index)
	return err != nil || l.Attrs().OperState == netlink.OperDown || l.Attrs().OperState == netlink.OperLowerLayerDown
}

// setAddrs makes addrs the addresses of the interface that the lab has given it. Others are left alone.
func (e *end) setAddrs(addrs ...netip.Prefix) error {
	l, err := e.link()
	if err != nil {
		return err
	}
	for _, p := range e.addrs {
		if slices.Contains(addrs, p) {
			continue
		}
		// One that is gone already, by the hand of who uses the lab, is what is wanted.
		if err := e.ns.link.AddrDel(l, address(p)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %v from %s of %q: %w", p, e.name, e.ns.name, err)
		}
	}
	for _, p := range addrs {
		if err := e.ns.link.AddrReplace(l, address(p)); err != nil {
			return fmt.Errorf("set address %v on %s of %q: %w", p, e.name, e.ns.name, err)
		}
	}
	e.addrs = slices.Clone(addrs)
	if e.name != lanName && e.name != "lo" { // a LAN without hosts has no carrier
		e.ns.lab.await(*e)
	}
	return nil
}

func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// setRoute sends packets for dst (the default route if invalid) by the interface to the router via. TCP uses cubic on it:
// the congestion control of some systems (bbr) hides loss.
func (e *end) setRoute(dst netip.Prefix, via netip.Addr, metric int) error {
	r := &netlink.Route{LinkIndex: e.index, Gw: via.AsSlice(), Congctl: "cubic", Priority: metric, Family: nl.FAMILY_V4}
	if via.Is6() {
		r.Family = nl.FAMILY_V6
	}
	switch {
	case dst.IsValid():
		r.Dst = ipNet(dst)
	case via.Is6():
		r.Dst = ipNet(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	default:
		r.Dst = ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	var err error
	replaced := func() bool {
		err = e.ns.link.RouteReplace(r)
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
			r.Congctl = "" // a kernel without cubic
			err = e.ns.link.RouteReplace(r)
		}
		if !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
			return true
		}
		if link, lookErr := e.ns.link.LinkByIndex(e.index); lookErr == nil && link.Attrs().MasterIndex != 0 {
			err = nil // the addresses are on a bridge now, and the routes are for who has put them there
			return true
		}
		return false // the link has come up just now
	}
	if late := poll(context.Background(), replaced); err == nil {
		err = late
	}
	if err != nil {
		return fmt.Errorf("route %v via %v in %q: %w", r.Dst, via, e.ns.name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
