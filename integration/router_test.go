//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/integration/lab"
)

// gateways is `meshd gateway --json`.
type gateways struct {
	Routers []struct {
		Prefix                         netip.Prefix
		Member, State, Uplink, Address string
	}
	DefaultRoutes []struct {
		Router string
		Taken  bool
	} `json:"default_routes"`
}

// run runs a program on a host and returns what it prints.
func (w *world) run(h *lab.Host, name string, args ...string) string {
	w.Helper()
	out, err := h.Command(w.within(10*time.Second), name, args...).CombinedOutput()
	if err != nil {
		w.Fatalf("%s: %s %v: %v\n%s", h.Name(), name, args, err, out)
	}
	return string(out)
}

// sysctl sets settings of a host's kernel.
func (w *world) sysctl(h *lab.Host, settings ...string) {
	w.Helper()
	w.run(h, "sysctl", append([]string{"-q", "-w"}, settings...)...)
}

// plugged is a host on the segment behind a node: a machine that is plugged into its vde socket, as a virtual machine is,
// and configures itself by what routers advertise.
func (w *world) plugged(name, socket string) *lab.Host {
	w.Helper()
	h := w.lab.Bare(name)
	w.sysctl(h, "net.ipv6.conf.default.accept_ra=1", "net.ipv6.conf.default.autoconf=1", "net.ipv6.conf.default.forwarding=0")
	w.spawn(h, "vde_plug2tap", "-s", socket, "vm0")
	w.eventually(10*time.Second, "vm0 is there", func() error {
		return h.Command(w.within(5*time.Second), "ip", "link", "set", "vm0", "up").Run()
	})
	return h
}

// slaac waits until an interface has made itself an address in a prefix, and returns it.
func (w *world) slaac(h *lab.Host, name string, p netip.Prefix) netip.Addr {
	w.Helper()
	var found netip.Addr
	w.eventually(15*time.Second, fmt.Sprintf("%s has an address in %v", h.Name(), p), func() error {
		for _, a := range w.addrs(h, name) {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && p.Contains(ip) && a.Flags&tentative == 0 {
				found = ip
				return nil
			}
		}
		return errors.New(w.run(h, "ip", "-6", "addr", "show", "dev", name))
	})
	return found
}

const tentative = 0x40 // IFA_F_TENTATIVE

func (w *world) addrs(h *lab.Host, name string) (list []netlink.Addr) {
	w.Helper()
	w.inside(h, func(handle *netlink.Handle) error {
		link, err := handle.LinkByName(name)
		if err != nil {
			return err
		}
		list, err = handle.AddrList(link, netlink.FAMILY_V6)
		return err
	})
	return list
}

// gatewayState waits until a node says of a member that it is in a state for a prefix.
func (w *world) gatewayState(at *lab.Node, p netip.Prefix, member, state string) {
	w.Helper()
	w.eventually(15*time.Second, fmt.Sprintf("%s is %s for %v", member, state, p), func() error {
		var g gateways
		if err := at.JSON(w.within(5*time.Second), &g, "gateway"); err != nil {
			return err
		}
		for _, r := range g.Routers {
			if r.Member == member && r.Prefix == p && r.State == state {
				return nil
			}
		}
		return fmt.Errorf("%+v", g)
	})
}

var routed = netip.MustParsePrefix("2001:db8:77:1::/64")

