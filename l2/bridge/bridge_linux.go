package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bridge is a bridge with the TAP in it. It is not safe for concurrent use.
type Bridge struct {
	cfg    Config
	record Record
	old    []netip.Addr // of the member's addresses, those that are deprecated
	gone   bool         // undone
}

// Open puts the TAP into the bridge; record is what an earlier process has left, if
// any. When it fails, all is as it was.
func Open(cfg Config, record []byte) (*Bridge, error) {
	b := &Bridge{cfg: cfg}
	if len(record) > 0 {
		old, err := parseRecord(record)
		if err == nil && old.Boot == bootID() && old.TAP == cfg.TAP && (old.Port == cfg.Name || !old.made() && old.Bridge == cfg.Name) {
			b.record = *old
			if there, err := linkOf(old.Bridge); err == nil && isBridge(there) {
				return b, b.apply()
			}
		}
		if err := Undo(record); err != nil {
			return nil, err
		}
	}
	if err := Check(cfg.Name); err != nil {
		return nil, err
	}
	if err := b.plan(); err != nil {
		return nil, err
	}
	if err := b.note(); err != nil {
		return nil, err
	}
	if err := b.apply(); err != nil {
		return nil, errors.Join(err, b.Undo())
	}
	return b, nil
}

// plan says what is to be undone.
func (b *Bridge) plan() error {
	link, err := netlink.LinkByName(b.cfg.Name)
	if err != nil {
		return fail("find it", b.cfg.Name, err)
	}
	b.record = Record{Boot: bootID(), TAP: b.cfg.TAP, Skip: b.cfg.Skip}
	if isBridge(link) {
		b.record.Bridge, b.record.MAC = b.cfg.Name, link.Attrs().HardwareAddr.String()
		b.record.Least = b.record.MAC == leastMAC(link).String()
		return nil
	}
	b.record.Bridge, b.record.Port = nameFor(b.cfg.TAP), b.cfg.Name
	if there, err := linkOf(b.record.Bridge); err != nil || there != nil {
		return &Error{b.cfg.Name, fmt.Errorf("an interface %q exists already", b.record.Bridge), "remove it, or name it with --bridge if it is the bridge that you want"}
	}
	if b.record.Addrs, err = addrsOf(link.Attrs().Index); err != nil {
		return fail("read its settings", b.cfg.Name, err)
	}
	b.record.Routes, err = routesOf(link.Attrs().Index, b.cfg.Skip)
	return fail("read its settings", b.cfg.Name, err)
}

func (b *Bridge) note() error {
	raw, err := json.Marshal(&b.record)
	if err != nil {
		return err
	}
	return b.cfg.Note(raw)
}

// apply is level-triggered.
func (b *Bridge) apply() error {
	br, err := b.make()
	if err != nil {
		return err
	}
	if err := b.setMAC(br, net.HardwareAddr(b.cfg.MAC[:])); err != nil {
		return err
	}
	if err := enslave(b.cfg.TAP, br); err != nil {
		return err
	}
	sysctl("ipv6", b.cfg.TAP, "disable_ipv6").set("1") // the addresses are the bridge's
	if !b.record.made() {
		return nil
	}
	return b.moveIn(br)
}

// make returns the bridge, which it makes if that is ours to do.
func (b *Bridge) make() (netlink.Link, error) {
	name := b.record.Bridge
	link, err := linkOf(name)
	if err != nil {
		return nil, fail("find the bridge", name, err)
	}
	if link != nil {
		if !isBridge(link) {
			return nil, &Error{name, errors.New("it is no bridge any longer"), ""}
		}
		return link, nil
	}
	if !b.record.made() {
		return nil, &Error{name, errors.New("the bridge is gone"), "make it again: ip link add " + name + " type bridge"}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fail("make bridge "+name, b.cfg.Name, err)
	}
	if link, err = netlink.LinkByName(name); err != nil {
		return nil, fail("find bridge "+name, b.cfg.Name, err)
	}
	for _, key := range []string{"accept_ra", "autoconf", "forwarding", "accept_ra_defrtr", "accept_ra_pinfo", "use_tempaddr"} {
		sysctl("ipv6", name, key).set(sysctl("ipv6", b.cfg.Name, key).get())
	}
	sysctl("ipv6", name, "accept_dad").set("0") // moved addresses have been looked for, the member's are unique by key
	for _, key := range []string{"forwarding", "rp_filter", "arp_ignore", "arp_announce"} {
		sysctl("ipv4", name, key).set(sysctl("ipv4", b.cfg.Name, key).get())
	}
	return link, nil
}

