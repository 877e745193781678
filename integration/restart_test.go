//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/integration/lab"
)

// TestKilledAndRestarted kills each node in turn: it keeps its addresses, is back in time, and a TCP connection across the
// mesh does not notice.
func TestKilledAndRestarted(t *testing.T) {
	w := newWorld(t)
	home, laptop, office := w.threeSites(lab.HostConfig{})
	for _, victim := range []*lab.Node{home, laptop, office} {
		t.Run(victim.Host.Name(), func(t *testing.T) {
			w := w.under(t)
			other := laptop
			if victim == laptop {
				other = office
			}
			before, to := w.status(victim), w.addr(other)
			echo, err := other.Host.Echo(netip.AddrPortFrom(to, 7000))
			w.must(err)
			defer echo.Close()
			stream, err := victim.Host.Stream(w.within(10*time.Second), echo.Addr())
			w.must(err)
			defer stream.Close()
			w.must(stream.Alive(w.within(5 * time.Second)))

			w.must(victim.Kill())
			start := time.Now()
			w.must(victim.Up("--resume"))
			back := w.reached(10*time.Second, victim, to).Sub(start)
			t.Logf("traffic is back after %v", back)
			if back > 5*time.Second {
				t.Errorf("traffic is back after %v, want 5 s at most", back)
			}
			w.reached(5*time.Second, other, before.Self.Addresses[0])
			w.must(stream.Alive(w.within(10 * time.Second)))
			w.must(victim.Ready(w.within(10 * time.Second)))
			after := w.status(victim)
			if after.Self.MAC != before.Self.MAC || after.Self.Addresses[0] != before.Self.Addresses[0] || after.Self.ID != before.Self.ID {
				t.Errorf("was %+v, is %+v", before.Self, after.Self)
			}
		})
	}
}

// TestDownAfterKill lets `meshd down` clean up after a crash, and compares the host's settings with those of before.
func TestDownAfterKill(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{}))
	host := w.net.Host("laptop", lab.HostConfig{})
	before := w.settings(host)
	n := w.join(host, w.invite(home))
	for _, family := range []string{"-4", "-6"} { // the underlay goes around the mesh
		out, err := host.Command(w.within(10*time.Second), "ip", family, "rule").CombinedOutput()
		w.must(err)
		if strings.Count(string(out), "fwmark") != 3 {
			t.Errorf("ip %s rule: %s", family, out)
		}
	}
	w.must(n.Kill())
	if !w.hasTAP(host) {
		t.Error("the TAP has gone with its node: nothing above it can survive a restart")
	}
	if _, err := n.Run(w.within(10*time.Second), "down"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, w.settings(host)); diff != "" {
		t.Errorf("after down:\n%s", diff)
	}
	w.resume(n)
	w.waitPeers(home, n)
	w.must(n.Interrupt())
	if diff := cmp.Diff(before, w.settings(host)); diff != "" {
		t.Errorf("after Ctrl-C:\n%s", diff)
	}
}

// settings are what a host's kernel has been told, but for what changes by itself.
func (w *world) settings(h *lab.Host) string {
	w.Helper()
	script := strings.Join([]string{
		"ip -o link", "ip -o -4 address", "ip -o -6 address", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all", "nft list ruleset",
		"cat /proc/sys/net/ipv6/conf/all/accept_ra /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding", "find /run -not -type d",
	}, " && echo && ")
	out, err := h.Command(w.within(10*time.Second), "sh", "-c", script).CombinedOutput()
	if err != nil {
		w.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// TestAllRestarted kills all three, gives the entry point other addresses, and starts them: they know each other still.
func TestAllRestarted(t *testing.T) {
	for name, cfg := range map[string]lab.HostConfig{"IPv4": {V4: true}, "IPv6": {V6: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			home, laptop, office := w.threeSites(cfg)
			nodes := []*lab.Node{home, laptop, office}
			w.written(nodes...)
			for _, n := range nodes {
				w.must(n.Kill())
			}
			w.must(home.Host.Renumber())
			w.net.SetName("home.example")
			for _, n := range nodes {
				w.resume(n)
			}
			w.waitPeers(nodes...)
			w.pingAll(20, nodes...)
		})
	}
}

// written waits until each node has the others' certificates, which show their names, on disk. (Records that come soon
// after others are written together. The founder's log of what it has issued does not count.)
func (w *world) written(nodes ...*lab.Node) {
	w.Helper()
	w.eventually(10*time.Second, "all know all on disk", func() error {
		for _, n := range nodes {
			var state []byte
			files, err := filepath.Glob(filepath.Join(n.State, "*.[ab]"))
			w.must(err)
			for _, file := range files {
				if text, err := os.ReadFile(file); err == nil { // else it is just being replaced
					state = append(state, text...)
				}
			}
			for _, other := range nodes {
				if !bytes.Contains(state, []byte(other.Host.Name())) {
					return fmt.Errorf("%s has not written down %s", n.Host.Name(), other.Host.Name())
				}
			}
		}
		return nil
	})
}
