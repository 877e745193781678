//go:build unix

package mesh_test

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"meshd/l2"
	"meshd/l2/l2test"
	"meshd/mesh/api"
	"meshd/peer/udp/udptest"
)

// crowd starts n nodes, forty at a time.
func (w *world) crowd(n int) []*node {
	w.t.Helper()
	w.level = 8 // nothing is logged
	nodes := []*node{w.up(w.host("198.18.0.1"), "n0")}
	nodes[0].waitReady(5 * time.Second)
	invite := nodes[0].invite(n)
	for i := 1; i < n; i++ {
		h := w.host(fmt.Sprintf("198.18.%d.%d", i/200, i%200+1))
		h.machine.SetLink(line10ms, line10ms)
		nodes = append(nodes, w.up(h, fmt.Sprint("n", i), invite))
		if i%40 == 0 || i == n-1 {
			for _, n := range nodes[max(1, i-39):] {
				n.waitReady(20 * time.Second)
			}
		}
	}
	return nodes
}

// cpu is the processor time that this process has used.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// sessions is how many members each node has a session with, on average.
func sessions(nodes []*node) float64 {
	count := 0
	for _, n := range nodes {
		for _, p := range n.status().Peers {
			if p.State.Connected() {
				count++
			}
		}
	}
	return float64(count) / float64(len(nodes))
}

// crowdSize is 16, or what MESHD_CROWD says.
func crowdSize(t *testing.T) int {
	if size, err := strconv.Atoi(os.Getenv("MESHD_CROWD")); err == nil {
		return size
	}
	t.Log("MESHD_CROWD=50 measures a larger one")
	return 16
}

// Many nodes find each other, hear each other's broadcasts once and news soon, and
// cost little while they carry nothing.
func TestCrowd(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		size := crowdSize(t)
		began, used := time.Now(), cpu(t)
		nodes := w.crowd(size)
		for _, n := range nodes {
			n.wait(api.WaitSpec{Peers: size - 1}, 60*time.Second)
		}
		t.Logf("%d know all after %v, %v of processor time", size, time.Since(began), cpu(t)-used)
		allReachAll(t, nodes)
		oneBroadcast(t, nodes)
		newRecord(t, nodes)
		time.Sleep(8 * time.Minute) // what the tests above have begun ends
		idle(t, w, nodes)
	})
}

// allReachAll sends a frame from each to each, and counts what arrives.
func allReachAll(t *testing.T, nodes []*node) {
	t.Helper()
	began := time.Now()
	drainAll(nodes...)
	macs := make([]l2.MAC, len(nodes))
	for i, n := range nodes {
		macs[i] = n.mac()
	}
	for i := range nodes {
		for j, to := range macs {
			if i != j {
				nodes[i].host.segment().Inject(l2test.Frame(to, macs[i], uint32(i), 100))
			}
		}
	}
	for j, n := range nodes {
		got := map[l2.MAC]int{}
		for len(got) < len(nodes)-1 {
			f := n.take(5 * time.Second)
			if f == nil {
				t.Fatalf("%s got frames of %d members within 5 s, want %d", n.name, len(got), len(nodes)-1)
			}
			if dst := l2.MAC(f[:6]); dst != macs[j] {
				t.Fatalf("%s got a frame for %v", n.name, dst)
			}
			got[l2.MAC(f[6:12])]++
		}
	}
	t.Logf("a frame from each to each after %v", time.Since(began))
}

// oneBroadcast reaches each exactly once.
func oneBroadcast(t *testing.T, nodes []*node) {
	t.Helper()
	time.Sleep(2 * time.Second)
	drainAll(nodes...)
	nodes[len(nodes)/2].send(broadcast, 4711)
	time.Sleep(2 * time.Second)
	for i, n := range nodes {
		got := 0
		for n.take(time.Millisecond) != nil {
			got++
		}
		if got != 1 && i != len(nodes)/2 {
			t.Errorf("%s got a broadcast %d times", n.name, got)
		}
	}
}

// newRecord moves a node: its new endpoint is known everywhere within 10 s.
func newRecord(t *testing.T, nodes []*node) {
	t.Helper()
	time.Sleep(30 * time.Second)
	v := nodes[len(nodes)-1]
	v.host.move("198.19.99.99")
	began := time.Now()
	for _, n := range nodes[:len(nodes)-1] {
		for !n.knows(v.name, "198.19.99.99:51830") {
			if time.Since(began) > 10*time.Second {
				t.Fatalf("%s has not heard of a new address within 10 s: %+v", n.name, n.peer(v.name).Paths)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	t.Logf("a new address is known to all after %v", time.Since(began))
}

// knows says whether an address is among the ways to a member.
func (n *node) knows(name, addr string) bool {
	for _, p := range n.peer(name).Paths {
		if p.Endpoint == addr {
			return true
		}
	}
	return false
}

// idle measures what a mesh costs that carries nothing.
func idle(t *testing.T, w *world, nodes []*node) {
	t.Helper()
	const minutes = 1
	kinds := map[string]func() (int64, int64){}
	for name, of := range map[string]func(b byte) bool{
		"sessions": func(b byte) bool { return b == 4 }, "handshakes": func(b byte) bool { return b == 1 || b == 2 },
		"probes": func(b byte) bool { return b == 0xd2 }, "hellos": func(b byte) bool { return b == 0xd1 },
	} {
		kinds[name] = w.meter(func(d udptest.Datagram) bool { return len(d.Data) > 0 && of(d.Data[0]) })
	}
	meter, used, began := w.meter(func(udptest.Datagram) bool { return true }), cpu(t), time.Now()
	time.Sleep(minutes * time.Minute)
	packets, bytes := meter()
	span := time.Since(began).Seconds() * float64(len(nodes))
	t.Logf("idle: %.1f sessions a node; sent by each %.2f packets/s, %.0f bytes/s; %.2f ms of processor time per node and minute",
		sessions(nodes), float64(packets)/span, float64(bytes)/span, float64((cpu(t)-used).Microseconds())/1000/minutes/float64(len(nodes)))
	for name, meter := range kinds {
		p, b := meter()
		t.Logf("idle: of these %s %.2f packets/s, %.0f bytes/s", name, float64(p)/span, float64(b)/span)
	}
	if perSecond := float64(packets) / span; perSecond > 10 {
		t.Errorf("an idle node sends %.1f packets/s", perSecond)
	}
}
