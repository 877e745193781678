package underlay

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread in a network namespace of its own, which has an
// uplink eth0 and a TAP mesh0, both up.
func inNamespace(t *testing.T, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace and a TAP")
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not used again
		ns, err := netns.New()
		if err == nil {
			err = errors.Join(makeLinks(), f())
			err = errors.Join(err, ns.Close())
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

func makeLinks() error {
	eth, tap := netlink.NewLinkAttrs(), netlink.NewLinkAttrs()
	eth.Name, tap.Name = "eth0", "mesh0"
	for _, l := range []netlink.Link{
		&netlink.Veth{LinkAttrs: eth, PeerName: "far"},
		&netlink.Tuntap{LinkAttrs: tap, Mode: netlink.TUNTAP_MODE_TAP},
	} {
		if err := netlink.LinkAdd(l); err != nil {
			return err
		}
	}
	for _, name := range []string{"far", "eth0", "mesh0"} {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			return err
		}
	}
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	return netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 2), Mask: net.CIDRMask(24, 32)}})
}

// addRoute adds one; a priority of 0 is the family's default.
func addRoute(ifname, dst, gw string, priority int) error {
	l, err := netlink.LinkByName(ifname)
	if err != nil {
		return err
	}
	_, to, err := net.ParseCIDR(dst)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: to, Priority: priority}
	if gw != "" {
		r.Gw, r.Flags = net.ParseIP(gw), int(netlink.FLAG_ONLINK)
	}
	if err := netlink.RouteAdd(r); err != nil {
		return fmt.Errorf("add %v: %w", r, err)
	}
	return nil
}

// way says by which interface packets leave, "" for none.
func way(dst string, mark uint32) string {
	routes, err := netlink.RouteGetWithOptions(net.ParseIP(dst), &netlink.RouteGetOptions{Mark: mark})
	if err != nil || len(routes) == 0 {
		return ""
	}
	l, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return ""
	}
	return l.Attrs().Name
}

func TestRules(t *testing.T) {
	inNamespace(t, func() error {
		mark := Mark("mesh0")
		for _, r := range []struct {
			ifname, dst, gw string
			priority        int
		}{
			{"mesh0", "2001:db8::/64", "", 100},
			{"eth0", "2001:db8::/64", "", 256}, // one /64 on both
			{"eth0", "::/0", "fe80::1", 1024},
			{"mesh0", "::/0", "fe80::2", 512}, // both with a way to the internet
			{"mesh0", "10.1.0.0/16", "", 0},
			{"eth0", "0.0.0.0/0", "192.0.2.1", 0},
			{"mesh0", "fd00::/64", "", 0},
		} {
			if err := addRoute(r.ifname, r.dst, r.gw, r.priority); err != nil {
				return err
			}
		}
		rules, err := Open("mesh0")
		if err != nil {
			return err
		}
		for _, c := range []struct {
			dst    string
			mark   uint32
			expect string
		}{
			{"2001:db8::7", 0, "mesh0"},
			{"2001:db8::7", mark, "eth0"},
			{"2001:db8:1::7", 0, "mesh0"},
			{"2001:db8:1::7", mark, "eth0"},
			{"10.1.2.3", 0, "mesh0"},
			{"10.1.2.3", mark, "eth0"},
			{"198.18.0.1", mark, "eth0"},
			{"fd00::1", mark, "eth0"}, // by the default route
		} {
			if got := way(c.dst, c.mark); got != c.expect {
				t.Errorf("%s with mark %#x leaves by %q, want %q", c.dst, c.mark, got, c.expect)
			}
		}
		// The host's default route goes: then marked packets go nowhere.
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.RouteDel(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}); err != nil {
			return err
		}
		if err := rules.Sync(); err != nil {
			return err
		}
		if got := way("2001:db8:1::7", mark); got != "" {
			t.Errorf("without a default route a marked packet leaves by %q", got)
		}
		if got := way("2001:db8::7", mark); got != "eth0" {
			t.Errorf("on the link a marked packet leaves by %q", got)
		}
		if err := rules.Close(); err != nil {
			return err
		}
		return nothingLeft(t)
	})
}

