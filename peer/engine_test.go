package peer_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/keys"
	"meshd/peer"
	"meshd/peer/hello"
	"meshd/peer/udp"
	"meshd/peer/udp/udptest"
	"meshd/peer/way"
	"meshd/peer/wireguard"
)

const port = 51830

// network is a root with a signer, to admit test nodes.
type network struct {
	trust  keys.Trust
	signer *keys.Signer
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	now := time.Now()
	root, err := keys.NewRoot("test", now)
	if err != nil {
		t.Fatal(err)
	}
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := root.IssueSigner(id.Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.NewSigner(id, cert)
	if err != nil {
		t.Fatal(err)
	}
	return &network{keys.Trust{Root: root.Public()}, signer}
}

// node is an engine with an observer that remembers.
type node struct {
	t        *testing.T
	engine   *peer.Engine
	identity *keys.Identity
	host     *udptest.Host
	at       netip.AddrPort
	cfg      hello.Config
	carriers map[way.Class]udp.Conn
	openPort peer.PortOpener
	wrap     func(udp.Conn) udp.Conn // the socket; nil: as it is
	older    bool                    // it knows nothing of checksums that are left out
	lanes    int
	ahead    time.Duration // of its clock

	mu      sync.Mutex
	met     []*hello.Result
	control []string
	frames  [][]byte
	onFrame func() // called for each of them
	starts  []int  // of the checksums that were left out, by frame
	stop    func()
}

func (n *node) Met(r *hello.Result, at netip.AddrPort) {
	n.mu.Lock()
	n.met = append(n.met, r)
	n.mu.Unlock()
	if r.Certificate == nil {
		return
	}
	remote, err := n.engine.SetRemote(peer.Spec{Public: r.Remote, Class: peer.Member, HourOffset: r.HourOffset})
	if err != nil {
		n.t.Error(err)
		return
	}
	remote.Attach(n)
	remote.Learn(at)
}

func (n *node) Control(from *peer.Remote, msg []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.control = append(n.control, string(msg))
}
func (n *node) STUN(netip.AddrPort, []byte) {}
func (n *node) Changed(*peer.Remote)        {}
func (n *node) Flush()                      {}
func (n *node) Receive(frame []byte, csumStart int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.starts = append(n.starts, csumStart)
	n.frames = append(n.frames, bytes.Clone(frame))
	if n.onFrame != nil {
		n.onFrame()
	}
}

func (n *node) received() [][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.frames
}

// start runs an engine on a host of the in-memory internet. A nil network makes
// a node without certificate that trusts whom it meets.
func start(t *testing.T, net *udptest.Internet, in *network, name, addr string) *node {
	t.Helper()
	return startOn(t, net.Host(netip.MustParseAddr(addr)), in, name)
}

func startOn(t *testing.T, host *udptest.Host, in *network, name string) *node {
	t.Helper()
	n := prepare(t, in, name, host)
	n.run()
	t.Cleanup(func() { n.stop() })
	return n
}

// prepare makes a node on a host; its engine does not run yet.
func prepare(t *testing.T, in *network, name string, h *udptest.Host) *node {
	t.Helper()
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, identity: id, host: h}
	n.cfg = hello.Config{Identity: id}
	if in != nil {
		chain, err := in.signer.Issue(id.Public(), name, keys.Roles{"member"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		n.cfg.Trust, n.cfg.Chain = &in.trust, chain
	}
	return n
}

// unspecified is the address to listen on, of the family that a host has.
func unspecified(h *udptest.Host) netip.Addr {
	if h.Addrs()[0].Is6() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// run starts the engine, anew if it ran before.
func (n *node) run() {
	n.t.Helper()
	conn, err := n.host.ListenAddr(netip.AddrPortFrom(unspecified(n.host), port))
	if err != nil {
		n.t.Fatal(err)
	}
	if n.wrap != nil {
		conn = n.wrap(conn)
	}
	n.at = netip.AddrPortFrom(n.host.Addrs()[0], port)
	log := slog.New(slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	n.engine, err = peer.New(peer.Config{Identity: n.identity, Conns: []udp.Conn{conn}, Carriers: n.carriers, OpenPort: n.openPort, Hello: n.cfg, Observer: n, Logger: log, WholeChecksums: n.older, Lanes: n.lanes})
	if err != nil {
		n.t.Fatal(err)
	}
	ahead := n.ahead
	peer.SetClock(n.engine, func() time.Time { return time.Now().Add(ahead) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	engine := n.engine
	go func() { done <- engine.Run(ctx) }()
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				n.t.Error(err)
			}
		})
	}
}

// meet introduces a to b.
func meet(t *testing.T, a, b *node) {
	t.Helper()
	r, err := a.engine.Meet(t.Context(), b.at, a.cfg)
	if err != nil {
		t.Fatalf("meet: %v", err)
	}
	if r.Remote != b.identity.Public() {
		t.Fatal("met somebody else")
	}
	synctest.Wait()
}

func (n *node) remote(of *node) *peer.Remote {
	r := n.engine.Remote(of.identity.Public().ID())
	if r == nil {
		n.t.Fatal("remote is not known")
	}
	return r
}

func frame(size, fill int) []byte {
	f := bytes.Repeat([]byte{byte(fill)}, size)
	return f
}

// eventually waits, in simulated time, until ok holds.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
	}
	return time.Since(began)
}

func TestFramesBetweenMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		net.LogOnFailure(t)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		a.host.SetLink(udptest.Link{Delay: 5 * time.Millisecond}, udptest.Link{Delay: 5 * time.Millisecond})
		meet(t, a, b)
		sizes := []int{60, 1000, 1300, 1514, 1518}
		for i, size := range sizes { // the first finds no session and waits for it
			a.remote(b).Send(frame(size, i+1), 0)
			a.remote(b).Flush()
		}
		took := eventually(t, time.Second, "frames arrive", func() bool { return len(b.received()) == len(sizes) })
		if took > 100*time.Millisecond {
			t.Errorf("first frames took %v of simulated time on a 10 ms path", took)
		}
		for i, got := range b.received() {
			if !bytes.Equal(got, frame(sizes[i], i+1)) {
				t.Errorf("frame %d differs", i)
			}
		}
		b.remote(a).Send(frame(60, 9), 0)
		b.remote(a).Flush()
		eventually(t, time.Second, "an answer arrives", func() bool { return len(a.received()) == 1 })
	})
}

// TestJumboFrames: the largest frames of a segment of 9000 bytes, with and without a tag, cross a path of 1280 in at most
// eight datagrams.
func TestJumboFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		net.LogOnFailure(t)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "2001:db8::1"), start(t, net, in, "b", "2001:db8::2")
		narrow := udptest.Link{Delay: 5 * time.Millisecond, MTU: 1280}
		a.host.SetLink(narrow, narrow)
		meet(t, a, b)
		a.remote(b).Send(frame(60, 1), 0)
		a.remote(b).Flush()
		eventually(t, time.Second, "a session", func() bool { return len(b.received()) == 1 })
		var large atomic.Int64
		net.Tap(func(d udptest.Datagram) {
			if kind, ok := wireguard.Type(d.Data); ok && kind == wireguard.TypeTransport && d.From == a.host && len(d.Data) > 1000 {
				large.Add(1)
			}
		})
		for i, size := range []int{9014, 9018} {
			large.Store(0)
			a.remote(b).Send(frame(size, i+2), 0)
			a.remote(b).Flush()
			eventually(t, time.Second, "a jumbo frame arrives", func() bool { return len(b.received()) == i+2 })
			if !bytes.Equal(b.received()[i+1], frame(size, i+2)) {
				t.Errorf("a frame of %d bytes differs", size)
			}
			if n := large.Load(); n < 2 || n > 8 {
				t.Errorf("a frame of %d bytes crosses in %d datagrams", size, n)
			}
		}
	})
}

