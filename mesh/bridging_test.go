package mesh_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/l2"
	"meshd/l2/bridge"
	"meshd/l2/l2test"
	"meshd/mesh"
	"meshd/mesh/api"
)

// wire is a LAN: what one port sends, the others get.
type wire struct {
	host func(frame []byte) (answer []byte) // a host of it; nil: it has none

	mu   sync.Mutex
	seen [][]byte
}

// lanHost is a host that bridges a wire.
type lanHost struct {
	*host
	lan  *wire
	deaf bool // once bridged it reaches nobody

	mu     sync.Mutex
	on     bool
	stuck  bool // it cannot be undone
	tries  int  // to undo it
	undone int
	old    []netip.Addr // deprecated
}

// OpenSegment implements mesh.Host: the device is a port of the wire while it is bridged.
func (h *lanHost) OpenSegment(cfg l2.TAPConfig) (l2.Device, error) {
	d, err := h.host.OpenSegment(cfg)
	return d, err
}

func (h *lanHost) CheckBridge(string) error { return nil }

func (h *lanHost) OpenBridge(cfg bridge.Config, _ []byte) (mesh.Bridged, error) {
	if err := cfg.Note([]byte("bridged")); err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.on = true
	h.mu.Unlock()
	if h.deaf {
		h.machine.SetAddr()
	}
	return h, nil
}

func (h *lanHost) Name() string                      { return "br0" }
func (h *lanHost) Sync() []bridge.Problem            { return nil }
func (h *lanHost) SetAddresses([]netip.Prefix) error { return nil }

func (h *lanHost) Deprecate(old []netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.old = slices.Clone(old)
	return nil
}

func (h *lanHost) Link() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.on
}

func (h *lanHost) Undo() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tries++
	if h.stuck {
		return errors.New("the kernel will not")
	}
	h.on = false
	h.undone++
	return nil
}