// TestRestsWhenCopied has routes that differ in nothing but the interface or the gateway, as every host with two interfaces
// has: all are copied, and a second Sync changes nothing. A change is told to whoever calls Sync, which would go on for ever.
func TestRestsWhenCopied(t *testing.T) {
	inNamespace(t, func() error {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "far1"}); err != nil {
			return err
		}
		for _, name := range []string{"eth1", "far1"} {
			l, err := netlink.LinkByName(name)
			if err == nil {
				err = netlink.LinkSetUp(l)
			}
			if err != nil {
				return err
			}
		}
		for _, r := range []struct{ ifname, dst, gw string }{
			{"mesh0", "fe80::/64", ""}, // besides the kernel's, on five interfaces
			{"mesh0", "2001:db8::/64", ""},
			{"eth0", "::/0", "fe80::1"},
		} {
			if err := addRoute(r.ifname, r.dst, r.gw, 1024); err != nil {
				return err
			}
		}
		eth1, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		all := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
		linkLocal := &net.IPNet{IP: net.ParseIP("fe80::"), Mask: net.CIDRMask(64, 128)}
		second := netlink.Route{LinkIndex: eth1.Attrs().Index, Dst: all, Gw: net.ParseIP("fe80::2"), Flags: int(netlink.FLAG_ONLINK), Priority: 1024}
		if err := netlink.RouteAppend(&second); err != nil {
			return err
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // the kernel's come with the carrier
			list, err := netlink.RouteListFiltered(unix.AF_INET6, &netlink.Route{Dst: linkLocal}, netlink.RT_FILTER_DST)
			if err != nil {
				return err
			}
			if len(list) == 5 {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("link-local routes: %v", list)
			}
		}
		rules, err := Open("mesh0")
		if err != nil {
			return err
		}
		defer rules.Close()
		copies := func() []string {
			list, err := rules.table(unix.AF_INET6, int(rules.mark))
			if err != nil {
				t.Error(err)
			}
			var keys []string
			for _, m := range list {
				keys = append(keys, key(m))
			}
			slices.Sort(keys)
			return keys
		}
		before := copies()
		if len(before) != 6 { // fe80::/64 by eth0, far, eth1 and far1, and two default routes
			t.Errorf("copies: %q", before)
		}
		if got := way("fe80::7", rules.mark); got == "" || got == "mesh0" {
			t.Errorf("link-local leaves by %q", got)
		}
		events := make(chan netlink.RouteUpdate, 64)
		done := make(chan struct{})
		defer close(done)
		if err := netlink.RouteSubscribe(events, done); err != nil {
			return err
		}
		for range 3 {
			if err := rules.Sync(); err != nil {
				return err
			}
		}
		if after := copies(); !slices.Equal(after, before) {
			t.Errorf("before: %q, after Sync: %q", before, after)
		}
		// A change of ours comes after all that Sync has brought about.
		if err := addRoute("eth0", "2001:db8:1::/64", "", 0); err != nil {
			return err
		}
		for u := range events {
			if u.Table == unix.RT_TABLE_MAIN && u.Dst != nil && u.Dst.String() == "2001:db8:1::/64" {
				break
			}
			if u.Table == int(rules.mark) {
				t.Errorf("Sync made a change without need: %v", u.Route)
			}
		}
		// One of the two gateways goes, the other gets another address.
		if err := netlink.RouteDel(&second); err != nil {
			return err
		}
		second.Gw = net.ParseIP("fe80::3")
		if err := netlink.RouteAppend(&second); err != nil {
			return err
		}
		if err := rules.Sync(); err != nil {
			return err
		}
		if after := copies(); len(after) != len(before) {
			t.Errorf("after a change of gateway: %q", after)
		}
		if after := strings.Join(copies(), "\n"); strings.Contains(after, "fe80::2 ") || !strings.Contains(after, "fe80::3 ") || !strings.Contains(after, "fe80::1 ") {
			t.Errorf("after a change of gateway: %s", after)
		}
		// The host is renumbered: to the kernel a route with another source address is the same. (Of several ways it tells one
		// source address alone, so that there is one.)
		if err := netlink.RouteDel(&second); err != nil {
			return err
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, own := range []string{"2001:db8:a::1", "2001:db8:b::1"} {
			addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(own), Mask: net.CIDRMask(128, 128)}, Flags: unix.IFA_F_NODAD}
			if err := netlink.AddrAdd(eth0, addr); err != nil {
				return err
			}
			first := netlink.Route{
				LinkIndex: eth0.Attrs().Index, Dst: all, Gw: net.ParseIP("fe80::1"), Src: addr.IP, Flags: int(netlink.FLAG_ONLINK), Priority: 1024,
			}
			if err := netlink.RouteDel(&netlink.Route{LinkIndex: first.LinkIndex, Dst: all, Gw: first.Gw, Priority: 1024}); err != nil {
				return err
			}
			if err := netlink.RouteAppend(&first); err != nil {
				return err
			}
			if err := rules.Sync(); err != nil {
				return err
			}
			if after := copies(); len(after) != len(before)-1 || !strings.Contains(strings.Join(after, "\n"), "fe80::1 3 1024 "+own) {
				t.Errorf("after a change of the source address to %s: %q", own, after)
			}
		}
		return nil
	})
}