// TestGatewayRouted: a prefix that is routed to the gateway. A host behind another member configures itself, reaches the
// internet by the gateway and is reached from it; so is the member itself.
func TestGatewayRouted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home := w.net.Host("home", lab.HostConfig{})
	server := w.net.Host("server", lab.HostConfig{})
	w.must(w.net.Route(routed, home))
	dir := t.TempDir()
	gw := w.found(home, "--prefix", routed.String(), "--gateway", "--plug", "vde:"+dir+"/home")
	socket := dir + "/ctl"
	laptop := w.join(w.net.Host("laptop", lab.HostConfig{V4: true}), w.invite(gw), "--plug", "vde:"+socket)
	w.waitPeers(gw, laptop)
	vm := w.plugged("vm", socket)
	addr := w.slaac(vm, "vm0", routed)

	w.gatewayState(laptop, routed, "home", "active")
	w.reached(10*time.Second, &lab.Node{Host: vm}, server.Addr6())
	w.reached(10*time.Second, &lab.Node{Host: server}, addr)
	nas := w.plugged("nas", dir+"/home") // behind the gateway itself
	w.reached(10*time.Second, &lab.Node{Host: vm}, w.slaac(nas, "vm0", routed))
	w.reached(10*time.Second, &lab.Node{Host: nas}, server.Addr6())
	w.reached(10*time.Second, laptop, server.Addr6()) // by the default route of the mesh: it has no other
	w.reached(10*time.Second, &lab.Node{Host: server}, w.addr(laptop))
	// What stands in the way is told.
	w.run(home, "nft", "add table inet filter; add chain inet filter forward { type filter hook forward priority 0; policy drop; }")
	w.sysctl(laptop.Host, "net.ipv6.conf.mesh0.accept_ra=1")
	for node, want := range map[*lab.Node]string{gw: "the firewall drops forwarded packets", laptop: "accept_ra of mesh0"} {
		if out, _ := node.Run(w.within(20*time.Second), "doctor"); !strings.Contains(out, want) {
			t.Errorf("doctor does not say that %s:\n%s", want, out)
		}
	}
	w.run(home, "nft", "delete table inet filter")
	stats, err := vm.Ping(w.within(20*time.Second), server.Addr6(), 200, lab.PingOptions{Interval: 5 * time.Millisecond, Size: 1400})
	if err != nil || stats.Lost() > 0 || stats.Duplicates > 0 {
		t.Errorf("vm to server: %v, %v", stats, err)
	}
	w.must(gw.Interrupt())
	w.eventually(5*time.Second, "the host has no default route by the mesh any more", func() error {
		if out := w.run(vm, "ip", "-6", "route", "show", "default"); strings.Contains(out, "vm0") {
			return errors.New(out)
		}
		return nil
	})
	w.nothingLeft(home)
}

// nothingLeft checks that a node has put back what it changed.
func (w *world) nothingLeft(h *lab.Host) {
	w.Helper()
	for _, show := range [][]string{
		{"sh", "-c", "ip -6 rule | grep -v -e 'lookup local' -e 'lookup main'"},
		{"sh", "-c", "ip -6 route show table all | grep mesh0"},
		{"sh", "-c", "grep -l 1 /proc/sys/net/ipv6/conf/*/force_forwarding"},
	} {
		if out, _ := h.Command(context.Background(), show[0], show[1:]...).CombinedOutput(); len(out) > 0 {
			w.Errorf("%s: left behind: %s", h.Name(), out)
		}
	}
	if w.hasTAP(h) {
		w.Errorf("%s: the TAP is left", h.Name())
	}
}

// uplinkLAN is an internet provider's router with a LAN, on which a /64 is on-link, and a server behind it. The hosts are
// connected to the LAN by eth9, where they have an address and their default route.
func (w *world) uplinkLAN(p netip.Prefix, hosts ...*lab.Host) (isp, server *lab.Host) {
	w.Helper()
	isp, server = w.lab.Bare("isp"), w.lab.Bare("server")
	w.run(isp, "ip", "link", "add", "lan", "type", "bridge")
	for i, h := range hosts {
		port := fmt.Sprintf("p%d", i)
		w.must(w.lab.Cable(isp, port, h, "eth9"))
		w.run(isp, "ip", "link", "set", port, "master", "lan")
	}
	w.run(isp, "ip", "link", "set", "lan", "up")
	w.must(w.lab.Cable(isp, "wan", server, "eth0"))
	w.sysctl(isp, "net.ipv6.conf.all.forwarding=1")
	at := func(n int) string {
		a := p.Addr().As16()
		a[15] = byte(n)
		return netip.PrefixFrom(netip.AddrFrom16(a), 64).String()
	}
	w.run(isp, "ip", "addr", "add", at(1), "dev", "lan", "nodad")
	w.run(isp, "ip", "addr", "add", "2001:db8:ee::1/64", "dev", "wan", "nodad")
	w.run(server, "ip", "addr", "add", "2001:db8:ee::2/64", "dev", "eth0", "nodad")
	w.run(server, "ip", "route", "add", "default", "via", "2001:db8:ee::1")
	for i, h := range hosts {
		w.run(h, "ip", "addr", "add", at(10+i), "dev", "eth9", "nodad")
		w.run(h, "ip", "route", "add", "default", "via", strings.TrimSuffix(at(1), "/64"), "dev", "eth9", "metric", "512")
	}
	return isp, server
}

