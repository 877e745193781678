//go:build linux

package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/integration/lab"
)

// bridgedHost is a host behind a member, in a network namespace of its own, on the bridge that the member's TAP is in.
type bridgedHost struct {
	w    *world
	node *lab.Node
	pid  int
}

// bridgeTAP puts a node's TAP into a bridge, as somebody would by hand.
func (w *world) bridgeTAP(n *lab.Node) {
	w.Helper()
	w.on(n.Host, "ip", "link", "add", "br0", "type", "bridge")
	w.on(n.Host, "ip", "link", "set", "br0", "up")
	w.on(n.Host, "ip", "link", "set", "mesh0", "master", "br0")
}

// on runs a program on a host.
func (w *world) on(h *lab.Host, name string, args ...string) string {
	w.Helper()
	out, err := h.Command(w.within(30*time.Second), name, args...).CombinedOutput()
	if err != nil {
		w.Fatalf("%s: %s %v: %v\n%s", h.Name(), name, args, err, out)
	}
	return string(out)
}

// guest starts a host behind a node whose TAP is in a bridge.
func (w *world) guest(n *lab.Node, name, mac, addr string) *bridgedHost {
	w.Helper()
	cmd := n.Host.Command(context.Background(), "unshare", "-n", "sleep", "600")
	w.must(cmd.Start())
	w.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	g := &bridgedHost{w, n, cmd.Process.Pid}
	w.on(n.Host, "ip", "link", "add", name, "type", "veth", "peer", "name", name+"p")
	w.eventually(5*time.Second, "the guest has a namespace", func() error {
		return n.Host.Command(w.within(5*time.Second), "sh", "-c", fmt.Sprintf("test $(readlink /proc/%d/ns/net) != $(readlink /proc/self/ns/net)", g.pid)).Run()
	})
	w.on(n.Host, "ip", "link", "set", name+"p", "netns", strconv.Itoa(g.pid))
	w.on(n.Host, "ip", "link", "set", name, "master", "br0", "up")
	g.run("ip", "link", "set", name+"p", "name", "eth0", "address", mac)
	g.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
	g.run("ip", "addr", "add", addr, "dev", "eth0")
	g.run("ip", "link", "set", "eth0", "up")
	return g
}

// run runs a program on the guest.
func (g *bridgedHost) run(name string, args ...string) string {
	g.w.Helper()
	return g.w.on(g.node.Host, "nsenter", append([]string{"-t", strconv.Itoa(g.pid), "-n", name}, args...)...)
}

// hostLine is what `meshd hosts --json` says of one station.
type hostLine struct {
	MAC, Member, Source string
	Addresses           []netip.Addr
}

// host is what a node knows of a station.
func (w *world) host(n *lab.Node, mac string) (hostLine, error) {
	var list []hostLine
	if err := n.JSON(w.within(10*time.Second), &list, "hosts"); err != nil {
		return hostLine{}, err
	}
	for _, h := range list {
		if h.MAC == mac {
			return h, nil
		}
	}
	return hostLine{}, fmt.Errorf("%s is not among %+v", mac, list)
}

// requestFor counts ARP requests for an address.
func requestFor(c *lab.Capture, ip netip.Addr) int {
	return c.Count(func(f lab.Frame) bool {
		return len(f.Data) >= 42 && binary.BigEndian.Uint16(f.Data[12:]) == 0x0806 && f.Data[21] == 1 && bytes.Equal(f.Data[38:42], ip.AsSlice())
	})
}

const (
	guestMAC1, guestMAC2 = "02:aa:00:00:00:01", "02:aa:00:00:00:02"
	guestIP1, guestIP2   = "10.50.0.1", "10.50.0.2"
)

