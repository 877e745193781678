package peer_test

import (
	"testing"
	"testing/synctest"
	"time"

	"meshd/keys"
	"meshd/peer"
	"meshd/peer/udp/udptest"
)

// partial sends frames without their checksums until one is taken, or for a time, and
// reports whether it was.
func partial(from, to *node, size, csumStart int, limit time.Duration) bool {
	for began := time.Now(); time.Since(began) < limit; {
		took := from.remote(to).Send(frame(size, 1), csumStart)
		if !took {
			from.remote(to).Send(frame(size, 2), 0) // as l2 does
		}
		from.remote(to).Flush()
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if took {
			return true
		}
	}
	return false
}

// count returns how many frames came without their checksums, and how many in all.
func (n *node) count() (left, all int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, start := range n.starts {
		if start != 0 {
			left++
		}
	}
	return left, len(n.starts)
}

// Checksums are left out between two that both take such frames, and only then: also
// after restarts with another version, with loss, in pieces, under new keys.
func TestChecksumsLeftOut(t *testing.T) {
	for name, test := range map[string]struct {
		older [2]bool
		loss  float64
		want  bool
	}{
		"both":            {want: true},
		"both, with loss": {loss: 0.3, want: true},
		"receiver older":  {older: [2]bool{false, true}},
		"sender older":    {older: [2]bool{true, false}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := udptest.NewInternet(3)
				net.LogOnFailure(t)
				in := newNetwork(t)
				a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
				for i, n := range []*node{a, b} {
					if n.older = test.older[i]; n.older {
						n.stop()
						n.run()
					}
				}
				meet(t, a, b)
				a.host.SetLink(udptest.Link{Delay: time.Millisecond, Loss: test.loss}, udptest.Link{Delay: time.Millisecond, Loss: test.loss})
				for _, size := range []int{300, 1514} {
					if got := partial(a, b, size, 34, 5*time.Second); got != test.want {
						t.Errorf("%d bytes: left out: %v, want %v", size, got, test.want)
					}
				}
				a.host.SetLink(udptest.Link{}, udptest.Link{})
				if test.want { // the loss is over: as a whole, and in pieces
					before, _ := b.count()
					for _, size := range []int{300, 1514} {
						if !a.remote(b).Send(frame(size, 1), 511) {
							t.Errorf("%d bytes are refused", size)
						}
						a.remote(b).Flush()
					}
					eventually(t, time.Second, "both arrive", func() bool { n, _ := b.count(); return n == before+2 })
				}
				if left, all := b.count(); (left > 0) != test.want || all == 0 {
					t.Errorf("%d of %d frames came without", left, all)
				}
			})
		})
	}
}

// What a process can is forgotten with its keys: nothing that the next version does
// not take ever reaches it.
func TestFeaturesEndWithTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		net.LogOnFailure(t)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		meet(t, a, b)
		for i, older := range []bool{false, true, false, true} {
			if i > 0 {
				b.stop()
				b.older, b.starts, b.frames = older, nil, nil
				b.run()
				meet(t, b, a)
			}
			began := time.Now()
			eventually(t, 60*time.Second, "frames arrive", func() bool {
				partial(a, b, 300, 34, time.Millisecond)
				_, all := b.count()
				return all > 0
			})
			got := partial(a, b, 300, 34, 2*time.Second)
			if left, all := b.count(); got == older || older && left > 0 || all == 0 {
				t.Errorf("life %d, older: %v: taken: %v, %d of %d frames came without, %v", i, older, got, left, all, time.Since(began))
			}
		}
	})
}

// A new key is no reason to refuse for long.
func TestFeaturesThroughRekeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		net.LogOnFailure(t)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		meet(t, a, b)
		if !partial(a, b, 300, 34, time.Second) {
			t.Fatal("not taken within a second")
		}
		refused := 0
		for began := time.Now(); time.Since(began) < 5*time.Minute; { // through two rekeys
			if !a.remote(b).Send(frame(300, 1), 34) {
				refused++
				a.remote(b).Send(frame(300, 1), 0)
			}
			a.remote(b).Flush()
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		if refused == 0 || refused > 10 {
			t.Errorf("%d frames in two rekeys had to be completed", refused)
		}
	})
}

// Who exchanges frames knows how far the other's clock is ahead, however far that is, and also after a restart with
// another clock.
func TestClockAhead(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour, 10 * year, -20 * year} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := udptest.NewInternet(3)
				net.LogOnFailure(t)
				in := newNetwork(t)
				a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
				anyTime := func(chain []byte, now time.Time) (*keys.Certificate, error) {
					c, err := in.trust.Verify(chain, now)
					if c != nil { // as mesh judges
						return c, nil
					}
					return nil, err
				}
				b.ahead = ahead
				for _, n := range []*node{a, b} {
					n.stop()
					n.cfg.Verify = anyTime
					n.run()
				}
				known := func(want time.Duration) {
					t.Helper()
					meet(t, a, b)
					for range 100 { // 5 s
						for _, to := range []*peer.Remote{a.remote(b), b.remote(a)} {
							to.Send(frame(100, 1), 0)
							to.Flush()
						}
						time.Sleep(50 * time.Millisecond)
					}
					for _, side := range []struct {
						of, by *node
						want   time.Duration
					}{{b, a, want}, {a, b, -want}} {
						got, told := side.by.remote(side.of).ClockAhead(time.Now().Add(side.by.ahead))
						if d := got - side.want; !told || d < -time.Second || d > time.Second {
							t.Errorf("the clock is ahead by %v (told: %v), want %v", got, told, side.want)
						}
					}
				}
				known(ahead)
				b.stop()
				b.ahead = 0
				b.run()
				known(0)
			})
		})
	}
}