// TestKilled: what a killed process has left is replaced by the next, and removed
// without it.
func TestKilled(t *testing.T) {
	inNamespace(t, func() error {
		if err := addRoute("mesh0", "2001:db8::/64", "", 0); err != nil {
			return err
		}
		for range 3 {
			if _, err := Open("mesh0"); err != nil {
				return err
			}
		}
		rules, err := netlink.RuleList(unix.AF_INET6)
		if err != nil {
			return err
		}
		if len(rules) != 2+3 { // local, main; no default for IPv6
			t.Errorf("%d rules after three starts: %v", len(rules), rules)
		}
		if err := Remove("mesh0"); err != nil {
			return err
		}
		if err := Remove("mesh0"); err != nil { // nothing is there
			return err
		}
		return nothingLeft(t)
	})
}

// TestGuard: marked packets are dropped before a TAP that is in a bridge, also after others have flushed the firewall.
func TestGuard(t *testing.T) {
	inNamespace(t, func() error {
		rules, err := Open("mesh0")
		if err != nil {
			return err
		}
		if out := nft(t, "list", "ruleset"); out != "" {
			t.Errorf("without a bridge there is %s", out)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "br0"
		br := &netlink.Bridge{LinkAttrs: attrs}
		tap, err := netlink.LinkByName("mesh0")
		if err = errors.Join(err, netlink.LinkAdd(br)); err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(tap, br); err != nil {
			return err
		}
		if rules.Complete() {
			t.Error("complete before the guard is there")
		}
		if err := rules.Sync(); err != nil {
			return err
		}
		first := nft(t, "-a", "list", "ruleset")
		for _, hand := range []string{"", "flush ruleset", "flush table netdev meshd-mesh0", "delete table netdev meshd-mesh0"} {
			if hand != "" {
				nft(t, strings.Fields(hand)...)
			}
			if err := rules.Guard(); err != nil {
				return err
			}
			out := nft(t, "-a", "list", "ruleset")
			if !rules.Complete() || strings.Count(out, "drop #") != 1 || hand == "" && out != first {
				t.Errorf("after %q: complete %v\n%s", hand, rules.Complete(), out)
			}
		}
		if err := netlink.LinkSetNoMaster(tap); err != nil {
			return err
		}
		if err := rules.Guard(); err != nil {
			return err
		}
		if out := nft(t, "list", "ruleset"); out != "" || !rules.Complete() {
			t.Errorf("out of the bridge: complete %v, %s", rules.Complete(), out)
		}
		return rules.Close()
	})
}

func nft(t *testing.T, args ...string) string {
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Errorf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

func nothingLeft(t *testing.T) error {
	for _, family := range families() {
		rules, err := netlink.RuleList(family)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.Mark != 0 {
				t.Errorf("left behind: %v", r)
			}
		}
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: int(Mark("mesh0"))}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		if len(routes) > 0 {
			t.Errorf("left behind: %v", routes)
		}
	}
	return nil
}
