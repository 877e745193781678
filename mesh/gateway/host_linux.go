package gateway

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// The priorities of the rules: after those that keep the underlay out of the mesh.
	prioritySource  = 5186
	priorityForward = 5187
	priorityShared  = 5188

	// metric is that of the default route in the main table: worse than those that
	// hosts have by themselves (1024 from the kernel).
	metric = 4096

	// protocol marks our route in the main table.
	protocol = 109
)

// Host is this machine, in the network namespace in which it was opened. Its methods
// are for one goroutine.
type Host struct {
	tap      string
	nl       *netlink.Handle
	settings settings
}

// Open takes over what an earlier process has written down in notes. save keeps notes
// for a later one.
func Open(tap string, notes []byte, save func([]byte) error) (*Host, error) {
	h := &Host{tap: tap, settings: settings{root: "/proc/sys", save: save}}
	if err := h.settings.parse(notes); err != nil {
		return nil, err
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("routes of %q: %w", tap, err)
	}
	h.nl = nl
	return h, nil
}

// Close puts back what was changed. Where the TAP was in a bridge it does so whether the
// TAP has left that yet or not.
func (h *Host) Close() error {
	err := h.Sync(Want{})
	h.nl.Close()
	return err
}

// Leave ends without a change: another process follows.
func (h *Host) Leave() { h.nl.Close() }

// inside is the interface that the segment is on: the bridge that the TAP is in, or
// the TAP.
func (h *Host) inside() (netlink.Link, error) {
	link, err := h.nl.LinkByName(h.tap)
	if err != nil || link.Attrs().MasterIndex == 0 {
		return link, err
	}
	return h.nl.LinkByIndex(link.Attrs().MasterIndex)
}

// Uplink finds the interface of the host's own IPv6 default route, the best of those
// that work.
func (h *Host) Uplink() (Uplink, bool, error) {
	inside, err := h.inside()
	if err != nil {
		return Uplink{}, false, fmt.Errorf("find %q: %w", h.tap, err)
	}
	routes, err := h.routes(unix.RT_TABLE_MAIN)
	if err != nil {
		return Uplink{}, false, err
	}
	slices.SortStableFunc(routes, func(a, b netlink.Route) int { return a.Priority - b.Priority })
	var beside []netip.Addr
	for _, r := range routes {
		const dead = unix.RTNH_F_LINKDOWN | unix.RTNH_F_DEAD
		if !isDefault(r) || r.Type != unix.RTN_UNICAST || r.LinkIndex == 0 || r.Flags&dead != 0 {
			continue
		}
		if r.LinkIndex == inside.Attrs().Index {
			if r.Protocol != protocol {
				router, _ := netip.AddrFromSlice(r.Gw)
				beside = append(beside, router)
			}
			continue
		}
		if u, ok := h.uplinkAt(r.LinkIndex); ok {
			return u, true, nil
		}
	}
	return Uplink{Beside: beside}, false, nil
}

// uplinkAt is an interface, if it works.
func (h *Host) uplinkAt(index int) (u Uplink, ok bool) {
	link, err := h.nl.LinkByIndex(index)
	if err != nil || link.Attrs().OperState == netlink.OperDown || link.Attrs().Flags&net.FlagLoopback != 0 {
		return u, false
	}
	u = Uplink{Name: link.Attrs().Name, Index: link.Attrs().Index}
	if mac := link.Attrs().HardwareAddr; len(mac) == 6 && link.Attrs().EncapType == "ether" {
		u.MAC = [6]byte(mac)
	}
	addrs, err := h.nl.AddrList(link, netlink.FAMILY_V6)
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			u.Addrs = append(u.Addrs, ip)
		}
	}
	return u, err == nil
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	bits, _ := r.Dst.Mask.Size()
	return bits == 0
}

