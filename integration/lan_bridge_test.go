//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

// TestLANBridge runs examples/lan-bridge: a box at home bridges its LAN, and a laptop elsewhere takes an address from the
// DHCP server there and finds the console by broadcast; the console finds the laptop, and packets of full size cross.
func TestLANBridge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	game, err := lab.Build(w.within(time.Minute), w.dir, "meshd/examples/game-lan")
	w.must(err)
	site := w.net.Site("home", lab.SiteConfig{NAT: lab.None, V4: true})
	box, console := site.Host("box"), site.Host("console")
	before := w.netSettings(box)
	home := w.found(box, "--bridge", "eth0")
	laptop := w.join(w.net.Site("work", lab.SiteConfig{NAT: lab.Home, V4: true}).Host("laptop"), w.invite(home))
	w.waitPeers(home, laptop)

	addr := w.leaseFrom(console, laptop)
	w.reached(15*time.Second, laptop, console.Addr4())
	stats, err := laptop.Host.Ping(w.within(20*time.Second), console.Addr4(), 50, lab.PingOptions{Size: 1472})
	if err != nil || stats.Lost() > 0 || stats.Duplicates > 0 {
		t.Errorf("the laptop pings the console: %v, %v", stats, err)
	}

	// Bulk data, which the LAN's network cards hand to the bridge as super-frames, and take as such.
	for _, c := range []struct {
		on, from *lab.Host
		at       netip.Addr
	}{{console, laptop.Host, console.Addr4()}, {laptop.Host, console, addr}} {
		echo, err := c.on.Echo(netip.AddrPortFrom(c.at, 0))
		w.must(err)
		w.must(carry(c.from, echo, 2<<20))
	}

	w.spawn(console, game, "-interface", "eth0", "serve", "console")
	w.spawn(laptop.Host, game, "-interface", "mesh0", "serve", "laptop")
	w.finds(laptop.Host, game, "mesh0", fmt.Sprintf("console\t%v:47777", console.Addr4()))
	w.finds(console, game, "eth0", fmt.Sprintf("laptop\t%v:47777", addr))

	w.must(home.Interrupt())
	if is := w.netSettings(box); is != before {
		t.Errorf("the box is not as it was:\n%s", difference(before, is))
	}
}

// leaseFrom has a host on the LAN serve DHCP, and a member take an address from it.
func (w *world) leaseFrom(server *lab.Host, n *lab.Node) netip.Addr {
	w.Helper()
	free := server.Addr4().As4()
	free[3] = free[3]&^63 | 62 // the last of the LAN's 64 addresses
	addr := netip.AddrFrom4(free)
	w.spawn(server, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces",
		"--leasefile-ro", "--user=root", "--pid-file=", fmt.Sprintf("--dhcp-range=%v,%v,255.255.255.192,1h", addr, addr))
	script := filepath.Join(w.TempDir(), "udhcpc")
	w.must(os.WriteFile(script, []byte("#!/bin/sh\n[ $1 != bound ] || ip address add $ip/$mask dev $interface\n"), 0o755))
	out, err := n.Host.Command(w.within(30*time.Second), "busybox", "udhcpc", "-i", "mesh0", "-f", "-q", "-n", "-s", script).CombinedOutput()
	if err != nil {
		w.Fatalf("no lease from home's DHCP server: %v\n%s", err, out)
	}
	return addr
}

// finds waits until a list of servers has a line.
func (w *world) finds(h *lab.Host, game, iface, want string) {
	w.Helper()
	w.eventually(10*time.Second, h.Name()+" finds a server", func() error {
		out, err := h.Command(w.within(10*time.Second), game, "-interface", iface, "-wait", "500ms", "list").CombinedOutput()
		if err != nil || !strings.Contains(string(out), want+"\n") {
			return fmt.Errorf("no line %q: %w\n%s", want, err, out)
		}
		return nil
	})
}
