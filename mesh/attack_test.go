package mesh_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/l2/l2test"
	"meshd/mesh/api"
	"meshd/mesh/meshtest"
	"meshd/peer"
	"meshd/peer/hello"
	"meshd/peer/udp"
	"meshd/peer/udp/udptest"
)

// villain is an engine that is driven by hand.
type villain struct {
	t        *testing.T
	engine   *peer.Engine
	identity *keys.Identity
	hello    hello.Config

	mu    sync.Mutex
	got   map[byte]int // control messages, by kind
	frame int

	watch   l2.MAC // a station
	watched int    // frames for it
}

func (v *villain) Met(*hello.Result, netip.AddrPort) {}
func (v *villain) STUN(netip.AddrPort, []byte)       {}
func (v *villain) Changed(*peer.Remote)              {}
func (v *villain) Flush()                            {}
func (v *villain) Receive(frame []byte, _ int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.frame++
	if l2.MAC(frame[:6]) == v.watch {
		v.watched++
	}
}

func (v *villain) Control(_ *peer.Remote, msg []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(msg) > 0 {
		v.got[msg[0]]++
	}
}

// villain runs an engine on a host. A nil identity is a new one.
func (w *world) villain(h *host, id *keys.Identity, cfg hello.Config) *villain {
	w.t.Helper()
	if id == nil {
		var err error
		if id, err = keys.NewIdentity(); err != nil {
			w.t.Fatal(err)
		}
	}
	cfg.Identity = id
	v := &villain{t: w.t, identity: id, hello: cfg, got: map[byte]int{}}
	conns, err := h.Listen(netip.AddrPortFrom(netip.Addr{}, 51830))
	if err != nil {
		w.t.Fatal(err)
	}
	v.engine, err = peer.New(peer.Config{Identity: id, Conns: conns, Hello: cfg, Observer: v, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.engine.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done })
	return v
}

// turn makes a villain of a member: it has all that the member had.
func (w *world) turn(n *node) *villain {
	w.t.Helper()
	if err := n.stop(); err != nil {
		w.t.Fatal(err)
	}
	cfg, err := meshtest.Turned(n.state)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.villain(n.host, cfg.Identity, cfg)
}

// befriend gives the villain a session with a node.
func (v *villain) befriend(at string, class peer.Class) *peer.Remote {
	v.t.Helper()
	to := netip.MustParseAddrPort(at)
	met, err := v.engine.Meet(v.t.Context(), to, v.hello)
	if err != nil {
		v.t.Fatal(err)
	}
	r, err := v.engine.SetRemote(peer.Spec{Public: met.Remote, Class: class, Candidates: []netip.AddrPort{to}})
	if err != nil {
		v.t.Fatal(err)
	}
	r.Attach(v)
	for began := time.Now(); !r.Up(); time.Sleep(10 * time.Millisecond) {
		r.Want()
		if time.Since(began) > 5*time.Second {
			v.t.Fatal("no session for the villain")
		}
	}
	return r
}

func (v *villain) watching() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.watched
}

func (v *villain) received() (control map[byte]int, frames int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	control = map[byte]int{}
	for k, n := range v.got {
		control[k] = n
	}
	return control, v.frame
}

// trio is two honest members and a villain with a session to each.
func trio(t *testing.T, w *world) (a, b *node, v *villain, evil [2]*peer.Remote) {
	t.Helper()
	a = w.up(w.host("198.18.0.1"), "a")
	a.waitReady(5 * time.Second)
	b = w.up(w.host("198.18.0.2"), "b", a.invite(1))
	c := w.up(w.host("198.18.0.3"), "c", a.invite(1))
	for _, n := range []*node{b, c} {
		n.waitReady(5 * time.Second)
	}
	for _, n := range []*node{a, b, c} {
		n.wait(api.WaitSpec{Peers: 2}, 10*time.Second)
	}
	reaches(t, a, b, time.Second)
	v = w.turn(c)
	return a, b, v, [2]*peer.Remote{
		v.befriend("198.18.0.1:51830", peer.Member), v.befriend("198.18.0.2:51830", peer.Member),
	}
}

// passes counts how many of n frames from one to the other arrive, while do is
// called before each.
func passes(a, b *node, n int, do func(i int)) int {
	to := b.mac()
	got := 0
	for i := range n {
		do(i)
		a.send(to, uint32(1000+i))
		for b.take(5*time.Millisecond) != nil {
			got++
		}
	}
	return got
}

