package peer_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/keys"
	"meshd/peer"
	"meshd/peer/udp/udptest"
	"meshd/peer/way"
)

// symmetric is the NAT through which nobody is reached directly.
func symmetric() udptest.NATConfig {
	return udptest.NATConfig{Mapping: udptest.AddressAndPortDependent, Filtering: udptest.AddressAndPortDependent}
}

// behind starts an engine behind a NAT of its own.
func behind(t *testing.T, net *udptest.Internet, in *network, name, outside string, cfg udptest.NATConfig) *node {
	t.Helper()
	nat := net.NAT(cfg, netip.MustParseAddr(outside))
	nat.SetLink(udptest.Link{Delay: 5 * time.Millisecond}, udptest.Link{Delay: 5 * time.Millisecond})
	return startOn(t, nat.Host(netip.MustParseAddr("192.168.1.2")), in, name)
}

// knows makes one node know another, as records would, without an address that
// can be reached.
func (n *node) knows(of *node, spec peer.Spec) *peer.Remote {
	n.t.Helper()
	spec.Public, spec.Class = of.identity.Public(), peer.Member
	r, err := n.engine.SetRemote(spec)
	if err != nil {
		n.t.Fatal(err)
	}
	r.Attach(n)
	return r
}

// triangle is two members behind symmetric NATs and some who can relay.
type triangle struct {
	net    *udptest.Internet
	a, b   *node
	relays []*node
	signer *keys.Signer
}

func newTriangle(t *testing.T, relays int) *triangle {
	t.Helper()
	return newTriangleOver(t, slices.Repeat([]time.Duration{5 * time.Millisecond}, relays)...)
}

// newTriangleOver is newTriangle with relays so far away each, one way.
func newTriangleOver(t *testing.T, away ...time.Duration) *triangle {
	t.Helper()
	net := udptest.NewInternet(3)
	net.LogOnFailure(t)
	in := newNetwork(t)
	w := &triangle{net: net, signer: in.signer}
	w.a = behind(t, net, in, "a", "203.0.113.1", symmetric())
	w.b = behind(t, net, in, "b", "203.0.113.2", symmetric())
	for i, delay := range away {
		r := start(t, net, in, "r", netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)}).String())
		r.host.SetLink(udptest.Link{Delay: delay}, udptest.Link{Delay: delay})
		meet(t, w.a, r)
		meet(t, w.b, r)
		for _, n := range []*node{w.a, w.b} {
			n.knows(r, peer.Spec{Relays: true, Candidates: []netip.AddrPort{r.at}}).Want()
			r.remote(n).Want()
		}
		w.relays = append(w.relays, r)
	}
	for _, r := range w.relays {
		eventually(t, 5*time.Second, "sessions with the relay", func() bool {
			return w.a.remote(r).Up() && w.b.remote(r).Up() && r.remote(w.a).Up() && r.remote(w.b).Up()
		})
	}
	w.a.knows(w.b, peer.Spec{})
	w.b.knows(w.a, peer.Spec{})
	return w
}

func send(to *peer.Remote, f []byte) {
	to.Send(f, 0)
	to.Flush()
}

// Two members behind symmetric NATs exchange frames through a third, which does
// not get to see them.
func TestRelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTriangle(t, 1)
		began := time.Now()
		send(w.a.remote(w.b), frame(1400, 7))
		eventually(t, time.Second, "the first frame", func() bool { return len(w.b.received()) == 1 })
		t.Logf("the first frame after %v", time.Since(began))
		send(w.b.remote(w.a), frame(600, 8))
		eventually(t, 100*time.Millisecond, "the answer", func() bool { return len(w.a.received()) == 1 })
		st := w.a.remote(w.b).Status()
		if way.ClassOf(st.Endpoint) != way.Relayed {
			t.Errorf("the path is %v", st.Endpoint)
		}
		if len(w.relays[0].received()) != 0 {
			t.Error("the relay received frames")
		}
	})
}

