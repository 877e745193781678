package peer_test

import (
	"encoding/binary"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/peer/udp/udptest"
)

// Goroutines that send side by side, from before there is a session: the frames of
// each arrive in order, whole and in pieces, and none is lost.
func TestLanesKeepOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(5)
		net.LogOnFailure(t)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		a.stop()
		a.lanes = 3
		a.run()
		meet(t, a, b)
		const each = 300
		var senders sync.WaitGroup
		for n := range 4 { // the last shares the first's
			senders.Go(func() {
				lane := a.remote(b).Lane(n)
				for i := range each {
					f := frame([]int{60, 700, 1514}[i%3], n)
					binary.BigEndian.PutUint32(f[20:], uint32(i))
					lane.Send(f, 0)
					if i%7 == n {
						lane.Flush()
					}
					if i < 20 {
						time.Sleep(time.Millisecond) // a session comes meanwhile
					}
					runtime.Gosched()
				}
				lane.Flush()
			})
		}
		senders.Wait()
		eventually(t, 5*time.Second, "all frames arrive", func() bool { return len(b.received()) == 4*each })
		var next [4]uint32
		for _, f := range b.received() {
			if got := binary.BigEndian.Uint32(f[20:]); got != next[f[0]] {
				t.Fatalf("lane %d: frame %d where %d should be", f[0], got, next[f[0]])
			}
			next[f[0]]++
		}
	})
}
