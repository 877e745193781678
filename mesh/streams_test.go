package mesh_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"meshd/mesh/api"
	"meshd/peer/udp/udptest"
)

// tcp is what a world has of TCP: connections in memory.
type tcp struct {
	mu        sync.Mutex
	listeners map[string]*tcpListener
	open      atomic.Int64 // connections
	dials     atomic.Int64
}

// tcpHost is a host with TCP.
type tcpHost struct {
	*host
	tcp *tcp
}

type tcpListener struct {
	tcp    *tcp
	addr   netip.AddrPort
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (h tcpHost) ListenTCP(at netip.AddrPort) (net.Listener, error) {
	l := &tcpListener{tcp: h.tcp, addr: at, conns: make(chan net.Conn), closed: make(chan struct{})}
	h.tcp.mu.Lock()
	defer h.tcp.mu.Unlock()
	for _, a := range h.machine.Addrs() {
		h.tcp.listeners[netip.AddrPortFrom(a, at.Port()).String()] = l
	}
	return l, nil
}

func (h tcpHost) DialTCP(ctx context.Context, address string) (net.Conn, error) {
	h.tcp.dials.Add(1)
	h.tcp.mu.Lock()
	l := h.tcp.listeners[address]
	h.tcp.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial tcp %s: %w", address, syscall.ECONNREFUSED)
	}
	ours, theirs := net.Pipe()
	from := netip.AddrPortFrom(h.machine.Addrs()[0], uint16(40000+h.tcp.dials.Load()))
	h.tcp.open.Add(1)
	select {
	case l.conns <- tcpConn{theirs, net.TCPAddrFromAddrPort(from), func() {}}:
		return tcpConn{ours, net.TCPAddrFromAddrPort(l.addr), sync.OnceFunc(func() { h.tcp.open.Add(-1) })}, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	h.tcp.open.Add(-1)
	return nil, syscall.ECONNREFUSED
}

type tcpConn struct {
	net.Conn
	remote net.Addr
	closed func()
}

func (c tcpConn) RemoteAddr() net.Addr { return c.remote }
func (c tcpConn) Close() error         { c.closed(); return c.Conn.Close() }

func (l *tcpListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *tcpListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *tcpListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// withTCP gives a host TCP.
func (h *host) withTCP(t *tcp) *host {
	h.tcp = tcpHost{h, t}
	return h
}

func newTCP() *tcp { return &tcp{listeners: map[string]*tcpListener{}} }

// listening is a founder that takes streams.
func (w *world) listening(t *tcp, addr string) *node {
	h := w.host(addr).withTCP(t)
	cfg := w.config(h, "home", filepath.Join(w.t.TempDir(), "home"))
	cfg.ListenTLS = netip.MustParseAddrPort("[::]:443")
	n := w.run(h, "home", cfg)
	n.waitReady(5 * time.Second)
	return n
}

// waitWay waits until a node reaches another by a transport.
func (n *node) waitWay(peer, transport string, limit time.Duration) time.Duration {
	n.t.Helper()
	began := time.Now()
	for {
		got := "nothing"
		for _, p := range n.status().Peers {
			if p.Name == peer && p.State.Connected() {
				got = p.Transport
			}
		}
		if got == transport {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			n.t.Fatalf("%s reaches %s by %s after %v, want %s", n.name, peer, got, limit, transport)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func all(udptest.Datagram) bool { return true }

// A node without UDP joins over TLS, and leaves TLS when UDP gets through; the
// stream is closed some time later. When UDP is blocked again it comes back.
func TestStreamsComeAndGo(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		streams := newTCP()
		home := w.listening(streams, "198.18.0.1")
		unblock := w.net.Block(all)
		invite := home.invite(1)
		away := w.up(w.host("198.18.0.2").withTCP(streams), "away", invite)
		if took := away.waitReady(5 * time.Second); took < time.Second {
			t.Errorf("ready after %v: UDP was not waited for", took)
		}
		away.wait(api.WaitSpec{Peers: 1}, 5*time.Second)
		if got := away.waitWay("home", "tcp", time.Second); got > 0 {
			t.Logf("over TLS after %v", got)
		}
		time.Sleep(10 * time.Minute)
		away.waitWay("home", "tcp", 0)
		if n := streams.open.Load(); n != 1 {
			t.Errorf("%d streams are open, want 1", n)
		}
		unblock()
		t.Logf("direct %v after UDP gets through", away.waitWay("home", "udp4", 11*time.Minute)) // when it is next looked for
		time.Sleep(2 * time.Minute)
		if n := streams.open.Load(); n != 0 {
			t.Errorf("%d streams are open although UDP gets through", n)
		}
		unblock = w.net.Block(all)
		defer unblock()
		began := time.Now()
		stop := make(chan struct{})
		var traffic sync.WaitGroup
		defer traffic.Wait()
		defer close(stop)
		to := home.mac()
		traffic.Go(func() { // something is in use
			for i := uint32(0); ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
					away.send(to, i)
				}
			}
		})
		away.waitWay("home", "tcp", 5*time.Second)
		home.waitWay("away", "tcp", 5*time.Second)
		t.Logf("over TLS %v after UDP was blocked", time.Since(began))
	})
}

// A listener that is dead, or somebody else, is not called all the time.
func TestDeadListenerIsSpared(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		streams := newTCP()
		home := w.listening(streams, "198.18.0.1")
		away := w.up(w.host("198.18.0.2").withTCP(streams), "away", home.invite(1))
		away.waitReady(5 * time.Second)
		if err := away.stop(); err != nil {
			t.Fatal(err)
		}
		away = w.upIn(away.host, "away", away.state) // an entry point may be called more often
		away.waitReady(5 * time.Second)
		away.wait(api.WaitSpec{Peer: "home"}, 5*time.Second)
		home.kill()
		before := streams.dials.Load()
		worst := int64(0)
		for range 30 {
			time.Sleep(time.Minute)
			now := streams.dials.Load()
			worst, before = max(worst, now-before), now
		}
		if worst > 5 {
			t.Errorf("a dead listener is called %d times in a minute", worst)
		}
	})
}
