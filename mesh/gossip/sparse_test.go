package gossip

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/keys"
)

// sparse gives every node the six next to it on a ring as neighbours, with sessions but where no says so; it has a lock of
// its own, for gossip asks with its lock held.
func (w *world) sparse(no func(from, to keys.NodeID) bool) (talks map[[2]keys.NodeID]bool) {
	var mu sync.Mutex
	talks = map[[2]keys.NodeID]bool{}
	count := len(w.ids)
	near := func(a, b keys.NodeID) bool {
		d := (slices.Index(w.ids, a) - slices.Index(w.ids, b) + count) % count
		return d <= 3 || count-d <= 3
	}
	for i, id := range w.ids {
		n := w.start(i)
		var list []keys.NodeID
		for _, o := range w.ids {
			if o != id && near(id, o) {
				list = append(list, o)
			}
		}
		n.Reachable(func(o keys.NodeID) bool { return near(id, o) && !no(id, o) })
		n.SetNeighbours(list)
		for _, o := range list {
			n.Returned(o)
		}
	}
	w.setCut(func(a, b keys.NodeID) bool {
		mu.Lock()
		defer mu.Unlock()
		if !near(a, b) {
			talks[[2]keys.NodeID{a, b}] = true
		}
		return false
	})
	return talks
}

// With neighbours, nobody else is talked to while all is well, and yet all hear of a death and of a return.
func TestSparse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20)
		var dead atomic.Bool
		talks := w.sparse(func(_, to keys.NodeID) bool { return to == w.ids[7] && dead.Load() })
		t.Logf("all know all after %v", w.settle(time.Minute))
		time.Sleep(10 * time.Second)
		clear(talks)
		before := w.traffic()
		time.Sleep(time.Minute)
		synctest.Wait()
		t.Logf("idle: %d bytes/s per node", (w.traffic()-before)/60/20)
		if len(talks) > 0 {
			t.Errorf("%d pairs that are no neighbours talk", len(talks))
		}
		dead.Store(true)
		w.nodes[w.ids[7]].stop()
		took := w.settle(time.Minute)
		t.Logf("a death is known to all after %v", took)
		for i, id := range w.ids {
			if i != 7 && (!w.nodes[id].GivenUp(w.ids[7]) || !w.nodes[id].AllGivenUp()[w.ids[7]]) {
				t.Errorf("%x has not given it up", id[:2])
			}
		}
		clear(talks)
		time.Sleep(3 * time.Minute)
		if len(talks) > 19 {
			t.Errorf("%d pairs that are no neighbours talk because of one that is dead", len(talks))
		}
		w.stopAll()
	})
}

// A way that is broken between two neighbours is no death, and they do not go on about it.
func TestSparseBrokenPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		a, b := w.ids[3], w.ids[4]
		var broken atomic.Bool
		cut := func(x, y keys.NodeID) bool { return broken.Load() && (x == a && y == b || x == b && y == a) }
		w.sparse(cut)
		w.settle(time.Minute)
		quiet := w.traffic()
		time.Sleep(time.Minute)
		quiet = w.traffic() - quiet
		broken.Store(true)
		w.setCut(cut)
		time.Sleep(8 * time.Minute)
		synctest.Wait()
		before := w.traffic()
		wrong := 0
		for range 60 {
			time.Sleep(time.Second)
			synctest.Wait()
			for _, id := range w.ids {
				for _, of := range []keys.NodeID{a, b} {
					if id != of && !w.nodes[id].Alive(of) {
						wrong++
					}
				}
			}
		}
		if wrong > 60 { // by more than one at a time: such a hint is wrong once in some hundred runs, for a minute
			t.Errorf("a member that one neighbour does not reach is thought dead, %d times", wrong)
		}
		if after := w.traffic() - before; after > 2*quiet {
			t.Errorf("%d bytes in a minute with one broken way, %d without", after, quiet)
		}
		w.stopAll()
	})
}
