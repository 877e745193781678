package traversal

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// enterNamespace moves the calling test to a network namespace of its own. The
// thread stays in it and ends with the test, which must not start subtests.
func enterNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
}

// cable makes a veth pair, of which both ends are up.
func cable(t *testing.T, name string) netlink.Link {
	t.Helper()
	la := netlink.NewLinkAttrs()
	la.Name = name
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: name + "p"}))
	for _, n := range []string{name + "p", name} {
		l, err := netlink.LinkByName(n)
		must(t, err)
		must(t, netlink.LinkSetUp(l))
	}
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func address(t *testing.T, s string, flags int) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(s)
	must(t, err)
	a.Flags = flags
	return a
}

func TestWatch(t *testing.T) {
	enterNamespace(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	changes := Watch(ctx)
	wait := func(what string) {
		t.Helper()
		select {
		case _, ok := <-changes:
			if !ok {
				t.Fatalf("%s: the watch has ended", what)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not noticed", what)
		}
	}
	drain := func() { // until a second has passed without a change
		for {
			select {
			case <-changes:
			case <-time.After(time.Second):
				return
			}
		}
	}
	link := cable(t, "x0")
	wait("a new link")
	drain()
	a := address(t, "198.18.0.1/24", 0)
	must(t, netlink.AddrAdd(link, a))
	wait("a new address")
	drain()
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.IPv4(198, 18, 0, 2)}
	must(t, netlink.RouteAdd(route))
	wait("a new route")
	drain()
	must(t, netlink.AddrDel(link, a))
	wait("a lost address")
	drain()
	must(t, netlink.LinkSetDown(link))
	wait("a link that is down")

	cancel()
	for end := time.After(10 * time.Second); ; {
		select {
		case _, open := <-changes:
			if !open {
				return
			}
		case <-end:
			t.Fatal("the channel is not closed after the end")
		}
	}
}

func TestGatherInNamespace(t *testing.T) {
	enterNamespace(t)
	eth, wan, tun, down := cable(t, "eth0"), cable(t, "wan0"), cable(t, "wg7"), cable(t, "eth8")
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	add := func(l netlink.Link, s string, flags int) {
		t.Helper()
		must(t, netlink.AddrAdd(l, address(t, s, flags)))
	}
	add(eth, "192.168.5.1/24", 0)
	add(eth, "2001:db8:5::1/64", unix.IFA_F_NODAD)
	old := address(t, "2001:db8:5::2/64", unix.IFA_F_NODAD)
	old.PreferedLft, old.ValidLft = 0, 1000 // deprecated
	must(t, netlink.AddrAdd(eth, old))
	add(wan, "198.18.0.1/24", 0)
	add(tun, "10.7.0.1/24", 0)
	add(down, "192.168.8.1/24", 0)
	must(t, netlink.LinkSetDown(down))
	mesh := cable(t, "mesh0")
	add(mesh, "10.99.0.1/24", 0)
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: wan.Attrs().Index, Gw: net.IPv4(198, 18, 0, 2)}))

	got, err := Gather(51830, func(ifname string, _ netip.Addr) bool { return ifname == "mesh0" })
	must(t, err)
	var s []string
	for _, c := range got {
		s = append(s, c.String())
	}
	want := "host:198.18.0.1:51830 host:192.168.5.1:51830 host:[2001:db8:5::1]:51830 host:10.7.0.1:51830 host:[2001:db8:5::2]:51830"
	if g := strings.Join(s, " "); g != want {
		t.Errorf("got  %s\nwant %s", g, want)
	}
}
