package peer_test

import (
	"net/netip"
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