// chat has both ends talk, and returns a function that yields the longest gap in
// what b received since it was last asked.
func (w *triangle) chat(t *testing.T) (gap func() time.Duration) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				send(w.a.remote(w.b), frame(300, 1))
				send(w.b.remote(w.a), frame(300, 2))
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	last, seen := time.Now(), 0
	var longest time.Duration
	var mu sync.Mutex
	w.b.onFrame = func() {
		mu.Lock()
		defer mu.Unlock()
		seen++
		longest = max(longest, time.Since(last))
		last = time.Now()
	}
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		g := max(longest, time.Since(last))
		longest, last = 0, time.Now()
		return g
	}
}

// via is the relay that a node sends to another by, "" if none.
func (w *triangle) via(a, b *node) int {
	st := a.remote(b).Status()
	v, ok := st.Via[st.Endpoint]
	if !ok {
		return -1
	}
	for i, r := range w.relays {
		if r.identity.Public().ID() == v.Relays[0] {
			return i
		}
	}
	return -1
}

// A relay that is killed is left for the one that stands by.
func TestRelayKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTriangle(t, 2)
		gap := w.chat(t)
		eventually(t, 5*time.Second, "two circuits", func() bool { return len(w.a.remote(w.b).Status().Via) == 2 })
		time.Sleep(3 * time.Second)
		t.Logf("longest gap before: %v", gap())
		w.relays[w.via(w.a, w.b)].host.SetAddr()
		time.Sleep(10 * time.Second)
		if g := gap(); g > 2*time.Second {
			t.Errorf("outage of %v", g)
		} else {
			t.Logf("outage of %v", g)
		}
	})
}

// hostile has a relay drop what drop says of what it forwards.
func (w *triangle) hostile(i int, drop func(d udptest.Datagram) bool) {
	host := w.relays[i].host
	w.net.Block(func(d udptest.Datagram) bool {
		return d.From == host && len(d.Data) > 8 && d.Data[0] == 0xd3 && drop(d)
	})
}

// A relay that comes back serves again soon, however often it was gone before.
func TestRelaysKilledInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTriangle(t, 2)
		gap := w.chat(t)
		for _, r := range w.relays {
			w.a.remote(r).Rely(true)
			w.b.remote(r).Rely(true)
		}
		serves := func(r *node) bool {
			list, _ := r.engine.Relaying()
			return len(list) > 0
		}
		eventually(t, 5*time.Second, "two circuits", func() bool { return serves(w.relays[0]) && serves(w.relays[1]) })
		for range 12 {
			victim := w.relays[max(w.via(w.a, w.b), 0)]
			gap()
			victim.stop()
			time.Sleep(1500 * time.Millisecond)
			victim.run()
			for _, n := range []*node{w.a, w.b} {
				victim.knows(n, peer.Spec{}).Want()
				n.remote(victim).Want()
			}
			began := time.Now()
			eventually(t, 5*time.Second, "the relay serves again", func() bool { return serves(victim) })
			took := time.Since(began)
			time.Sleep(time.Second)
			if g := gap(); g > 2*time.Second {
				t.Errorf("outage of %v", g)
			} else {
				t.Logf("outage of %v, again after %v", g, took)
			}
		}
	})
}