var internet6 = netip.MustParseAddr("2001:db8:ee::2")

// TestGatewayOnLink: the /64 of the segment is on-link at the uplink of two gateways, which answer there for hosts of the
// segment. One is killed: the other takes over, and the host notices nothing but a gap.
func TestGatewayOnLink(t *testing.T) {
	w := newWorld(t)
	v4 := lab.HostConfig{V4: true}
	hosts := []*lab.Host{w.net.Host("gw1", v4), w.net.Host("gw2", v4)}
	isp, server := w.uplinkLAN(routed, hosts...)
	one := w.found(hosts[0], "--prefix", routed.String(), "--gateway")
	two := w.join(hosts[1], w.invite(one, "--role", "router"), "--gateway")
	socket := t.TempDir() + "/ctl"
	laptop := w.join(w.net.Host("laptop", v4), w.invite(one), "--plug", "vde:"+socket)
	w.waitPeers(one, two, laptop)
	vm := w.plugged("vm", socket)
	addr := w.slaac(vm, "vm0", routed)

	// The server speaks first: nobody has heard of the host.
	w.reached(10*time.Second, &lab.Node{Host: server}, addr)
	w.reached(10*time.Second, &lab.Node{Host: vm}, internet6)
	w.reached(10*time.Second, laptop, internet6)
	w.reached(10*time.Second, &lab.Node{Host: server}, w.addr(laptop))

	// So do neighbours on the uplink's own link, though all take the /64 for theirs; and the gateways reach both sides.
	w.reached(10*time.Second, &lab.Node{Host: isp}, addr)
	w.reached(10*time.Second, &lab.Node{Host: vm}, netip.MustParseAddr("2001:db8:77:1::1"))
	w.reached(10*time.Second, &lab.Node{Host: isp}, w.addr(laptop))
	for _, gw := range []*lab.Node{one, two} {
		w.reached(10*time.Second, gw, w.addr(laptop))
		w.reached(10*time.Second, gw, addr)
		w.reached(10*time.Second, gw, netip.MustParseAddr("2001:db8:77:1::1"))
	}

	nodes := map[string]*lab.Node{"gw1": one, "gw2": two}
	active := w.active(laptop, routed)
	standby := map[string]string{"gw1": "gw2", "gw2": "gw1"}[active]
	tables := func() string {
		return w.run(vm, "sh", "-c", "ip -6 route show | sed 's/ expires [0-9]*sec//'; ip -6 neigh show | awk '/router/ {print $1, $3, $4, $5}' | sort")
	}
	before := tables()
	for _, gw := range []string{"gw1", "gw2"} {
		_, err := laptop.Run(w.within(20*time.Second), "wait", "--direct", gw, "--timeout", "15s")
		w.must(err)
	}
	p, err := vm.Pinger(internet6, lab.PingOptions{Interval: 20 * time.Millisecond})
	w.must(err)
	defer p.Close()
	for _, step := range []struct {
		name string
		do   func() error
		to   string
	}{
		{"kill -9", nodes[active].Kill, standby},
	} {
		w.flowing(p)
		begun := time.Now()
		w.must(step.do())
		w.gatewayState(nodes[step.to], routed, step.to, "active")
		w.flowing(p)
		gap := p.Stats().Outage
		t.Logf("%s: %s took over, outage %v, known after %v", step.name, step.to, gap, time.Since(begun))
		if gap > 3*time.Second {
			t.Errorf("%s: an outage of %v", step.name, gap)
		}
		if after := tables(); after != before {
			t.Errorf("%s: the host's tables were\n%s\nand are\n%s", step.name, before, after)
		}
	}
	// It comes back as standby; then the uplink of the active one is cut, and at last that one ends in good order.
	w.resume(nodes[active], "--gateway")
	w.waitPeers(one, two, laptop)
	w.gatewayState(laptop, routed, active, "standby")
	w.uplinkUp(laptop, routed, active)
	for _, gw := range []string{"gw1", "gw2"} {
		_, err := laptop.Run(w.within(20*time.Second), "wait", "--direct", gw, "--timeout", "15s")
		w.must(err)
	}
	for range 8 { // until it was told what the uplink asks for
		w.flowing(p)
	}
	was := p.Stats().Outage
	w.run(nodes[standby].Host, "ip", "-6", "route", "del", "default")
	w.gatewayState(nodes[active], routed, active, "active")
	w.flowing(p)
	t.Logf("uplink lost: longest gap %v, before %v", p.Stats().Outage, was)
	if gap := p.Stats().Outage; gap > 3*time.Second {
		t.Errorf("uplink lost: an outage of %v", gap)
	}
	if after := tables(); after != before {
		t.Errorf("uplink lost: the host's tables were\n%s\nand are\n%s", before, after)
	}
	// The uplink comes back; the active one ends in good order, and the other knows at once.
	w.run(nodes[standby].Host, "ip", "-6", "route", "add", "default", "via", "2001:db8:77:1::1", "dev", "eth9", "metric", "512")
	w.uplinkUp(nodes[standby], routed, standby)
	for range 8 {
		w.flowing(p)
	}
	w.must(nodes[active].Interrupt())
	w.gatewayState(nodes[standby], routed, standby, "active")
	w.flowing(p)
	if s := p.Stats(); s.Outage > 3*time.Second {
		t.Errorf("a goodbye: an outage of %v", s.Outage)
	}
	if after := tables(); after != before {
		t.Errorf("a goodbye: the host's tables were\n%s\nand are\n%s", before, after)
	}
	w.nothingLeft(nodes[active].Host)
}