func inUse() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// A member sends nonsense of every kind, 10,000 a second.
func TestMemberFloodsControl(t *testing.T) {
	kinds := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 22, 255} // all that there are, and some that there are not
	for _, kind := range kinds {
		t.Run(fmt.Sprint("kind ", kind), func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				w.level = slog.LevelError
				a, b, _, evil := trio(t, w)
				r := rand.New(rand.NewPCG(1, uint64(kind)))
				before, goroutines := inUse(), runtime.NumGoroutine()
				msg := make([]byte, 1100)
				frames := 100
				if testing.Short() {
					frames = 30 // as for crowds
				}
				got := passes(a, b, frames, func(int) {
					for range 50 { // in 5 ms
						n := 1 + r.IntN(len(msg)-1)
						for i := range msg[:n] {
							msg[i] = byte(r.Uint32())
						}
						if kind == 3 && n > 2 {
							msg[1], msg[2] = byte(r.IntN(4)), byte(r.IntN(9))
						}
						msg[0] = byte(kind)
						evil[0].SendControl(msg[:n])
						evil[1].SendControl(msg[:1])
						evil[1].SendControl(nil)
					}
				})
				if got < frames-1 {
					t.Errorf("%d of %d frames arrived", got, frames)
				}
				if after := inUse(); after > before+16<<20 {
					t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
				}
				if now := runtime.NumGoroutine(); now > goroutines+4 {
					t.Errorf("goroutines: %d, then %d", goroutines, now)
				}
				if p := a.peer("b"); p.State != api.StateDirect {
					t.Errorf("a sees b as %v", p.State)
				}
				if got := len(a.status().Peers); got != 2 {
					t.Errorf("a knows %d members, want 2", got)
				}
			})
		})
	}
}

// A goodbye is about who says it and nobody else.
func TestGoodbyeIsOnesOwn(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a, b, v, evil := trio(t, w)
		b2 := v.engine.Remote(evil[1].ID)
		was := a.peer("b").LastHandshake
		for range 10 {
			evil[0].SendControl(append([]byte{5}, b2.ID[:]...)) // "b leaves"
		}
		time.Sleep(time.Second)
		if p := a.peer("b"); p.State != api.StateDirect {
			t.Errorf("b is %v after another's goodbye", p.State)
		} else if p.LastHandshake != was {
			t.Errorf("b's session of %v is one of %v after another's goodbye", was, p.LastHandshake)
		}
		reaches(t, a, b, time.Second)
	})
}

// Frames under the addresses of other members, and pieces that never complete.
func TestMemberForgesFrames(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.level = slog.LevelError
		a, b, _, evil := trio(t, w)
		for _, src := range []l2.MAC{b.mac(), a.mac(), {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {1, 0, 0x5e, 0, 0, 1}} {
			for i := range uint32(100) {
				evil[0].Send(l2test.Frame(a.mac(), src, i, 100), 0)
				evil[0].Send(l2test.Frame(broadcast, src, i, 100), 0)
			}
			evil[0].Flush()
		}
		for _, n := range []int{0, 1, 13, 14, 15} {
			evil[0].Send(make([]byte, n), 0)
		}
		evil[0].Flush()
		if f := a.take(time.Second); f != nil {
			t.Errorf("a took a forged frame: %x", f)
		}
		before := inUse()
		third := 0
		unblock := w.net.Block(func(d udptest.Datagram) bool { // some piece of each is lost
			third++
			return d.From != nil && d.Src.Addr() == netip.MustParseAddr("198.18.0.3") && len(d.Data) > 300 && third%2 == 0
		})
		got := passes(a, b, 100, func(int) {
			for range 50 {
				evil[0].Send(make([]byte, 9000), 0)
			}
			evil[0].Flush()
		})
		unblock()
		if got < 99 {
			t.Errorf("%d of 100 frames arrived among pieces", got)
		}
		if after := inUse(); after > before+16<<20 {
			t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
		}
	})
}

