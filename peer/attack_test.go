package peer_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	mrand "math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"meshd/keys"
	"meshd/nat-traversal"
	"meshd/peer"
	"meshd/peer/hello"
	"meshd/peer/udp"
	"meshd/peer/udp/udptest"
	"meshd/peer/wireguard"
)

// meter counts what enters and leaves one address.
type meter struct {
	mu  sync.Mutex
	of  netip.AddrPort
	in  count
	out count
	to  map[netip.AddrPort]count // what left, by destination
	all []udptest.Datagram       // both ways, if keep
	// keep has everything remembered.
	keep atomic.Bool
}

type count struct{ packets, bytes int }

func (c *count) add(n int) { c.packets++; c.bytes += n }

// meterOf watches the node's datagrams.
func meterOf(net *udptest.Internet, of netip.AddrPort) *meter {
	m := &meter{of: of, to: map[netip.AddrPort]count{}}
	net.Tap(func(d udptest.Datagram) {
		m.mu.Lock()
		defer m.mu.Unlock()
		switch of {
		case d.Src:
			m.out.add(len(d.Data))
			c := m.to[d.Dst]
			c.add(len(d.Data))
			m.to[d.Dst] = c
		case d.Dst:
			m.in.add(len(d.Data))
		default:
			return
		}
		if m.keep.Load() {
			d.Data = bytes.Clone(d.Data)
			m.all = append(m.all, d)
		}
	})
	return m
}

func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.in, m.out, m.to, m.all = count{}, count{}, map[netip.AddrPort]count{}, nil
}

func (m *meter) totals() (in, out count) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.in, m.out
}

func (m *meter) sentTo(a netip.AddrPort) count {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.to[a]
}

// source is one of many addresses of strangers.
func source(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, byte(i >> 16), byte(i >> 8), byte(i)}), uint16(1024+i%60000))
}

// initiations writes WireGuard initiations with a valid mac1 and nonsense in them.
func initiations(t *testing.T, to keys.Public) func() []byte {
	t.Helper()
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	s := wireguard.NewSession(wireguard.NewLocal(private, time.Now()), to.WireGuard, wireguard.Options{})
	return func() []byte {
		msg := make([]byte, 148)
		_, _ = rand.Read(msg)
		copy(msg, []byte{1, 0, 0, 0})
		s.Stamp(msg, "path", time.Now())
		return msg
	}
}

func random(n int, head ...byte) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	copy(b, head)
	return b
}