// Sync makes this host do what is wanted.
func (h *Host) Sync(w Want) error {
	inside, err := h.inside()
	if errors.As(err, new(netlink.LinkNotFoundError)) { // a bridge that the TAP was in may be there still
		return errors.Join(h.syncTables(nil), h.syncRules(nil), h.syncNAT(h.tap, netip.Prefix{}), h.settings.apply(nil), h.withdraw(h.tap))
	}
	if err != nil {
		return fmt.Errorf("find %q: %w", h.tap, err)
	}
	uplink, up, err := h.Uplink()
	if err != nil {
		return err
	}
	name := inside.Attrs().Name
	var errs []error
	var values []value
	if w.Forward && up {
		values = h.settings.forwarding6(name, uplink.Name)
	}
	if uplink4, _ := h.uplink4(inside); uplink4 != "" && w.NAT4.IsValid() {
		values = append(values, forwarding4(name, uplink4)...)
	}
	var main []netlink.Route
	if w.Default.IsValid() {
		main = append(main, via(unix.RT_TABLE_MAIN, inside, w.Default))
	}
	if name != h.tap && (len(main) > 0 || w.NAT4.IsValid()) {
		errs = append(errs, h.settings.reach(name))
	}
	errs = append(errs, h.withdraw(name), h.settings.apply(values), h.syncAddress4(inside, w.NAT4), h.syncNAT(name, w.NAT4))
	// A host that goes on without us must not lose packets in a TAP that nobody serves.
	if len(w.Prefixes) > 0 {
		_ = h.settings.put(conf(h.tap, "ignore_routes_with_linkdown"), "1")
	}
	var rules []*netlink.Rule
	var tables [][]netlink.Route
	for i, p := range w.Prefixes[:min(len(w.Prefixes), MaxPrefixes)] {
		r, routes := h.plan(h.table(i), p, w, inside, uplink, up)
		rules, tables = append(rules, r...), append(tables, routes)
	}
	errs = append(errs, h.syncTables(tables), h.syncRules(rules), h.syncMain(inside, main))
	if len(main) == 0 && !w.NAT4.IsValid() && errors.Join(errs...) == nil {
		errs = append(errs, h.settings.left(name))
	}
	return errors.Join(errs...)
}