// A joiner without a certificate gets join messages and nothing else, whatever
// it asks for.
func TestPendingGetsNothing(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "a")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", a.invite(1))
		b.waitReady(5 * time.Second)
		v := w.villain(w.host("198.18.0.66"), nil, hello.Config{})
		r := v.befriend("198.18.0.1:51830", peer.Pending)
		for kind := range 256 {
			for range 4 {
				body := make([]byte, 200)
				body[0], body[1] = byte(kind), byte(kind)
				r.SendControl(body)
				r.SendControl(append([]byte{byte(kind), 0}, body[:20]...)) // of kind 4: a ping
				r.Send(l2test.Frame(a.mac(), broadcast, 1, 100), 0)
				r.Send(make([]byte, 5000), 0)
				r.Flush()
			}
			a.send(broadcast, uint32(kind))
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(30 * time.Second) // gossip and records have their times
		control, frames := v.received()
		delete(control, 3)
		if len(control) > 0 || frames > 0 {
			t.Errorf("a joiner got %v and %d frames", control, frames)
		}
		if n := len(a.status().Peers); n != 1 {
			t.Errorf("a has %d peers", n)
		}
		for a.take(time.Millisecond) != nil {
			t.Error("a frame of a joiner reached the host")
		}
	})
}

// Joiners that say hello and nothing more do not keep an honest one out.
func TestManyJoiners(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.level = slog.LevelError
		a := w.up(w.host("198.18.0.1"), "a")
		a.waitReady(5 * time.Second)
		at := netip.MustParseAddrPort("198.18.0.1:51830")
		before := inUse()
		for i := range 300 {
			h := w.host(fmt.Sprintf("203.0.113.%d", i%200)) // some share an address
			id, err := keys.NewIdentity()
			if err != nil {
				t.Fatal(err)
			}
			v := w.villain(h, id, hello.Config{})
			if _, err := v.engine.Meet(t.Context(), at, v.hello); err != nil {
				t.Fatal(err)
			}
			h.machine.SetAddr()
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(3 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", "198.18.0.1")
		var words string
		select {
		case words = <-b.words:
		case <-time.After(5 * time.Second):
			t.Fatal("an honest joiner finds no place")
		}
		time.Sleep(time.Second)
		if _, err := a.ask().Approve(t.Context(), words); err != nil {
			t.Fatal(err)
		}
		b.waitReady(5 * time.Second)
		t.Logf("the heap grew by %d KiB, with 300 engines", (int64(inUse())-int64(before))>>10)
	})
}

// Nothing that names anybody, and no secret, crosses the underlay in clear or
// gets into a log.
func TestNothingInClear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: udptest.NewInternet(1)}
		var mu sync.Mutex
		var wire, logs bytes.Buffer
		w.net.Tap(func(d udptest.Datagram) {
			mu.Lock()
			defer mu.Unlock()
			wire.Write(d.Data)
			wire.WriteString("\x00|\x00")
		})
		up := func(h *host, name string, join ...string) *node {
			cfg := w.config(h, name, filepath.Join(t.TempDir(), name))
			cfg.Join = join
			cfg.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &logs}, &slog.HandlerOptions{Level: slog.LevelDebug}))
			return w.run(h, name, cfg)
		}
		a := up(w.host("198.18.0.1"), "founder-fnord")
		a.waitReady(5 * time.Second)
		invite := a.invite(1)
		b := up(w.host("198.18.0.2"), "laptop-quux", invite)
		b.waitReady(5 * time.Second)
		c := up(w.host("198.18.0.3"), "tablet-xyzzy", "198.18.0.1")
		words := <-c.words
		time.Sleep(time.Second)
		if _, err := a.ask().Approve(t.Context(), words); err != nil {
			t.Fatal(err)
		}
		c.waitReady(5 * time.Second)
		nodes := []*node{a, b, c}
		for _, n := range nodes {
			n.wait(api.WaitSpec{Peers: 2}, 10*time.Second)
		}
		reaches(t, b, c, 5*time.Second)
		if err := a.ask().Ping(t.Context(), "laptop-quux", 2, func(api.PingReply) {}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		secret := map[string][]byte{"invite": []byte(invite), "words": []byte(words)}
		for i := 0; i+20 < len(invite); i += 10 {
			secret[fmt.Sprint("invite at ", i)] = []byte(invite[i : i+20])
		}
		for _, n := range nodes {
			mac := n.mac()
			self := n.status().Self
			secret["name "+n.name] = []byte(n.name)
			secret["mac "+n.name] = mac[:]
			secret["mac text "+n.name] = []byte(self.MAC)
			secret["id "+n.name] = []byte(self.ID)
			addr := self.Addresses[0].As16()
			secret["address "+n.name] = addr[:]
			secret["address text "+n.name] = []byte(self.Addresses[0].String())
			secret["prefix "+n.name] = addr[:8]
		}
		mu.Lock()
		defer mu.Unlock()
		if wire.Len() < 10_000 || logs.Len() < 1000 {
			t.Fatalf("%d bytes tapped, %d logged", wire.Len(), logs.Len())
		}
		for what, b := range secret {
			if bytes.Contains(wire.Bytes(), b) {
				t.Errorf("%s crosses in clear: %s", what, hex.EncodeToString(b))
			}
			if strings.HasPrefix(what, "invite") && bytes.Contains(logs.Bytes(), b) {
				t.Errorf("%s is in a log", what)
			}
		}
	})
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

