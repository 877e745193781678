package mesh_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/l2"
	"meshd/l2/l2test"
	"meshd/l2/radv"
	"meshd/mesh"
	"meshd/mesh/api"
	"meshd/nat-traversal"
	"meshd/peer/udp"
	"meshd/peer/udp/udptest"
)

// world is an in-memory internet with whole nodes on it, in simulated time.
type world struct {
	t     *testing.T
	net   *udptest.Internet
	level slog.Level // of the nodes' logs
}

// inWorld runs a test in simulated time.
func inWorld(t *testing.T, seed uint64, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		// Registered first, so it runs last: memberlist's last probes end within
		// some seconds after a node. What is left then is a goroutine without an
		// owner, which synctest reports.
		t.Cleanup(func() { time.Sleep(time.Minute) })
		w := &world{t, udptest.NewInternet(seed), slog.LevelDebug}
		w.net.LogOnFailure(t)
		f(t, w)
	})
}

// host is a machine in the world. It implements mesh.Host.
type host struct {
	world   *world
	machine *udptest.Host
	dns     map[string]netip.Addr
	changed chan struct{}
	asleep  atomic.Int64 // time.Duration: for how long it has been suspended in all
	tcp     mesh.Host    // the same host with TCP; nil: it has none

	mu     sync.Mutex
	device *l2test.Device
	opened int
}

func (w *world) host(addr string) *host {
	return &host{world: w, machine: w.net.Host(netip.MustParseAddr(addr)), changed: make(chan struct{}, 1)}
}

// Listen implements mesh.Host.
func (h *host) Listen(at netip.AddrPort) ([]udp.Conn, error) {
	var conns []udp.Conn
	v4, v6, err := h.machine.ListenPort(at.Port())
	for _, c := range []udp.Conn{v4, v6} {
		if c != nil {
			conns = append(conns, c)
		}
	}
	return conns, err
}

// OpenSegment implements mesh.Host.
func (h *host) OpenSegment(cfg l2.TAPConfig) (l2.Device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened++
	h.device = l2test.NewDevice(cfg.Name)
	return h.device, nil
}

// Candidates implements mesh.Host.
func (h *host) Candidates(port uint16, _ string, _ []netip.Prefix) ([]traversal.Candidate, error) {
	var list []traversal.Candidate
	for _, a := range h.machine.Addrs() {
		list = append(list, traversal.Candidate{Addr: netip.AddrPortFrom(a, port), Kind: traversal.Host})
	}
	return list, nil
}

// Watch implements mesh.Host.
func (h *host) Watch(context.Context) <-chan struct{} { return h.changed }

// Asleep says for how long the host has been suspended, in all.
func (h *host) Asleep(time.Time) time.Duration { return time.Duration(h.asleep.Load()) }

// lateDNS is from when on late.example is resolved; the worlds begin with the year.
var lateDNS = time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC)