func TestPathGrowsTo1500(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		net.LogOnFailure(t)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		meet(t, a, b)
		a.remote(b).Send(frame(60, 1), 0)
		a.remote(b).Flush()
		eventually(t, 5*time.Second, "path of 1500", func() bool { return a.remote(b).Status().PathMTU == 1500 })
	})
}

func TestStartUnderLoss(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := udptest.NewInternet(seed)
				net.LogOnFailure(t)
				in := newNetwork(t)
				a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
				lossy := udptest.Link{Delay: 10 * time.Millisecond, Loss: 0.1}
				a.host.SetLink(lossy, lossy)
				meet(t, a, b)
				began := time.Now()
				for len(b.received()) == 0 {
					a.remote(b).Send(frame(60, 1), 0)
					a.remote(b).Flush()
					time.Sleep(50 * time.Millisecond)
					synctest.Wait()
					if time.Since(began) > 5*time.Second {
						t.Fatal("no frame in 5 s at 10 % loss")
					}
				}
			})
		})
	}
}

func TestPendingPassesControlOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		net.LogOnFailure(t)
		in := newNetwork(t)
		member, joiner := start(t, net, in, "member", "198.18.0.1"), start(t, net, nil, "", "198.18.0.2")
		r, err := joiner.engine.Meet(t.Context(), member.at, joiner.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Pending || r.Certificate != nil {
			t.Fatalf("a joiner was shown a certificate: %+v", r)
		}
		spec := peer.Spec{Public: r.Remote, Class: peer.Pending, Candidates: []netip.AddrPort{member.at}}
		toMember, err := joiner.engine.SetRemote(spec)
		if err != nil {
			t.Fatal(err)
		}
		toJoiner, err := member.engine.SetRemote(peer.Spec{Public: joiner.identity.Public(), Class: peer.Pending, Candidates: []netip.AddrPort{joiner.at}})
		if err != nil {
			t.Fatal(err)
		}
		toJoiner.Attach(member)
		toMember.Attach(joiner)
		eventually(t, 2*time.Second, "a join message arrives", func() bool {
			toMember.SendControl([]byte("join"))
			synctest.Wait()
			member.mu.Lock()
			defer member.mu.Unlock()
			return len(member.control) > 0
		})
		for range 10 {
			toMember.Send(frame(60, 1), 0)
			toMember.Flush()
			toJoiner.Send(frame(60, 1), 0)
			toJoiner.Flush()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(member.received())+len(joiner.received()) > 0 {
			t.Fatal("frames passed a pending session")
		}
	})
}

func TestAddressChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		net.LogOnFailure(t)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		line := udptest.Link{Delay: 5 * time.Millisecond}
		a.host.SetLink(line, line)
		meet(t, a, b)
		ping := func() { // both directions at 50 Hz
			a.remote(b).Send(frame(60, 1), 0)
			a.remote(b).Flush()
			b.remote(a).Send(frame(60, 2), 0)
			b.remote(a).Flush()
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
		}
		for range 100 {
			ping()
		}
		keys := func() [2]time.Time {
			return [2]time.Time{a.remote(b).Status().LastHandshake, b.remote(a).Status().LastHandshake}
		}
		before := keys()
		a.host.SetAddr(netip.MustParseAddr("198.18.0.77"))
		a.engine.LocalChange()
		gap := func(n *node) time.Duration {
			began, seen := time.Now(), len(n.received())
			for len(n.received()) <= seen {
				ping()
				if time.Since(began) > 5*time.Second {
					t.Fatal("no frame within 5 s of an address change")
				}
			}
			return time.Since(began)
		}
		t.Logf("outage towards the one that stayed: %v", gap(b))
		t.Logf("outage towards the one that moved: %v", gap(a))
		for range 500 { // nor does one follow
			ping()
		}
		if now := keys(); now != before {
			t.Errorf("the session of %v was replaced by one of %v, for an address that changed", before, now)
		}
	})
}

func TestRestartOfOneSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		net.LogOnFailure(t)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		meet(t, a, b)
		a.remote(b).Send(frame(60, 1), 0)
		a.remote(b).Flush()
		eventually(t, time.Second, "a frame arrives", func() bool { return len(b.received()) == 1 })
		b.stop()
		b.run()
		remote, err := b.engine.SetRemote(peer.Spec{Public: a.identity.Public(), Class: peer.Member, Candidates: []netip.AddrPort{a.at}})
		if err != nil {
			t.Fatal(err)
		}
		remote.Attach(b)
		remote.Want() // it looks for its neighbours at the start
		began := time.Now()
		for len(b.received()) < 2 {
			a.remote(b).Send(frame(60, 2), 0)
			a.remote(b).Flush()
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
			if time.Since(began) > 5*time.Second {
				t.Fatal("no traffic within 5 s of a restart")
			}
		}
	})
}

func TestIdleSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		meet(t, a, b)
		a.remote(b).Send(frame(60, 1), 0)
		a.remote(b).Flush()
		eventually(t, time.Second, "a session", func() bool { return a.remote(b).Status().Up && b.remote(a).Status().Up })
		time.Sleep(time.Second) // what members say to each other when a session begins comes after its keys
		a.remote(b).SendControl([]byte{2})
		b.remote(a).SendControl([]byte{2})
		time.Sleep(3*time.Minute - time.Second/2)
		a.engine.LocalChange() // looks at everything, just after the keys have ended
		time.Sleep(time.Minute)
		synctest.Wait()
		if a.remote(b).Status().Up || b.remote(a).Status().Up {
			t.Fatal("the session outlived three idle minutes")
		}
		var sent int
		net.Tap(func(udptest.Datagram) { sent++ })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if sent > 0 {
			t.Fatalf("an idle pair sent %d datagrams in ten minutes", sent)
		}
	})
}

// A session that was used once more, and then not, ends with its keys.
func TestUnusedKeysAreNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		meet(t, a, b)
		say := func() {
			a.remote(b).Send(frame(60, 1), 0)
			a.remote(b).Flush()
		}
		say()
		eventually(t, time.Second, "a session", func() bool { return a.remote(b).Up() && b.remote(a).Up() })
		began := time.Now()
		time.Sleep(90 * time.Second)
		say()
		time.Sleep(91 * time.Second)
		synctest.Wait()
		if !a.remote(b).WantedSince().IsZero() || !b.remote(a).WantedSince().IsZero() {
			t.Error("a session is still wanted when the keys have ended")
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if a.remote(b).Up() || b.remote(a).Up() {
			t.Errorf("there are new keys, made %v after the first", a.remote(b).Status().LastHandshake.Sub(began))
		}
		before := len(b.received())
		say()
		eventually(t, 100*time.Millisecond, "a frame after the end", func() bool { return len(b.received()) > before })
		time.Sleep(200 * time.Second)
		if a.remote(b).SendControl([]byte{2}) {
			t.Error("the second session has not ended")
		}
		eventually(t, time.Second, "a third session, for a control message", func() bool { return a.remote(b).Up() && b.remote(a).Up() })
	})
}

func TestRekeyUnderTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.NewInternet(1)
		net.LogOnFailure(t)
		in := newNetwork(t)
		a, b := start(t, net, in, "a", "198.18.0.1"), start(t, net, in, "b", "198.18.0.2")
		line := udptest.Link{Delay: 5 * time.Millisecond}
		a.host.SetLink(line, line)
		meet(t, a, b)
		sent := 0
		for began := time.Now(); time.Since(began) < 7*time.Minute; sent++ {
			a.remote(b).Send(frame(60, sent), 0)
			a.remote(b).Flush()
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		if got := len(b.received()); got != sent {
			t.Fatalf("%d of %d frames arrived over three rekeys", got, sent)
		}
		if at := a.remote(b).Status().LastHandshake; time.Since(at) > 2*time.Minute+10*time.Second {
			t.Fatalf("the last handshake is %v old", time.Since(at))
		}
	})
}