// active is who speaks for a prefix.
func (w *world) active(at *lab.Node, p netip.Prefix) (name string) {
	w.Helper()
	w.eventually(15*time.Second, "somebody is active", func() error {
		var g gateways
		if err := at.JSON(w.within(5*time.Second), &g, "gateway"); err != nil {
			return err
		}
		for _, r := range g.Routers {
			if r.Prefix == p && r.State == "active" {
				name = r.Member
				return nil
			}
		}
		return fmt.Errorf("%+v", g)
	})
	return name
}

// uplinkUp waits until a member is seen to have its uplink.
func (w *world) uplinkUp(at *lab.Node, p netip.Prefix, member string) {
	w.Helper()
	w.eventually(15*time.Second, member+" has its uplink", func() error {
		var g gateways
		if err := at.JSON(w.within(5*time.Second), &g, "gateway"); err != nil {
			return err
		}
		for _, r := range g.Routers {
			if r.Prefix == p && r.Member == member && r.Uplink == "up" {
				return nil
			}
		}
		return fmt.Errorf("%+v", g)
	})
}

// flowing waits until pings are answered now.
func (w *world) flowing(p *lab.Pinger) {
	w.Helper()
	from := p.Stats().Received
	w.eventually(15*time.Second, "pings are answered", func() error {
		if s := p.Stats(); s.Received < from+25 {
			return fmt.Errorf("%v", s)
		}
		return nil
	})
}