// A relay that drops data, some or all of it, and lets probes pass is left.
func TestHostileRelay(t *testing.T) {
	var n atomic.Uint32 // every so manyth is dropped
	for name, drop := range map[string]func(d udptest.Datagram) bool{
		"30 % of everything": func(udptest.Datagram) bool { return n.Add(1)%10 < 3 },
		"30 % of the data":   func(d udptest.Datagram) bool { return d.Data[8] == 4 && n.Add(1)%10 < 3 },
		"all data":           func(d udptest.Datagram) bool { return d.Data[8] == 4 },
		"all but probes":     func(d udptest.Datagram) bool { return d.Data[8] != 0xd2 },
		"large datagrams":    func(d udptest.Datagram) bool { return len(d.Data) > 200 },
		"one way":            nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTriangle(t, 3)
				w.chat(t)
				eventually(t, 5*time.Second, "two circuits", func() bool { return len(w.a.remote(w.b).Status().Via) >= 2 })
				time.Sleep(5 * time.Second)
				at := w.via(w.a, w.b)
				if name == "one way" {
					to := w.b.remote(w.relays[at]).Status().Observed
					drop = func(d udptest.Datagram) bool { return d.Src != to && d.To == w.b.host && d.Data[8] == 4 }
				}
				w.hostile(at, drop)
				took := eventually(t, 5*time.Second, "leaving the relay", func() bool { return w.via(w.a, w.b) != at })
				t.Logf("left after %v", took)
				time.Sleep(20 * time.Second)
				if w.via(w.a, w.b) == at {
					t.Error("back again")
				}
			})
		})
	}
}

// A relay that loses data is better than none.
func TestOnlyRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTriangle(t, 1)
		w.chat(t)
		eventually(t, 5*time.Second, "a circuit", func() bool { return w.via(w.a, w.b) == 0 })
		time.Sleep(5 * time.Second)
		var n, all atomic.Uint32
		w.hostile(0, func(d udptest.Datagram) bool { return all.Load() > 0 || d.Data[8] == 4 && n.Add(1)%10 < 4 })
		for range 30 {
			time.Sleep(time.Second)
			if w.via(w.a, w.b) != 0 {
				t.Error("left for nothing")
			}
		}
		all.Store(1)
		time.Sleep(10 * time.Second)
		all.Store(0)
		before := len(w.b.received())
		took := eventually(t, 5*time.Second, "frames again", func() bool { return len(w.b.received()) > before+10 })
		t.Logf("back after %v", took)
	})
}

// A move from a relay to a direct path that is much shorter keeps the order, and
// loses nothing.
func TestHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(3)
		net.LogOnFailure(t)
		in := newNetwork(t)
		w := &triangle{net: net, a: start(t, net, in, "a", "198.18.0.1"), b: start(t, net, in, "b", "198.18.0.2")}
		r := start(t, net, in, "r", "198.18.0.3")
		r.host.SetLink(udptest.Link{Delay: 30 * time.Millisecond}, udptest.Link{Delay: 30 * time.Millisecond})
		w.relays = []*node{r}
		var cut atomic.Bool
		cut.Store(true)
		net.Block(func(d udptest.Datagram) bool {
			return cut.Load() && (d.From == w.a.host && d.To == w.b.host || d.From == w.b.host && d.To == w.a.host)
		})
		for _, n := range []*node{w.a, w.b} {
			meet(t, n, r)
			n.knows(r, peer.Spec{Relays: true, Candidates: []netip.AddrPort{r.at}}).Want()
		}
		w.a.knows(w.b, peer.Spec{Candidates: []netip.AddrPort{w.b.at}})
		w.b.knows(w.a, peer.Spec{Candidates: []netip.AddrPort{w.a.at}})
		var next, late, lost uint32
		w.b.onFrame = func() {
			n := binary.BigEndian.Uint32(w.b.frames[len(w.b.frames)-1])
			if n < next {
				late++
				return
			}
			lost += n - next
			next = n + 1
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for n := uint32(0); ; {
				select {
				case <-tick.C:
				case <-stop:
					return
				}
				if way.ClassOf(w.a.remote(w.b).Status().Endpoint) == way.Relayed || n > 0 {
					f := frame(300, 1)
					binary.BigEndian.PutUint32(f, n)
					send(w.a.remote(w.b), f)
					n++
				} else {
					w.a.remote(w.b).Want()
				}
			}
		}()
		defer func() { close(stop); <-done }()
		eventually(t, 5*time.Second, "a circuit", func() bool { return w.via(w.a, w.b) == 0 && len(w.b.received()) > 0 })
		time.Sleep(time.Second)
		w.b.mu.Lock() // under which onFrame runs
		lost = 0      // while there was no session yet
		w.b.mu.Unlock()
		cut.Store(false)
		w.a.remote(w.b).Learn(w.b.at)
		took := eventually(t, 10*time.Second, "the direct path", func() bool { return w.via(w.a, w.b) == -1 })
		t.Logf("direct after %v", took)
		time.Sleep(time.Second)
		w.b.mu.Lock()
		defer w.b.mu.Unlock()
		if late > 0 || lost > 0 || next < 1000 {
			t.Errorf("of %d frames %d were overtaken and %d lost", next, late, lost)
		}
	})
}

