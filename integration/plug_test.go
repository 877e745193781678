//go:build linux

package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshd/integration/lab"
)

// spawn runs a program on a host until the test ends.
func (w *world) spawn(h *lab.Host, name string, args ...string) {
	w.Helper()
	cmd := h.Command(context.Background(), name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	stdin, err := cmd.StdinPipe() // at whose end vde_switch would end
	w.must(err)
	w.must(cmd.Start())
	w.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err := cmd.Wait()
		if w.Failed() {
			w.Logf("%s: %v\n%s", name, err, out.String())
		}
	})
}

// up gives an interface addresses, once it is there.
func (w *world) up(h *lab.Host, name string, addrs ...netip.Prefix) {
	w.Helper()
	w.eventually(10*time.Second, name+" is there", func() error {
		return h.Command(w.within(5*time.Second), "ip", "link", "set", name, "up").Run()
	})
	for _, a := range addrs {
		args := []string{"addr", "add", a.String(), "dev", name}
		if a.Addr().Is6() {
			args = append(args, "nodad")
		}
		if out, err := h.Command(w.within(5*time.Second), "ip", args...).CombinedOutput(); err != nil {
			w.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
}

// TestVirtualMachines plugs what stands for two virtual machines into a node behind NAT that has no TAP: one by vde2's
// own tool at --plug, one on a vde_switch by a cable through `meshd plug`. They are on the segment like anybody.
func TestVirtualMachines(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{}))
	site := w.net.Site("work", lab.SiteConfig{NAT: lab.Home})
	vms := []*lab.Host{site.Host("vm1"), site.Host("vm2")}
	sockets := t.TempDir()
	ctl := filepath.Join(sockets, "ctl")
	laptop := w.join(site.Host("laptop"), w.invite(home), "--no-tap", "--plug", "vde:"+ctl)
	if w.hasTAP(laptop.Host) {
		t.Error("a TAP, in spite of --no-tap")
	}

	prefix := netip.PrefixFrom(w.addr(home), 64).Masked()
	base := prefix.Addr().As16()
	addrs := make([]netip.Prefix, len(vms))
	for i := range vms {
		base[15] = byte(i + 1)
		addrs[i] = netip.PrefixFrom(netip.AddrFrom16(base), 64)
	}
	w.spawn(vms[0], "vde_plug2tap", "-s", ctl, "vm0")
	w.up(vms[0], "vm0", addrs[0], netip.MustParsePrefix("10.77.0.1/24"))

	other := filepath.Join(sockets, "other")
	w.spawn(vms[1], "vde_switch", "-s", other, "-t", "vm0", "-x")
	w.up(vms[1], "vm0", addrs[1], netip.MustParsePrefix("10.77.0.2/24"))
	w.eventually(5*time.Second, "vde_switch listens", func() error { _, err := os.Stat(other + "/ctl"); return err })
	w.spawn(laptop.Host, "dpipe", "vde_plug", "vde://"+other, "=", laptop.Binary, "--state", laptop.State, "plug")

	for i, vm := range vms {
		w.reached(10*time.Second, &lab.Node{Host: vm}, w.addr(home))
		w.reached(10*time.Second, home, addrs[i].Addr())
		stats, err := vm.Ping(w.within(20*time.Second), w.addr(home), 100, lab.PingOptions{Size: 1400})
		if err != nil || stats.Lost() > 0 || stats.Duplicates > 0 {
			t.Errorf("vm%d to home: %v, %v", i+1, stats, err)
		}
	}
	stats, err := vms[0].Ping(w.within(20*time.Second), netip.MustParseAddr("10.77.0.2"), 100, lab.PingOptions{})
	if err != nil || stats.Lost() > 0 || stats.Duplicates > 0 {
		t.Errorf("vm1 to vm2: %v, %v", stats, err)
	}
	hosts, err := home.Run(w.within(10*time.Second), "hosts")
	w.must(err)
	for _, a := range addrs {
		if line := lineOf(hosts, a.Addr().String()); !strings.Contains(line, "laptop") {
			t.Errorf("home has %v as %q in\n%s", a.Addr(), line, hosts)
		}
	}
	w.must(laptop.Interrupt())
	if left, _ := filepath.Glob(ctl + "*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// lineOf is the line of a table that has a word in it.
func lineOf(table, word string) string {
	for line := range strings.Lines(table) {
		if strings.Contains(line, word) {
			return line
		}
	}
	return fmt.Sprintf("no line with %s", word)
}