// setMAC gives the bridge an address and has the kernel tell the neighbours.
func (b *Bridge) setMAC(br netlink.Link, mac net.HardwareAddr) error {
	if slices.Equal(br.Attrs().HardwareAddr, mac) {
		return nil
	}
	for _, s := range []setting{sysctl("ipv4", b.record.Bridge, "arp_notify"), sysctl("ipv6", b.record.Bridge, "ndisc_notify")} {
		before := s.get()
		s.set("1")
		defer s.set(before)
	}
	return fail("set the address of the bridge", b.record.Bridge, netlink.LinkSetHardwareAddr(br, mac))
}

func enslave(name string, br netlink.Link) error {
	link, err := netlink.LinkByName(name)
	if err == nil && link.Attrs().MasterIndex != br.Attrs().Index {
		err = netlink.LinkSetMaster(link, br)
	}
	if err == nil && link.Attrs().Flags&net.FlagUp == 0 {
		err = netlink.LinkSetUp(link)
	}
	return fail("put it into "+br.Attrs().Name, name, err)
}

// moveIn puts the interface into the bridge that was made for it, and moves what it
// has of addresses and routes.
func (b *Bridge) moveIn(br netlink.Link) error {
	if err := netlink.LinkSetUp(br); err != nil {
		return fail("set it up", b.record.Bridge, err)
	}
	if err := enslave(b.record.Port, br); err != nil {
		return err
	}
	if err := b.gather(); err != nil {
		return err
	}
	port, err := netlink.LinkByName(b.record.Port)
	if err != nil {
		return fail("find it", b.record.Port, err)
	}
	there, err := addrsOf(br.Attrs().Index)
	if err != nil {
		return fail("read its settings", b.record.Bridge, err)
	}
	missing := slices.DeleteFunc(slices.Clone(b.record.Addrs), func(m []byte) bool { return holds(there, m) })
	if err := setAddrs(missing, br, false); err != nil {
		return fail("move addresses", b.record.Port, err)
	}
	if err := clearAddrs(port, b.record.Skip); err != nil {
		return fail("move addresses", b.record.Port, err)
	}
	// Routes of the member's own addresses come with those, and others may add some.
	return fail("move routes", b.record.Port, b.routes(br, len(missing) > 0))
}

// holds reports whether an address is in a list.
func holds(list [][]byte, m []byte) bool {
	return slices.ContainsFunc(list, func(o []byte) bool { return o[1] == m[1] && addrIn(o) == addrIn(m) })
}

// gather adds to what is to be put back what the interface has got since.
func (b *Bridge) gather() error {
	port, err := netlink.LinkByName(b.record.Port)
	if err != nil {
		return fail("find it", b.record.Port, err)
	}
	addrs, err := addrsOf(port.Attrs().Index)
	if err != nil {
		return err
	}
	routes, err := routesOf(port.Attrs().Index, b.record.Skip)
	if err != nil {
		return err
	}
	news := false
	for _, m := range addrs {
		if !holds(b.record.Addrs, m) {
			b.record.Addrs, news = append(b.record.Addrs, m), true
		}
	}
	for _, m := range routes {
		if !slices.ContainsFunc(b.record.Routes, func(o []byte) bool { return keyOf(o) == keyOf(m) }) {
			b.record.Routes, news = append(b.record.Routes, m), true
		}
	}
	if news {
		slices.SortStableFunc(b.record.Routes, func(x, y []byte) int { return rankOf(x) - rankOf(y) })
		return b.note()
	}
	return nil
}

// clearAddrs takes addresses and routes from the interface.
func clearAddrs(port netlink.Link, skip uint32) error {
	index := port.Attrs().Index
	routes, err := routesOf(index, skip)
	if err != nil {
		return err
	}
	for _, m := range routes {
		_ = send(unix.RTM_DELROUTE, 0, routeOn(m, index)) // it goes with its address, else
	}
	addrs, err := addrsOf(index)
	if err != nil {
		return err
	}
	for _, m := range addrs {
		if err := send(unix.RTM_DELADDR, 0, addrOn(m, index, false)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove %v: %w", addrIn(m), err)
		}
	}
	return nil
}

// routes adds the moved routes to those of the bridge, and takes away those that the
// kernel has made for addresses that have just been moved, and the interface had not.
func (b *Bridge) routes(br netlink.Link, moved bool) error {
	there, err := routesOf(br.Attrs().Index, b.record.Skip)
	if err != nil {
		return err
	}
	list := slices.Clone(b.record.Routes)
	for _, m := range there {
		if m[5] != unix.RTPROT_KERNEL || b.ofMember(m) {
			list = append(list, m)
		}
	}
	return setRoutes(list, br, b.record.Skip, moved)
}

