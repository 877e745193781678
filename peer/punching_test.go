package peer_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/nat-traversal"
	"meshd/peer"
	"meshd/peer/punch"
	"meshd/peer/udp"
	"meshd/peer/udp/udptest"
	"meshd/peer/way"
)

// stream is one end of a fake carrier: what goes in comes out at the other end.
type stream struct {
	other *stream
	delay time.Duration
	queue chan []byte
	done  chan struct{}
	once  sync.Once
}

// way1 is the address that both ends have for the other.
var way1 = way.Virtual(way.TCP, 1)

func streams(delay time.Duration) (a, b *stream) {
	a = &stream{delay: delay, queue: make(chan []byte, 1000), done: make(chan struct{})}
	b = &stream{delay: delay, queue: make(chan []byte, 1000), done: make(chan struct{})}
	a.other, b.other = b, a
	return a, b
}

func (s *stream) Receive(pkts []udp.Packet) (int, error) {
	select {
	case b := <-s.queue:
		pkts[0] = udp.Packet{Addr: way1, Data: b}
		return 1, nil
	case <-s.done:
		return 0, net.ErrClosed
	}
}

func (s *stream) Send(pkts []udp.Packet) error {
	for _, p := range pkts {
		seg := p.Seg
		if seg <= 0 {
			seg = max(1, len(p.Data))
		}
		for d := range slices.Chunk(slices.Clone(p.Data), seg) {
			time.AfterFunc(s.delay, func() {
				select {
				case s.other.queue <- d:
				default:
				}
			})
		}
	}
	return nil
}

func (s *stream) LocalAddr() netip.AddrPort { return netip.AddrPort{} }
func (s *stream) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// box is a kind of NAT.
type box struct {
	name    string
	cfg     udptest.NATConfig
	mapping traversal.Mapping
	public  bool // no NAT at all
}

func boxes() []box {
	const (
		ei = udptest.EndpointIndependent
		ad = udptest.AddressDependent
		ap = udptest.AddressAndPortDependent
	)
	return []box{
		{"public", udptest.NATConfig{}, traversal.MappingNone, true},
		{"full cone", udptest.NATConfig{Mapping: ei, Filtering: ei}, traversal.MappingEndpointIndependent, false},
		{"address-restricted", udptest.NATConfig{Mapping: ei, Filtering: ad}, traversal.MappingEndpointIndependent, false},
		{"port-restricted", udptest.NATConfig{Mapping: ei, Filtering: ap}, traversal.MappingEndpointIndependent, false},
		{"symmetric", udptest.NATConfig{Mapping: ap, Filtering: ap}, traversal.MappingAddressAndPortDependent, false},
	}
}

// possible says by RFC 4787 whether two can be connected without luck.
func possible(a, b box) bool {
	hidden := func(x box) bool { return x.mapping == traversal.MappingAddressAndPortDependent }
	// Whose port depends on the destination is reached only by one that lets in
	// packets from ports it has not sent to.
	open := func(x box) bool { return x.public || x.cfg.Filtering != udptest.AddressAndPortDependent }
	switch {
	case hidden(a) && hidden(b):
		return false
	case hidden(a):
		return open(b)
	case hidden(b):
		return open(a)
	}
	return true
}

// site is a node behind a box, that knows how one server sees it.
type site struct {
	*node
	box  box
	nat  *udptest.NAT
	seen netip.AddrPort
}

// siteBehind starts a node behind a box of its own. All LANs are numbered alike.
func siteBehind(t *testing.T, internet *udptest.Internet, in *network, b box, name string, number int, s *stream) *site {
	t.Helper()
	outside := netip.AddrFrom4([4]byte{198, 18, 0, byte(number)})
	if b.public {
		return siteAt(t, internet.Host(outside), in, b, name, s)
	}
	nat := internet.NAT(b.cfg, outside)
	x := siteAt(t, nat.Host(netip.MustParseAddr("192.168.1.10")), in, b, name, s)
	x.nat = nat
	return x
}

// siteAt starts a node on a host.
func siteAt(t *testing.T, h *udptest.Host, in *network, b box, name string, s *stream) *site {
	t.Helper()
	line := udptest.Link{Delay: 5 * time.Millisecond}
	h.SetLink(line, line)
	x := &site{box: b, node: prepare(t, in, name, h)}
	x.carriers = map[way.Class]udp.Conn{way.TCP: s}
	x.openPort = func(port uint16, _ bool) (udp.Conn, error) {
		return h.ListenAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	}
	x.run()
	t.Cleanup(func() { x.stop() })
	return x
}

