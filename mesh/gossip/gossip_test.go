package gossip

import (
	"testing"
	"testing/synctest"
	"time"

	"meshd/keys"
)

func TestMembersFindEachOther(t *testing.T) {
	for name, n := range map[string]int{"two": 2, "three": 3, "fifty": 50} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, n)
				w.startAll()
				t.Logf("all know all after %v", w.settle(2*time.Minute))
				before := w.traffic()
				time.Sleep(time.Minute)
				t.Logf("idle: %d bytes/s per node", (w.traffic()-before)/60/n)
				w.stopAll()
			})
		})
	}
}

func TestMemberDiesAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.startAll()
		w.settle(time.Minute)
		w.nodes[w.ids[3]].stop()
		t.Logf("dead after %v", w.settle(2*time.Minute))
		time.Sleep(3 * time.Minute) // longer than memberlist remembers the dead
		w.start(3)
		t.Logf("back after %v", w.settle(30*time.Second))
		w.stopAll()
	})
}

func TestQuickRestartIsNoDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.startAll()
		w.settle(time.Minute)
		w.nodes[w.ids[3]].stop()
		time.Sleep(time.Second)
		w.start(3)
		w.settle(30 * time.Second)
		for range 120 {
			time.Sleep(time.Second)
			synctest.Wait()
			if !w.nodes[w.ids[0]].Alive(w.ids[3]) {
				t.Fatal("a member that restarted quickly is thought dead later")
			}
		}
		w.stopAll()
	})
}

func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.startAll()
		w.settle(time.Minute)
		n := w.nodes[w.ids[3]]
		n.Leave()
		n.stop()
		if took := w.settle(time.Minute); took > 2*time.Second {
			t.Errorf("a goodbye took %v", took)
		}
		time.Sleep(15 * time.Second)
		w.start(3)
		w.settle(30 * time.Second)
		w.stopAll()
	})
}

func TestRemovedMemberIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		w.startAll()
		w.settle(time.Minute)
		gone := w.ids[4]
		all := w.ids
		for _, id := range all[:4] {
			w.nodes[id].SetMembers(all[:4])
		}
		time.Sleep(time.Second)
		if w.nodes[all[0]].Alive(gone) {
			t.Error("alive after it was removed")
		}
		for _, id := range all[:4] {
			w.nodes[id].SetMembers(all)
		}
		w.settle(2 * time.Minute)
		w.stopAll()
	})
}

func TestPartitionHeals(t *testing.T) {
	for name, length := range map[string]time.Duration{"30 s": 30 * time.Second, "10 min": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, crowd())
				w.startAll()
				w.settle(2 * time.Minute)
				side := map[keys.NodeID]bool{}
				for _, id := range w.ids[:crowd()/2] {
					side[id] = true
				}
				w.setCut(func(a, b keys.NodeID) bool { return side[a] != side[b] })
				time.Sleep(length)
				if length > 5*time.Minute {
					w.settle(0)
				}
				w.setCut(nil)
				t.Logf("healed after %v", w.settle(2*time.Minute))
				w.stopAll()
			})
		})
	}
}

// crowd is how many nodes are many: fewer where the race detector makes each dear.
func crowd() int {
	if testing.Short() {
		return 16
	}
	return 50
}

func (w *world) setCut(f func(a, b keys.NodeID) bool) {
	w.mu.Lock()
	w.cut = f
	w.mu.Unlock()
}

func TestLossCausesNoLastingError(t *testing.T) {
	for name, loss := range map[string]float64{"10 %": 0.1, "30 %": 0.3} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 20)
				w.loss = loss
				w.startAll()
				w.settle(2 * time.Minute)
				since := map[string]time.Time{}
				var longest time.Duration
				errors, samples := 0, 0
				for range 600 {
					time.Sleep(time.Second)
					synctest.Wait()
					now, wrong := time.Now(), w.wrong()
					still := map[string]time.Time{}
					for _, s := range wrong {
						still[s] = now
						if t0, ok := since[s]; ok {
							still[s] = t0
						}
						longest = max(longest, now.Sub(still[s]))
					}
					since = still
					errors += len(wrong)
					samples += 20 * 20
				}
				t.Logf("%.4f %% of hints wrong, the longest for %v", 100*float64(errors)/float64(samples), longest)
				if longest > 30*time.Second {
					t.Errorf("a hint was wrong for %v", longest)
				}
				if loss <= 0.1 && errors > 0 {
					t.Errorf("%d wrong hints at 10 %% loss", errors)
				}
				w.stopAll()
			})
		})
	}
}
