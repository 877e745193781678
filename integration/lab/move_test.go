//go:build linux

package lab

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func containsMTU(route string) bool { return strings.Contains(route, "mtu 1300") }

// reach pings once and fails the test when nothing comes back.
func reach(t *testing.T, from *Host, to netip.Addr) {
	t.Helper()
	s, err := from.Ping(t.Context(), to, 1, PingOptions{})
	if err != nil || s.Lost() > 0 {
		t.Errorf("%s does not reach %v: %v %v", from.Name(), to, s, err)
	}
}

func TestMove(t *testing.T) {
	tests := []struct {
		name  string
		start func(*Network) *Host
		to    SiteConfig
	}{
		{"home to café", func(n *Network) *Host { return n.Site("home", SiteConfig{NAT: Home}).Host("laptop") }, SiteConfig{NAT: Symmetric}},
		{"home to IPv6 only", func(n *Network) *Host { return n.Site("home", SiteConfig{NAT: Home}).Host("laptop") }, SiteConfig{V6: true}},
		{"IPv4 only to both", func(n *Network) *Host { return n.Site("home", SiteConfig{NAT: Home, V4: true}).Host("laptop") }, SiteConfig{NAT: Home}},
		{"internet to home", func(n *Network) *Host { return n.Host("laptop", HostConfig{}) }, SiteConfig{NAT: Home}},
		{"from behind a slow link", func(n *Network) *Host {
			return n.Host("laptop", HostConfig{Link: Link{Delay: time.Millisecond}})
		}, SiteConfig{NAT: CGNAT}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t)
			n := l.Internet("isp")
			server := n.Host("server", HostConfig{})
			laptop := test.start(n)
			there := n.Site("there", test.to)
			there.Host("neighbour")
			for range 2 {
				before := laptop.Addrs()
				if err := laptop.Move(there); err != nil {
					t.Fatal(err)
				}
				both := !test.to.V4 && !test.to.V6
				if got := laptop.Addr4().IsValid(); got != (test.to.V4 || both) {
					t.Errorf("from %v to %v", before, laptop.Addrs())
				}
				if laptop.Addr4().IsValid() {
					reach(t, laptop, server.Addr4())
				}
				if laptop.Addr6().IsValid() {
					reach(t, laptop, server.Addr6())
				}
			}
		})
	}
}

func TestRenumber(t *testing.T) {
	for _, nat := range []NAT{None, Home, FullCone, Symmetric, CGNAT} {
		t.Run(nat.String(), func(t *testing.T) {
			l := newLab(t)
			n := l.Internet("isp")
			server := n.Host("server", HostConfig{})
			site := n.Site("site", SiteConfig{NAT: nat})
			host := site.Host("host")
			at, c := listen(t, server, 4000), (*endpoint)(nil)
			if nat != None {
				c = listen(t, host, 5000)
				at.seen(t, c)
			}
			public, inner := site.Public(), host.Addr6()
			if err := site.Renumber(); err != nil {
				t.Fatal(err)
			}
			if site.Public() == public || host.Addr6() == inner {
				t.Errorf("still %v and %v", site.Public(), host.Addrs())
			}
			reach(t, host, server.Addr4())
			reach(t, host, server.Addr6())
			if c != nil { // the same socket goes on, and is seen elsewhere
				if from := at.seen(t, c); from.Addr() != site.Public() {
					t.Errorf("seen as %v, public is %v", from, site.Public())
				}
			}
		})
	}
	t.Run("hosts", func(t *testing.T) {
		l := newLab(t)
		n := l.Internet("isp")
		server, lan := n.Host("server", HostConfig{}), n.Site("site", SiteConfig{NAT: Home}).Host("host")
		for _, h := range []*Host{server, lan} {
			before := h.Addrs()
			if err := h.Renumber(); err != nil {
				t.Fatal(err)
			}
			for i, a := range h.Addrs() {
				if a == before[i] {
					t.Errorf("%s keeps %v", h.Name(), a)
				}
			}
		}
		reach(t, lan, server.Addr4())
		reach(t, lan, server.Addr6())
	})
}

