//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/integration/lab"
)

// TestOneEthernet is the main job: three machines on an internet, one by invite, one by approval, one Ethernet.
func TestOneEthernet(t *testing.T) {
	for name, cfg := range map[string]lab.HostConfig{"IPv4": {V4: true}, "IPv6": {V6: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			home := w.found(w.net.Host("home", cfg))
			laptop := w.join(w.net.Host("laptop", cfg), w.invite(home))
			office := w.joinByApproval(w.net.Host("office", cfg), home)
			nodes := []*lab.Node{home, laptop, office}
			w.waitPeers(nodes...)
			w.pingAll(200, nodes...)
			w.checkNames(nodes...)
			w.checkIPv4(nodes)
			w.checkFrames(home, laptop, office)
			w.checkBroadcast(home, laptop, office)
			for _, n := range nodes {
				w.must(n.Interrupt())
				if w.hasTAP(n.Host) {
					t.Errorf("%s has its TAP after Ctrl-C", n.Host.Name())
				}
			}
		})
	}
}

// checkIPv4 gives the TAPs IPv4 addresses by hand: ARP must find them, and a packet of the whole MTU must pass unbroken.
func (w *world) checkIPv4(nodes []*lab.Node) {
	w.Helper()
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}) }
	for i, n := range nodes {
		w.giveIPv4(n, addr(i))
	}
	for i, from := range nodes {
		for j, to := range nodes {
			if i != j {
				w.pingWhole(from, addr(j), w.addr(to))
			}
		}
	}
}

// giveIPv4 gives a node's TAP an IPv4 address by hand.
func (w *world) giveIPv4(n *lab.Node, addr netip.Addr) {
	w.Helper()
	w.inside(n.Host, func(h *netlink.Handle) error {
		tap, err := h.LinkByName("mesh0")
		if err != nil {
			return err
		}
		return h.AddrAdd(tap, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(24, 32)}})
	})
}

// pingWhole pings addresses on the segment with packets of 1500 bytes that must not be broken. Each must be answered.
func (w *world) pingWhole(from *lab.Node, to ...netip.Addr) {
	w.Helper()
	for _, addr := range to {
		payload := "1472"
		if addr.Is6() {
			payload = "1452"
		}
		out, err := from.Host.Command(w.within(15*time.Second), "ping", "-c", "3", "-i", "0.05", "-W", "2", "-M", "do", "-s", payload, addr.String()).CombinedOutput()
		if err != nil {
			w.Errorf("%s pings %v with 1500 bytes: %v\n%s", from.Host.Name(), addr, err, out)
		}
	}
}

// ethernet makes a frame of at least the least size of Ethernet.
func ethernet(dst, src net.HardwareAddr, body []byte) []byte {
	f := append(append(bytes.Clone(dst), src...), body...)
	if len(f) < 60 {
		f = append(f, make([]byte, 60-len(f))...)
	}
	return f
}

func (w *world) mac(n *lab.Node) net.HardwareAddr {
	w.Helper()
	mac, err := net.ParseMAC(w.status(n).Self.MAC)
	w.must(err)
	return mac
}

