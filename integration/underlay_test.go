//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

// TestSharedPrefix founds a network whose prefix is that of the founder's own uplink, as one does who extends the LAN at
// home, on an internet that has IPv6 only. The packets that carry the mesh go around it, although the routes of the mesh
// cover their way, and a default route into it does not swallow them either.
func TestSharedPrefix(t *testing.T) {
	w := newWorld(t)
	h := w.net.Host("home", lab.HostConfig{V6: true})
	prefix, err := h.Addr6().Prefix(64)
	w.must(err)
	// The mesh's hosts are in that prefix, too: home is to look for them there, and on its uplink only for the router.
	out, err := h.Command(w.within(5*time.Second), "sh", "-c",
		fmt.Sprintf("ip -6 route add %v dev eth0 metric 1024 && ip -6 route del %v dev eth0 metric 256", prefix, prefix)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	home := w.found(h, "--prefix", prefix.String())
	laptop := w.join(w.net.Host("laptop", lab.HostConfig{V6: true}), w.invite(home))
	office := w.join(w.net.Host("office", lab.HostConfig{V6: true}), w.invite(home))
	w.waitPeers(home, laptop, office)
	w.pingAll(20, home, laptop, office)
	for _, n := range []*lab.Node{laptop, office} {
		s := w.status(n)
		if !prefix.Contains(s.Self.Addresses[0]) {
			t.Fatalf("%v is not in %v", s.Self.Addresses, prefix)
		}
		w.eventually(5*time.Second, n.Host.Name()+" reaches all directly", func() error {
			for _, p := range w.status(n).Peers {
				at, err := netip.ParseAddrPort(p.Endpoint)
				if p.State != "direct" || err != nil {
					return fmt.Errorf("%s at %q, %s", p.Name, p.Endpoint, p.State)
				}
				if p.Name == "home" && at.Addr() != h.Addr6() {
					return fmt.Errorf("home at %v, which has %v", at, h.Addr6())
				}
			}
			return nil
		})
		for _, c := range [][]string{
			{"-6", "route", "replace", "default", "via", w.addr(home).String(), "dev", "mesh0", "metric", "1"},
			{"-6", "route", "get", h.Addr6().String()},
		} {
			out, err := n.Host.Command(w.within(5*time.Second), "ip", c...).CombinedOutput()
			if err != nil {
				t.Fatalf("ip %v: %v: %s", c, err, out)
			}
			if c[2] == "get" && !strings.Contains(string(out), "mesh0") {
				t.Errorf("what others send there does not go into the mesh: %s", out)
			}
		}
	}
	p, err := laptop.Host.Pinger(w.addr(office), lab.PingOptions{Linger: 100 * time.Millisecond})
	w.must(err)
	w.eventually(10*time.Second, "pings cross", func() error {
		if s := p.Stats(); s.Sent < 150 || s.Trailing > 100*time.Millisecond {
			return fmt.Errorf("%v", s)
		}
		return nil
	})
	if s := p.Stop(); s.Outage > 1500*time.Millisecond {
		t.Errorf("%v", s)
	}
	w.must(laptop.Interrupt())
	out, err = laptop.Host.Command(w.within(5*time.Second), "ip", "-6", "rule").CombinedOutput()
	w.must(err)
	if strings.Contains(string(out), "fwmark") {
		t.Errorf("left behind: %s", out)
	}
}
