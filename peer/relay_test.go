package peer_test

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
}

func newTriangle(t *testing.T, relays int) *triangle {
	t.Helper()
	net := udptest.NewInternet(3)
	net.LogOnFailure(t)
	in := newNetwork(t)
	w := &triangle{net: net}
	w.a = behind(t, net, in, "a", "203.0.113.1", symmetric())
	w.b = behind(t, net, in, "b", "203.0.113.2", symmetric())
	for i := range relays {
		r := start(t, net, in, "r", netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)}).String())
		r.host.SetLink(udptest.Link{Delay: 5 * time.Millisecond}, udptest.Link{Delay: 5 * time.Millisecond})
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
