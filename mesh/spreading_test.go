//go:build unix

package mesh_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/l2"
	"meshd/l2/l2test"
	"meshd/mesh/api"
	"meshd/peer/flood"
	"meshd/peer/udp/udptest"
)

// spreadFrame is so large that a copy of it is larger than any control message, and fits
// any path in one piece.
const (
	spreadFrame = 1000
	copyLen     = 32 + (4+flood.HeaderLen+spreadFrame+15)/16*16
)

// copies counts the copies that each host sends.
type copies struct {
	mu   sync.Mutex
	sent map[netip.Addr]int
}

func (w *world) countCopies() *copies {
	c := &copies{sent: map[netip.Addr]int{}}
	w.net.Tap(func(d udptest.Datagram) {
		if len(d.Data) == copyLen && d.Data[0] == 4 {
			c.mu.Lock()
			c.sent[d.From.Addrs()[0]]++
			c.mu.Unlock()
		}
	})
	return c
}

func (c *copies) take() (most, total int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.sent {
		most, total = max(most, n), total+n
	}
	clear(c.sent)
	return most, total
}

// spreads sends one frame to all and holds that all others but some get it once within a
// limit, and that nobody sends more copies than it may.
func spreads(t *testing.T, c *copies, nodes []*node, from int, dst l2.MAC, within time.Duration, but ...int) {
	t.Helper()
	drainAll(nodes...)
	c.take()
	f := l2test.Frame(dst, nodes[from].mac(), uint32(from), spreadFrame)
	began := time.Now()
	nodes[from].host.segment().Inject(f)
	time.Sleep(within)
	synctest.Wait()
	got := make([]int, len(nodes))
	count := func(pause time.Duration) {
		for i, n := range nodes {
			for n.take(pause) != nil {
				got[i]++
			}
		}
	}
	count(time.Nanosecond)
	for _, i := range append(but, from) {
		got[i] = 1
	}
	for i, n := range got {
		if n != 1 {
			t.Errorf("%d had it %d times after %v", i, n, within)
		}
	}
	time.Sleep(2 * time.Second)
	count(time.Nanosecond)
	for _, i := range append(but, from) {
		got[i] = 1
	}
	for i, n := range got {
		if n > 1 {
			t.Errorf("%d got it %d times", i, n)
		}
	}
	most, total := c.take()
	t.Logf("from %d after %v: %d copies, at most %d from one", from, time.Since(began), total, most)
	if most > flood.Fanout || total == 0 {
		t.Errorf("%d copies were sent, %d by one", total, most)
	}
}

// In a mesh of more than a few, what is for all goes by copies that members pass on.
func TestSpreading(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		const size = 18
		nodes := w.crowd(size)
		for _, n := range nodes {
			n.wait(api.WaitSpec{Peers: size - 1}, 60*time.Second)
		}
		c := w.countCopies()
		spreads(t, c, nodes, 3, broadcast, time.Second)
		spreads(t, c, nodes, 3, broadcast, 500*time.Millisecond) // most sessions are there
		spreads(t, c, nodes, 17, broadcast, time.Second)
		filmSpreads(t, nodes, 3)
		late := w.up(w.host("198.18.9.9"), "late", nodes[0].invite(1))
		late.waitReady(10 * time.Second)
		for _, n := range nodes {
			n.wait(api.WaitSpec{Peers: size}, 10*time.Second)
		}
		nodes = append(nodes, late)
		spreads(t, c, nodes, 11, broadcast, time.Second)
		spreads(t, c, nodes, size, broadcast, time.Second)
		dead := []int{5, 9, 16}
		for _, i := range dead {
			nodes[i].kill()
		}
		spreads(t, c, nodes, 11, broadcast, time.Second, dead...) // nobody knows yet
		time.Sleep(time.Minute)
		spreads(t, c, nodes, 12, broadcast, time.Second, dead...)
		w.floods(t, nodes, 12, dead...)
	})
}

// filmSpreads has two thirds of the hosts listen to a group: what is sent to it comes to these,
// by copies since they are many, and to no others.
func filmSpreads(t *testing.T, nodes []*node, from int) {
	t.Helper()
	time.Sleep(15 * time.Second) // members know what their hosts listen to
	want := ""
	for i, n := range nodes {
		if i%3 != from%3 {
			n.igmp(0x16, film)
			want += n.name
		}
	}
	time.Sleep(10 * time.Second)
	for range 3 {
		if got := nodes[from].films(film, nodes...); got != want {
			t.Errorf("%q got it, want %q", got, want)
		}
	}
}

// floods has one send far too much: nobody gets more than the limit, nor less than that.
func (w *world) floods(t *testing.T, nodes []*node, from int, but ...int) {
	t.Helper()
	drainAll(nodes...)
	const seconds = 1
	for began, i := time.Now(), 0; time.Since(began) < seconds*time.Second; i++ {
		nodes[from].host.segment().Inject(l2test.Frame(broadcast, nodes[from].mac(), uint32(i), 100))
		time.Sleep(time.Millisecond)
	}
	time.Sleep(time.Second)
	skip := map[int]bool{from: true}
	for _, i := range but {
		skip[i] = true
	}
	for i, n := range nodes {
		if skip[i] {
			continue
		}
		got, seen := 0, map[string]bool{}
		for {
			f := n.take(time.Nanosecond)
			if f == nil {
				break
			}
			got++
			seen[fmt.Sprintf("%x", f[:18])] = true
		}
		if got != len(seen) {
			t.Errorf("%d got %d frames, %d of them different", i, got, len(seen))
		}
		if most := l2.DefaultStormBurst + (seconds+1)*l2.DefaultStormRate; got > most || got < l2.DefaultStormBurst {
			t.Errorf("%d got %d frames of a storm, want at most %d", i, got, most)
		}
	}
}

// What broadcasts cost is what copies and repair cost: members that broadcast in turns keep
// some sessions more, and probe no more than when they are idle.
func TestSpreadingCost(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector, and TestSpreading has the same under it; this runs without it")
	}
	inWorld(t, 1, func(t *testing.T, w *world) {
		size := crowdSize(t)
		nodes := w.crowd(size)
		for _, n := range nodes {
			n.wait(api.WaitSpec{Peers: size - 1}, 60*time.Second)
		}
		turns := func(span time.Duration) {
			for i := range int(span / time.Second) {
				n := nodes[i*7%size]
				n.host.segment().Inject(l2test.Frame(broadcast, n.mac(), uint32(i), 100))
				time.Sleep(time.Second)
				for _, n := range nodes {
					for n.take(time.Nanosecond) != nil {
					}
				}
			}
		}
		turns(time.Minute)
		all := w.meter(func(udptest.Datagram) bool { return true })
		probes := w.meter(func(d udptest.Datagram) bool { return len(d.Data) > 0 && d.Data[0] == 0xd2 })
		began := time.Now()
		turns(2 * time.Minute)
		span := time.Since(began).Seconds() * float64(size)
		packets, bytes := all()
		_, probed := probes()
		t.Logf("one broadcast a second among %d: %.1f packets/s and %.0f bytes/s from each, of these %.0f of probes; %.1f sessions",
			size, float64(packets)/span, float64(bytes)/span, float64(probed)/span, sessions(nodes))
		if perSecond := float64(bytes) / span; perSecond > 1500 {
			t.Errorf("each sends %.0f bytes/s", perSecond)
		}
	})
}