// TestHostsBehindMembers has a host behind each of two members, which find each other, silent as they are, and are known
// to a third at once. From then on ARP is answered where it is asked.
func TestHostsBehindMembers(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{V4: true}))
	left := w.join(w.net.Host("left", lab.HostConfig{V4: true}), w.invite(home))
	right := w.join(w.net.Host("right", lab.HostConfig{V4: true}), w.invite(home))
	w.waitPeers(home, left, right)
	w.bridgeTAP(left)
	w.bridgeTAP(right)
	w.on(home.Host, "ip", "addr", "add", "10.50.0.9/24", "dev", "mesh0") // says nothing by itself
	w.eventually(3*time.Second, "left knows an address on home's TAP", func() error {
		h, err := w.host(left, w.mac(home).String())
		if err == nil && !slices.Contains(h.Addresses, netip.MustParseAddr("10.50.0.9")) {
			err = fmt.Errorf("%+v", h)
		}
		return err
	})
	one := w.guest(left, "g1", guestMAC1, guestIP1+"/24")
	two := w.guest(right, "g2", guestMAC2, guestIP2+"/24")

	one.run("ping", "-c", "3", "-i", "0.2", "-w", "10", guestIP2)
	for mac, want := range map[string]hostLine{
		guestMAC1: {Member: "left", Addresses: []netip.Addr{netip.MustParseAddr(guestIP1)}},
		guestMAC2: {Member: "right", Addresses: []netip.Addr{netip.MustParseAddr(guestIP2)}},
	} {
		w.eventually(3*time.Second, "home knows "+mac, func() error {
			h, err := w.host(home, mac)
			if err == nil && (h.Member != want.Member || h.Source != "record" || !slices.Contains(h.Addresses, want.Addresses[0])) {
				err = fmt.Errorf("%+v", h)
			}
			return err
		})
	}
	captures := map[string]*lab.Capture{}
	for _, n := range []*lab.Node{home, right} {
		c, err := n.Host.Capture("mesh0")
		w.must(err)
		captures[n.Host.Name()] = c
	}
	out := one.run("arping", "-c", "5", "-I", "eth0", "-b", guestIP2)
	if n := strings.Count(out, "reply from "+guestIP2); n != 5 || !strings.Contains(strings.ToLower(out), guestMAC2) {
		t.Errorf("%d answers:\n%s", n, out)
	}
	took := times(t, out)
	t.Logf("answered after %v ms", took)
	if took[len(took)/2] > 2 { // this machine is shared: one of them may wait for its turn
		t.Errorf("answered after %v ms:\n%s", took, out)
	}
	one.run("ip", "neigh", "flush", "dev", "eth0")
	one.run("ping", "-c", "1", "-w", "2", guestIP2)
	for name, c := range captures {
		if n := requestFor(c, netip.MustParseAddr(guestIP2)); n > 0 {
			t.Errorf("%d requests reached %s", n, name)
		}
	}
	// Duplicate detection (RFC 5227) sees who is elsewhere, and not oneself.
	if out, err := left.Host.Command(w.within(10*time.Second), "nsenter", "-t", strconv.Itoa(one.pid), "-n", "arping", "-D", "-c", "2", "-I", "eth0", guestIP2).CombinedOutput(); err == nil {
		t.Errorf("an address in use is taken for free:\n%s", out)
	}
	one.run("arping", "-D", "-c", "2", "-I", "eth0", "10.50.0.99")
	one.run("arping", "-D", "-c", "2", "-I", "eth0", guestIP1)
	two.run("ping", "-c", "3", "-i", "0.2", "-w", "5", guestIP1)
	w.must(left.Interrupt()) // who goes takes what is behind it with it
	w.eventually(3*time.Second, "home has forgotten "+guestMAC1, func() error {
		if h, err := w.host(home, guestMAC1); err == nil {
			return fmt.Errorf("%+v", h)
		}
		return nil
	})
}

// times are those that arping shows, in ms and in order.
func times(t *testing.T, out string) (list []float64) {
	t.Helper()
	for _, field := range strings.Fields(out) {
		ms, ok := strings.CutSuffix(field, "ms")
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(ms, 64)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	slices.Sort(list)
	return list
}

// TestGuestMoves moves a host from behind one member to behind another while a third pings it: less than a second is
// lost, and then the former place gets nothing for it.
func TestGuestMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{V4: true}))
	left := w.join(w.net.Host("left", lab.HostConfig{V4: true}), w.invite(home, "--role", "bridge"))
	right := w.join(w.net.Host("right", lab.HostConfig{V4: true}), w.invite(home, "--role", "bridge"))
	w.waitPeers(home, left, right)
	w.bridgeTAP(left)
	w.bridgeTAP(right)
	w.on(home.Host, "ip", "addr", "add", "10.50.0.9/24", "dev", "mesh0")
	w.guest(left, "g1", guestMAC1, guestIP1+"/24")
	w.on(home.Host, "ping", "-c", "3", "-i", "0.2", "-w", "10", guestIP1)
	time.Sleep(2 * time.Second) // a virtual machine has been somewhere for a while: its records are out

	// As long as it is there, nobody takes its place.
	thief := w.guest(right, "g2", guestMAC1, guestIP1+"/24")
	thief.run("arping", "-U", "-c", "2", "-w", "3", "-I", "eth0", guestIP1)
	if h, err := w.host(home, guestMAC1); err != nil || h.Member != "left" {
		t.Errorf("claimed while it was there: %+v, %v", h, err)
	}
	w.told(left, "station-claimed")
	w.told(right, "station-elsewhere")
	w.on(right.Host, "ip", "link", "del", "g2")
	time.Sleep(6 * time.Second) // a claim that was refused pauses for five

	pinger, err := home.Host.Pinger(netip.MustParseAddr(guestIP1), lab.PingOptions{Interval: 20 * time.Millisecond})
	w.must(err)
	var stop sync.Once
	defer stop.Do(func() { pinger.Stop() })
	time.Sleep(time.Second)
	w.on(left.Host, "ip", "link", "set", "g1", "down")
	moved := w.guest(right, "g3", guestMAC1, guestIP1+"/24")
	began := time.Now()
	moved.run("arping", "-U", "-c", "1", "-w", "1", "-I", "eth0", guestIP1)
	w.eventually(3*time.Second, "it is at its new place", func() error {
		h, err := w.host(home, guestMAC1)
		if err == nil && h.Member != "right" {
			err = fmt.Errorf("%+v", h)
		}
		return err
	})
	t.Logf("home has it at its new place %v after it spoke", time.Since(began))
	time.Sleep(200 * time.Millisecond)
	former, err := left.Host.Capture("mesh0")
	w.must(err)
	time.Sleep(2 * time.Second)
	var stats lab.PingStats
	stop.Do(func() { stats = pinger.Stop() })
	took := stats.OutageStart.Add(stats.Outage).Sub(began)
	t.Logf("%v; reached again %v after the host spoke at its new place", stats, took)
	if took > time.Second || took < 0 {
		t.Errorf("it was reached %v after it spoke at its new place", took)
	}
	mac := []byte{2, 0xaa, 0, 0, 0, 1}
	if n := former.Count(func(f lab.Frame) bool { return !f.Out && bytes.Equal(f.Data[:6], mac) }); n > 0 {
		t.Errorf("%d frames for it reached its former place", n)
	}
}