// TestDefaultRoute: when a member takes the route of the mesh, and that it is put back.
func TestDefaultRoute(t *testing.T) {
	w := newWorld(t)
	home := w.net.Host("home", lab.HostConfig{})
	server := w.net.Host("server", lab.HostConfig{})
	w.must(w.net.Route(routed, home))
	gw := w.found(home, "--prefix", routed.String(), "--gateway")
	defaults := func(h *lab.Host) string {
		return w.run(h, "ip", "-6", "route", "show", "default")
	}
	for _, c := range []struct {
		name, mode string
		own        bool // the host has a way of its own
		taken      bool
	}{
		{"auto4", "auto", false, true},
		{"auto6", "auto", true, false},
		{"always6", "always", true, true},
		{"never4", "never", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.under(t)
			host := w.net.Host(c.name, lab.HostConfig{V4: true, V6: c.own})
			before := defaults(host)
			n := w.join(host, w.invite(gw), "--default-route", c.mode)
			w.gatewayHeard(n)
			w.eventually(5*time.Second, "the route is as it should be", func() error {
				if out := defaults(host); strings.Contains(out, "mesh0") != c.taken || c.own && !strings.HasPrefix(out, before) {
					return errors.New(out)
				}
				return nil
			})
			// What has a mesh source goes by the mesh, whatever the mode; what has none, as the host goes.
			w.reached(10*time.Second, &lab.Node{Host: server}, w.addr(n))
			if out := w.run(host, "ip", "-6", "route", "get", server.Addr6().String(), "from", w.addr(n).String()); !strings.Contains(out, "dev mesh0") {
				t.Errorf("with a mesh source: %s", out)
			}
			if c.own {
				if out := w.run(host, "ip", "-6", "route", "get", server.Addr6().String()); !strings.Contains(out, "dev eth0") {
					t.Errorf("without: %s", out)
				}
			}
			if c.name == "auto6" { // the host loses its own way: now it takes ours, and gives it back
				own := strings.Fields(strings.TrimSpace(before))
				w.run(host, "ip", append([]string{"-6", "route", "del"}, own[:5]...)...)
				w.eventually(5*time.Second, "the route is taken", func() error { return contains(defaults(host), "mesh0") })
				w.run(host, "ip", append([]string{"-6", "route", "add"}, own...)...)
				w.eventually(5*time.Second, "the route is given back", func() error {
					if contains(defaults(host), "mesh0") == nil {
						return errors.New(defaults(host))
					}
					return nil
				})
			}
			// Killed: the TAP has no carrier, and its routes do not count. Then `down` cleans up.
			w.must(n.Kill())
			w.eventually(5*time.Second, "the way after kill -9 is the host's own", func() error {
				out, err := host.Command(w.within(5*time.Second), "ip", "-6", "route", "get", server.Addr6().String()).CombinedOutput()
				if strings.Contains(string(out), "mesh0") || c.own && err != nil {
					return fmt.Errorf("%s, %w", out, err)
				}
				return nil
			})
			_, err := n.Run(w.within(10*time.Second), "down")
			w.must(err)
			w.nothingLeft(host)
			if out := defaults(host); out != before {
				t.Errorf("default routes were\n%s\nand are\n%s", before, out)
			}
		})
	}
	t.Run("bridge", func(t *testing.T) { w.under(t).defaultRouteByBridge(gw) })
	t.Run("uplink in the bridge", func(t *testing.T) { w.under(t).uplinkInBridge(gw, server) })
	w.must(gw.Kill())
	if _, err := gw.Run(w.within(10*time.Second), "down"); err != nil {
		t.Error(err)
	}
	w.nothingLeft(home)
}

