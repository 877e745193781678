package underlay

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

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
