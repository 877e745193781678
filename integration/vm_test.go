//go:build linux

package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
	"meshd/integration/lab/guest"
)

// TestGuests runs examples/vm: three guests, one on each kind of socket, at two members. One of those is behind a NAT,
// and neither it nor its guest's QEMU have root, a TAP or a right to anything.
func TestGuests(t *testing.T) {
	w := newWorld(t)
	sockets := t.TempDir()
	stream, dgram := "stream:"+filepath.Join(sockets, "s"), "dgram:"+filepath.Join(sockets, "d")
	home := w.found(w.net.Host("home", lab.HostConfig{}), "--plug", stream, "--plug", dgram)
	laptop, own := w.unprivileged(w.net.Site("work", lab.SiteConfig{NAT: lab.Home}).Host("laptop"))
	vde := "vde:" + filepath.Join(own, "vde")
	w.must(laptop.UpWithInput(strings.NewReader(w.invite(home)), "--join", "-", "--no-tap", "--plug", vde))
	w.must(laptop.Ready(w.within(10 * time.Second)))
	w.wantUnprivileged(laptop)

	script, err := os.ReadFile(w.example("vm/vm.sh"))
	w.must(err)
	vm := filepath.Join(filepath.Dir(own), "vm.sh") // where nobody may read it
	w.must(os.WriteFile(vm, script, 0o755))
	prefix := w.status(home).Network.Prefixes[0]
	w.advertise(home, prefix)
	guests := w.guests(w.within(2*time.Minute), map[*lab.Host][]guest.Options{
		laptop.Host: {{Name: "vde", QEMU: []string{vm, vde, "vde"}, User: nobody}},
		home.Host:   {{Name: "stream", QEMU: []string{vm, stream, "stream"}}, {Name: "dgram", QEMU: []string{vm, dgram, "dgram"}}},
	})
	addrs := make(map[string]netip.Addr)
	for name, g := range guests {
		addrs[name] = w.configured(g, prefix)
	}
	w.reach(guests, func(name string) []netip.Addr {
		others := maps.Clone(addrs)
		delete(others, name)
		return slices.Collect(maps.Values(others))
	})
	hosts, err := home.Run(w.within(10*time.Second), "hosts")
	w.must(err)
	if line := lineOf(hosts, addrs["vde"].String()); !strings.Contains(line, "laptop") {
		t.Errorf("home has %v as %q in\n%s", addrs["vde"], line, hosts)
	}
}

// wantUnprivileged reads of the kernel that a node has no capability and no user id of root's.
func (w *world) wantUnprivileged(n *lab.Node) {
	w.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	w.must(err)
	want := map[string]string{"CapEff:": "0000000000000000", "CapPrm:": "0000000000000000", "Uid:": fmt.Sprint(nobody), "NoNewPrivs:": "1"}
	found := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if value, ok := want[fields[0]]; ok {
			found++
			if fields[1] != value {
				w.Errorf("%s has %s %s", n.Host.Name(), fields[0], fields[1])
			}
		}
	}
	if found != len(want) {
		w.Errorf("%d of %d lines in\n%s", found, len(want), text)
	}
}