// open is a hello's first message.
func open(t *testing.T, cfg hello.Config) []byte {
	t.Helper()
	i, err := hello.NewInitiator(cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	msg, _ := i.Tick(time.Now())
	return msg
}

func TestStrangerGetsNoMoreThanItSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a := start(t, net, in, "a", "198.18.0.1")
		initiation := initiations(t, a.identity.Public())
		stranger, err := keys.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		request := traversal.Request(traversal.TxID(random(12)))
		bare := bytes.Clone(request[:20])
		binary.BigEndian.PutUint16(bare[2:], 0)
		messages := map[string]func() []byte{
			"hello open":             func() []byte { return open(t, hello.Config{Identity: stranger}) },
			"hello open, garbage":    func() []byte { return random(1200, 0xd1, 1, 1, 0) },
			"hello open, short":      func() []byte { return random(60, 0xd1, 1, 1, 0) },
			"hello cookie":           func() []byte { return random(28, 0xd1, 1, 2, 0) },
			"hello answer":           func() []byte { return random(300, 0xd1, 1, 3, 0) },
			"hello proof":            func() []byte { return random(1200, 0xd1, 1, 4, 0) },
			"hello result":           func() []byte { return random(300, 0xd1, 1, 5, 0) },
			"hello, header alone":    func() []byte { return random(12, 0xd1, 1, 1, 0) },
			"probe":                  func() []byte { return random(85, 0xd2, 1, 0, 0) },
			"probe, short":           func() []byte { return random(13, 0xd2, 1, 0, 0) },
			"initiation":             initiation,
			"initiation, wrong mac1": func() []byte { return random(148, 1, 0, 0, 0) },
			"response":               func() []byte { return random(92, 2, 0, 0, 0) },
			"cookie reply":           func() []byte { return random(64, 3, 0, 0, 0) },
			"transport":              func() []byte { return random(200, 4, 0, 0, 0) },
			"transport, empty":       func() []byte { return random(32, 4, 0, 0, 0) },
			"transport, short":       func() []byte { return random(16, 4, 0, 0, 0) },
			"STUN":                   func() []byte { return request },
			"STUN, bare":             func() []byte { return bare },
			"STUN, success":          func() []byte { m := bytes.Clone(request); m[0] = 1; return m },
			"relay":                  func() []byte { return random(100, 0xd3, 1, 0, 0) },
			"garbage":                func() []byte { return random(100, 0x77) },
			"one byte":               func() []byte { return random(1) },
			"nothing":                func() []byte { return nil },
		}
		m := meterOf(net, a.at)
		number := 0
		for name, message := range messages {
			for _, burst := range []int{1, 400} { // alone, and so many that cookies are asked for
				m.reset()
				for range burst {
					number++
					net.Inject(source(number), a.at, message())
				}
				time.Sleep(30 * time.Second)
				synctest.Wait()
				in, out := m.totals()
				if out.packets > in.packets || out.bytes > in.bytes {
					t.Errorf("%s, %d: %+v for %+v", name, burst, out, in)
				}
				if in.packets != burst {
					t.Fatalf("%s: %d of %d arrived", name, in.packets, burst)
				}
			}
		}
	})
}

// A whole hello of a stranger: at no time has it got more than it has sent.
func TestHelloGivesNoMoreThanItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a, joiner := start(t, net, in, "a", "198.18.0.1"), start(t, net, nil, "", "198.18.0.2")
		m := meterOf(net, a.at)
		m.keep.Store(true)
		if _, err := joiner.engine.Meet(t.Context(), a.at, joiner.cfg); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		var got, gave count
		for _, d := range m.all {
			if d.Dst == a.at {
				gave.add(len(d.Data))
				continue
			}
			if got.add(len(d.Data)); got.packets > gave.packets || got.bytes > gave.bytes {
				t.Fatalf("%+v for %+v", got, gave)
			}
		}
		if got.packets < 3 {
			t.Fatalf("%d answers in a hello", got.packets)
		}
		// The same from somewhere else earns no more.
		was := m.all
		m.reset()
		for i, d := range was {
			if d.Dst == a.at {
				net.Inject(source(i), a.at, d.Data)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if in, out := m.totals(); out.packets > in.packets || out.bytes > in.bytes {
			t.Fatalf("replayed: %+v for %+v", out, in)
		}
	})
}

// heap is what is in use after a collection.
func heap() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func TestGarbageDoesNotDisturb(t *testing.T) {
	flood := 200_000
	if testing.Short() {
		flood = 20_000
	}
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		meet(t, a, b)
		b.remote(a).Send(frame(60, 0), 0)
		b.remote(a).Flush()
		eventually(t, time.Second, "a session", func() bool { return a.remote(b).Up() && len(a.received()) == 1 })
		heads := [][]byte{{0xd1, 1, 1, 0}, {0xd2, 1, 0, 0}, {1, 0, 0, 0}, {2, 0, 0, 0}, {3, 0, 0, 0}, {4, 0, 0, 0}, {0, 1}, {0xd3}, {0x45}, {}}
		sizes := []int{0, 1, 4, 20, 32, 64, 85, 92, 148, 300, 1200}
		r := mrand.New(mrand.NewPCG(1, 2))
		buf := random(1200)
		before, goroutines := heap(), runtime.NumGoroutine()
		sent := 1
		for i := range flood {
			msg := buf[:sizes[r.IntN(len(sizes))]]
			copy(msg, heads[r.IntN(len(heads))])
			net.Inject(source(r.IntN(1<<16)), a.at, msg)
			if i%200 == 0 {
				b.remote(a).Send(frame(60, i), 0)
				b.remote(a).Flush()
				sent++
				synctest.Wait()
				time.Sleep(4 * time.Millisecond) // 50,000 a second
			}
		}
		synctest.Wait()
		if got := len(a.received()); got != sent {
			t.Errorf("%d of %d frames arrived", got, sent)
		}
		if after := heap(); after > before+16<<20 {
			t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
		}
		if now := runtime.NumGoroutine(); now > goroutines+2 {
			t.Errorf("goroutines: %d, then %d", goroutines, now)
		}
	})
}