// candidates are what the site tells of itself: its own address, and how a server
// saw it.
func (x *site) candidates() []traversal.Candidate {
	list := []traversal.Candidate{{Addr: x.at, Kind: traversal.Host}}
	if x.seen.IsValid() && x.seen != x.at {
		list = append(list, traversal.Candidate{Addr: x.seen, Kind: traversal.Reflexive})
	}
	return list
}

// observe has the site ask a server how it is seen.
func (x *site) observe(t *testing.T, server udp.Conn, at netip.AddrPort) {
	t.Helper()
	x.engine.Send(at, []byte("who am I?"))
	pkts := make([]udp.Packet, 1)
	if _, err := server.Receive(pkts); err != nil {
		t.Fatal(err)
	}
	x.seen = pkts[0].Addr
	x.engine.SetLocal(punch.Local{Candidates: x.candidates(), Mapping: x.box.mapping})
}

// connect makes two sites known to each other, and gives them a way that works.
func connect(t *testing.T, a, b *site, candidates bool) (ra, rb *peer.Remote) {
	t.Helper()
	know := func(x, y *site) *peer.Remote {
		spec := peer.Spec{Public: y.identity.Public(), Class: peer.Member}
		if candidates {
			for _, c := range y.candidates() {
				spec.Candidates = append(spec.Candidates, c.Addr)
			}
		}
		r, err := x.engine.SetRemote(spec)
		if err != nil {
			t.Fatal(err)
		}
		r.Attach(x)
		r.Hold(way1)
		return r
	}
	return know(a, b), know(b, a)
}

// pair is two sites on an internet, with a server that has told them how they are
// seen.
func newPair(t *testing.T, seed uint64, x, y box) (internet *udptest.Internet, a, b *site) {
	t.Helper()
	internet = udptest.NewInternet(seed)
	internet.LogOnFailure(t)
	in := newNetwork(t)
	sa, sb := streams(20 * time.Millisecond)
	a, b = siteBehind(t, internet, in, x, "a", 1, sa), siteBehind(t, internet, in, y, "b", 2, sb)
	observeAll(t, internet, a, b)
	return internet, a, b
}

// observeAll tells sites how a server sees them.
func observeAll(t *testing.T, internet *udptest.Internet, sites ...*site) {
	t.Helper()
	server, err := internet.Host(netip.MustParseAddr("198.18.0.99")).Listen(3478)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	at := netip.MustParseAddrPort("198.18.0.99:3478")
	for _, x := range sites {
		x.observe(t, server, at)
	}
}

func direct(r *peer.Remote) bool {
	s := r.Status()
	return s.Up && way.ClassOf(s.Endpoint) == way.Direct
}

// chat sends a frame each way now and then, so that the pair is in use.
func chat(a, b *peer.Remote) {
	for _, r := range []*peer.Remote{a, b} {
		r.Send(frame(60, 1), 0)
		r.Flush()
	}
}

// until lets the pair chat until ok holds.
func until(a, b *peer.Remote, limit time.Duration, ok func() bool) (took time.Duration, held bool) {
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			return time.Since(began), false
		}
		chat(a, b)
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
	}
	return time.Since(began), true
}

// TestPunching: what RFC 4787 lets be direct is so within 3 s, what it does not is
// not; either way frames flow from the first second on.
func TestPunching(t *testing.T) {
	for _, records := range []bool{false, true} { // are the other's candidates known before?
		for i, x := range boxes() {
			for _, y := range boxes()[i:] {
				t.Run(fmt.Sprintf("%s, %s, records %v", x.name, y.name, records), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						_, a, b := newPair(t, 1, x, y)
						ra, rb := connect(t, a, b, records)
						if took, ok := until(ra, rb, time.Second, func() bool { return len(a.received()) > 0 && len(b.received()) > 0 }); !ok {
							t.Fatalf("no frames in %v", took)
						}
						took, ok := until(ra, rb, 3*time.Second, func() bool { return direct(ra) && direct(rb) })
						if want := possible(x, y); ok != want {
							t.Errorf("direct after %v: %v, want %v", took, ok, want)
						}
					})
				})
			}
		}
	}
}

