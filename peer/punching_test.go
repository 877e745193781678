package peer_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
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

// siteBehind starts a node behind a box. All LANs are numbered alike.
func siteBehind(t *testing.T, internet *udptest.Internet, in *network, b box, name string, number int, s *stream) *site {
	t.Helper()
	outside := netip.AddrFrom4([4]byte{198, 18, 0, byte(number)})
	x := &site{box: b}
	var h *udptest.Host
	if b.public {
		h = internet.Host(outside)
	} else {
		x.nat = internet.NAT(b.cfg, outside)
		h = x.nat.Host(netip.MustParseAddr("192.168.1.10"))
	}
	line := udptest.Link{Delay: 5 * time.Millisecond}
	h.SetLink(line, line)
	x.node = prepare(t, in, name, h)
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
	server, err := internet.Host(netip.MustParseAddr("198.18.0.99")).Listen(3478)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	at := netip.MustParseAddrPort("198.18.0.99:3478")
	a.observe(t, server, at)
	b.observe(t, server, at)
	return internet, a, b
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