// Nobody outside the mesh, and no member from elsewhere, has a relay send
// anything.
func TestStrangersUseNoRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTriangle(t, 1)
		r := w.relays[0]
		send(w.a.remote(w.b), frame(500, 1))
		eventually(t, 5*time.Second, "a circuit", func() bool { return len(w.b.received()) == 1 })
		var caught [][]byte
		var mu sync.Mutex
		var sent atomic.Int64
		w.net.Tap(func(d udptest.Datagram) {
			if d.From == r.host {
				sent.Add(1)
			}
			if d.From == w.a.host && d.Data[0] == 0xd3 {
				mu.Lock()
				caught = append(caught, bytes.Clone(d.Data))
				mu.Unlock()
			}
		})
		for range 20 {
			send(w.a.remote(w.b), frame(500, 1))
		}
		synctest.Wait()
		time.Sleep(50 * time.Millisecond)
		mu.Lock()
		frames := caught
		mu.Unlock()
		if len(frames) < 20 {
			t.Fatalf("%d frames on the circuit", len(frames))
		}
		before, refused := sent.Load(), r.engine.Counts().RelayRefused.Load()
		spent := 0
		for i, f := range frames[:20] {
			// Replayed from elsewhere, and from another port of the right host.
			w.net.Inject(netip.MustParseAddrPort("192.0.2.66:666"), r.at, f)
			w.net.Inject(netip.MustParseAddrPort("203.0.113.1:6"), r.at, f)
			// Guessed, and as if by a relay.
			g := bytes.Clone(f)
			g[7] ^= byte(i + 1)
			w.net.Inject(netip.MustParseAddrPort("192.0.2.66:666"), r.at, g)
			g = bytes.Clone(f)
			g[2] = 1
			w.net.Inject(netip.MustParseAddrPort("192.0.2.66:666"), r.at, g)
			spent += 4
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if n := r.engine.Counts().RelayRefused.Load() - refused; n != uint64(spent) {
			t.Errorf("%d of %d refused", n, spent)
		}
		if n := sent.Load() - before; n > 2 { // probes of its own may be due
			t.Errorf("the relay sent %d datagrams", n)
		}
	})
}