// defaultRouteByBridge has a node whose TAP is in a bridge that was there take the default route and hand out IPv4
// addresses. Both are where the mesh is, also when the role that lets it bridge is taken and given, and are put back
// after kill -9.
func (w *world) defaultRouteByBridge(gw *lab.Node) {
	w.Helper()
	v4 := lab.HostConfig{V4: true}
	host := w.net.Host("bridging", v4)
	w.lanBehind(host, w.net.Host("plain", v4), false)
	w.sysctl(host, "net.ipv6.conf.br0.accept_ra=0") // else its kernel has a default route as well
	n := w.join(host, w.invite(gw, "--role", "bridge", "--role", "dhcp"), "--bridge", "br0", "--default-route", "always", "--dhcp4", "10.66.0.0/24")
	at := func(inside, outside string) {
		w.Helper()
		w.eventually(20*time.Second, "route and address are on "+inside, func() error {
			routes, addrs := w.run(host, "ip", "-6", "route", "show", "default"), w.run(host, "ip", "-4", "-br", "addr")
			for _, out := range []string{routes, lineOf(addrs, inside)} {
				if strings.Contains(out, "dev "+outside) || !strings.Contains(out, inside) {
					return errors.New(out)
				}
			}
			if strings.Count(addrs, "10.66.0.1/24") != 1 || !strings.Contains(lineOf(addrs, inside), "10.66.0.1/24") {
				return errors.New(addrs)
			}
			return nil
		})
	}
	at("br0", "mesh0")
	for _, c := range []struct{ roles, inside, outside string }{{"dhcp", "mesh0", "br0"}, {"bridge dhcp", "br0", "mesh0"}} {
		_, err := gw.Run(w.within(10*time.Second), append([]string{"role", "bridging"}, strings.Fields(c.roles)...)...)
		w.must(err)
		at(c.inside, c.outside)
	}
	w.must(n.Kill())
	_, err := n.Run(w.within(10*time.Second), "down")
	w.must(err)
	w.nothingLeft(host)
	if out := w.run(host, "sh", "-c", "ip -6 route show default; ip -4 -br addr | grep 10.66; nft list ruleset"); out != "" {
		w.Errorf("left behind: %s", out)
	}
}

// uplinkInBridge has a node bridge its own uplink: the default route there is the host's own, and no way for the mesh.
func (w *world) uplinkInBridge(gw *lab.Node, server *lab.Host) {
	w.Helper()
	host := w.net.Host("onelink", lab.HostConfig{V4: true, V6: true})
	n := w.join(host, w.invite(gw, "--role", "bridge", "--role", "router"), "--bridge", "eth0", "--gateway")
	w.gatewayHeard(n)
	w.reached(10*time.Second, &lab.Node{Host: server}, w.addr(n)) // its routes are set
	w.healthy(10*time.Second, n, "gateway-uplink", true)
	if out := w.run(host, "ip", "-6", "route", "show", "default"); strings.Count(out, "default") != 1 || !strings.Contains(out, "dev br-mesh0") {
		w.Errorf("default routes are %s", out)
	}
	w.must(n.Interrupt())
	w.nothingLeft(host)
}

func contains(text, what string) error {
	if strings.Contains(text, what) {
		return nil
	}
	return errors.New(text)
}

// gatewayHeard waits until a node has heard a default router.
func (w *world) gatewayHeard(n *lab.Node) {
	w.Helper()
	w.eventually(15*time.Second, n.Host.Name()+" has heard a router", func() error {
		var g gateways
		if err := n.JSON(w.within(5*time.Second), &g, "gateway"); err != nil {
			return err
		}
		if len(g.DefaultRoutes) == 0 {
			return fmt.Errorf("%+v", g)
		}
		return nil
	})
}

