package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/keys"
)

var errNoPath = errors.New("no path")

// world carries packets between nodes after a delay, where cut and loss let it. It belongs in a synctest bubble.
type world struct {
	t       *testing.T
	network keys.NetworkID

	mu    sync.Mutex
	nodes map[keys.NodeID]*node
	ids   []keys.NodeID
	loss  float64
	cut   func(from, to keys.NodeID) bool
	sent  int
	bytes int
	rand  *rand.Rand
}

type node struct {
	*Gossip
	id     keys.NodeID
	world  *world
	cancel context.CancelFunc
	done   chan error
}

func testID(i int) keys.NodeID {
	return keys.NodeID{byte(i >> 8), byte(i), 0xaa, byte(i * 7)}
}

func newWorld(t *testing.T, n int) *world {
	w := &world{
		t: t, network: keys.NetworkID{1, 2, 3}, nodes: map[keys.NodeID]*node{},
		rand: rand.New(rand.NewPCG(1, uint64(n))),
	}
	for i := range n {
		w.ids = append(w.ids, testID(i+1))
	}
	return w
}

func (w *world) start(i int) *node {
	w.t.Helper()
	n := &node{id: w.ids[i], world: w, done: make(chan error, 1)}
	g, err := New(Config{Self: n.id, Network: w.network, Link: n})
	if err != nil {
		w.t.Fatal(err)
	}
	n.Gossip = g
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	g.SetMembers(w.ids)
	w.mu.Lock()
	w.nodes[n.id] = n
	w.mu.Unlock()
	go func() { n.done <- g.Run(ctx) }()
	return n
}

func (w *world) startAll() {
	for i := range w.ids {
		w.start(i)
	}
}

func (n *node) stop() {
	n.cancel()
	if err := <-n.done; err != nil {
		n.world.t.Error(err)
	}
	n.world.mu.Lock()
	delete(n.world.nodes, n.id)
	n.world.mu.Unlock()
}

func (w *world) stopAll() {
	w.mu.Lock()
	var all []*node
	for _, n := range w.nodes {
		all = append(all, n)
	}
	w.mu.Unlock()
	for _, n := range all {
		n.stop()
	}
	time.Sleep(time.Minute) // memberlist's last probes end; a bubble's time stands still once the test has returned
}

// SendControl delivers after 20 ms, or loses.
func (n *node) SendControl(to keys.NodeID, packet []byte) error {
	w := n.world
	if len(packet) > MaxPacket {
		w.t.Errorf("a packet of %d bytes", len(packet))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent++
	w.bytes += len(packet)
	if w.nodes[to] == nil || w.cut != nil && w.cut(n.id, to) {
		return errNoPath
	}
	if w.rand.Float64() < w.loss {
		return nil
	}
	packet = bytes.Clone(packet)
	time.AfterFunc(20*time.Millisecond, func() {
		w.mu.Lock()
		receiver := w.nodes[to]
		w.mu.Unlock()
		if receiver != nil {
			receiver.Receive(n.id, packet)
		}
	})
	return nil
}

func (w *world) traffic() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes
}

// wrong lists the hints that differ from what is so.
func (w *world) wrong() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, n := range w.nodes {
		for _, id := range w.ids {
			alive := w.nodes[id] != nil && (w.cut == nil || !w.cut(n.id, id))
			if n.Alive(id) != alive {
				out = append(out, fmt.Sprintf("%x about %x: alive is %v", n.id[:2], id[:2], !alive))
			}
		}
	}
	return out
}

// settle waits until every hint is right, and returns how long that took.
func (w *world) settle(limit time.Duration) time.Duration {
	w.t.Helper()
	start := time.Now()
	for {
		synctest.Wait()
		wrong := w.wrong()
		took := time.Since(start)
		if len(wrong) == 0 {
			return took
		}
		if took > limit {
			w.t.Fatalf("after %v, %d hints are wrong: %v", took, len(wrong), wrong[:min(len(wrong), 5)])
		}
		time.Sleep(500 * time.Millisecond)
	}
}