// flood sends frames at a rate, in bytes per second, until stopped.
func flood(t *testing.T, to *peer.Remote, rate int) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	const size = 1200
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for due := 0; ; {
			select {
			case <-tick.C:
				for due += rate / 100; due >= size; due -= size {
					to.Send(frame(size, 3), 0)
				}
				to.Flush()
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// rateOf measures how fast a node receives frames, in bytes per second.
func rateOf(n *node, d time.Duration) int {
	n.mu.Lock()
	n.frames = nil
	n.mu.Unlock()
	time.Sleep(d)
	total := 0
	for _, f := range n.received() {
		total += len(f)
	}
	return int(float64(total) / d.Seconds())
}

// Two pairs share a relay's rate fairly, whatever they offer.
func TestFairShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTriangle(t, 1)
		r := w.relays[0]
		in := &network{*w.a.cfg.Trust, w.signer}
		c := behind(t, w.net, in, "c", "203.0.113.3", symmetric())
		d := behind(t, w.net, in, "d", "203.0.113.4", symmetric())
		for _, n := range []*node{c, d} {
			meet(t, n, r)
			n.knows(r, peer.Spec{Relays: true, Candidates: []netip.AddrPort{r.at}}).Want()
		}
		c.knows(d, peer.Spec{})
		d.knows(c, peer.Spec{})
		r.engine.SetSharing(peer.Sharing{On: true, Rate: 200_000})
		flood(t, w.a.remote(w.b), 400_000) // greedy
		flood(t, c.remote(d), 120_000)     // a little more than its part
		eventually(t, 10*time.Second, "both circuits", func() bool { return len(w.b.received()) > 0 && len(d.received()) > 0 })
		time.Sleep(3 * time.Second)
		var ab, cd int
		done := make(chan struct{})
		go func() { ab = rateOf(w.b, 5*time.Second); close(done) }()
		cd = rateOf(d, 5*time.Second)
		<-done
		t.Logf("%d and %d bytes/s", ab, cd)
		if sum := ab + cd; sum > 215_000 || sum < 150_000 {
			t.Errorf("%d bytes/s in all, of 200000", sum)
		}
		if cd < 80_000 || ab > 120_000 {
			t.Errorf("%d bytes/s for who floods, %d for the other", ab, cd)
		}
	})
}

// Own traffic goes first: a relay whose line is too narrow for both carries less
// for others.
func TestOwnTrafficFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTriangle(t, 1)
		r := w.relays[0]
		in := &network{*w.a.cfg.Trust, w.signer}
		x := start(t, w.net, in, "x", "198.18.0.99")
		meet(t, r, x)
		r.host.SetLink(udptest.Link{Delay: 5 * time.Millisecond, Rate: 4_000_000, Queue: 64 << 10}, udptest.Link{Delay: 5 * time.Millisecond})
		flood(t, w.a.remote(w.b), 400_000)
		eventually(t, 10*time.Second, "the circuit", func() bool { return len(w.b.received()) > 0 })
		time.Sleep(3 * time.Second)
		if got := rateOf(w.b, 3*time.Second); got < 350_000 {
			t.Errorf("%d bytes/s for others while there is nothing else", got)
		}
		flood(t, r.remote(x), 300_000)
		time.Sleep(15 * time.Second)
		own, others, rtt := rateOf(x, 5*time.Second), rateOf(w.b, 5*time.Second), r.remote(x).Status().RTT
		t.Logf("%d bytes/s of its own with %v, %d for others", own, rtt, others)
		if own < 280_000 || rtt > 50*time.Millisecond {
			t.Errorf("%d bytes/s of its own, of 300000, with a round trip of %v", own, rtt)
		}
		if others < 50_000 {
			t.Errorf("%d bytes/s for others", others)
		}
	})
}

// keeps says that both ends use a relay, within a time, and for another.
func (w *triangle) keeps(t *testing.T, relay int, within, during time.Duration) {
	t.Helper()
	eventually(t, within, "both use the relay", func() bool { return w.via(w.a, w.b) == relay && w.via(w.b, w.a) == relay })
	for began := time.Now(); time.Since(began) < during; time.Sleep(100 * time.Millisecond) {
		if a, b := w.via(w.a, w.b), w.via(w.b, w.a); a != relay || b != relay {
			t.Fatalf("after %v one end uses relay %d, the other %d", time.Since(began), a, b)
		}
	}
}