// told waits until a node's status has a line of health.
func (w *world) told(n *lab.Node, code string) {
	w.Helper()
	w.eventually(3*time.Second, n.Host.Name()+" tells of "+code, func() error {
		var s struct{ Health []struct{ Code, Text string } }
		if err := n.JSON(w.within(10*time.Second), &s, "status"); err != nil {
			return err
		}
		for _, h := range s.Health {
			if h.Code == code {
				return nil
			}
		}
		return fmt.Errorf("%+v", s.Health)
	})
}

// TestAddressOfAServiceMoves hands an IPv4 address from one member to another, as VRRP does, while a third pings it; and
// to one more while it is still there, which is in vain.
func TestAddressOfAServiceMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{V4: true}))
	left := w.join(w.net.Host("left", lab.HostConfig{V4: true}), w.invite(home))
	right := w.join(w.net.Host("right", lab.HostConfig{V4: true}), w.invite(home))
	w.waitPeers(home, left, right)
	const service = "10.50.0.100"
	for i, n := range []*lab.Node{home, left, right} {
		w.on(n.Host, "ip", "addr", "add", fmt.Sprintf("10.50.0.%d/24", i+1), "dev", "mesh0")
	}
	w.on(left.Host, "ip", "addr", "add", service+"/32", "dev", "mesh0")
	holder := func(member string) func() error {
		return func() error {
			for _, n := range []*lab.Node{left, right} {
				h, err := w.host(home, w.mac(n).String())
				if err == nil && slices.Contains(h.Addresses, netip.MustParseAddr(service)) != (n.Host.Name() == member) {
					err = fmt.Errorf("%+v", h)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}
	}
	w.eventually(3*time.Second, "left has it", holder("left"))
	w.on(home.Host, "ping", "-c", "2", "-i", "0.2", "-w", "5", service)

	w.on(right.Host, "ip", "addr", "add", service+"/32", "dev", "mesh0") // while left has it, too
	w.on(right.Host, "arping", "-U", "-c", "1", "-w", "1", "-I", "mesh0", service)
	w.told(left, "station-claimed")
	w.must(holder("left")())
	w.on(right.Host, "ip", "addr", "del", service+"/32", "dev", "mesh0")
	time.Sleep(6 * time.Second) // a claim that was refused pauses for five

	pinger, err := home.Host.Pinger(netip.MustParseAddr(service), lab.PingOptions{Interval: 20 * time.Millisecond})
	w.must(err)
	time.Sleep(time.Second)
	w.on(left.Host, "ip", "addr", "del", service+"/32", "dev", "mesh0")
	began := time.Now()
	w.on(right.Host, "ip", "addr", "add", service+"/32", "dev", "mesh0")
	w.on(right.Host, "arping", "-U", "-c", "1", "-w", "1", "-I", "mesh0", service)
	w.eventually(3*time.Second, "right has it", holder("right"))
	time.Sleep(2 * time.Second)
	stats := pinger.Stop()
	took := stats.OutageStart.Add(stats.Outage).Sub(began)
	t.Logf("%v; reached again after %v", stats, took)
	if took > time.Second || stats.Trailing > time.Second {
		t.Errorf("reached again after %v", took)
	}
}