// Resolve implements mesh.Host.
func (h *host) Resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	if name == "slow.example" { // its server does not answer
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if name == "late.example" {
		if time.Now().Before(lateDNS) {
			return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
		}
		return []netip.Addr{netip.MustParseAddr("198.18.0.1")}, nil
	}
	if a, ok := h.dns[name]; ok {
		return []netip.Addr{a}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (h *host) segment() *l2test.Device {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.device
}

// move gives the host another address.
func (h *host) move(addr string) {
	h.machine.SetAddr(netip.MustParseAddr(addr))
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// node is a running node on a host.
type node struct {
	t      *testing.T
	name   string
	host   *host
	state  string
	cancel context.CancelFunc
	done   chan error
	ready  chan struct{}
	words  chan string

	mu      sync.Mutex
	service api.Node
	events  []mesh.Event
	err     error
	ended   bool
}

// up starts a node. Its state stays over several starts on the same host.
func (w *world) up(h *host, name string, join ...string) *node {
	return w.upIn(h, name, filepath.Join(w.t.TempDir(), name), join...)
}

func (w *world) upIn(h *host, name, state string, join ...string) *node {
	cfg := w.config(h, name, state)
	cfg.Join = join
	return w.run(h, name, cfg)
}

// config is that of a node as tests run it.
func (w *world) config(h *host, name, state string) mesh.Config {
	log := slog.New(slog.NewTextHandler(testWriter{w.t, name}, &slog.HandlerOptions{Level: w.level}))
	return mesh.Config{
		StateDir: state, Name: name, Listen: netip.AddrPortFrom(netip.Addr{}, 51830),
		Logger: log, Host: h, NoDNS: true, NoUAPI: true, Version: "test",
	}
}

// run starts a node.
func (w *world) run(h *host, name string, cfg mesh.Config) *node {
	n := &node{
		t: w.t, name: name, host: h, state: cfg.StateDir, done: make(chan error, 1),
		ready: make(chan struct{}), words: make(chan string, 16),
	}
	var ctx context.Context
	ctx, n.cancel = context.WithCancel(context.Background())
	cfg.Host, cfg.Progress = h, n.progress
	if h.tcp != nil {
		cfg.Host = h.tcp
	}
	cfg.Serve = func(ctx context.Context, s api.Node) error {
		n.mu.Lock()
		n.service = s
		n.mu.Unlock()
		<-ctx.Done()
		return nil
	}
	go func() { n.done <- mesh.Run(ctx, cfg) }()
	w.t.Cleanup(func() { n.stop() })
	return n
}

type testWriter struct {
	t    *testing.T
	name string
}

func (w testWriter) Write(b []byte) (int, error) {
	return fmt.Fprintf(w.t.Output(), "%s: %s", w.name, b)
}

func (n *node) progress(e mesh.Event) {
	n.mu.Lock()
	n.events = append(n.events, e)
	n.mu.Unlock()
	switch e.Kind {
	case mesh.Ready:
		close(n.ready)
	case mesh.WaitingForApproval:
		n.words <- strings.Join(e.Words, " ")
	}
}

// joined waits until the node has its certificate, and returns how long that took from now.
func (n *node) joined(limit time.Duration) time.Duration {
	n.t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		n.mu.Lock()
		joined := slices.ContainsFunc(n.events, func(e mesh.Event) bool { return e.Kind == mesh.Joined })
		n.mu.Unlock()
		if took := time.Since(began); joined {
			return took
		} else if took > limit {
			n.t.Fatalf("%s has not joined after %v", n.name, took)
		}
	}
}

// stop ends the node and returns what Run returned.
func (n *node) stop() error {
	if !n.ended {
		n.cancel()
		n.err, n.ended = <-n.done, true
	}
	return n.err
}

// kill ends the node as a power cut would: nobody hears of it.
func (n *node) kill() {
	n.t.Helper()
	addrs := n.host.machine.Addrs()
	n.host.machine.SetAddr()
	if err := n.stop(); err != nil {
		n.t.Logf("%s was killed and returned %v", n.name, err)
	}
	n.host.machine.SetAddr(addrs...)
}

// waitReady returns how long it took until the node was ready.
func (n *node) waitReady(limit time.Duration) time.Duration {
	n.t.Helper()
	began := time.Now()
	select {
	case <-n.ready:
	case err := <-n.done:
		n.done <- err
		n.t.Fatalf("%s ended before it was ready: %v", n.name, err)
	case <-time.After(limit):
		n.t.Fatalf("%s was not ready within %v", n.name, limit)
	}
	return time.Since(began)
}

// failure returns the error that Run ends with.
func (n *node) failure(limit time.Duration) error {
	n.t.Helper()
	select {
	case err := <-n.done:
		n.done <- err
		return err
	case <-time.After(limit):
		n.t.Fatalf("%s still runs after %v", n.name, limit)
		return nil
	}
}

// ask is the node's control socket.
func (n *node) ask() api.Node {
	for {
		n.mu.Lock()
		service := n.service
		n.mu.Unlock()
		if service != nil {
			return service
		}
		time.Sleep(time.Millisecond) // it is offered by a goroutine that may not have begun
	}
}

// status returns the node's status.
func (n *node) status() *api.Status {
	n.t.Helper()
	st, err := n.ask().Status(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return st
}

// invite makes an invite with the given uses.
func (n *node) invite(uses int) string {
	n.t.Helper()
	text, err := n.ask().Invite(n.t.Context(), api.InviteOptions{Uses: uses, Expires: time.Hour})
	if err != nil {
		n.t.Fatal(err)
	}
	return text
}

// wait waits for a condition as `meshd wait` does.
func (n *node) wait(spec api.WaitSpec, limit time.Duration) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), limit)
	defer cancel()
	if err := n.ask().Wait(ctx, spec); err != nil {
		n.t.Fatalf("%s: wait for %+v: %v; peers: %+v", n.name, spec, err, n.status().Peers)
	}
}

// mac is the address of the node's TAP.
func (n *node) mac() l2.MAC {
	n.t.Helper()
	return macOf(n.t, n.status().Self.MAC)
}

// macOf reads a MAC.
func macOf(t *testing.T, text string) l2.MAC {
	t.Helper()
	hw, err := net.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return l2.MAC(hw)
}

// meter counts the datagrams that are sent from now on. What it returns yields
// how many there were, and their bytes of UDP payload.
func (w *world) meter(of func(udptest.Datagram) bool) func() (packets, bytes int64) {
	var count, size atomic.Int64
	w.net.Tap(func(d udptest.Datagram) {
		if of(d) {
			count.Add(1)
			size.Add(int64(len(d.Data)))
		}
	})
	return func() (packets, bytes int64) { return count.Load(), size.Load() }
}

// send puts a frame onto the segment at n, as its host would.
func (n *node) send(to l2.MAC, number uint32) {
	n.host.segment().Inject(l2test.Frame(to, n.mac(), number, 100))
}

// take returns the next frame that n's host gets, nil after the limit. What routers
// say unasked is passed over.
func (n *node) take(limit time.Duration) []byte {
	deadline := time.After(limit)
	for {
		select {
		case f := <-n.host.segment().Frames():
			if p, err := radv.Parse(f); err != nil || p.Message == nil {
				return f
			}
		case <-deadline:
			return nil
		}
	}
}

// reaches sends numbered frames from a to b until one arrives and returns how
// long that took.
func reaches(t *testing.T, a, b *node, limit time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	to := b.mac()
	for number := uint32(1); time.Since(began) < limit; number++ {
		a.send(to, number)
		if f := b.take(20 * time.Millisecond); f != nil {
			return time.Since(began)
		}
	}
	t.Fatalf("no frame from %s to %s within %v", a.name, b.name, limit)
	return 0
}