// Of two relays a pair uses the one of enough bandwidth, and of two such the nearer one; it stays there.
func TestRelayChosenByRate(t *testing.T) {
	const near, far = 0, 1
	for _, c := range []struct {
		name      string
		near, far uint64 // bytes per second that they give; 0: no limit
		want      int
	}{
		{"both fast", 0, 0, near},
		{"the near one slow", 60_000, 0, far},
		{"the far one slow", 0, 60_000, near},
		{"both slow", 60_000, 60_000, near},
		{"the near one fast enough", 5_000_000, 0, near},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTriangleOver(t, 5*time.Millisecond, 15*time.Millisecond)
				w.relays[near].engine.SetSharing(peer.Sharing{On: true, Rate: c.near})
				w.relays[far].engine.SetSharing(peer.Sharing{On: true, Rate: c.far})
				w.chat(t)
				eventually(t, 5*time.Second, "two circuits", func() bool {
					return len(w.a.remote(w.b).Status().Via) == 2 && len(w.b.remote(w.a).Status().Via) == 2
				})
				w.keeps(t, c.want, 10*time.Second, 2*time.Minute)
				for _, r := range w.relays {
					r.engine.SetSharing(peer.Sharing{On: true})
				}
				time.Sleep(50 * time.Second) // until all circuits have been refreshed
				w.keeps(t, near, 0, time.Minute)
			})
		})
	}
}

// A pair that takes nearly all that its relay gives is not led away from there by its own traffic.
func TestRelayInUseIsNoWorse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTriangleOver(t, 5*time.Millisecond, 8*time.Millisecond)
		w.relays[0].engine.SetSharing(peer.Sharing{On: true, Rate: 700_000})
		flood(t, w.a.remote(w.b), 550_000)
		eventually(t, 5*time.Second, "two circuits", func() bool { return len(w.a.remote(w.b).Status().Via) == 2 })
		at := w.via(w.a, w.b)
		for range 30 { // some refreshes
			if got := rateOf(w.b, 4*time.Second); got < 500_000 {
				t.Errorf("%d bytes/s", got)
			}
			if w.via(w.a, w.b) != at {
				t.Fatalf("moved from relay %d to %d", at, w.via(w.a, w.b))
			}
		}
	})
}

// A pair of which a relay has once said how little it gives asks another first the next time.
func TestSlowRelayIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTriangleOver(t, 5*time.Millisecond, 15*time.Millisecond, 16*time.Millisecond)
		w.relays[0].engine.SetSharing(peer.Sharing{On: true, Rate: 60_000})
		for _, r := range w.relays {
			for _, n := range []*node{w.a, w.b} {
				n.remote(r).Keep(true)
				r.remote(n).Keep(true)
			}
		}
		has := func(relays ...int) bool {
			list := map[keys.NodeID]bool{}
			for _, v := range w.a.remote(w.b).Status().Via {
				list[v.Relays[0]] = true
			}
			for _, i := range relays {
				if !list[w.relays[i].identity.Public().ID()] {
					return false
				}
			}
			return len(list) == len(relays)
		}
		send(w.a.remote(w.b), frame(300, 1))
		eventually(t, 5*time.Second, "circuits over the nearest", func() bool { return has(0, 1) })
		time.Sleep(5 * time.Minute) // nobody has anything to say
		if !has() {
			t.Fatal("the circuits are kept for nothing")
		}
		send(w.a.remote(w.b), frame(300, 2))
		eventually(t, 5*time.Second, "circuits over those that have bandwidth", func() bool { return has(1, 2) })
		w.a.engine.Forget(w.relays[0].identity.Public().ID())
		time.Sleep(5 * time.Minute)
		w.a.knows(w.relays[0], peer.Spec{Relays: true, Candidates: []netip.AddrPort{w.relays[0].at}}).Keep(true)
		eventually(t, 5*time.Second, "the session", func() bool { return w.a.remote(w.relays[0]).Up() })
		send(w.a.remote(w.b), frame(300, 3))
		eventually(t, 5*time.Second, "circuits over the nearest, as if nothing were known", func() bool { return has(0, 1) })
	})
}

