package peer_test

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/peer"
	"meshd/peer/udp/udptest"
)

// TestForgetfulRouter: behind a router that forgets silent flows after 5 s, a node is
// soon reached at any time by whom it keeps a session with, and does not send much.
// Behind one that remembers for 30 s it sends no more than otherwise.
func TestForgetfulRouter(t *testing.T) {
	for _, c := range []struct {
		name    string
		timeout time.Duration
		kept    bool // ports
		packets int  // in ten minutes, at most
	}{
		{"5 s", 5 * time.Second, false, 1200},
		{"5 s, ports kept", 5 * time.Second, true, 1200},
		{"30 s", 30 * time.Second, false, 150},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := udptest.NewInternet(1)
				net.LogOnFailure(t)
				in := newNetwork(t)
				contact := start(t, net, in, "contact", "198.18.0.1")
				a := behind(t, net, in, "a", "203.0.113.1", udptest.NATConfig{
					Filtering: udptest.AddressAndPortDependent, Timeout: c.timeout, PreservePorts: c.kept, InboundRefresh: true,
				})
				meet(t, a, contact)
				toContact := a.knows(contact, peer.Spec{Candidates: []netip.AddrPort{contact.at}})
				toContact.Keep(true)
				contact.remote(a).Keep(true)
				eventually(t, 5*time.Second, "a session", func() bool { return toContact.Up() && contact.remote(a).Up() })
				time.Sleep(2 * time.Minute) // time to learn
				var sent atomic.Int64
				net.Tap(func(d udptest.Datagram) {
					if d.From == a.host {
						sent.Add(1)
					}
				})
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if sent.Load() > int64(c.packets) {
					t.Errorf("%d packets in ten quiet minutes", sent.Load())
				}
				t.Logf("%d packets in ten quiet minutes", sent.Load())
				missed := 0
				for range 30 {
					time.Sleep(7700 * time.Millisecond)
					before := len(a.received())
					send(contact.remote(a), frame(60, 1))
					time.Sleep(500 * time.Millisecond)
					synctest.Wait()
					if len(a.received()) == before {
						missed++
					}
				}
				if missed > 1 {
					t.Errorf("%d of 30 frames did not arrive", missed)
				}
			})
		})
	}
}

// TestOwnTroubleTeachesNothing: a node that loses its line now and then does not hear others meanwhile. That does not
// make them take their routers for forgetful, in whatever order they are heard again.
func TestOwnTroubleTeachesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		net.LogOnFailure(t)
		in := newNetwork(t)
		mobile, other := start(t, net, in, "mobile", "198.18.0.1"), start(t, net, in, "other", "198.18.0.2")
		a := behind(t, net, in, "a", "203.0.113.1", udptest.NATConfig{Filtering: udptest.AddressAndPortDependent, Timeout: 30 * time.Second})
		for _, pair := range [][2]*node{{a, mobile}, {a, other}, {mobile, other}} {
			meet(t, pair[0], pair[1])
			pair[0].knows(pair[1], peer.Spec{Candidates: []netip.AddrPort{pair[1].at}}).Keep(true)
			pair[1].remote(pair[0]).Keep(true)
		}
		all := func() bool { return a.remote(mobile).Up() && a.remote(other).Up() && mobile.remote(other).Up() }
		eventually(t, 5*time.Second, "sessions", all)
		sent := func() int64 {
			var n atomic.Int64
			var done atomic.Bool
			net.Tap(func(d udptest.Datagram) {
				if d.From == a.host && !done.Load() {
					n.Add(1)
				}
			})
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			done.Store(true)
			return n.Load()
		}
		time.Sleep(time.Minute)
		before := sent()
		for i := range 100 {
			heal := net.Block(func(d udptest.Datagram) bool { return d.From == mobile.host || d.To == mobile.host })
			time.Sleep(8*time.Second + time.Duration(i)*37*time.Millisecond)
			heal()
			time.Sleep(time.Minute + time.Duration(i)*53*time.Millisecond)
		}
		eventually(t, 10*time.Second, "sessions again", all)
		if after := sent(); after > before+before/5 {
			t.Errorf("%d packets in ten quiet minutes, and %d before another lost its line", after, before)
		}
	})
}