// TestRenumbering: a new prefix comes, the old one is deprecated and goes, at members and at hosts behind them.
func TestRenumbering(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v4 := lab.HostConfig{V4: true}
	home := w.found(w.net.Host("home", v4))
	first := w.status(home).Network.Prefixes[0]
	socket := t.TempDir() + "/ctl"
	laptop := w.join(w.net.Host("laptop", v4), w.invite(home), "--plug", "vde:"+socket)
	w.waitPeers(home, laptop)
	vm := w.plugged("vm", socket)
	w.slaac(vm, "vm0", first)

	short, next := netip.MustParsePrefix("2001:db8:77:2::/64"), netip.MustParsePrefix("2001:db8:77:3::/64")
	if _, err := laptop.Run(w.within(5*time.Second), "prefix", "add", short.String()); err == nil || !strings.Contains(err.Error(), "not an admin") {
		t.Errorf("a member without the right adds a prefix: %v", err)
	}
	if out, err := home.Run(w.within(5*time.Second), "prefix", "add", "--lifetime", "10s", short.String()); err != nil || !strings.Contains(out, first.String()) {
		t.Fatalf("%s, %v", out, err)
	}
	addr := w.slaac(vm, "vm0", short)
	w.slaac(laptop.Host, "mesh0", short)
	_, err := home.Run(w.within(5*time.Second), "prefix", "add", next.String())
	w.must(err)
	w.slaac(vm, "vm0", next)
	mesh := w.slaac(laptop.Host, "mesh0", next)
	w.reached(10*time.Second, &lab.Node{Host: vm}, mesh)

	_, err = home.Run(w.within(5*time.Second), "prefix", "remove", short.String())
	w.must(err)
	removed := time.Now()
	for _, at := range []struct {
		host *lab.Host
		name string
	}{{vm, "vm0"}, {laptop.Host, "mesh0"}, {home.Host, "mesh0"}} {
		w.eventually(10*time.Second, at.host.Name()+" uses it no longer for what is new", func() error {
			for _, a := range w.addrs(at.host, at.name) {
				if ip, _ := netip.AddrFromSlice(a.IP); short.Contains(ip) {
					if a.Flags&deprecated == 0 {
						return fmt.Errorf("%v", a)
					}
					return nil
				}
			}
			return errors.New("it is gone before its time")
		})
	}
	w.reached(5*time.Second, home, addr) // what there is goes on
	for _, at := range []struct {
		host *lab.Host
		name string
	}{{vm, "vm0"}, {laptop.Host, "mesh0"}, {home.Host, "mesh0"}} {
		w.eventually(30*time.Second, at.host.Name()+" has lost it", func() error {
			for _, a := range w.addrs(at.host, at.name) {
				if ip, _ := netip.AddrFromSlice(a.IP); short.Contains(ip) {
					return fmt.Errorf("%v", a)
				}
			}
			return nil
		})
	}
	t.Logf("gone everywhere after %v", time.Since(removed))
	var list []struct{ Prefix netip.Prefix }
	w.must(home.JSON(w.within(5*time.Second), &list, "prefix"))
	if len(list) != 2 || list[0].Prefix != first || list[1].Prefix != next {
		t.Errorf("left: %v", list)
	}
	w.reached(5*time.Second, &lab.Node{Host: vm}, mesh)
}

const deprecated = 0x20 // IFA_F_DEPRECATED

// TestGatewayBridged: the gateway's TAP is in a kernel bridge with a LAN, whose hosts find the router behind the TAP.
func TestGatewayBridged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home := w.net.Host("home", lab.HostConfig{})
	server := w.net.Host("server", lab.HostConfig{})
	w.must(w.net.Route(routed, home))
	gw := w.found(home, "--prefix", routed.String(), "--gateway")
	socket := t.TempDir() + "/ctl"
	laptop := w.join(w.net.Host("laptop", lab.HostConfig{V4: true}), w.invite(gw), "--plug", "vde:"+socket)
	w.waitPeers(gw, laptop)
	nas := w.lab.Bare("nas")
	w.sysctl(nas, "net.ipv6.conf.default.accept_ra=1", "net.ipv6.conf.default.forwarding=0")
	w.must(w.lab.Cable(home, "lan0", nas, "eth0"))
	w.run(home, "sh", "-c", `set -e
ip link add br0 type bridge
ip link set br0 address $(cat /sys/class/net/mesh0/address)
ip link set lan0 master br0
ip link set mesh0 master br0
ip link set br0 up`)
	w.sysctl(nas, "net.ipv6.conf.eth0.accept_ra=1")
	w.run(nas, "ip", "link", "set", "eth0", "down")
	w.run(nas, "ip", "link", "set", "eth0", "up") // it solicits
	addr := w.slaac(nas, "eth0", routed)
	vm := w.plugged("vm", socket)
	w.reached(10*time.Second, &lab.Node{Host: nas}, w.slaac(vm, "vm0", routed))
	w.reached(10*time.Second, &lab.Node{Host: nas}, server.Addr6())
	w.reached(10*time.Second, &lab.Node{Host: server}, addr)
	stats, err := nas.Ping(w.within(20*time.Second), server.Addr6(), 200, lab.PingOptions{Interval: 5 * time.Millisecond, Size: 1400})
	if err != nil || stats.Lost() > 0 || stats.Duplicates > 0 {
		t.Errorf("nas to server: %v, %v", stats, err)
	}
	w.reached(10*time.Second, &lab.Node{Host: vm}, server.Addr6())
}