// A pair without a common relay goes over two: the caller's own contact reaches
// the other's.
func TestTwoRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(5)
		net.LogOnFailure(t)
		in := newNetwork(t)
		a := behind(t, net, in, "a", "203.0.113.1", symmetric())
		b := behind(t, net, in, "b", "203.0.113.2", symmetric())
		r1, r2 := start(t, net, in, "r1", "198.18.0.1"), start(t, net, in, "r2", "198.18.0.2")
		for _, cut := range [][2]*udptest.Host{{a.host, r2.host}, {b.host, r1.host}} {
			net.Block(func(d udptest.Datagram) bool {
				return d.From == cut[0] && d.To == cut[1] || d.From == cut[1] && d.To == cut[0]
			})
		}
		public := func(n *node) peer.Spec { return peer.Spec{Relays: true, Candidates: []netip.AddrPort{n.at}} }
		for _, p := range [][2]*node{{a, r1}, {b, r2}, {r1, r2}} {
			meet(t, p[0], p[1])
			p[0].knows(p[1], public(p[1])).Want()
		}
		r2.knows(r1, public(r1))
		a.knows(r2, public(r2))
		r2.knows(a, peer.Spec{})
		a.knows(b, peer.Spec{Contacts: []keys.NodeID{r2.identity.Public().ID()}})
		b.knows(a, peer.Spec{Contacts: []keys.NodeID{r1.identity.Public().ID()}})
		eventually(t, 3*time.Second, "a session", func() bool {
			a.remote(b).Want()
			return a.remote(b).Up()
		})
		send(a.remote(b), frame(1400, 7))
		took := eventually(t, 5*time.Second, "the first frame", func() bool { return len(b.received()) > 0 })
		t.Logf("the first frame after %v", took)
		send(b.remote(a), frame(1400, 7))
		eventually(t, time.Second, "the answer", func() bool { return len(a.received()) > 0 })
		st := a.remote(b).Status()
		v := st.Via[st.Endpoint]
		if len(v.Relays) != 2 || v.Relays[0] != r1.identity.Public().ID() || v.Relays[1] != r2.identity.Public().ID() || v.Endpoint != r1.at {
			t.Errorf("via %+v", v)
		}
		if n := len(r1.received()) + len(r2.received()); n > 0 {
			t.Errorf("the relays received %d frames", n)
		}
	})
}

// row is members of whom each reaches the next one only, the first and the last behind symmetric NATs. What is known of
// who is farther away is which contacts it has: the one before it.
func row(t *testing.T, relays int) (nodes []*node) {
	t.Helper()
	net := udptest.NewInternet(5)
	net.LogOnFailure(t)
	in := newNetwork(t)
	nodes = append(nodes, behind(t, net, in, "a", "203.0.113.1", symmetric()))
	for i := range relays {
		r := start(t, net, in, "r", netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)}).String())
		nodes = append(nodes, r)
	}
	nodes = append(nodes, behind(t, net, in, "b", "203.0.113.2", symmetric()))
	place := map[*udptest.Host]int{}
	for i, n := range nodes {
		place[n.host] = i
	}
	net.Block(func(d udptest.Datagram) bool {
		from, to := place[d.From], place[d.To]
		return from-to > 1 || to-from > 1
	})
	for i, n := range nodes[:len(nodes)-1] {
		if next := nodes[i+1]; i+1 < len(nodes)-1 {
			meet(t, n, next)
		} else {
			meet(t, next, n) // who is behind a NAT begins
		}
	}
	for i, n := range nodes {
		for j, of := range nodes {
			spec := peer.Spec{Relays: j > 0 && j < len(nodes)-1}
			switch {
			case i == j:
				continue
			case i-j == 1, j-i == 1:
				if spec.Relays {
					spec.Candidates = []netip.AddrPort{of.at}
				}
			case j > i:
				spec.Contacts = []keys.NodeID{nodes[j-1].identity.Public().ID()}
			default:
				spec.Contacts = []keys.NodeID{nodes[j+1].identity.Public().ID()}
			}
			r := n.knows(of, spec)
			if i-j == 1 || j-i == 1 {
				r.Want()
			}
		}
	}
	return nodes
}

