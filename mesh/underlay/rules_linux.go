package underlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The priorities of the rules: before main (32766), after what tools such as
// wg-quick do not use.
const (
	priorityMain = 5183 + iota
	priorityHidden
	priorityNowhere
)

// Rules are the routing rules of a node, in the network namespace in which they
// were opened.
type Rules struct {
	tap    string
	mark   uint32
	handle *netlink.Handle

	guarded bool // what is marked is dropped before the TAP
}

// Open puts the TAP into its group and sets up the rules for both families. What an
// earlier process has left is replaced.
func Open(tap string) (*Rules, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("keep the underlay out of %q: %w", tap, err)
	}
	r := &Rules{tap: tap, mark: Mark(tap), handle: handle}
	if err := errors.Join(r.clear(), r.add()); err != nil {
		err = errors.Join(err, r.clear())
		handle.Close()
		return nil, fmt.Errorf("keep the underlay out of %q: %w", tap, err)
	}
	return r, nil
}

// Remove takes away what a node with that TAP has left.
func Remove(tap string) error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("remove the routing rules of %q: %w", tap, err)
	}
	return (&Rules{tap: tap, mark: Mark(tap), handle: handle}).Close()
}

// Complete reports whether the rules keep out all that would go by the TAP, or the
// guard does where the TAP is in a bridge.
func (r *Rules) Complete() bool {
	link, err := r.handle.LinkByName(r.tap)
	return err == nil && (link.Attrs().MasterIndex == 0 || r.guarded)
}

// Close takes the rules away.
func (r *Rules) Close() error {
	_ = r.guard(false) // without nftables there is none
	err := r.clear()
	r.handle.Close()
	if err != nil {
		return fmt.Errorf("remove the routing rules of %q: %w", r.tap, err)
	}
	return nil
}

func families() []int { return []int{unix.AF_INET, unix.AF_INET6} }

// rules are those of one family.
func (r *Rules) rules(family int) []*netlink.Rule {
	rule := func(priority int) *netlink.Rule {
		rule := netlink.NewRule()
		rule.Family, rule.Priority, rule.Mark = family, priority, r.mark
		return rule
	}
	main, hidden, nowhere := rule(priorityMain), rule(priorityHidden), rule(priorityNowhere)
	main.Table, main.SuppressIfgroup = unix.RT_TABLE_MAIN, int(r.mark)
	hidden.Table = int(r.mark)
	nowhere.Type = unix.FR_ACT_UNREACHABLE
	return []*netlink.Rule{main, hidden, nowhere}
}

func (r *Rules) add() error {
	link, err := r.handle.LinkByName(r.tap)
	if err != nil {
		return err
	}
	if err := r.handle.LinkSetGroup(link, int(r.mark)); err != nil {
		return fmt.Errorf("set its group: %w", err)
	}
	for _, family := range families() {
		rules := r.rules(family)
		for _, rule := range []*netlink.Rule{rules[2], rules[1], rules[0]} { // never a moment at which a packet falls through
			if err := r.handle.RuleAdd(rule); err != nil && !noFamily(err) {
				return fmt.Errorf("add rule %d: %w", rule.Priority, err)
			}
		}
	}
	return r.Sync()
}

// clear is level-triggered: what is not there is well.
func (r *Rules) clear() error {
	for _, family := range families() {
		for _, rule := range r.rules(family) {
			const most = 16 // that kills may have left
			for range most {
				if err := r.handle.RuleDel(rule); err != nil {
					if !absent(err) {
						return fmt.Errorf("delete rule %d: %w", rule.Priority, err)
					}
					break
				}
			}
		}
		routes, err := r.table(family, int(r.mark))
		if err != nil {
			return err
		}
		for i := range routes {
			if err := r.handle.RouteDel(&routes[i]); err != nil && !absent(err) {
				return fmt.Errorf("delete route %v: %w", routes[i], err)
			}
		}
	}
	return nil
}

// Sync copies the routes that those into the TAP hide. It is to be called when the
// host's routes or bridges may have changed.
func (r *Rules) Sync() error {
	unguarded := r.Guard()
	for _, family := range families() {
		if err := r.sync(family); err != nil {
			return fmt.Errorf("copy routes around %q: %w", r.tap, err)
		}
	}
	return unguarded
}