// hostile are strings that commands may pass on.
var hostile = []string{
	"", " ", "..", "/", "a\x00b", "\x1b[31mred", "%s%n", strings.Repeat("x", 1<<16), "\xff\xfe", "node'; --", "💥",
}

// Calls with hostile strings, while a node founds, joins, runs and ends.
func TestHostileCalls(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "a")
		a.waitReady(5 * time.Second)
		joiner := w.up(w.host("198.18.0.2"), "b", "198.18.0.1")
		<-joiner.words
		call := func(n *node) {
			s := n.ask()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			for _, text := range hostile {
				if err := s.Ping(ctx, text, 1, func(api.PingReply) {}); err == nil {
					t.Errorf("ping %.20q worked", text)
				}
				if _, err := s.Approve(ctx, text); err == nil {
					t.Errorf("approve %.20q worked", text)
				}
				if err := s.Deny(ctx, text); err == nil {
					t.Errorf("deny %.20q worked", text)
				}
				if _, err := s.Invite(ctx, api.InviteOptions{Uses: 1, Expires: time.Hour, Roles: []string{text}}); err == nil && strings.TrimSpace(text) != "" {
					t.Errorf("an invite for role %.20q", text)
				}
				short, stop := context.WithTimeout(ctx, 10*time.Millisecond)
				_ = s.Wait(short, api.WaitSpec{Peer: text, Direct: text})
				stop()
			}
			for _, o := range []api.InviteOptions{{Uses: -1, Expires: time.Hour}, {Uses: 1, Expires: -time.Hour}, {Uses: math.MaxInt32, Expires: time.Hour}, {Uses: 1}} {
				if text, err := s.Invite(ctx, o); err == nil {
					t.Errorf("%+v made %.10q", o, text)
				}
			}
			gone, stop := context.WithCancel(ctx)
			stop()
			_, _ = s.Status(gone)
			_, _ = s.Hosts(gone)
			_, _ = s.Requests(ctx)
			_, _ = s.Hosts(ctx)
		}
		call(a)
		call(joiner)
		service := a.ask()
		if err := service.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := a.failure(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		if _, err := service.Status(t.Context()); err == nil {
			t.Error("an ended node has a status")
		}
		if err := joiner.ask().Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := joiner.failure(5 * time.Second); err != nil {
			t.Errorf("down while joining: %v", err)
		}
	})
}

// Anybody can send what looks like an answer of a STUN server: the control
// goroutine has other things to do.
func TestStunFlood(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.level = slog.LevelError
		a := w.up(w.host("198.18.0.1"), "a")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", a.invite(1))
		b.waitReady(5 * time.Second)
		msg := make([]byte, 20)
		copy(msg, []byte{1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42})
		at := netip.MustParseAddrPort("198.18.0.1:51830")
		if udp.Classify(msg) != udp.KindSTUN {
			t.Fatal("this is no STUN")
		}
		before := a.status().Self.Endpoints
		got := passes(a, b, 100, func(i int) {
			for j := range 100 {
				w.net.Inject(netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i), byte(j)}), 3478), at, msg)
				w.net.Inject(netip.MustParseAddrPort("198.18.0.2:51830"), at, msg) // one that was asked
			}
		})
		if got < 99 {
			t.Errorf("%d of 100 frames arrived", got)
		}
		if after := a.status().Self.Endpoints; len(after) != len(before) {
			t.Errorf("endpoints were %v and are %v", before, after)
		}
	})
}