// TestManyPorts: one whose NAT gives each destination a port of its own, and one who
// lets in only whom it has sent to, become direct in most cases, by a bounded number
// of packets.
func TestManyPorts(t *testing.T) {
	hidden, restricted := boxes()[4], boxes()[3]
	const tries = 25
	succeeded, most := 0, 0
	for seed := range uint64(tries) {
		synctest.Test(t, func(t *testing.T) {
			internet, a, b := newPair(t, seed, hidden, restricted)
			var mu sync.Mutex
			toward := map[netip.Addr]int{}
			internet.Tap(func(d udptest.Datagram) {
				mu.Lock()
				defer mu.Unlock()
				toward[d.Dst.Addr()]++
			})
			ra, rb := connect(t, a, b, true)
			took, ok := until(ra, rb, 12*time.Second, func() bool { return direct(ra) && direct(rb) })
			mu.Lock()
			for _, n := range toward {
				most = max(most, n)
			}
			mu.Unlock()
			if !ok {
				return
			}
			succeeded++
			if took > 8*time.Second {
				t.Errorf("direct after %v", took)
			}
			// It stays so, with frames in both directions, and survives a rest.
			before := len(a.received()) + len(b.received())
			until(ra, rb, time.Minute, func() bool { return false })
			if !direct(ra) || !direct(rb) || len(a.received())+len(b.received()) < before+5900 {
				t.Errorf("a minute later: direct %v and %v, %d frames of 6000", direct(ra), direct(rb), len(a.received())+len(b.received())-before)
			}
		})
	}
	t.Logf("%d of %d tries succeeded; at most %d packets to one address", succeeded, tries, most)
	if succeeded < tries*8/10 {
		t.Errorf("%d of %d tries succeeded", succeeded, tries)
	}
	if limit := punch.Probes + 200 + 12*100; most > limit {
		t.Errorf("%d packets to one address", most)
	}
}

// TestTwoHidden: two such NATs stay relayed, and nobody probes ports for it.
func TestTwoHidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet, a, b := newPair(t, 1, boxes()[4], boxes()[4])
		sent := 0
		var mu sync.Mutex
		internet.Tap(func(udptest.Datagram) { mu.Lock(); sent++; mu.Unlock() })
		ra, rb := connect(t, a, b, true)
		until(ra, rb, 5*time.Minute, func() bool { return false })
		if direct(ra) || direct(rb) {
			t.Error("direct, which cannot be")
		}
		if sent > 100 {
			t.Errorf("%d packets in vain in 5 minutes", sent)
		}
	})
}

// TestSameNAT: two behind one NAT meet on their LAN, whether it hairpins or not; where
// each is behind a router of its own within one carrier's NAT, hairpinning is needed.
func TestSameNAT(t *testing.T) {
	cone := boxes()[3]
	for _, c := range []struct {
		name            string
		carrier         bool
		hairpin, direct bool
	}{
		{"a LAN, hairpin", false, true, true},
		{"a LAN, no hairpin", false, false, true},
		{"a carrier, hairpin", true, true, true},
		{"a carrier, no hairpin", true, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				internet := udptest.NewInternet(1)
				internet.LogOnFailure(t)
				in := newNetwork(t)
				cfg := cone.cfg
				cfg.Hairpin = c.hairpin
				outer := internet.NAT(cfg, netip.MustParseAddr("198.18.0.1"))
				var first, second udptest.Place = outer, outer
				if c.carrier {
					first, second = outer.NAT(cone.cfg, netip.MustParseAddr("100.64.0.1")), outer.NAT(cone.cfg, netip.MustParseAddr("100.64.0.2"))
				}
				sa, sb := streams(20 * time.Millisecond)
				a := siteAt(t, first.Host(netip.MustParseAddr("192.168.1.10")), in, cone, "a", sa)
				b := siteAt(t, second.Host(netip.MustParseAddr("192.168.1.11")), in, cone, "b", sb)
				observeAll(t, internet, a, b)
				ra, rb := connect(t, a, b, false)
				took, ok := until(ra, rb, 3*time.Second, func() bool { return direct(ra) && direct(rb) })
				if ok != c.direct {
					t.Errorf("direct after %v: %v, want %v", took, ok, c.direct)
				}
			})
		})
	}
}

// TestFirewalls: IPv6 behind two firewalls that let in only answers.
func TestFirewalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := udptest.NewInternet(1)
		internet.LogOnFailure(t)
		in := newNetwork(t)
		wall := box{"firewall", udptest.NATConfig{Filtering: udptest.AddressAndPortDependent}, traversal.MappingNone, false}
		sa, sb := streams(20 * time.Millisecond)
		a := siteAt(t, internet.NAT(wall.cfg).Host(netip.MustParseAddr("2001:db8:1::1")), in, wall, "a", sa)
		b := siteAt(t, internet.NAT(wall.cfg).Host(netip.MustParseAddr("2001:db8:2::1")), in, wall, "b", sb)
		for _, x := range []*site{a, b} {
			x.engine.SetLocal(punch.Local{Candidates: x.candidates()})
		}
		ra, rb := connect(t, a, b, false)
		if took, ok := until(ra, rb, 3*time.Second, func() bool { return direct(ra) && direct(rb) }); !ok {
			t.Errorf("not direct in %v", took)
		}
	})
}

