//go:build unix

package mesh_test

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"meshd/peer/udp"
	"meshd/peer/udp/udptest"
)

// headers is what IPv4 and UDP add to a datagram on the uplink.
const headers = 28

// uplinks counts what each host sends, by kind.
type uplinks struct {
	mu    sync.Mutex
	bytes map[*udptest.Host]int
	kinds map[string][2]int // packets, bytes
}

func (w *world) uplinks() *uplinks {
	u := &uplinks{bytes: map[*udptest.Host]int{}, kinds: map[string][2]int{}}
	w.net.Tap(func(d udptest.Datagram) {
		u.mu.Lock()
		defer u.mu.Unlock()
		kind := kindOf(d.Data)
		u.bytes[d.From] += len(d.Data) + headers
		k := u.kinds[kind]
		u.kinds[kind] = [2]int{k[0] + 1, k[1] + len(d.Data) + headers}
	})
	return u
}

// kindOf names a datagram.
func kindOf(b []byte) string {
	switch kind := udp.Classify(b); {
	case kind != udp.KindWireGuard:
		return fmt.Sprint(kind)
	case b[0] != 4:
		return "handshake"
	case len(b) == 32:
		return "keepalive"
	}
	return "transport"
}

// reachable is how many of a crowd are behind no NAT.
const reachable = 2

// A hundred idle members, nearly all behind NATs of their own: each keeps a session with its
// neighbours and few others, and sends less than 1 kB a second in all. Those who can be reached
// are contacts of everybody's, and may send more. Any two exchange a frame within 1.5 s.
func TestHundredIdle(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute under the race detector; the same without it runs too")
	}
	inWorld(t, 1, func(t *testing.T, w *world) {
		const size = 100
		nodes := w.homes(size)
		time.Sleep(6 * time.Minute) // what joining has begun ends
		limit := 2 * (math.Log2(size) + 4)
		most, wrong, over := 0, 0, 0
		for _, n := range nodes {
			count := 0
			for _, p := range n.status().Peers {
				if p.State.Connected() {
					count++
				} else if !p.State.Alive() {
					wrong++
				}
			}
			most = max(most, count)
			if float64(count) > limit {
				over++
			}
		}
		if wrong > size/10 { // hints
			t.Errorf("%d times a member that lives is not thought to", wrong)
		}
		if over > size/8 { // those who relay to many have more
			t.Errorf("%d members have more than %.0f sessions", over, limit)
		}
		u, used := w.uplinks(), cpu(t)
		const span = 2 * time.Minute
		time.Sleep(span)
		u.mu.Lock()
		worst, public, sum := 0, 0, 0
		for i, n := range nodes {
			b := u.bytes[n.host.machine]
			if sum += b; i < reachable {
				public = max(public, b)
			} else {
				worst = max(worst, b)
			}
		}
		for kind, k := range u.kinds {
			t.Logf("%s: %.2f packets/s, %.0f bytes/s", kind, float64(k[0])/span.Seconds()/size, float64(k[1])/span.Seconds()/size)
		}
		u.mu.Unlock()
		t.Logf("%d sessions at most; sent in all %.0f bytes/s on average, %.0f at most, %.0f by who can be reached; %.1f ms of processor time per node and minute",
			most, float64(sum)/span.Seconds()/size, float64(worst)/span.Seconds(), float64(public)/span.Seconds(),
			float64((cpu(t)-used).Microseconds())/1000/span.Minutes()/size)
		if worst > 1000*int(span.Seconds()) {
			t.Errorf("a node sent %d bytes in %v, want less than 1000 a second", worst, span)
		}
		firstFrames(t, nodes)
	})
}

// homes is a crowd of whom a few advertise their addresses and the others are behind NATs that can be punched.
func (w *world) homes(n int) []*node {
	w.t.Helper()
	w.level = 8
	var nodes []*node
	invite := ""
	for i := range n {
		addr, name := fmt.Sprintf("198.18.%d.%d", i/200, i%200+1), fmt.Sprint("n", i)
		var h *host
		if i < reachable {
			h = w.host(addr)
			h.machine.SetLink(line10ms, line10ms)
		} else {
			h = w.behindNAT(addr, udptest.NATConfig{Filtering: udptest.AddressAndPortDependent, InboundRefresh: true})
		}
		cfg := w.config(h, name, filepath.Join(w.t.TempDir(), name))
		if i < reachable {
			cfg.Advertise = []string{addr + ":51830"}
		}
		if i > 0 {
			cfg.Join = []string{invite}
		}
		nodes = append(nodes, w.run(h, name, cfg))
		if i == 0 {
			nodes[0].waitReady(5 * time.Second)
			invite = nodes[0].invite(n)
		}
		if i%20 == 19 || i == n-1 {
			for _, n := range nodes[max(1, i-19):] {
				n.waitReady(20 * time.Second)
			}
		}
	}
	return nodes
}

// firstFrames measures how soon a frame between members without a session arrives.
func firstFrames(t *testing.T, nodes []*node) {
	t.Helper()
	var times []time.Duration
	for i := range nodes {
		a, b := nodes[i], nodes[(i*37+50)%len(nodes)]
		if a == b || a.peer(b.name).State.Connected() {
			continue
		}
		times = append(times, reaches(t, a, b, 1500*time.Millisecond))
		if len(times) == 30 {
			break
		}
	}
	if len(times) < 20 {
		t.Errorf("only %d pairs had no session", len(times))
		return
	}
	slices.Sort(times)
	t.Logf("first frame between two of %d cold pairs: median %v, at most %v", len(times), times[len(times)/2], times[len(times)-1])
}