// reaches waits until a node has a session with another that is farther away, seeking one with those between first.
func (n *node) reaches(t *testing.T, all []*node, to int) {
	t.Helper()
	for i := 2; i <= to; i++ {
		eventually(t, 20*time.Second, fmt.Sprintf("a session with number %d", i), func() bool {
			n.remote(all[i]).Want()
			return n.remote(all[i]).Up()
		})
	}
}

// Frames cross a chain of three relays, both ways, and the ends know which; none of them sees a frame. Over four there
// is no way.
func TestThreeRelays(t *testing.T) {
	for relays := 3; relays <= 4; relays++ {
		t.Run(strconv.Itoa(relays), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes := row(t, relays)
				a, b := nodes[0], nodes[len(nodes)-1]
				a.reaches(t, nodes, 4)
				if relays == 4 {
					last := a.remote(nodes[4]).Status()
					if n := len(last.Via[last.Endpoint].Relays); n != 3 {
						t.Errorf("the last relay is reached over %d", n)
					}
					for range 60 {
						send(a.remote(b), frame(300, 7))
						send(b.remote(a), frame(300, 7))
						time.Sleep(time.Second)
						if a.remote(b).Up() || b.remote(a).Up() || len(a.received())+len(b.received()) > 0 {
							t.Fatal("a chain of four carries")
						}
					}
					return
				}
				const frames = 20
				for i := range frames {
					send(a.remote(b), frame(1400, i))
					send(b.remote(a), frame(1400, i))
				}
				eventually(t, 5*time.Second, "frames both ways", func() bool {
					return len(a.received()) == frames && len(b.received()) == frames
				})
				for i := range frames {
					if want := frame(1400, i); !bytes.Equal(a.received()[i], want) || !bytes.Equal(b.received()[i], want) {
						t.Fatalf("frame %d is not what was sent", i)
					}
				}
				for name, end := range map[string][]*node{"a": nodes, "b": {nodes[4], nodes[3], nodes[2], nodes[1], nodes[0]}} {
					st := end[0].remote(end[4]).Status()
					v := st.Via[st.Endpoint]
					if len(v.Relays) != 3 || v.Endpoint != end[1].at {
						t.Fatalf("%s goes via %+v", name, v)
					}
					for i, id := range v.Relays {
						if id != end[i+1].identity.Public().ID() {
							t.Errorf("%s: relay %d is another", name, i)
						}
					}
				}
				for i, r := range nodes[1:4] {
					if n := len(r.received()); n > 0 {
						t.Errorf("relay %d received %d frames", i+1, n)
					}
				}
			})
		})
	}
}

// Members who have never heard of each other meet by a hello over a relay.
func TestMeetOverRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTriangle(t, 1)
		w.b.engine.Forget(w.a.identity.Public().ID())
		eventually(t, 5*time.Second, "b gets to know a", func() bool {
			w.a.remote(w.b).Want()
			return w.b.engine.Remote(w.a.identity.Public().ID()) != nil
		})
		send(w.a.remote(w.b), frame(100, 1))
		eventually(t, 5*time.Second, "a frame", func() bool {
			send(w.a.remote(w.b), frame(100, 1))
			return len(w.b.received()) > 0
		})
	})
}

// Of the many who may carry, those come first of whom the other end has last said that they know it. One knows it no longer,
// another has just died: neither holds a frame up.
func TestRelaysThatDoNotServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTriangle(t, 4)
		stale, dead := w.relays[0], w.relays[1]
		w.b.remote(stale).Rest()
		stale.remote(w.b).Rest()
		dead.host.SetAddr()
		w.a.knows(w.b, peer.Spec{Contacts: []keys.NodeID{stale.identity.Public().ID(), dead.identity.Public().ID()}})
		began := time.Now()
		send(w.a.remote(w.b), frame(1400, 7))
		eventually(t, time.Second, "the first frame", func() bool { return len(w.b.received()) == 1 })
		t.Logf("the first frame after %v", time.Since(began))
		eventually(t, time.Second, "a second way", func() bool { return len(w.a.remote(w.b).Status().Via) == 2 })
	})
}
