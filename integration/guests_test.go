//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"meshd/integration/lab"
	"meshd/integration/lab/guest"
)

// guestFiles are what guests boot from, made once.
var guestFiles = sync.OnceValues(func() (*guest.Files, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return guest.Load(ctx)
})

// guests boots virtual machines, all at a time, that run until the test ends.
func (w *world) guests(ctx context.Context, of map[*lab.Host][]guest.Options) map[string]*guest.Guest {
	w.Helper()
	files, err := guestFiles()
	if errors.Is(err, guest.ErrMissing) {
		w.Skip(err)
	}
	w.must(err)
	var mu sync.Mutex
	var errs []error
	all := make(map[string]*guest.Guest)
	var group sync.WaitGroup
	for host, machines := range of {
		for _, opts := range machines {
			group.Go(func() {
				g, err := guest.Boot(ctx, host, files, opts)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = append(errs, err)
					return
				}
				all[opts.Name] = g
			})
		}
	}
	group.Wait()
	w.Cleanup(func() {
		for name, g := range all {
			if w.Failed() {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				out, err := g.Run(ctx, "ip addr; ip -6 route; ip -6 neigh")
				cancel()
				w.Logf("%s: %v\n%s\n%s", name, err, out, g.Console())
			}
			if err := g.Close(); err != nil {
				w.Errorf("end %s: %v", name, err)
			}
		}
	})
	w.must(errors.Join(errs...))
	return all
}

// in runs a command in a guest, which must succeed.
func (w *world) in(g *guest.Guest, command string) string {
	w.Helper()
	out, err := g.Run(w.within(20*time.Second), command)
	w.must(err)
	return out
}

// configured waits until a guest has configured itself an address in a prefix, and returns it.
func (w *world) configured(g *guest.Guest, prefix netip.Prefix) (addr netip.Addr) {
	w.Helper()
	w.eventually(30*time.Second, "the guest has an address in "+prefix.String(), func() error {
		out := w.in(g, "ip -6 -o addr show dev eth0 scope global")
		for _, field := range strings.Fields(out) {
			if strings.Contains(out, "tentative") {
				break
			}
			if p, err := netip.ParsePrefix(field); err == nil && prefix.Contains(p.Addr()) {
				addr = p.Addr()
				return nil
			}
		}
		return errors.New(out)
	})
	return addr
}

// reach waits until the pings of guests to addresses are answered, and then wants all of ten of full size to be. Guests
// ping at a time, each one address after the other.
func (w *world) reach(from map[string]*guest.Guest, to func(name string) []netip.Addr) {
	w.Helper()
	ctx := w.within(40 * time.Second)
	var group sync.WaitGroup
	errs := make(chan error, len(from))
	for name, g := range from {
		group.Go(func() {
			for _, addr := range to(name) {
				command := fmt.Sprintf("until ping -c 1 -W 1 %[1]v; do :; done >/dev/null 2>&1; ping -c 10 -i 0.05 -W 2 -s 1400 %[1]v", addr)
				out, err := g.Run(ctx, command)
				if err == nil && !strings.Contains(out, " 0% packet loss") {
					err = errors.New(out)
				}
				if err != nil {
					errs <- fmt.Errorf("%s to %v: %w", name, addr, err)
					return
				}
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		w.Error(err)
	}
}

// advertise runs radvd on a node's host with the configuration of examples/home-prefix, as its owner would. The host
// forwards.
func (w *world) advertise(n *lab.Node, prefix netip.Prefix) {
	w.Helper()
	if out, err := n.Host.Command(w.Context(), "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1").CombinedOutput(); err != nil {
		w.Fatalf("let %s forward: %v: %s", n.Host.Name(), err, out)
	}
	const documented = "2001:db8:0:1::/64"
	text, err := os.ReadFile(w.example("home-prefix/radvd.conf"))
	w.must(err)
	if strings.Count(string(text), documented) != 1 {
		w.Fatalf("radvd.conf does not have %s once:\n%s", documented, text)
	}
	config := filepath.Join(w.TempDir(), "radvd.conf")
	w.must(os.WriteFile(config, []byte(strings.Replace(string(text), documented, prefix.String(), 1)), 0o600))
	w.spawn(n.Host, "radvd", "--nodaemon", "--config", config, "--pidfile", config+".pid", "--logmethod", "stderr")
}

// example is the path of a file under examples/.
func (w *world) example(name string) string {
	w.Helper()
	path, err := filepath.Abs(filepath.Join("..", "examples", name))
	w.must(err)
	return path
}

// unprivileged makes a node run as nobody: without root, and without a right to anything but its own folder, which it
// returns.
func (w *world) unprivileged(h *lab.Host) (n *lab.Node, own string) {
	w.Helper()
	if os.Getenv("LAB_USERNS") != "" {
		w.Skip("needs root: in a user namespace there is nobody else to be")
	}
	dir, err := os.MkdirTemp("", "meshd-")
	w.must(err)
	w.Cleanup(func() {
		if n != nil && n.PID() != 0 {
			_ = n.Interrupt() // it writes there
		}
		if err := os.RemoveAll(dir); err != nil {
			w.Error(err)
		}
	})
	w.must(os.Chmod(dir, 0o755)) // for the program
	own = filepath.Join(dir, "own")
	w.must(os.Mkdir(own, 0o700))
	w.must(os.Chown(own, nobody, nobody))
	content, err := os.ReadFile(w.bin)
	w.must(err)
	w.must(os.WriteFile(filepath.Join(dir, "meshd"), content, 0o755))
	script := fmt.Sprintf("#!/bin/sh\nexec setpriv --reuid %d --regid %d --clear-groups --no-new-privs --pdeathsig KILL %s/meshd \"$@\"\n", nobody, nobody, dir)
	w.must(os.WriteFile(filepath.Join(dir, "run"), []byte(script), 0o755))
	n = w.node(h)
	n.Binary, n.State = filepath.Join(dir, "run"), filepath.Join(own, "state")
	return n, own
}

// nobody is the user and group of that name, or nogroup.
const nobody = 65534