// Initiations with a valid mac1 cost two X25519 operations each. From many
// sources, 20,000 a second, they must not keep a member out.
func TestHandshakeUnderInitiations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		meet(t, a, b)
		initiation := initiations(t, a.identity.Public())
		began := time.Now()
		for i := 0; len(a.received()) == 0; i++ {
			for j := range 400 {
				net.Inject(source(i*400+j), a.at, initiation())
			}
			b.remote(a).Send(frame(60, 1), 0)
			b.remote(a).Flush()
			time.Sleep(20 * time.Millisecond)
			if time.Since(began) > 10*time.Second {
				t.Fatal("no session within 10 s of 20,000 initiations a second")
			}
		}
		t.Logf("a session after %v", time.Since(began))
	})
}

func TestMeetUnderHellos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a, joiner := start(t, net, in, "a", "198.18.0.1"), start(t, net, nil, "", "198.18.0.2")
		msg := open(t, joiner.cfg)
		done := make(chan error, 1)
		go func() {
			_, err := joiner.engine.Meet(t.Context(), a.at, joiner.cfg)
			done <- err
		}()
		for i := range 1 << 16 {
			net.Inject(source(i), a.at, msg)
			if i%400 == 0 {
				time.Sleep(20 * time.Millisecond)
			}
			if i%2000 == 1999 { // as much as a core manages
				synctest.Wait()
			}
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no hello under hellos")
		}
	})
}

// seen is all of a node that somebody without keys must not be able to change.
type seen struct {
	up, wanted         bool
	endpoint, observed netip.AddrPort
	handshake          time.Time
	frames, control    int
}

func (n *node) seen(of *node) seen {
	st := n.remote(of).Status()
	n.mu.Lock()
	defer n.mu.Unlock()
	return seen{st.Up, st.Wanted, st.Endpoint, st.Observed, st.LastHandshake, len(n.frames), len(n.control)}
}

// talk has two nodes exchange frames for a while.
func talk(a, b *node, d time.Duration) {
	for began := time.Now(); time.Since(began) < d; {
		for _, p := range [][2]*node{{a, b}, {b, a}} {
			p[0].remote(p[1]).Send(frame(200, 1), 0)
			p[0].remote(p[1]).Flush()
		}
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
	}
}