// checkFrames sends frames that no IP stack would: they must arrive byte for byte.
func (w *world) checkFrames(from, to, other *lab.Node) {
	w.Helper()
	src, dst := w.mac(from), w.mac(to)
	seen, err := to.Host.Capture("mesh0")
	w.must(err)
	elsewhere, err := other.Host.Capture("mesh0")
	w.must(err)
	marker := []byte("meshd integration ")
	frames := map[string][]byte{
		"unknown ethertype":   ethernet(dst, src, append([]byte{0x88, 0xb5}, marker...)),
		"VLAN 42, priority 5": ethernet(dst, src, append([]byte{0x81, 0x00, 0xa0, 42, 0x88, 0xb5}, marker...)),
		"VLAN 7 in VLAN 42":   ethernet(dst, src, append([]byte{0x88, 0xa8, 0, 42, 0x81, 0, 0, 7, 0x88, 0xb5}, marker...)),
		"1500 bytes":          ethernet(dst, src, append([]byte{0x88, 0xb5}, bytes.Repeat([]byte{0xa5}, 1500)...)),
		"VLAN and 1500 bytes": ethernet(dst, src, append([]byte{0x81, 0, 0, 42, 0x88, 0xb5}, bytes.Repeat([]byte{0x5a}, 1500)...)),
	}
	for name, frame := range frames {
		w.must(from.Host.SendFrame("mesh0", frame))
		if _, err := seen.Wait(w.within(5*time.Second), func(f lab.Frame) bool { return !f.Out && bytes.Equal(f.Data, frame) }); err != nil {
			w.Errorf("%s: %v", name, err)
		}
		if n := elsewhere.Count(func(f lab.Frame) bool { return bytes.Equal(f.Data, frame) }); n > 0 {
			w.Errorf("%s: sent to one, and seen by another", name)
		}
	}
}

// checkBroadcast sends a broadcast, which must reach every site exactly once, and its sender never.
func (w *world) checkBroadcast(nodes ...*lab.Node) {
	w.Helper()
	captures := make([]*lab.Capture, len(nodes))
	for i, n := range nodes {
		var err error
		captures[i], err = n.Host.Capture("mesh0")
		w.must(err)
	}
	everyone := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for i, from := range nodes {
		frame := ethernet(everyone, w.mac(from), fmt.Appendf([]byte{0x88, 0xb5}, "broadcast %d", i))
		last := ethernet(everyone, w.mac(from), fmt.Appendf([]byte{0x88, 0xb5}, "last %d", i))
		is := func(want []byte) func(lab.Frame) bool {
			return func(f lab.Frame) bool { return !f.Out && bytes.Equal(f.Data, want) }
		}
		w.must(from.Host.SendFrame("mesh0", frame))
		for j, c := range captures {
			if i != j {
				_, err := c.Wait(w.within(5*time.Second), is(frame))
				w.must(err)
			}
		}
		// A second one, sent when the first is everywhere, comes after whatever the first has caused.
		w.must(from.Host.SendFrame("mesh0", last))
		for j, c := range captures {
			want := 1
			if i == j {
				want = 0
			} else if _, err := c.Wait(w.within(5*time.Second), is(last)); err != nil {
				w.Error(err)
			}
			if got := c.Count(is(frame)); got != want {
				w.Errorf("a broadcast of %s came to %s %d times, want %d", from.Host.Name(), nodes[j].Host.Name(), got, want)
			}
		}
	}
}

// TestNeverMet lets two members, who were never up at the same time, connect with the founder dead.
func TestNeverMet(t *testing.T) {
	for name, cfg := range map[string]lab.HostConfig{"IPv4": {V4: true}, "IPv6": {V6: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			home := w.found(w.net.Host("home", cfg))
			early := w.join(w.net.Host("early", cfg), w.invite(home))
			w.waitDirect(early, "home")
			time.Sleep(time.Second) // its record, with its addresses, is home's: who ends before is known without any
			w.must(early.Terminate())
			late := w.join(w.net.Host("late", cfg), w.invite(home))
			w.waitDirect(late, "home")
			w.must(home.Kill())
			w.resume(early)
			w.waitDirect(early, "late")
			w.waitDirect(late, "early")
			w.pingAll(20, early, late)
		})
	}
}

// waitDirect waits until a node has a direct session with a member.
func (w *world) waitDirect(n *lab.Node, name string) {
	w.Helper()
	if _, err := n.Run(w.within(40*time.Second), "wait", "--direct", name, "--timeout", "30s"); err != nil {
		out, _ := n.Run(w.within(5*time.Second), "status")
		w.Fatalf("%s waits for %s: %v\n%s", n.Host.Name(), name, err, strings.TrimSpace(out))
	}
}