// ofMember reports whether a route is that of one of the member's addresses.
func (b *Bridge) ofMember(m []byte) bool {
	dst, ok := netip.AddrFromSlice(find(attrsOf(m[routeHead:]), unix.RTA_DST))
	return ok && slices.ContainsFunc(b.record.Set, func(p netip.Prefix) bool { return p.Bits() == int(m[1]) && p.Contains(dst) })
}

// Name is the bridge's.
func (b *Bridge) Name() string { return b.record.Bridge }

// Link reports whether the bridge has a port with carrier besides the TAP.
func (b *Bridge) Link() bool {
	br, err := linkOf(b.record.Bridge)
	if err != nil || br == nil || br.Attrs().Flags&net.FlagUp == 0 {
		return false
	}
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return true // better blocked for no reason
	}
	return slices.ContainsFunc(links, func(l netlink.Link) bool {
		a := l.Attrs()
		return a.MasterIndex == br.Attrs().Index && a.Name != b.cfg.TAP && a.Flags&net.FlagUp != 0 && a.RawFlags&unix.IFF_LOWER_UP != 0
	})
}

// Sync repairs what others have undone, and says what it cannot.
func (b *Bridge) Sync() []Problem {
	if b.gone {
		return nil
	}
	br, err := linkOf(b.record.Bridge)
	if err == nil && br == nil && b.record.made() {
		// Its interface would be left without addresses.
		if err = restore(&b.record); err == nil {
			err = b.apply()
		}
	} else if err == nil {
		err = b.apply()
	}
	if err == nil {
		err = b.SetAddresses(b.record.Set)
	}
	if err != nil {
		p := Problem{Code: "bridge", Text: err.Error(), Remedy: "put it right, or end meshd with meshd down, which puts back what it has changed"}
		if e := (*Error)(nil); errors.As(err, &e) && e.Remedy != "" {
			p.Remedy = e.Remedy
		}
		return []Problem{p}
	}
	return append(b.sizes(), filtered("/proc/sys/net/bridge")...)
}

// SetAddresses makes addrs the member's addresses on the bridge; those of others stay.
func (b *Bridge) SetAddresses(addrs []netip.Prefix) error {
	br, err := netlink.LinkByName(b.record.Bridge)
	if err != nil {
		return fail("find the bridge", b.record.Bridge, err)
	}
	there, err := netlink.AddrList(br, netlink.FAMILY_ALL)
	if err != nil {
		return fail("list addresses", b.record.Bridge, err)
	}
	has := func(p netip.Prefix) bool {
		return slices.ContainsFunc(there, func(a netlink.Addr) bool { return a.IPNet.String() == p.String() })
	}
	old := b.record.Set
	if !slices.Equal(addrs, b.record.Set) {
		b.record.Set = slices.Clone(addrs)
		for _, p := range old { // all that may be there stands in the record until it is gone
			if !slices.Contains(addrs, p) && has(p) {
				if err := netlink.AddrDel(br, memberAddr(p)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
					return fail("remove "+p.String(), b.record.Bridge, err)
				}
			}
		}
		if err := b.note(); err != nil {
			return err
		}
	}
	for _, p := range addrs {
		a := memberAddr(p)
		// Where the bridge's own addresses are in the prefix, too, what carries the mesh
		// would come from ours, which lead into it.
		deprecated := slices.Contains(b.old, p.Addr()) || slices.ContainsFunc(there, func(o netlink.Addr) bool {
			return p.Contains(ipOf(o)) && ipOf(o) != p.Addr() && !slices.ContainsFunc(old, isAddr(o))
		})
		if deprecated {
			a.ValidLft, a.PreferedLft = forever, 0
		}
		if !slices.ContainsFunc(there, func(o netlink.Addr) bool { return isAddr(o)(p) && (o.PreferedLft == 0) == deprecated }) {
			if err := netlink.AddrReplace(br, a); err != nil {
				return fail("add "+p.String(), b.record.Bridge, err)
			}
		}
	}
	return nil
}

// Deprecate says which of the member's addresses are for connections that there are, and
// not for new ones (RFC 4862, section 5.5.4).
func (b *Bridge) Deprecate(old []netip.Addr) error {
	b.old = slices.Clone(old)
	return b.SetAddresses(b.record.Set)
}

// forever is the lifetime of an address that others are preferred to, in seconds.
const forever = math.MaxInt32

func ipOf(a netlink.Addr) netip.Addr {
	ip, _ := netip.AddrFromSlice(a.IP)
	return ip.Unmap()
}

func isAddr(a netlink.Addr) func(netip.Prefix) bool {
	return func(p netip.Prefix) bool { return p.Addr() == ipOf(a) }
}

// memberAddr is unique by key, so that nobody needs to look for duplicates.
func memberAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}
