package gossip

import (
	"context"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"meshd/keys"
)

// mallet is a member that takes part in nothing and floods.
type mallet struct {
	*bench
	w *world
	r *rand.Rand
}

func newMallet(w *world, self int) *mallet {
	b := newBench()
	b.ids = w.ids
	b.network = w.network
	return &mallet{b, w, rand.New(rand.NewPCG(9, 9))}
}

// throw sends one packet of lies about random members to a random one. The lies know what has been believed so far.
func (m *mallet) throw(self int) {
	victim := m.w.nodes[m.w.ids[m.r.IntN(len(m.w.ids))]]
	if victim == nil {
		return
	}
	var lies []message
	for range 1 + m.r.IntN(6) {
		about, from := m.r.IntN(len(m.w.ids)), self
		if m.r.IntN(2) == 0 {
			from = m.r.IntN(len(m.w.ids))
		}
		victim.mu.Lock()
		incarnation := victim.table.peers[m.name(about)].incarnation
		victim.mu.Unlock()
		switch m.r.IntN(8) {
		case 0:
			incarnation += uint32(m.r.IntN(100))
		case 1:
			incarnation = ^uint32(0) >> m.r.IntN(3)
		}
		switch m.r.IntN(4) {
		case 0:
			lies = append(lies, m.suspect(about, from, incarnation))
		case 1, 2:
			lies = append(lies, m.dead(about, from, incarnation))
		case 3:
			lies = append(lies, m.alive(about, incarnation))
		}
	}
	victim.Receive(m.w.ids[self], m.packet(lies...))
}

// One of fifty floods accusations at 1,000 packets a second. Nothing changes after the first minute, so that two stand for
// more.
func TestFloodOfLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const self = 49
		w := newWorld(t, 50)
		for i := range self {
			w.start(i)
		}
		honest := func() (wrong int) { // what the flooder itself is thought to be does not count
			for _, n := range w.nodes {
				for _, id := range w.ids[:self] {
					if !n.Alive(id) {
						wrong++
					}
				}
			}
			return wrong
		}
		for honest() > 0 {
			time.Sleep(time.Second)
		}
		before := heap()
		m := newMallet(w, self)
		var worst, sum int
		sent := w.traffic()
		seconds := 120
		if testing.Short() {
			seconds = 10
		}
		for second := range seconds {
			for range 1000 {
				m.throw(self)
				time.Sleep(time.Millisecond)
			}
			synctest.Wait()
			wrong := honest()
			worst, sum = max(worst, wrong), sum+wrong
			if second == seconds/2 {
				t.Logf("memory of 49 nodes has grown by %d KiB", (heap()-before)>>10)
			}
		}
		t.Logf("during the flood: at worst %d of %d hints wrong, %.1f on average; %d bytes/s per node; drops %v",
			worst, self*self, float64(sum)/float64(seconds), (w.traffic()-sent)/seconds/self, w.nodes[w.ids[0]].Drops())
		if grown := heap() - before; grown > self<<20 {
			t.Errorf("memory has grown by %d KiB per node", grown>>10/self)
		}
		took := time.Duration(0)
		for start := time.Now(); honest() > 0; took = time.Since(start) {
			if took > time.Minute {
				t.Fatalf("%d hints are wrong a minute after the flood", honest())
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		t.Logf("all is right %v after it", took)
		for _, n := range w.nodes {
			if len(n.table.peers) != 50 {
				t.Errorf("%d peers", len(n.table.peers))
			}
			if inc := n.table.self.incarnation; inc > incarnationFloor+1000 {
				t.Errorf("incarnation %d", inc)
			}
		}
		w.stopAll()
	})
}

func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// A node that floods one member with everything the guard passes cannot keep it from answering honest probes.
func TestFloodOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		for i := range 9 {
			w.start(i)
		}
		time.Sleep(20 * time.Second)
		m := newMallet(w, 9)
		victim := w.nodes[w.ids[0]]
		for range 120 {
			for range 1000 {
				victim.Receive(w.ids[9], m.packet(m.suspect(0, 9, 1<<20), m.errand(3, 9), m.ping(0, 9)))
				time.Sleep(time.Millisecond)
			}
			for _, n := range w.nodes {
				if !n.Alive(victim.id) {
					t.Fatal("the victim is thought dead")
				}
			}
		}
		w.stopAll()
	})
}

// nowhere is a link to nobody.
type nowhere struct{}

func (nowhere) SendControl(keys.NodeID, []byte) error { return errNoPath }

// Whatever comes in, the guard and the memberlist behind it live on. Goroutines of memberlist's have no recover: a panic
// in one of them ends this process.
func FuzzIngest(f *testing.F) {
	b := newBench()
	f.Add(b.packet(b.ping(us, mallory)))
	f.Add(b.packet(b.alive(alice, 3), b.suspect(alice, bob, 3)))
	f.Add(b.packet(b.dead(mallory, mallory, 3)))
	f.Add(b.packet(b.suspect(us, mallory, 3), b.errand(alice, mallory)))
	g, err := New(Config{Self: b.ids[us], Network: b.network, Link: nowhere{}})
	if err != nil {
		f.Fatal(err)
	}
	g.SetMembers(b.ids[:stranger])
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, packet []byte) {
		g.mu.Lock()
		hop := g.table.peers[b.name(mallory)]
		for _, l := range []*rate.Limiter{hop.packets, hop.bytes, hop.accusations, hop.errands} {
			l.SetLimit(rate.Inf)
		}
		g.mu.Unlock()
		for range 3 {
			g.Receive(b.ids[mallory], packet)
		}
		for len(g.transport.packets) > 0 {
			runtime.Gosched()
		}
		if g.Drops()[dropPanic] > 0 {
			t.Error("the guard has failed")
		}
	})
}

func TestReceiveSurvivesItsOwnFaults(t *testing.T) {
	g, err := New(Config{Self: testID(1), Link: &node{}})
	if err != nil {
		t.Fatal(err)
	}
	g.SetMembers([]keys.NodeID{testID(2)})
	g.table.peers[testID(2).String()].packets = nil // whatever it is that breaks
	g.Receive(testID(2), []byte{1})
	if g.Drops()[dropPanic] != 1 {
		t.Errorf("drops %v", g.Drops())
	}
	g.Receive(testID(2), []byte{1}) // the lock is free
}

func TestNewWantsIdentityAndLink(t *testing.T) {
	if _, err := New(Config{Link: &node{}}); err == nil {
		t.Error("without id")
	}
	if _, err := New(Config{Self: testID(1)}); err == nil {
		t.Error("without link")
	}
}