func TestFullLAN(t *testing.T) {
	l := newLab(t)
	site := l.Internet("isp").Site("site", SiteConfig{})
	site.Host("first")
	mover := site.Host("mover")
	for range 3 * (lastHost - firstHost) { // around and around
		if err := mover.Renumber(); err != nil {
			t.Fatal(err)
		}
	}
	for range lastHost - firstHost - 1 {
		site.Host("one more")
	}
	if err := l.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := mover.Renumber(); err == nil {
		t.Error("a full LAN has another address")
	}
	site.Host("too many")
	if err := l.Ready(t.Context()); err == nil {
		t.Error("a full LAN has room for another host")
	}
}

func TestCarrier(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	server := n.Host("server", HostConfig{})
	for _, h := range []*Host{n.Host("plain", HostConfig{}), n.Host("slow", HostConfig{Link: Link{Delay: time.Millisecond}}), n.Site("site", SiteConfig{NAT: Home}).Host("lan")} {
		reach(t, h, server.Addr4())
		if err := h.LinkDown("eth0"); err != nil {
			t.Fatal(err)
		}
		if s, _ := h.Ping(t.Context(), server.Addr4(), 1, PingOptions{Linger: 20 * time.Millisecond}); s.Received > 0 {
			t.Errorf("%s: the ping passes an unplugged cable", h.Name())
		}
		if err := h.Renumber(); err != nil {
			t.Errorf("%s, unplugged: %v", h.Name(), err)
		}
		if err := h.Command(t.Context(), "true").Run(); err != nil {
			t.Errorf("%s, unplugged: %v", h.Name(), err)
		}
		if err := h.LinkUp("eth0"); err != nil {
			t.Fatal(err)
		}
		reach(t, h, server.Addr4())
		reach(t, h, server.Addr6())
	}
	if err := server.LinkDown("eth7"); err == nil {
		t.Error("an interface that is not there is unplugged")
	}
}

func TestTwoUplinks(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	server := n.Host("server", HostConfig{})
	host := n.Site("dsl", SiteConfig{NAT: Home}).Host("host")
	if name, err := host.Plug(n.Site("lte", SiteConfig{NAT: CGNAT})); err != nil || name != "eth1" {
		t.Fatal(name, err)
	}
	if name, err := host.Connect(n, HostConfig{V4: true}); err != nil || name != "eth2" {
		t.Fatal(name, err)
	}
	if got := len(host.Addrs()); got != 5 {
		t.Errorf("%d addresses: %v", got, host.Addrs())
	}
	reach(t, host, server.Addr4())
	reach(t, host, server.Addr6())
}

func TestCut(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	a, b, site := n.Host("a", HostConfig{}), n.Host("b", HostConfig{}), n.Site("site", SiteConfig{NAT: Home})
	c := site.Host("c")
	lost := func(from *Host, to netip.Addr) {
		t.Helper()
		if s, err := from.Ping(t.Context(), to, 1, PingOptions{Linger: 20 * time.Millisecond}); err != nil || s.Received > 0 {
			t.Errorf("%s reaches %v: %v %v", from.Name(), to, s, err)
		}
	}
	if err := n.Cut(a, site); err != nil {
		t.Fatal(err)
	}
	lost(c, a.Addr4())
	lost(c, a.Addr6())
	reach(t, c, b.Addr4())
	reach(t, b, a.Addr6())
	if err := n.Blackhole(b); err != nil {
		t.Fatal(err)
	}
	lost(c, b.Addr4())
	lost(a, b.Addr6())
	if err := n.Heal(); err != nil {
		t.Fatal(err)
	}
	reach(t, c, a.Addr4())
	reach(t, c, b.Addr4())
}

func TestNames(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	server := n.Host("server", HostConfig{})
	host := n.Site("site", SiteConfig{NAT: Home}).Host("host")
	ask := func(name string) string {
		out, _ := host.Command(t.Context(), "getent", "ahosts", name).Output()
		return string(out)
	}
	n.SetName("Home.example", server.Addrs()...)
	if got := ask("home.EXAMPLE"); !strings.Contains(got, server.Addr4().String()) || !strings.Contains(got, server.Addr6().String()) {
		t.Errorf("home.example: %q", got)
	}
	n.SetName("home.example", netip.MustParseAddr("192.0.2.1"))
	if got := ask("home.example"); !strings.Contains(got, "192.0.2.1") || strings.Contains(got, server.Addr4().String()) {
		t.Errorf("home.example after the change: %q", got)
	}
	n.SetName("home.example")
	if got := ask("home.example"); got != "" {
		t.Errorf("home.example after its end: %q", got)
	}
}