func (r *Rules) sync(family int) error {
	all, err := r.table(family, unix.RT_TABLE_MAIN)
	if err != nil {
		return err
	}
	link, err := r.handle.LinkByName(r.tap)
	if err != nil {
		return err
	}
	var list []route
	for _, m := range all {
		list = append(list, route{destination(m, family), m.LinkIndex == link.Attrs().Index})
	}
	have, err := r.table(family, int(r.mark))
	if err != nil {
		return err
	}
	stale := map[string]*netlink.Route{}
	for i := range have {
		stale[key(have[i])] = &have[i]
	}
	var errs error // one that fails does not keep the others from being copied, and old ones from going
	var taken []*netlink.Route
	for _, i := range hidden(list) {
		c := all[i]
		c.Table = int(r.mark)
		if stale[key(c)] != nil {
			delete(stale, key(c))
			continue
		}
		c.Flags = copiedFlags(c.Flags, c.Gw)
		for _, hop := range c.MultiPath {
			hop.Flags = copiedFlags(hop.Flags, hop.Gw)
		}
		// Appended, not replaced: routes that differ in nothing but the interface, as those to fe80::/64, are to stand side
		// by side. Replacing takes the place of another's copy, and would go on for ever: each change is told to us, too.
		switch err := r.handle.RouteAppend(&c); {
		case errors.Is(err, syscall.EEXIST):
			taken = append(taken, &c)
		case err != nil && !absent(err):
			errs = errors.Join(errs, fmt.Errorf("copy %v: %w", c, err))
		}
	}
	for _, old := range stale {
		if err := r.handle.RouteDel(old); err != nil && !absent(err) {
			errs = errors.Join(errs, fmt.Errorf("delete %v: %w", old, err))
		}
	}
	for _, c := range taken { // by one that the kernel does not tell from it, which is gone now
		if err := r.handle.RouteAppend(c); err != nil && !absent(err) && !errors.Is(err, syscall.EEXIST) {
			errs = errors.Join(errs, fmt.Errorf("copy %v: %w", *c, err))
		}
	}
	return errs
}

// table lists the routes of one table. A list that changes while it is read is none: what it lacks must not be taken for gone.
func (r *Rules) table(family, table int) (list []netlink.Route, err error) {
	const tries = 5
	for range tries {
		list, err = r.handle.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil && !noFamily(err) {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return each(list, family), nil
}

// each takes IPv6 routes by several ways apart: the kernel has them as routes of their own, and puts together what may be.
func each(list []netlink.Route, family int) []netlink.Route {
	if family != unix.AF_INET6 {
		return list
	}
	var single []netlink.Route
	for _, m := range list {
		if len(m.MultiPath) == 0 {
			single = append(single, m)
		}
		for _, hop := range m.MultiPath {
			one := m
			one.MultiPath, one.Gw, one.LinkIndex, one.Flags = nil, hop.Gw, hop.LinkIndex, hop.Flags
			single = append(single, one)
		}
	}
	return single
}

// copiedFlags are the flags of the copy of a way.
func copiedFlags(flags int, gateway net.IP) int {
	flags &^= unix.RTNH_F_LINKDOWN | unix.RTNH_F_DEAD | unix.RTM_F_CLONED
	if gateway != nil {
		flags |= int(netlink.FLAG_ONLINK) // the route to the gateway need not be in this table
	}
	return flags
}

// key tells routes of one table apart.
func key(m netlink.Route) string {
	hops := ""
	for _, hop := range m.MultiPath {
		hops += fmt.Sprint(hop.LinkIndex, hop.Gw, hop.Hops)
	}
	return fmt.Sprint(m.Dst, m.Gw, m.LinkIndex, m.Priority, m.Src, m.Type, hops)
}

// destination is what a route leads to.
func destination(m netlink.Route, family int) netip.Prefix {
	if m.Dst != nil {
		if a, ok := netip.AddrFromSlice(m.Dst.IP); ok {
			bits, _ := m.Dst.Mask.Size()
			return netip.PrefixFrom(a.Unmap(), bits)
		}
	}
	if family == unix.AF_INET6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// absent reports that what is to be deleted, or what a copy needs, is not there.
func absent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.ENODEV) ||
		errors.Is(err, syscall.ENETDOWN) || errors.Is(err, syscall.ENETUNREACH) || noFamily(err)
}

// noFamily reports that the host has no such address family.
func noFamily(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP)
}
