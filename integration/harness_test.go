//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/integration/lab"
)

func TestMain(m *testing.M) {
	lab.Shim()
	if os.Getenv("LAB_USERNS") != "" {
		if err := lab.EnterUserNamespace(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := lab.Sweep(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	dir, err := os.MkdirTemp("", "meshd-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	restore := roomForNeighbours()
	code := m.Run()
	restore()
	os.RemoveAll(dir)
	os.Exit(code)
}

// roomForNeighbours raises the kernel's limit on IPv6 neighbours, if it may, and returns what puts it back. The limit, 1024
// as a rule, is one for all network namespaces together, and 24 nodes that talk to each other have as many: beyond it,
// packets are refused with EINVAL, in namespaces of others as well.
func roomForNeighbours() (restore func()) {
	const limit, room = "/proc/sys/net/ipv6/neigh/default/gc_thresh3", 8192
	before, err := os.ReadFile(limit)
	if err != nil {
		return func() {} // not the first namespace
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(before))); err != nil || n >= room {
		return func() {}
	}
	if err := os.WriteFile(limit, []byte(strconv.Itoa(room)), 0); err != nil {
		return func() {}
	}
	return func() {
		if err := os.WriteFile(limit, before, 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// buildDir is where the program under test is built, once.
var (
	buildDir string
	program  = sync.OnceValues(func() (string, error) {
		if path := os.Getenv("MESHD"); path != "" {
			return filepath.Abs(path)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		return lab.Build(ctx, buildDir, "meshd/cmd/meshd")
	})
)

// world is an internet with nodes on it.
type world struct {
	*testing.T
	lab *lab.Lab
	net *lab.Network
	bin string
	dir string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and TAPs (or LAB_USERNS=1)")
	}
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() // removed after the lab is closed: until then nodes write to it
	l, err := lab.New(lab.Options{Name: t.Name(), Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{T: t, lab: l, net: l.Internet("isp"), bin: bin, dir: dir}
}

// under is the world in a subtest.
func (w *world) under(t *testing.T) *world {
	sub := *w
	sub.T = t
	return &sub
}

// within is a context that ends after so long.
func (w *world) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), d)
	w.Cleanup(cancel)
	return ctx
}

// must fails the test at once.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// node is a node on a host; nothing runs yet. When the test has failed, the node says how things are with it.
func (w *world) node(h *lab.Host) *lab.Node {
	n := lab.NewNode(h, w.bin, filepath.Join(w.dir, h.Name()))
	w.Cleanup(func() {
		if !w.Failed() || n.PID() == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for _, command := range []string{"status", "hosts"} {
			out, err := n.Run(ctx, command)
			w.Logf("%s: meshd %s: %v\n%s", h.Name(), command, err, out)
		}
		out, err := h.Command(ctx, "sh", "-c", "ip -s link show mesh0; ip -6 address show mesh0; ip -6 route; ip -6 neigh").CombinedOutput()
		w.Logf("%s: %v\n%s", h.Name(), err, out)
	})
	return n
}

// found starts a node that founds a network, at home.example.
func (w *world) found(h *lab.Host, args ...string) *lab.Node {
	w.Helper()
	w.net.SetName("home.example", h.Addrs()...)
	n := w.node(h)
	w.must(n.Up(args...))
	w.must(n.Ready(w.within(10 * time.Second)))
	return n
}

// invite asks an admin's node for an invite.
func (w *world) invite(admin *lab.Node, args ...string) string {
	w.Helper()
	out, err := admin.Run(w.within(10*time.Second), append([]string{"invite"}, args...)...)
	w.must(err)
	return strings.TrimSpace(out)
}

// join starts a node that joins by an invite, and waits until it is ready.
func (w *world) join(h *lab.Host, invite string, args ...string) *lab.Node {
	w.Helper()
	n := w.node(h)
	w.must(n.UpWithInput(strings.NewReader(invite+"\n"), append([]string{"--join", "-"}, args...)...))
	w.must(n.Ready(w.within(10 * time.Second)))
	return n
}

// resume starts a node that has state, and waits until it is ready.
func (w *world) resume(n *lab.Node, args ...string) {
	w.Helper()
	w.must(n.Up(append([]string{"--resume"}, args...)...))
	w.must(n.Ready(w.within(10 * time.Second)))
}

// joinByApproval starts a node that knocks at home.example, and lets the admin compare its words and approve.
func (w *world) joinByApproval(h *lab.Host, admin *lab.Node) *lab.Node {
	w.Helper()
	return w.joinByApprovalAt(h, admin, "home.example")
}

// joinByApprovalAt is joinByApproval at an entry point. (Names that are looked up in the DNS are in clear.)
func (w *world) joinByApprovalAt(h *lab.Host, admin *lab.Node, entry string) *lab.Node {
	w.Helper()
	n := w.node(h)
	w.must(n.Up("--join", entry))
	words := w.words(n, admin)
	_, err := admin.Run(w.within(10*time.Second), append([]string{"approve"}, strings.Fields(words)...)...)
	w.must(err)
	w.must(n.Ready(w.within(10 * time.Second)))
	return n
}

// words waits until joiner and admin show the same six words, and returns them.
func (w *world) words(joiner, admin *lab.Node) string {
	w.Helper()
	shown := ""
	w.eventually(15*time.Second, "the admin sees who waits", func() error {
		var requests []struct{ Words string }
		if err := admin.JSON(w.Context(), &requests, "requests"); err != nil {
			return err
		}
		if len(requests) != 1 {
			return fmt.Errorf("%d requests", len(requests))
		}
		shown = requests[0].Words
		return nil
	})
	if len(strings.Fields(shown)) != 6 {
		w.Fatalf("the admin is shown %q, not six words", shown)
	}
	w.eventually(5*time.Second, "the joiner shows the words", func() error {
		if !strings.Contains(joiner.Output(), shown) {
			return fmt.Errorf("the admin is shown %q, the joiner something else", shown)
		}
		return nil
	})
	return shown
}

// waitPeers waits until each of the nodes knows of the others.
func (w *world) waitPeers(nodes ...*lab.Node) {
	w.Helper()
	w.all(nodes, func(n *lab.Node) error {
		_, err := n.Run(w.within(40*time.Second), "wait", "--peers", strconv.Itoa(len(nodes)-1), "--timeout", "30s")
		return err
	})
}

// all does something with all nodes at a time.
func (w *world) all(nodes []*lab.Node, do func(*lab.Node) error) {
	w.Helper()
	errs := make([]error, len(nodes))
	var group sync.WaitGroup
	for i, n := range nodes {
		group.Go(func() { errs[i] = do(n) })
	}
	group.Wait()
	w.must(errors.Join(errs...))
}

// eventually waits for a condition that no command waits for.
func (w *world) eventually(limit time.Duration, what string, holds func() error) {
	w.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("not within %v: %s: %v", limit, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// status is what tests read of `meshd status --json`, as CONTRACT.md has it.
type status struct {
	Network struct {
		ID       string
		Prefixes []netip.Prefix
	}
	Self struct {
		ID, Name, MAC, TAP string
		Addresses          []netip.Addr
		MTU                int
		Ready              bool
	}
	Peers []peerStatus
}

// peerStatus is how a node sees another.
type peerStatus struct {
	Name, State, Transport, Endpoint string
	Addresses                        []netip.Addr
	PathMTU                          int       `json:"path_mtu"`
	LastHandshake                    time.Time `json:"last_handshake"`
}

func (w *world) status(n *lab.Node) status {
	w.Helper()
	var s status
	w.must(n.JSON(w.within(10*time.Second), &s, "status"))
	if len(s.Self.Addresses) == 0 || s.Self.MAC == "" {
		w.Fatalf("%s has no address or MAC: %+v", n.Host.Name(), s)
	}
	return s
}

// addr is a node's address in the mesh.
func (w *world) addr(n *lab.Node) netip.Addr {
	w.Helper()
	return w.status(n).Self.Addresses[0]
}

// pingAll pings from each to each other, count times, all at a time. None may be lost.
func (w *world) pingAll(count int, nodes ...*lab.Node) {
	w.Helper()
	addrs := make(map[*lab.Node]netip.Addr)
	for _, n := range nodes {
		addrs[n] = w.addr(n)
	}
	ctx := w.within(30 * time.Second)
	w.all(nodes, func(from *lab.Node) error {
		for _, to := range nodes {
			if to == from {
				continue
			}
			s, err := from.Host.Ping(ctx, addrs[to], count, lab.PingOptions{Interval: 10 * time.Millisecond})
			if err == nil && s.Lost() > 0 {
				err = fmt.Errorf("%s to %s: %v", from.Host.Name(), to.Host.Name(), s)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// reached waits until a ping from a node to an address is answered, and returns when.
func (w *world) reached(limit time.Duration, from *lab.Node, to netip.Addr) time.Time {
	w.Helper()
	p, err := from.Host.Pinger(to, lab.PingOptions{})
	w.must(err)
	defer p.Close()
	w.eventually(limit, fmt.Sprintf("%s reaches %v", from.Host.Name(), to), func() error {
		if s := p.Stats(); s.Received == 0 {
			return fmt.Errorf("%v", s)
		}
		return nil
	})
	return time.Now()
}

// inside does something with the network settings of a host.
func (w *world) inside(h *lab.Host, do func(*netlink.Handle) error) {
	w.Helper()
	w.must(h.Do(func() error {
		handle, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer handle.Close()
		return do(handle)
	}))
}

// hasTAP reports whether a host has the interface mesh0.
func (w *world) hasTAP(h *lab.Host) bool {
	w.Helper()
	found := false
	w.inside(h, func(handle *netlink.Handle) error {
		_, err := handle.LinkByName("mesh0")
		found = err == nil
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil
		}
		return err
	})
	return found
}

// threeSites is a home that founds, a laptop and an office that join.
func (w *world) threeSites(cfg lab.HostConfig) (home, laptop, office *lab.Node) {
	w.Helper()
	hosts := []*lab.Host{w.net.Host("home", cfg), w.net.Host("laptop", cfg), w.net.Host("office", cfg)}
	home = w.found(hosts[0])
	invite := w.invite(home, "--uses", "2")
	laptop, office = w.join(hosts[1], invite), w.join(hosts[2], invite)
	w.waitPeers(home, laptop, office)
	return home, laptop, office
}