// TestWrongHost: in the LAN of one is a host with the other's private address, which
// sends back whatever it gets. It is not taken for the other, and gets few packets.
func TestWrongHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := udptest.NewInternet(1)
		internet.LogOnFailure(t)
		in := newNetwork(t)
		cone := boxes()[3]
		sa, sb := streams(20 * time.Millisecond)
		lan := internet.NAT(cone.cfg, netip.MustParseAddr("198.18.0.1"))
		a := siteAt(t, lan.Host(netip.MustParseAddr("192.168.1.10")), in, cone, "a", sa)
		b := siteAt(t, internet.NAT(cone.cfg, netip.MustParseAddr("198.18.0.2")).Host(netip.MustParseAddr("192.168.1.11")), in, cone, "b", sb)
		echo, err := lan.Host(netip.MustParseAddr("192.168.1.11")).Listen(port)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan int, 1)
		go func() {
			n, pkts := 0, make([]udp.Packet, 1)
			for {
				if _, err := echo.Receive(pkts); err != nil {
					got <- n
					return
				}
				n++
				_ = echo.Send(pkts)
			}
		}()
		observeAll(t, internet, a, b)
		ra, rb := connect(t, a, b, false)
		until(ra, rb, 2*time.Minute, func() bool { return false })
		echo.Close()
		if !direct(ra) || !direct(rb) {
			t.Error("not direct")
		}
		for _, p := range ra.Status().Paths {
			if p.Up && p.Addr == netip.MustParseAddrPort("192.168.1.11:51830") {
				t.Errorf("the wrong host is a path: %+v", p)
			}
		}
		if n := <-got; n == 0 || n > 15 {
			t.Errorf("the wrong host got %d packets in two minutes", n)
		}
	})
}

// TestChangeWhileRelayed: a pair that cannot be direct becomes so soon after one has
// come to another place.
func TestChangeWhileRelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet, a, b := newPair(t, 1, boxes()[4], boxes()[4])
		ra, rb := connect(t, a, b, true)
		until(ra, rb, 5*time.Minute, func() bool { return false })
		if direct(ra) {
			t.Fatal("direct, which cannot be")
		}
		a.host.Move(internet, netip.MustParseAddr("198.18.0.77"))
		a.at, a.seen = netip.MustParseAddrPort("198.18.0.77:51830"), netip.AddrPort{}
		a.engine.LocalChange()
		a.engine.SetLocal(punch.Local{Candidates: a.candidates(), Mapping: traversal.MappingNone})
		if took, ok := until(ra, rb, 3*time.Second, func() bool { return direct(ra) && direct(rb) }); !ok {
			t.Errorf("not direct in %v", took)
		}
	})
}

// TestNowhere: a host without any address waits for one, without being busy.
func TestNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := udptest.NewInternet(1)
		internet.LogOnFailure(t)
		in := newNetwork(t)
		a, b := prepare(t, in, "a", internet.Host(netip.MustParseAddr("198.18.0.1"))), start(t, internet, in, "b", "198.18.0.2")
		var count counted
		a.wrap = func(c udp.Conn) udp.Conn { count.Conn = c; return &count }
		a.run()
		t.Cleanup(func() { a.stop() })
		meet(t, a, b)
		ra := a.knows(b, peer.Spec{Candidates: []netip.AddrPort{b.at}})
		a.host.SetAddr()
		a.engine.LocalChange()
		before := count.sends.Load()
		for range 600 {
			send(ra, frame(60, 1))
			time.Sleep(time.Second)
		}
		if n := count.sends.Load() - before; n > 200 {
			t.Errorf("%d attempts to send in ten minutes without a network", n)
		}
		a.host.SetAddr(netip.MustParseAddr("198.18.0.77"))
		a.engine.LocalChange()
		arrived := len(b.received())
		eventually(t, 3*time.Second, "frames flow", func() bool {
			send(ra, frame(60, 1))
			return len(b.received()) > arrived
		})
	})
}

// counted is a socket whose sends are counted.
type counted struct {
	udp.Conn
	sends atomic.Int64
}

func (c *counted) Send(pkts []udp.Packet) error {
	c.sends.Add(1)
	return c.Conn.Send(pkts)
}
