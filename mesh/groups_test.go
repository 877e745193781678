package mesh_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"meshd/l2/snoop"
	"meshd/mesh/api"
)

var film = netip.MustParseAddr("239.1.2.3")

// ipv4 is a frame of n's host to a group, with the header of a UDP datagram or an IGMP message in it.
func (n *node) ipv4(group netip.Addr, protocol byte, body []byte) []byte {
	mac, own := snoop.MAC(group), n.mac()
	b := append(append(append([]byte(nil), mac[:]...), own[:]...), 8, 0)
	b = append(b, 0x45, 0, 0, byte(20+len(body)), 0, 0, 0, 0, 1, protocol, 0, 0, 10, 0, 0, 1)
	return append(append(append(b, group.AsSlice()...), body...), make([]byte, 20)...)
}

// igmp has n's host join (0x16) or leave (0x17) a group.
func (n *node) igmp(kind byte, group netip.Addr) {
	body := append([]byte{kind, 0, 0, 0}, group.AsSlice()...)
	var sum uint32
	for i := 0; i < 8; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(body[i:]))
	}
	binary.BigEndian.PutUint16(body[2:], ^uint16(sum+sum>>16))
	n.host.segment().Inject(n.ipv4(group, 2, body))
}

// films has n's host send to a group, and returns which of the others' hosts get it.
func (n *node) films(group netip.Addr, others ...*node) (got string) {
	n.t.Helper()
	drainAll(others...)
	frame := n.ipv4(group, 17, []byte{1, 2, 3, 4, 0, 12, 0, 0, 'f', 'i', 'l', 'm'})
	n.host.segment().Inject(frame)
	time.Sleep(time.Second)
	for _, o := range others {
		for f := o.take(time.Millisecond); f != nil; f = o.take(time.Millisecond) {
			if bytes.Equal(f, frame) {
				got += o.name
			}
		}
	}
	return got
}

// Whole nodes: a host that joins is known to all members at once, and forgotten when it leaves; a member that starts anew
// wants everything until it knows its hosts.
func TestGroupsAcrossTheMesh(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "a")
		a.waitReady(5 * time.Second)
		invite := a.invite(2)
		b, c := w.up(w.host("198.18.0.2"), "b", invite), w.up(w.host("198.18.0.3"), "c", invite)
		for _, n := range []*node{b, c} {
			n.waitReady(20 * time.Second)
		}
		for _, n := range []*node{a, b, c} {
			n.wait(api.WaitSpec{Peers: 2}, 20*time.Second)
		}
		expect := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s: %q got it, want %q", what, got, want)
			}
		}
		expect("at the start", a.films(film, b, c), "bc")
		time.Sleep(15 * time.Second)
		expect("nobody listens", a.films(film, b, c), "")
		b.igmp(0x16, film)
		time.Sleep(500 * time.Millisecond)
		expect("b listens", a.films(film, b, c), "b")
		expect("b listens, c sends", c.films(film, a, b), "b")
		b.igmp(0x17, film)
		time.Sleep(5 * time.Second)
		expect("b has left", a.films(film, b, c), "")
		a.host.segment().Inject(a.ipv4(netip.MustParseAddr("224.0.0.251"), 17, make([]byte, 12)))
		time.Sleep(time.Second)
		for _, n := range []*node{b, c} {
			if f := n.take(time.Millisecond); f == nil {
				t.Errorf("%s has missed mDNS", n.name)
			}
		}

		b.igmp(0x16, film)
		time.Sleep(5 * time.Second)
		c.kill()
		c = w.upIn(c.host, "c", c.state)
		c.waitReady(20 * time.Second)
		time.Sleep(2 * time.Second)
		expect("c has started anew", a.films(film, b, c), "bc")
		time.Sleep(15 * time.Second)
		expect("and knows its hosts", a.films(film, b, c), "b")
		joinsWithoutEnd(t, a, b)
	})
}

// joinsWithoutEnd has a host join one group after the other for a minute, which is more than there may be records of: the
// last is known in time all the same.
func joinsWithoutEnd(t *testing.T, a, b *node) {
	t.Helper()
	group := netip.MustParseAddr("239.7.0.0")
	for range 100 {
		group = group.Next()
		b.igmp(0x16, group)
		time.Sleep(600 * time.Millisecond)
	}
	time.Sleep(5 * time.Second)
	if got := a.films(group, b); got != "b" {
		t.Errorf("the last group is not heard")
	}
}