// Everything that two nodes ever said to each other, again: to a pair that
// talks, and to one that rests.
func TestReplayOfEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		m := meterOf(net, a.at)
		m.keep.Store(true)
		meet(t, a, b)
		talk(a, b, time.Minute)
		a.host.SetAddr(netip.MustParseAddr("198.18.0.7")) // b sees another address from here on
		a.engine.LocalChange()
		a.at = netip.MustParseAddrPort("198.18.0.7:51830")
		m2 := meterOf(net, a.at)
		m2.keep.Store(true)
		talk(a, b, 4*time.Minute)
		capture := append(m.all, m2.all...)
		m.keep.Store(false)
		m2.keep.Store(false)
		evil := netip.MustParseAddrPort("203.0.113.66:666")
		replay := func(src func(netip.AddrPort) netip.AddrPort) {
			for i, d := range slices.Backward(capture) { // the old address comes last
				to := d.Dst
				if to.Addr() == netip.MustParseAddr("198.18.0.1") {
					to = a.at
				}
				net.Inject(src(d.Src), to, d.Data)
				if i%100 == 0 {
					synctest.Wait()
				}
			}
		}
		same := func(src netip.AddrPort) netip.AddrPort { return src }
		forged := func(netip.AddrPort) netip.AddrPort { return evil }
		check := func(what string, n, of *node, was seen) {
			t.Helper()
			if is := n.seen(of); is != was {
				t.Errorf("%s changed %+v to %+v", what, was, is)
			}
		}
		wasA, wasB := a.seen(b), b.seen(a)
		replay(forged)
		synctest.Wait()
		check("replay at a live pair", a, b, wasA)
		check("replay at a live pair", b, a, wasB)
		replay(same)
		synctest.Wait()
		check("replay at a live pair", a, b, wasA)
		check("replay at a live pair", b, a, wasB)
		talk(a, b, 5*time.Second)
		if got := a.seen(b).frames - wasA.frames; got < 9 {
			t.Errorf("%d frames in 5 s after the replay", got)
		}
		idle := 0
		for range 50 { // five minutes of replay, and nothing else
			replay(forged)
			time.Sleep(6 * time.Second)
			synctest.Wait()
			if st := a.remote(b).Status(); !st.Up && !st.Wanted {
				idle++
			}
		}
		if a.remote(b).Status().Up || b.remote(a).Status().Up || idle == 0 {
			t.Error("replayed datagrams keep a session alive")
		}
		t.Logf("%d datagrams, replayed %d times; %+v to the forged source", len(capture), 52, m2.sentTo(evil))
	})
}

// Copies of live data from another source arrive first: no data may ever go to
// an address that has not answered a probe, and no more than its budget of probes.
func TestForgedSourceGetsNoData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		meet(t, a, b)
		talk(a, b, 5*time.Second)
		victim := netip.MustParseAddrPort("203.0.113.66:666")
		var mu sync.Mutex
		probes, other := 0, 0
		net.Tap(func(d udptest.Datagram) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case d.Dst != victim:
			case udp.Classify(d.Data) == udp.KindProbe:
				probes++
			default:
				other++
			}
		})
		var forging bool
		unblock := net.Block(func(d udptest.Datagram) bool {
			if d.From != b.host || forging || udp.Classify(d.Data) != udp.KindWireGuard {
				return false
			}
			net.Inject(victim, d.Dst, bytes.Clone(d.Data))
			return true
		})
		talk(a, b, time.Minute)
		unblock()
		forging = true
		if other > 0 || probes > 6 {
			t.Errorf("the forged source got %d probes and %d others in a minute", probes, other)
		}
		if at := a.remote(b).Status().Endpoint; at != b.at {
			t.Errorf("the path went to %v", at)
		}
	})
}

// One ping of a joiner, captured and sent again from a thousand sources.
func TestReplayedPingIsNotMultiplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		m := meterOf(net, a.at)
		m.keep.Store(true)
		meet(t, a, b)
		b.remote(a).Want() // its pings say that it wants a session
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		var pings [][]byte
		for _, d := range m.all {
			if d.Src == b.at && udp.Classify(d.Data) == udp.KindProbe {
				pings = append(pings, d.Data)
			}
		}
		if len(pings) == 0 {
			t.Fatal("no ping was captured")
		}
		m.keep.Store(false)
		a.remote(b).Want()
		for _, ping := range pings {
			m.reset()
			const sources = 1000
			sent := 0
			for i := range sources {
				net.Inject(source(i), a.at, ping)
				sent += len(ping)
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
			}
			time.Sleep(10 * time.Second)
			out := count{}
			for i := range sources {
				c := m.sentTo(source(i))
				out.packets += c.packets
				out.bytes += c.bytes
				if c.packets > 6 {
					t.Fatalf("%v got %d packets", source(i), c.packets)
				}
			}
			if out.packets > sources+sources/5 {
				t.Errorf("%+v for %d packets with %d bytes", out, sources, sent)
			}
		}
	})
}

