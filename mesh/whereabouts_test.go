//go:build unix

package mesh_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"meshd/l2"
	"meshd/mesh/api"
	"meshd/peer/udp/udptest"
)

var guest = l2.MAC{2, 0x77, 0, 0, 0, 1}

// arpFor is an ARP request by a host for an address; for its own, it tells everybody.
func arpFor(mac l2.MAC, ip, target string) []byte {
	b := append(append([]byte{255, 255, 255, 255, 255, 255}, mac[:]...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(append(b, mac[:]...), netip.MustParseAddr(ip).AsSlice()...)
	b = append(append(b, make([]byte, 6)...), netip.MustParseAddr(target).AsSlice()...)
	return append(b, make([]byte, 18)...)
}

// isARPFor says whether a frame asks a station for an address.
func isARPFor(frame []byte, mac l2.MAC) bool {
	return len(frame) >= 42 && l2.MAC(frame[:6]) == mac && binary.BigEndian.Uint16(frame[12:]) == 0x0806 && frame[21] == 1
}

// host returns what a node knows of a station, nil when it does not.
func (n *node) station(mac l2.MAC) *api.Host {
	n.t.Helper()
	hosts, err := n.ask().Hosts(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	for _, h := range hosts {
		if h.MAC == mac.String() {
			return &h
		}
	}
	return nil
}

// waitStation waits until a node has a station behind a member.
func (n *node) waitStation(mac l2.MAC, member string, limit time.Duration) time.Duration {
	n.t.Helper()
	began := time.Now()
	for {
		h := n.station(mac)
		if h != nil && h.Member == member {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			n.t.Fatalf("%s has %v as %+v after %v, want it behind %s", n.name, mac, h, limit, member)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// bridged starts a founder and others who may bridge.
func (w *world) bridged(count int, roles ...string) []*node {
	w.t.Helper()
	nodes := []*node{w.up(w.host("198.18.0.1"), "n0")}
	nodes[0].waitReady(5 * time.Second)
	text, err := nodes[0].ask().Invite(w.t.Context(), api.InviteOptions{Uses: count, Expires: time.Hour, Roles: roles})
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 1; i < count; i++ {
		h := w.host(fmt.Sprintf("198.18.0.%d", i+1))
		h.machine.SetLink(line10ms, line10ms)
		n := w.up(h, fmt.Sprint("n", i), text)
		n.waitReady(10 * time.Second)
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.wait(api.WaitSpec{Peers: count - 1}, 20*time.Second)
	}
	return nodes
}

// A host is known to every member by its member's record, without a frame of it, and
// gone from everywhere when its member forgets it.
func TestHostsAreKnownEverywhere(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		nodes := w.bridged(4, "member")
		time.Sleep(3 * time.Second)
		nodes[1].host.segment().Inject(arpFor(guest, "10.0.0.7", "10.0.0.9"))
		for _, n := range []*node{nodes[0], nodes[2], nodes[3]} {
			took := n.waitStation(guest, "n1", 2*time.Second)
			t.Logf("%s knows after %v", n.name, took)
			h := n.station(guest)
			if h.Source != "record" || !slices.Contains(h.Addresses, netip.MustParseAddr("10.0.0.7")) {
				t.Errorf("%s: %+v", n.name, h)
			}
		}
		late := w.up(w.host("198.18.0.99"), "late", nodes[0].invite(1))
		late.waitReady(10 * time.Second)
		late.waitStation(guest, "n1", 5*time.Second)
		time.Sleep(l2.DefaultAge + 30*time.Second) // nobody answers for it
		for _, n := range append(nodes, late) {
			if h := n.station(guest); h != nil {
				t.Errorf("%s knows it still: %+v", n.name, h)
			}
		}
	})
}

// A virtual machine moves to another member while a third sends to it.
func TestVirtualMachineMoves(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		nodes := w.bridged(4, "member", "bridge")
		old, now, other := nodes[1], nodes[2], nodes[3]
		old.host.segment().Inject(arpFor(guest, "10.0.0.7", "10.0.0.7"))
		other.waitStation(guest, "n1", 2*time.Second)
		other.send(guest, 1)
		time.Sleep(3 * time.Second)
		drainAll(nodes...)
		now.host.segment().Inject(arpFor(guest, "10.0.0.7", "10.0.0.7"))
		began := time.Now()
		for number := uint32(2); ; number++ {
			other.send(guest, number)
			if f := now.take(10 * time.Millisecond); f != nil && l2.MAC(f[:6]) == guest {
				break
			}
			if time.Since(began) > time.Second {
				t.Fatalf("not reached after %v; it is at %+v", time.Since(began), other.station(guest))
			}
		}
		t.Logf("reached at its new place after %v", time.Since(began))
		time.Sleep(100 * time.Millisecond) // what was under way
		drainAll(nodes...)
		for number := range uint32(500) {
			other.send(guest, number)
			time.Sleep(20 * time.Millisecond)
		}
		if got := framesFor(now, guest); got != 500 {
			t.Errorf("%d of 500 frames at the new place", got)
		}
		if got := framesFor(old, guest); got != 0 {
			t.Errorf("%d frames at the old place", got)
		}
	})
}

// framesFor counts the frames for a station that wait at a node's host.
func framesFor(n *node, mac l2.MAC) (count int) {
	for {
		f := n.take(time.Millisecond)
		if f == nil {
			return count
		}
		if l2.MAC(f[:6]) == mac {
			count++
		}
	}
}

// Who claims the MAC of a host that answers gets none of its frames, and the holder's
// node says so in its health.
func TestThiefOfAStation(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		nodes := w.bridged(4, "member", "bridge")
		holder, thief, other := nodes[1], nodes[2], nodes[3]
		holder.host.segment().Inject(arpFor(guest, "10.0.0.7", "10.0.0.7"))
		other.waitStation(guest, "n1", 2*time.Second)
		time.Sleep(2 * time.Second)
		drainAll(nodes...)
		for number := range uint32(200) {
			thief.host.segment().Inject(arpFor(guest, "10.0.0.7", "10.0.0.7"))
			other.send(guest, number)
			for f := holder.take(10 * time.Millisecond); f != nil; f = holder.take(time.Millisecond) {
				if isARPFor(f, guest) { // the host is there
					reply := append(append(slices.Clone(f[6:12]), guest[:]...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
					reply = append(append(reply, guest[:]...), 10, 0, 0, 7)
					reply = append(append(reply, f[22:32]...), make([]byte, 18)...)
					holder.host.segment().Inject(reply)
				}
			}
		}
		if got := framesFor(thief, guest); got != 0 {
			t.Errorf("the thief got %d frames", got)
		}
		if h := other.station(guest); h == nil || h.Member != "n1" {
			t.Errorf("it is at %+v", h)
		}
		if !slices.ContainsFunc(holder.status().Health, func(h api.Health) bool { return h.Code == "station-claimed" }) {
			t.Errorf("health of the holder: %+v", holder.status().Health)
		}
		if !slices.ContainsFunc(thief.status().Health, func(h api.Health) bool { return h.Code == "station-elsewhere" }) {
			t.Errorf("health of the claimant: %+v", thief.status().Health)
		}
	})
}

// Many members with many hosts, each of which asks for another now and then: what all
// that costs the uplink of each.
func TestIdleHosts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute under the race detector; the same without it runs too")
	}
	inWorld(t, 1, func(t *testing.T, w *world) {
		const members, hosts = 50, 20
		mac := func(m, h int) l2.MAC { return l2.MAC{2, 0x20, 0, byte(m), 0, byte(h)} }
		ip := func(m, h int) string { return fmt.Sprintf("10.1.%d.%d", m, h+1) }
		nodes := w.crowd(members)
		for m, n := range nodes {
			for h := range hosts {
				n.host.segment().Inject(arpFor(mac(m, h), ip(m, h), ip(m, h)))
			}
			time.Sleep(200 * time.Millisecond)
		}
		time.Sleep(5 * time.Minute) // what joining has begun ends
		for m, n := range nodes {
			for h := range hosts { // they speak often enough to be there still
				n.host.segment().Inject(arpFor(mac(m, h), ip(m, h), ip((m+1)%members, h)))
			}
		}
		time.Sleep(time.Minute)
		if list, err := nodes[17].ask().Hosts(t.Context()); err != nil || len(list) != members*(hosts+1) {
			t.Fatalf("a member knows %d hosts: %v", len(list), err)
		}
		drainAll(nodes...)
		u := w.uplinks()
		frames := w.meter(func(d udptest.Datagram) bool { return len(d.Data) > 32 && d.Data[0] == 4 })
		const rounds = 12
		for round := range rounds { // a question by each host in ten seconds
			for m, n := range nodes {
				for h := range hosts {
					n.host.segment().Inject(arpFor(mac(m, h), ip(m, h), ip((m+round+1)%members, (h+round)%hosts)))
				}
				time.Sleep(10 * time.Second / members)
			}
		}
		answered := 0
		for _, n := range nodes {
			for f := n.take(time.Millisecond); f != nil; f = n.take(time.Millisecond) {
				if len(f) >= 42 && f[21] == 2 {
					answered++
				}
			}
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		worst, sum := 0, 0
		for _, b := range u.bytes {
			worst, sum = max(worst, b), sum+b
		}
		const seconds = rounds * 10
		packets, _ := frames()
		t.Logf("%d questions, %d answered; each member sent %d bytes/s in all, at most %d, of which %.1f transport packets/s",
			rounds*members*hosts, answered, sum/seconds/members, worst/seconds, float64(packets)/seconds/members)
		if asked := rounds * members * hosts; answered < asked-asked/100 { // a hint that a member is away may be wrong for a while
			t.Errorf("%d of %d questions were answered", answered, asked)
		}
		if worst > 2000*seconds {
			t.Errorf("a member sent %d bytes/s", worst/seconds)
		}
	})
}