// withdraw takes our route and our address from where the segment is no longer: the TAP
// that has come into a bridge, the bridge that it has left.
func (h *Host) withdraw(inside string) error {
	var errs []error
	for _, name := range append([]string{h.tap}, h.settings.reached...) {
		if name == inside {
			continue
		}
		link, err := h.nl.LinkByName(name)
		switch {
		case err == nil:
			err = errors.Join(h.syncMain(link, nil), h.syncAddress4(link, netip.Prefix{}))
		case errors.As(err, new(netlink.LinkNotFoundError)): // they have gone with it
			err = nil
		}
		if err == nil {
			err = h.settings.left(name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// plan is the rules and the table of one prefix.
func (h *Host) plan(table int, p Prefix, w Want, inside netlink.Link, uplink Uplink, up bool) (rules []*netlink.Rule, routes []netlink.Route) {
	to := func(dst netip.Prefix, index int) netlink.Route {
		return netlink.Route{Family: unix.AF_INET6, Table: table, LinkIndex: index, Dst: ipNet(dst), Priority: metric}
	}
	if p.Via.IsValid() {
		rules = append(rules, h.rule(prioritySource, table, netip.PrefixFrom(p.Own, 128), netip.Prefix{}, ""))
		routes = append(routes, via(table, inside, p.Via))
	}
	if w.Forward && up {
		rules = append(rules, h.rule(priorityForward, table, netip.Prefix{}, p.Prefix, uplink.Name))
	}
	if p.Shared && up {
		rules = append(rules, h.rule(priorityShared, table, netip.Prefix{}, p.Prefix, ""))
		for _, a := range p.Outside {
			routes = append(routes, to(netip.PrefixFrom(a, 128), uplink.Index))
		}
	}
	if len(rules) > 0 {
		for _, q := range w.Prefixes {
			routes = append(routes, to(q.Prefix, inside.Attrs().Index))
		}
	}
	return rules, routes
}

func via(table int, inside netlink.Link, router netip.Addr) netlink.Route {
	return netlink.Route{
		Family: unix.AF_INET6, Table: table, LinkIndex: inside.Attrs().Index, Gw: router.AsSlice(), Priority: metric,
		Dst: &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// table is the number of the n-th prefix's table. Several nodes on a host have
// different ones, and what a killed one has left is found by the TAP's name.
func (h *Host) table(n int) int {
	const space = 0x6d68_0000
	return space + n<<16 + int(crc32.ChecksumIEEE([]byte(h.tap))&0xffff)
}

func (h *Host) isOurs(table int) bool {
	for i := range MaxPrefixes {
		if h.table(i) == table {
			return true
		}
	}
	return false
}

func (h *Host) rule(priority, table int, from, to netip.Prefix, iif string) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.IifName = unix.AF_INET6, priority, table, iif
	if from.IsValid() {
		r.Src = ipNet(from)
	}
	if to.IsValid() {
		r.Dst = ipNet(to)
	}
	return r
}

func ruleKey(r *netlink.Rule) string {
	return fmt.Sprint(r.Priority, r.Table, r.Src, r.Dst, r.IifName)
}

// syncRules makes these the rules of this node.
func (h *Host) syncRules(want []*netlink.Rule) error {
	list, err := h.nl.RuleList(unix.AF_INET6)
	if err != nil {
		if noFamily(err) {
			return nil
		}
		return fmt.Errorf("list rules: %w", err)
	}
	have := map[string]bool{}
	var errs []error
	for i := range list {
		r := &list[i]
		if r.Priority < prioritySource || r.Priority > priorityShared || !h.isOurs(r.Table) {
			continue
		}
		key := ruleKey(r)
		if have[key] || !slices.ContainsFunc(want, func(w *netlink.Rule) bool { return ruleKey(w) == key }) {
			r.Family = unix.AF_INET6
			if err := h.nl.RuleDel(r); err != nil && !absent(err) {
				errs = append(errs, fmt.Errorf("delete rule %v: %w", r, err))
			}
			continue
		}
		have[key] = true
	}
	for _, w := range want {
		if !have[ruleKey(w)] {
			if err := h.nl.RuleAdd(w); err != nil {
				errs = append(errs, fmt.Errorf("add rule %v: %w", w, err))
			}
		}
	}
	return errors.Join(errs...)
}

// routes lists a table.
func (h *Host) routes(table int) ([]netlink.Route, error) {
	list, err := h.nl.RouteListFiltered(unix.AF_INET6, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) && !noFamily(err) {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return list, nil
}

func routeKey(r netlink.Route) string {
	dst := "::/0"
	if !isDefault(r) {
		dst = r.Dst.String()
	}
	return fmt.Sprint(dst, r.Gw, r.LinkIndex, r.Priority)
}

// syncTables makes these the routes of the prefixes' tables.
func (h *Host) syncTables(tables [][]netlink.Route) error {
	var errs []error
	for i := range MaxPrefixes {
		var want []netlink.Route
		if i < len(tables) {
			want = tables[i]
		}
		errs = append(errs, h.syncTable(h.table(i), want, func(netlink.Route) bool { return true }))
	}
	return errors.Join(errs...)
}

// syncMain does it for the main table and an interface: by others lead routes of other
// nodes.
func (h *Host) syncMain(link netlink.Link, want []netlink.Route) error {
	return h.syncTable(unix.RT_TABLE_MAIN, want, func(r netlink.Route) bool { return r.LinkIndex == link.Attrs().Index })
}

// syncTable makes these the routes of this node in a table, of those that mine says.
func (h *Host) syncTable(table int, want []netlink.Route, mine func(netlink.Route) bool) error {
	list, err := h.routes(table)
	if err != nil {
		return err
	}
	have := map[string]bool{}
	var errs []error
	for i := range list {
		r := list[i]
		if int(r.Protocol) != protocol || !mine(r) {
			continue
		}
		key := routeKey(r)
		if slices.ContainsFunc(want, func(w netlink.Route) bool { return routeKey(w) == key }) {
			have[key] = true
			continue
		}
		if err := h.nl.RouteDel(&r); err != nil && !absent(err) {
			errs = append(errs, fmt.Errorf("delete route %v: %w", r, err))
		}
	}
	for _, w := range want {
		if have[routeKey(w)] {
			continue
		}
		w.Protocol = protocol
		if w.Gw != nil {
			w.Flags = int(netlink.FLAG_ONLINK)
		}
		if err := h.nl.RouteReplace(&w); err != nil {
			errs = append(errs, fmt.Errorf("add route %v: %w", w, err))
		}
	}
	return errors.Join(errs...)
}

func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) || noFamily(err)
}

func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}