// carry moves frames between the hosts of a wire until ctx ends.
func (w *wire) carry(ctx context.Context, hosts ...*lanHost) {
	for ctx.Err() == nil {
		for _, from := range hosts {
			d := from.segment()
			if d == nil || !from.Link() {
				continue
			}
			select {
			case f := <-d.Frames():
				w.send(f, from, hosts...)
			default:
			}
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *wire) send(f []byte, from *lanHost, hosts ...*lanHost) {
	w.mu.Lock()
	w.seen = append(w.seen, slices.Clone(f))
	w.mu.Unlock()
	for _, to := range hosts {
		if d := to.segment(); to != from && d != nil && to.Link() {
			d.Inject(f)
		}
	}
	if w.host == nil {
		return
	}
	if answer := w.host(f); answer != nil {
		w.send(answer, nil, hosts...)
	}
}

// count is how often a frame was on the wire.
func (w *wire) count(frame []byte) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.seen {
		if slices.Equal(f, frame) {
			n++
		}
	}
	return n
}

// bridging starts a node that bridges, by an invite.
func (w *world) bridging(h *lanHost, name, state, invite string) *node {
	cfg := w.config(h.host, name, state)
	cfg.Bridge = "br0"
	h.host.tcp = h
	if invite != "" {
		cfg.Join = []string{invite}
	}
	return w.run(h.host, name, cfg)
}

func (n *node) bridgeIs(state string) bool {
	b := n.status().Self.Bridge
	return b != nil && b.State == state
}

// TestTwoBridgeOneLAN has whole nodes, in simulated time, elect a forwarder, and another
// when that is gone; a broadcast is on the LAN once, and what is for a station there goes
// by the forwarder, whoever that is.
func TestTwoBridgeOneLAN(t *testing.T) {
	inWorld(t, 16, func(t *testing.T, w *world) {
		home := w.up(w.host("198.18.0.1"), "home")
		home.waitReady(5 * time.Second)
		invite, err := home.ask().Invite(t.Context(), api.InviteOptions{Uses: 2, Expires: time.Hour, Roles: []string{"bridge"}})
		if err != nil {
			t.Fatal(err)
		}
		lan := &wire{}
		hosts := []*lanHost{{host: w.host("198.18.0.2"), lan: lan}, {host: w.host("198.18.0.3"), lan: lan}}
		ctx, stop := context.WithCancel(t.Context())
		var carrying sync.WaitGroup
		defer carrying.Wait()
		defer stop()
		carrying.Go(func() { lan.carry(ctx, hosts...) })
		one := w.bridging(hosts[0], "one", t.TempDir()+"/one", invite)
		two := w.bridging(hosts[1], "two", t.TempDir()+"/two", invite)
		one.waitReady(10 * time.Second)
		two.waitReady(10 * time.Second)
		for _, n := range []*node{one, two} {
			if !n.bridgeIs("forwarding") && !n.bridgeIs("blocked") {
				t.Errorf("%s is ready while its port is %s", n.name, n.status().Self.Bridge.State)
			}
		}
		home.wait(api.WaitSpec{Peers: 2}, 10*time.Second)
		time.Sleep(3 * time.Second)
		forwarder, blocked := one, two
		if two.bridgeIs("forwarding") {
			forwarder, blocked = two, one
		}
		if !forwarder.bridgeIs("forwarding") || !blocked.bridgeIs("blocked") {
			t.Fatalf("%+v, %+v", one.status().Self.Bridge, two.status().Self.Bridge)
		}
		if a, b := one.status().Self.Bridge, two.status().Self.Bridge; a.Segment != b.Segment || a.Forwarder != forwarder.name || b.Forwarder != forwarder.name {
			t.Errorf("%+v, %+v", a, b)
		}
		all := l2.MAC{255, 255, 255, 255, 255, 255}
		home.send(all, 1)
		time.Sleep(time.Second)
		if n := lan.count(l2test.Frame(all, home.mac(), 1, 100)); n != 1 {
			t.Errorf("a broadcast was on the LAN %d times", n)
		}
		station := l2.MAC{2, 0, 0, 0, 0, 0x55}
		lan.send(l2test.Frame(all, station, 1, 100), nil, hosts...)
		time.Sleep(2 * time.Second) // of gossip
		forwarder.kill()
		time.Sleep(time.Second)
		for n := uint32(3); n < 5; n++ {
			home.send(station, n)
			time.Sleep(100 * time.Millisecond)
			if got := lan.count(l2test.Frame(station, home.mac(), n, 100)); got != 1 {
				t.Errorf("frame %d to a station of the LAN was there %d times", n, got)
			}
			lan.send(l2test.Frame(all, station, n, 100), nil, hosts...) // which was silent until then
			time.Sleep(100 * time.Millisecond)
		}
		if !blocked.bridgeIs("forwarding") {
			t.Errorf("a second after the forwarder's end: %+v", blocked.status().Self.Bridge)
		}
		home.send(all, 2)
		time.Sleep(time.Second)
		if n := lan.count(l2test.Frame(all, home.mac(), 2, 100)); n != 1 {
			t.Errorf("after that a broadcast was on the LAN %d times", n)
		}
	})
}

// firstBridge is a host that bridges its LAN for the first time, in the network of another.
func (w *world) firstBridge() (h *lanHost, first *node, state string) {
	w.t.Helper()
	home := w.up(w.host("198.18.0.1"), "home")
	home.waitReady(5 * time.Second)
	invite, err := home.ask().Invite(w.t.Context(), api.InviteOptions{Uses: 1, Expires: time.Hour, Roles: []string{"bridge"}})
	if err != nil {
		w.t.Fatal(err)
	}
	h = &lanHost{host: w.host("198.18.0.2"), lan: &wire{}}
	state = w.t.TempDir() + "/one"
	first = w.bridging(h, "one", state, invite)
	first.waitReady(10 * time.Second)
	return h, first, state
}

// TestBridgeWithoutAnswer undoes the bridge after 30 s when it has cost the node its
// members, and tries again once one answers.
func TestBridgeWithoutAnswer(t *testing.T) {
	inWorld(t, 17, func(t *testing.T, w *world) {
		h, first, state := w.firstBridge()
		time.Sleep(time.Minute)
		if !h.Link() {
			t.Fatal("undone although home answers")
		}
		if err := first.stop(); err != nil || h.Link() {
			t.Fatalf("%v, still bridged %v", err, h.Link())
		}
		h.deaf = true
		one := w.bridging(h, "one", state, "")
		one.waitReady(10 * time.Second)
		time.Sleep(28 * time.Second)
		if !h.Link() {
			t.Fatal("undone too soon")
		}
		time.Sleep(4 * time.Second)
		if h.Link() || !slices.ContainsFunc(one.status().Health, func(l api.Health) bool { return l.Code == "bridge-undone" }) {
			t.Fatalf("after 32 s: bridged %v, health %+v", h.Link(), one.status().Health)
		}
		h.deaf = false
		time.Sleep(2 * time.Minute)
		if h.Link() {
			t.Fatal("bridged again although nobody answers")
		}
		h.machine.SetAddr(netip.MustParseAddr("198.18.0.2"))
		time.Sleep(2 * time.Minute)
		if !h.Link() {
			t.Fatalf("not tried again: %+v", one.status().Health)
		}
	})
}

// TestBridgeCannotBeUndone has the host refuse for a while: the node says so, tries on, and counts that as one trial.
func TestBridgeCannotBeUndone(t *testing.T) {
	inWorld(t, 19, func(t *testing.T, w *world) {
		h, first, state := w.firstBridge()
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		h.deaf, h.stuck = true, true
		one := w.bridging(h, "one", state, "")
		one.waitReady(10 * time.Second)
		has := func(code string) bool {
			return slices.ContainsFunc(one.status().Health, func(l api.Health) bool { return l.Code == code })
		}
		time.Sleep(5 * time.Minute)
		if !h.Link() || !has("bridge") || has("bridge-undone") {
			t.Errorf("while it cannot be undone: bridged %v, health %+v", h.Link(), one.status().Health)
		}
		h.mu.Lock()
		if h.tries < 20 || h.tries > 40 { // every 10 s
			t.Errorf("tried %d times in 5 minutes", h.tries)
		}
		h.stuck = false
		h.mu.Unlock()
		time.Sleep(15 * time.Second)
		if h.Link() || has("bridge") || !has("bridge-undone") {
			t.Fatalf("then: bridged %v, health %+v", h.Link(), one.status().Health)
		}
		h.deaf = false
		h.machine.SetAddr(netip.MustParseAddr("198.18.0.2"))
		time.Sleep(2 * time.Minute)
		if !h.Link() {
			t.Errorf("after one trial it is not tried again within two minutes: %+v", one.status().Health)
		}
	})
}

// TestNotBridgedWithoutRole has a member that may not.
func TestNotBridgedWithoutRole(t *testing.T) {
	inWorld(t, 18, func(t *testing.T, w *world) {
		home := w.up(w.host("198.18.0.1"), "home")
		home.waitReady(5 * time.Second)
		h := &lanHost{host: w.host("198.18.0.2"), lan: &wire{}}
		one := w.bridging(h, "one", t.TempDir()+"/one", home.invite(1))
		one.waitReady(10 * time.Second)
		time.Sleep(5 * time.Second)
		health := one.status().Health
		i := slices.IndexFunc(health, func(l api.Health) bool { return l.Code == "bridge-role" })
		if h.Link() || i < 0 || !strings.Contains(health[i].Remedy, "meshd role") {
			t.Fatalf("bridged %v, health %+v", h.Link(), health)
		}
	})
}

// TestBridgeDeprecates has the address of a removed prefix deprecated where it is.
func TestBridgeDeprecates(t *testing.T) {
	inWorld(t, 19, func(t *testing.T, w *world) {
		h := &lanHost{host: w.host("198.18.0.1"), lan: &wire{}}
		home := w.bridging(h, "home", t.TempDir()+"/home", "")
		home.waitReady(5 * time.Second)
		old := netip.MustParsePrefix("2001:db8:1::/64")
		for _, c := range []api.PrefixChange{{Add: []netip.Prefix{old}, Lifetime: time.Minute}, {Remove: []netip.Prefix{old}}} {
			if _, err := home.ask().Prefixes(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.old) != 1 || !old.Contains(h.old[0]) {
			t.Errorf("deprecated on the bridge: %v", h.old)
		}
	})
}
