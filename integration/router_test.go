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
			if ip, ok := netip.AddrFromSlice(a.IP); ok && p.Contains(ip) && a.Flags&(tentative) == 0 {
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
	w := newWorld(t)
	home := w.net.Host("home", lab.HostConfig{})
	server := w.net.Host("server", lab.HostConfig{})
	w.must(w.net.Route(routed, home))
	gw := w.found(home, "--prefix", routed.String(), "--gateway")
	socket := t.TempDir() + "/ctl"
	laptop := w.join(w.net.Host("laptop", lab.HostConfig{V4: true}), w.invite(gw), "--plug", "vde:"+socket)
	w.waitPeers(gw, laptop)
	vm := w.plugged("vm", socket)
	addr := w.slaac(vm, "vm0", routed)

	w.gatewayState(laptop, routed, "home", "active")
	w.reached(10*time.Second, &lab.Node{Host: vm}, server.Addr6())
	w.reached(10*time.Second, &lab.Node{Host: server}, addr)
	w.reached(10*time.Second, laptop, server.Addr6()) // by the default route of the mesh: it has no other
	w.reached(10*time.Second, &lab.Node{Host: server}, w.addr(laptop))
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
