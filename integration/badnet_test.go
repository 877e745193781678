//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/integration/lab"
)

// TestBrokenUnderlay starts a member in a network that is broken, and breaks the network of one that runs: in both cases it
// stays, does not spin, says that something is wrong, and is connected soon after the network is whole.
func TestBrokenUnderlay(t *testing.T) {
	const (
		patience = 3 * time.Second  // in the broken network
		soon     = 10 * time.Second // after it is whole
	)
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{}))
	to := w.addr(home)
	tests := []struct {
		name, code string // of the health line that must come soon
		spoil      func(*lab.Host) (mend func() error)
	}{
		{"no default route", "no-route", w.withoutRoutes},
		{"only link-local addresses", "link-local-only", w.withoutAddresses},
		{"all UDP is lost, as before the login at a hotel", "", func(h *lab.Host) func() error {
			w.must(h.Lose(lab.Loss{}))
			return func() error { return h.Lose() }
		}},
		{"no carrier", "", func(h *lab.Host) func() error {
			w.must(h.LinkDown("eth0"))
			return func() error { return h.LinkUp("eth0") }
		}},
		{"names do not resolve", "", func(*lab.Host) func() error {
			w.net.SetName("home.example")
			return func() error {
				w.net.SetName("home.example", home.Host.Addrs()...)
				return nil
			}
		}},
	}
	invite := w.invite(home, "--uses", "10")
	var laptops []*lab.Node
	for i := range tests {
		laptops = append(laptops, w.join(w.net.Host(fmt.Sprintf("laptop-%d", i+1), lab.HostConfig{}), invite))
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			w, laptop := w.under(t), laptops[i]
			w.reached(10*time.Second, laptop, to)

			mend := test.spoil(laptop.Host)
			w.bears(laptop, patience, test.code)
			w.must(mend())
			start := time.Now()
			t.Logf("a running member is connected after %v", w.reached(soon, laptop, to).Sub(start))

			w.must(laptop.Terminate())
			mend = test.spoil(laptop.Host)
			w.resume(laptop)
			w.bears(laptop, patience, test.code)
			w.must(mend())
			start = time.Now()
			t.Logf("one that has started there is connected after %v", w.reached(soon, laptop, to).Sub(start))
			if test.code != "" {
				w.waitHealth(laptop, test.code, false)
			}
			w.must(laptop.Interrupt())
		})
	}
}

// bears holds a node in a broken network to staying, without haste, and to saying so.
func (w *world) bears(n *lab.Node, patience time.Duration, code string) {
	w.Helper()
	pid := n.PID()
	if pid == 0 {
		w.Fatal("the node does not run")
	}
	before := w.cpuTime(pid)
	start := time.Now()
	if code != "" {
		w.waitHealth(n, code, true)
	}
	time.Sleep(max(0, patience-time.Since(start))) // what is measured is so long a time in trouble
	took := time.Since(start)
	if n.PID() != pid {
		w.Fatalf("the node has ended:\n%s", n.Output())
	}
	if used := w.cpuTime(pid) - before; used > took/4 {
		w.Errorf("%v of CPU time in %v of trouble: it spins", used, took)
	}
}

// withoutRoutes takes the default routes from a host.
func (w *world) withoutRoutes(h *lab.Host) func() error {
	w.Helper()
	var gone []netlink.Route
	w.inside(h, func(handle *netlink.Handle) error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := handle.RouteList(nil, family)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Gw == nil || r.Dst != nil && !r.Dst.IP.IsUnspecified() {
					continue
				}
				if err := handle.RouteDel(&r); err != nil {
					return err
				}
				gone = append(gone, r)
			}
		}
		return nil
	})
	if len(gone) != 2 {
		w.Fatalf("%d default routes, want 2", len(gone))
	}
	return func() error {
		return h.Do(func() error {
			handle, err := netlink.NewHandle()
			if err != nil {
				return err
			}
			defer handle.Close()
			for _, r := range gone {
				r := &netlink.Route{LinkIndex: r.LinkIndex, Gw: r.Gw, Priority: r.Priority, Family: r.Family, Dst: r.Dst}
				if err := handle.RouteReplace(r); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// withoutAddresses leaves a host its link-local address alone.
func (w *world) withoutAddresses(h *lab.Host) func() error {
	w.Helper()
	var prefixes []netip.Prefix
	for _, a := range h.Addrs() {
		bits := 26
		if a.Is6() {
			bits = 64
		}
		prefixes = append(prefixes, netip.PrefixFrom(a, bits))
	}
	routes := w.withoutRoutes(h)
	w.must(h.SetAddrs())
	return func() error {
		if err := h.SetAddrs(prefixes...); err != nil {
			return err
		}
		return routes()
	}
}
