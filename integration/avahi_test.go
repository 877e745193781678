//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

// avahi runs Avahi on a host as it is, with a D-Bus of its own.
func (w *world) avahi(n *lab.Node) {
	w.Helper()
	h := n.Host
	conf := filepath.Join(w.dir, h.Name()+"-avahi.conf")
	w.must(os.WriteFile(conf, fmt.Appendf(nil, "[server]\nhost-name=%s\nallow-interfaces=mesh0\nuse-ipv4=yes\nuse-ipv6=yes\nenable-dbus=yes\n"+
		"[publish]\npublish-workstation=no\npublish-hinfo=no\n", h.Name()), 0o644))
	w.spawn(h, "sh", "-c", "mkdir -p /run/dbus && exec dbus-daemon --system --nofork --nopidfile")
	w.eventually(5*time.Second, "D-Bus is there", func() error {
		return h.Command(w.within(5*time.Second), "test", "-S", "/run/dbus/system_bus_socket").Run()
	})
	w.spawn(h, "avahi-daemon", "--no-drop-root", "--no-chroot", "--no-rlimits", "-f", conf)
	w.eventually(10*time.Second, "Avahi runs", func() error {
		return h.Command(w.within(5*time.Second), "avahi-daemon", "--check").Run()
	})
}

// TestAvahi has Avahi resolve names and find a service across the mesh, after snooping has settled.
func TestAvahi(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home, laptop, office := w.threeSites(lab.HostConfig{})
	nodes := []*lab.Node{home, laptop, office}
	w.numbered(nodes...)
	for _, n := range nodes {
		w.avahi(n)
	}
	w.silence(20*time.Second, w.source(home.Host, "mesh0"), strayGroup, w.capture(laptop), w.capture(office))
	for i, at := range nodes {
		for j, of := range nodes {
			if i == j {
				continue
			}
			for _, want := range []string{fmt.Sprintf("10.9.0.%d", j+1), w.addr(of).String()} {
				flag := "-4"
				if strings.Contains(want, ":") {
					flag = "-6"
				}
				w.eventually(10*time.Second, at.Host.Name()+" resolves "+of.Host.Name(), func() error {
					out, err := at.Host.Command(w.within(10*time.Second), "avahi-resolve", flag, "-n", of.Host.Name()+".local").CombinedOutput()
					if flag == "-4" && !strings.Contains(string(out), want) || flag == "-6" && !strings.Contains(string(out), want) && !strings.Contains(string(out), "\tfe80:") {
						return fmt.Errorf("%v: %s, want %s", err, out, want)
					}
					return err
				})
			}
		}
	}
	w.spawn(laptop.Host, "avahi-publish", "-s", "Printer on the laptop", "_ipp._tcp", "631", "rp=test")
	for _, n := range []*lab.Node{home, office} {
		w.eventually(20*time.Second, n.Host.Name()+" finds the printer", func() error {
			out, err := n.Host.Command(w.within(10*time.Second), "avahi-browse", "-rpt", "_ipp._tcp").CombinedOutput()
			if err == nil && !strings.Contains(string(out), "laptop.local") {
				err = fmt.Errorf("found: %s", out)
			}
			return err
		})
	}
}
