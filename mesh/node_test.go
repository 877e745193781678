package mesh_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"meshd/l2"
	"meshd/mesh/api"
	"meshd/peer/udp/udptest"
)

var line10ms = udptest.Link{Delay: 5 * time.Millisecond}

// broadcast is the address of everybody on the segment.
var broadcast = l2.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func TestJoinByInvite(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		home, laptop := w.host("198.18.0.1"), w.host("198.18.0.2")
		home.machine.SetLink(line10ms, line10ms)
		a := w.up(home, "home")
		a.waitReady(5 * time.Second)
		b := w.up(laptop, "laptop", a.invite(1))
		if took := b.waitReady(10 * time.Second); took > 3*time.Second {
			t.Errorf("ready after %v on a 10 ms underlay, want 3 s at most", took)
		}
		t.Logf("frames after %v, %v", reaches(t, a, b, time.Second), reaches(t, b, a, time.Second))
		st := b.status()
		if len(st.Peers) != 1 || st.Peers[0].Name != "home" || st.Peers[0].State != api.StateDirect {
			t.Errorf("peers of laptop: %+v", st.Peers)
		}
		if st.Network.ID != a.status().Network.ID || st.Self.Name != "laptop" {
			t.Errorf("laptop is %q in %q", st.Self.Name, st.Network.ID)
		}
	})
}

func TestJoinByApproval(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		home, laptop := w.host("198.18.0.1"), w.host("198.18.0.2")
		a := w.up(home, "home")
		a.waitReady(5 * time.Second)
		b := w.up(laptop, "laptop", "198.18.0.1")
		words := <-b.words
		time.Sleep(100 * time.Millisecond) // of simulated time: the joiner reveals, then the desk knows the words
		requests, err := a.ask().Requests(t.Context())
		if err != nil || len(requests) != 1 || requests[0].Words != words || requests[0].Name != "laptop" {
			t.Fatalf("requests: %+v, %v; the joiner shows %q", requests, err, words)
		}
		if laptop.segment() != nil {
			t.Error("there was a TAP before the approval")
		}
		if _, err := a.ask().Approve(t.Context(), words); err != nil {
			t.Fatal(err)
		}
		b.waitReady(5 * time.Second)
		reaches(t, a, b, time.Second)
	})
}

// Two members admitted at different times meet with the founder dead.
func TestMembersWhoNeverMet(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", a.invite(1))
		b.waitReady(5 * time.Second)
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		c := w.up(w.host("198.18.0.3"), "c", a.invite(1))
		c.waitReady(5 * time.Second)
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
		b = w.upIn(b.host, "b", b.state, "198.18.0.3")
		b.waitReady(10 * time.Second)
		b.wait(api.WaitSpec{Peer: "c"}, 10*time.Second)
		reaches(t, b, c, 5*time.Second)
		reaches(t, c, b, 5*time.Second)
	})
}

func TestThreeMembersFindEachOther(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "a")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", a.invite(1))
		c := w.up(w.host("198.18.0.3"), "c", a.invite(1))
		for _, n := range []*node{b, c} {
			n.waitReady(5 * time.Second)
		}
		for _, n := range []*node{a, b, c} {
			n.wait(api.WaitSpec{Peers: 2}, 10*time.Second)
		}
		for _, pair := range [][2]*node{{a, b}, {b, c}, {c, a}, {b, a}, {c, b}, {a, c}} {
			reaches(t, pair[0], pair[1], 2*time.Second)
		}
		a.send(broadcast, 77)
		for _, n := range []*node{b, c} {
			if n.take(time.Second) == nil {
				t.Errorf("%s did not get the broadcast", n.name)
			}
			if n.take(time.Second) != nil {
				t.Errorf("%s got it twice", n.name)
			}
		}
	})
}

// All are stopped, the entry point's address changes, and they find each other
// from what they remember.
func TestReunionFromCaches(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "a")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", a.invite(1))
		c := w.up(w.host("198.18.0.3"), "c", a.invite(1))
		nodes := []*node{a, b, c}
		for _, n := range nodes {
			n.waitReady(5 * time.Second)
			n.wait(api.WaitSpec{Peers: 2}, 10*time.Second)
		}
		time.Sleep(5 * time.Second) // the caches are written soon after a change
		address := a.status().Self.Addresses[0]
		for _, n := range nodes {
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
		}
		moved := w.host("198.18.0.99")
		a.host = moved
		for i, n := range nodes {
			nodes[i] = w.upIn(n.host, n.name, n.state)
		}
		for _, n := range nodes {
			n.waitReady(5 * time.Second)
		}
		for _, n := range nodes {
			n.wait(api.WaitSpec{Peers: 2}, 20*time.Second)
		}
		reaches(t, nodes[0], nodes[2], 5*time.Second)
		if got := nodes[0].status().Self.Addresses[0]; got != address {
			t.Errorf("the address changed from %v to %v", address, got)
		}
	})
}

func TestAddressChangeUnderTraffic(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "a")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", a.invite(1))
		b.waitReady(5 * time.Second)
		reaches(t, a, b, time.Second)
		keys := func() [2]time.Time { return [2]time.Time{a.peer("b").LastHandshake, b.peer("a").LastHandshake} }
		before := keys()
		b.host.move("198.18.0.50")
		if gap := reaches(t, a, b, 5*time.Second); gap > 2*time.Second {
			t.Errorf("%v without traffic after an address change", gap)
		}
		time.Sleep(5 * time.Second)
		if now := keys(); now != before {
			t.Errorf("the session of %v was replaced by one of %v, for an address that changed", before, now)
		}
	})
}

// TestResumeFromSuspend wakes a host that has been suspended: its node probes all addresses of others at once, and is
// reached where it is now, though nothing has told it of a change.
func TestResumeFromSuspend(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		addrs := []netip.Addr{netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("2001:db8::1")}
		there := w.host("198.18.0.1")
		there.machine.SetAddr(addrs...)
		a := w.up(there, "a")
		a.waitReady(5 * time.Second)
		here := w.host("198.18.0.2")
		here.machine.SetAddr(netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("2001:db8::2"))
		b := w.up(here, "b", a.invite(1))
		b.waitReady(5 * time.Second)
		time.Sleep(time.Minute)
		probed := map[netip.Addr]time.Time{} // when last
		var mu sync.Mutex
		w.net.Tap(func(d udptest.Datagram) {
			if d.From == here.machine && d.Data[0] == 0xd2 { // a probe (PROTOCOL.md)
				mu.Lock()
				probed[d.Dst.Addr()] = time.Now()
				mu.Unlock()
			}
		})
		since := func(when time.Time) (list []netip.Addr) {
			mu.Lock()
			defer mu.Unlock()
			for at, last := range probed {
				if last.After(when) {
					list = append(list, at)
				}
			}
			return list
		}
		began := time.Now()
		time.Sleep(1100 * time.Millisecond)
		t.Logf("in a second without a cause it probes %v", since(began))
		here.machine.SetAddr(netip.MustParseAddr("198.18.0.50"), netip.MustParseAddr("2001:db8::50"))
		here.asleep.Store(int64(time.Hour))
		began = time.Now()
		time.Sleep(1100 * time.Millisecond)
		if got := since(began); len(got) != 2 {
			t.Errorf("a second after it woke it has probed %v, want all of %v", got, addrs)
		}
		if gap := reaches(t, a, b, 5*time.Second); gap > 100*time.Millisecond {
			t.Errorf("it is not reached for another %v", gap)
		}
	})
}