// A joiner that names the WireGuard key of a member, which is no secret, must
// not get between that member and us: neither after it nor before.
func TestStolenKeyName(t *testing.T) {
	for _, first := range []string{"member", "thief"} {
		t.Run(first+" first", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := udptest.NewInternet(1)
				in := newNetwork(t)
				a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
				thief, err := keys.NewIdentity()
				if err != nil {
					t.Fatal(err)
				}
				claimed := thief.Public()
				claimed.WireGuard = b.identity.Public().WireGuard
				claim := func() {
					_, err := a.engine.SetRemote(peer.Spec{Public: claimed, Class: peer.Pending})
					if (err != nil) != (first == "member") {
						t.Errorf("claim: %v", err)
					}
				}
				if first == "thief" {
					claim()
				}
				meet(t, a, b)
				if first == "member" {
					claim()
				}
				b.remote(a).Send(frame(60, 1), 0)
				b.remote(a).Flush()
				eventually(t, 2*time.Second, "a frame of the member", func() bool { return len(a.received()) == 1 })
				a.engine.Forget(thief.Public().ID())
				talk(a, b, 3*time.Minute) // over a rekey
				if got := len(a.received()); got < 350 {
					t.Errorf("%d frames arrived over a rekey", got)
				}
				claimed = thief.Public()
				claimed.WireGuard = a.identity.Public().WireGuard
				if _, err := a.engine.SetRemote(peer.Spec{Public: claimed, Class: peer.Member}); err == nil {
					t.Error("our own key was taken for another's")
				}
			})
		})
	}
}

// Frames for many members that are away wait in bounded memory.
func TestWaitingFramesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a := start(t, net, in, "a", "198.18.0.1")
		var remotes []*peer.Remote
		for range 200 {
			id, err := keys.NewIdentity()
			if err != nil {
				t.Fatal(err)
			}
			r, err := a.engine.SetRemote(peer.Spec{Public: id.Public(), Class: peer.Member})
			if err != nil {
				t.Fatal(err)
			}
			remotes = append(remotes, r)
		}
		before := heap()
		broadcast := frame(1500, 1)
		for range 128 {
			for _, r := range remotes {
				r.Send(broadcast, 0)
			}
		}
		if grown := int64(heap()) - int64(before); grown > 16<<20 {
			t.Errorf("%d KiB wait", grown>>10)
		}
		for _, r := range remotes[:100] {
			a.engine.Forget(r.ID)
		}
		time.Sleep(3 * time.Second) // too old
		synctest.Wait()
		if n := remotes[150].Status().QueueDropped; n != 128 {
			t.Errorf("status counts %d of 128 frames that waited in vain", n)
		}
		b := start(t, net, in, "b", "198.18.0.2") // what was given back can be used
		meet(t, a, b)
		a.remote(b).Send(broadcast, 0)
		a.remote(b).Flush()
		eventually(t, 2*time.Second, "a frame", func() bool { return len(b.received()) == 1 })
	})
}

// Calls that come while a node ends do nothing.
func TestEndedEngineTakesCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		meet(t, a, b)
		r := a.remote(b)
		r.Send(frame(60, 1), 0)
		a.stop()
		r.Send(frame(60, 1), 0)
		r.Flush()
		r.Want()
		r.Rest()
		r.Learn(b.at)
		r.Attach(nil)
		_ = r.Status()
		if r.SendControl([]byte("x")) {
			t.Error("an ended engine sends")
		}
		a.engine.LocalChange()
		a.engine.Forget(r.ID)
		if err := a.engine.SetHello(a.cfg); err != nil {
			t.Error(err)
		}
	})
}
