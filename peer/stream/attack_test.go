package stream

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/peer/udp"
)

// What strangers, and members of other networks, get at --listen-tls.

// stage is a server in memory, for simulated time.
type stage struct {
	t       *testing.T
	net     *network
	server  *Server
	home    ed25519.PublicKey
	arrived chan net.Conn
}

// on runs a test with a server in simulated time.
func on(t *testing.T, f func(s *stage)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		id, _ := n.member("home")
		s := &stage{t: t, net: n, home: id.Sign.Public().(ed25519.PublicKey), arrived: make(chan net.Conn)}
		s.server = &Server{Key: id.Sign, Verify: n.verify, Carrier: newCarrier(t), Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.server.Run(ctx, &pipes{stage: s, closed: make(chan struct{})}) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			_ = s.server.Carrier.Close()
			time.Sleep(time.Minute) // then the tests' own goroutines have ended too
		}()
		f(s)
	})
}

// pipes is a listener of connections in memory.
type pipes struct {
	stage  *stage
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.stage.arrived:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(198, 18, 0, 1), Port: 443} }

// from is a connection that has an address.
type from struct {
	net.Conn
	addr net.Addr
}

func (c from) RemoteAddr() net.Addr { return c.addr }

// connect is a connection from an address.
func (s *stage) connect(source string) net.Conn {
	ours, theirs := net.Pipe()
	s.arrived <- from{theirs, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source))}
	return ours
}

// call opens a stream from an address.
func (s *stage) call(source string, c *Client, key ed25519.PublicKey) (io.ReadWriteCloser, error) {
	c.Connect = func(context.Context, string) (net.Conn, error) { return s.connect(source), nil }
	return c.Dial(s.t.Context(), []string{"home.example:443"}, key)
}

func (s *stage) stranger(source string) io.ReadWriteCloser {
	s.t.Helper()
	conn, err := s.call(source, &Client{Key: newIdentity(s.t).Sign}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// lasts returns how long a connection stays open, at most limit.
func lasts(conn io.Reader, limit time.Duration) time.Duration {
	began := time.Now()
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(io.Discard, conn) }()
	select {
	case <-done:
	case <-time.After(limit):
	}
	return time.Since(began)
}

func TestStrangerHasSeconds(t *testing.T) {
	on(t, func(s *stage) {
		conn := s.stranger("198.18.0.9:1000")
		defer conn.Close()
		if _, err := conn.Write(appendFrame(nil, []byte{0xd1, 1})); err != nil {
			t.Fatal(err)
		}
		if data, _ := take(t, s.server.Carrier); data != "\xd1\x01" {
			t.Errorf("got %q", data)
		}
		if got := lasts(conn, time.Minute); got < strangerFor-time.Second || got > strangerFor+time.Second {
			t.Errorf("a stranger is heard for %v", got)
		}
		synctest.Wait()
		if n := s.server.Carrier.Len(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

func TestVouchedStays(t *testing.T) {
	on(t, func(s *stage) {
		conn := s.stranger("198.18.0.9:1000")
		defer conn.Close()
		_, _ = conn.Write(appendFrame(nil, []byte{0xd1, 1}))
		_, addr := take(t, s.server.Carrier)
		s.server.Carrier.Vouch(addr)
		go func() { // it keeps saying that it is there
			for {
				if _, err := conn.Write([]byte{0, 0}); err != nil {
					return
				}
				time.Sleep(10 * time.Second)
			}
		}()
		if got := lasts(conn, time.Hour); got < vouchedFor-time.Second || got > vouchedFor+time.Second {
			t.Errorf("vouched for once, it is heard for %v", got)
		}
	})
}

// Who falls silent is given up, whoever it is.
func TestSilentMemberIsGivenUp(t *testing.T) {
	on(t, func(s *stage) {
		away, chain := s.net.member("away")
		conn, err := s.call("198.18.0.9:1000", &Client{Key: away.Sign, Chain: func(context.Context) []byte { return chain }}, s.home)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := lasts(conn, time.Hour); got < silentFor-time.Second || got > silentFor+time.Second {
			t.Errorf("a silent member is kept for %v", got)
		}
	})
}

// Connections on which nothing comes, or not enough, or too slowly, end.
func TestSlowVisitors(t *testing.T) {
	for _, c := range []struct {
		name string
		act  func(s *stage, conn net.Conn)
	}{
		{"nothing", func(*stage, net.Conn) {}},
		{"half a ClientHello", func(_ *stage, conn net.Conn) { _, _ = conn.Write([]byte{22, 3, 1, 2, 0, 1}) }},
		{"a byte of a request each second", func(_ *stage, conn net.Conn) {
			c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			_ = c.Handshake()
			go io.Copy(io.Discard, c)
			for _, b := range []byte("GET / HTTP/1.1\r\nHost: home.example\r\nX: " + strings.Repeat("y", 1000)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			on(t, func(s *stage) {
				conn := s.connect("198.18.0.9:1000")
				defer conn.Close()
				began := time.Now()
				ended := make(chan struct{})
				go func() { defer close(ended); c.act(s, conn) }()
				if c.name != "a byte of a request each second" {
					_, _ = io.Copy(io.Discard, conn)
				}
				<-ended
				if got := time.Since(began); got > visitTimeout+2*time.Second {
					t.Errorf("it is heard for %v", got)
				}
			})
		})
	}
}

// A thousand connections of one source hold no more than its share, and one of
// all sources do not keep a member out.
func TestCrowdOfStrangers(t *testing.T) {
	for _, c := range []struct {
		name   string
		source func(i int) string
		most   int
	}{
		{"one source", func(i int) string { return fmt.Sprintf("198.18.0.9:%d", 1000+i) }, perSource},
		{"many sources", func(i int) string { return fmt.Sprintf("198.18.%d.%d:1000", i/250, i%250) }, maxStrangers},
	} {
		t.Run(c.name, func(t *testing.T) {
			on(t, func(s *stage) {
				for i := range 300 {
					if i%10 == 0 {
						time.Sleep(100 * time.Millisecond)
					}
					conn, err := s.call(c.source(i), &Client{Key: newIdentity(t).Sign}, nil)
					if err == nil {
						defer conn.Close()
					}
				}
				synctest.Wait()
				if n := s.server.Carrier.Len(); n > c.most || n < c.most/2 {
					t.Errorf("%d streams of strangers, want about %d", n, c.most)
				}
				away, chain := s.net.member("away")
				conn, err := s.call("198.19.0.1:1", &Client{Key: away.Sign, Chain: func(context.Context) []byte { return chain }}, s.home)
				if err != nil {
					t.Fatalf("a member is kept out: %v", err)
				}
				defer conn.Close()
				var silent []net.Conn // that come and say nothing
				for i := range 1000 {
					silent = append(silent, s.connect(c.source(i)))
				}
				synctest.Wait()
				time.Sleep(visitorPatience)
				other, err := s.call("198.19.0.2:1", &Client{Key: newIdentity(t).Sign}, nil)
				if err != nil {
					t.Fatalf("a joiner is kept out: %v", err)
				}
				defer other.Close()
				for _, conn := range silent {
					_ = conn.Close()
				}
			})
		})
	}
}

func TestWrongCertificates(t *testing.T) {
	on(t, func(s *stage) {
		elsewhere := newNetwork(t)
		away, chain := s.net.member("away")
		foreign, foreignChain := elsewhere.member("away")
		for _, c := range []struct {
			name  string
			id    ed25519.PrivateKey
			chain []byte
			key   ed25519.PublicKey
			want  string
		}{
			{"of another network", foreign.Sign, foreignChain, s.home, "home.example"},
			{"another server than was called", away.Sign, chain, foreign.Sign.Public().(ed25519.PublicKey), errKey.Error()},
			{"good", away.Sign, chain, s.home, ""},
		} {
			conn, err := s.call("198.18.0.9:1", &Client{Key: c.id, Chain: func(context.Context) []byte { return c.chain }}, c.key)
			switch {
			case err == nil:
				_ = conn.Close()
				if c.want != "" {
					t.Errorf("%s: accepted", c.name)
				}
			case c.want == "" || !strings.Contains(err.Error(), c.want):
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
		}
		// A stolen certificate without its key.
		conn, err := s.call("198.18.0.9:1", &Client{Key: foreign.Sign, Chain: func(context.Context) []byte { return chain }}, s.home)
		if err == nil {
			_ = conn.Close()
			t.Error("a certificate was taken from who has not its key")
		}
		// A verdict that has changed holds for the next stream.
		s.server.Verify = func([]byte) (ed25519.PublicKey, error) { return nil, errors.New("revoked") }
		if conn, err := s.call("198.18.0.9:1", &Client{Key: away.Sign, Chain: func(context.Context) []byte { return chain }}, s.home); err == nil {
			_ = conn.Close()
			t.Error("a revoked member was let in")
		}
	})
}

// The member's own certificate, which has its name in it, is shown to nobody but
// the member that was called.
func TestNameIsNotShown(t *testing.T) {
	n := newNetwork(t)
	away, chain := n.member("away")
	rogue := newIdentity(t)
	certificates, err := serverCertificates(rogue.Sign, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []ed25519.PublicKey{nil, newIdentity(t).Sign.Public().(ed25519.PublicKey)} {
		ours, theirs := net.Pipe()
		shown := make(chan int, 1)
		go func() {
			defer theirs.Close()
			c := tls.Server(theirs, &tls.Config{Certificates: certificates, ClientAuth: tls.RequestClientCert})
			_ = c.Handshake()
			shown <- len(c.ConnectionState().PeerCertificates)
		}()
		client := &Client{
			Key: away.Sign, Chain: func(context.Context) []byte { return chain },
			Connect: func(context.Context, string) (net.Conn, error) { return ours, nil },
		}
		if conn, err := client.Dial(t.Context(), []string{"rogue.example:443"}, key); err == nil {
			_ = conn.Close()
			t.Error("a rogue that says nothing was accepted")
		}
		if got := <-shown; got != 0 {
			t.Errorf("a rogue saw %d certificates", got)
		}
	}
}

// Whatever a stranger writes into a stream: nothing larger than a datagram comes
// out, and neither server nor others suffer.
func TestGarbageInStream(t *testing.T) {
	n := newNetwork(t)
	home, _ := n.member("home")
	server := &Server{Key: home.Sign, Verify: n.verify, Carrier: newCarrier(t)}
	address := serve(t, server)
	ctx, cancel := context.WithCancel(context.Background())
	var largest int
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		pkts := make([]udp.Packet, 64)
		for {
			count, err := server.Carrier.Receive(pkts)
			if err != nil {
				return
			}
			for _, p := range pkts[:count] {
				largest = max(largest, len(p.Data))
			}
		}
	}()
	before := runtime.NumGoroutine()
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 3))
		conn, err := (&Client{Key: newIdentity(t).Sign, Connect: connect}).Dial(ctx, []string{address}, nil)
		if err != nil {
			continue // the source has had its share
		}
		junk := make([]byte, rng.IntN(8<<10))
		for i := range junk {
			junk[i] = byte(rng.Uint32())
			if rng.IntN(3) == 0 {
				junk[i] = 0
			}
		}
		_, _ = conn.Write(junk)
		_ = conn.Close()
	}
	await(t, "all streams end", func() bool { return server.Carrier.Len() == 0 && runtime.NumGoroutine() <= before+5 })
	cancel()
	_ = server.Carrier.Close()
	<-drained
	if largest > maxDatagram {
		t.Errorf("a datagram of %d bytes", largest)
	}
}

// Others than nodes see a web server: it answers as one, and refuses.
func TestWebServer(t *testing.T) {
	n := newNetwork(t)
	home, _ := n.member("home")
	address := serve(t, &Server{Key: home.Sign, Verify: n.verify, Carrier: newCarrier(t)})
	for _, c := range []struct{ name, request, want string }{
		{"front page", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "403 Forbidden"},
		{"websocket", "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "403 Forbidden"},
		{"a post", "POST / HTTP/1.1\r\nHost: h\r\nUpgrade: meshd/1\r\nContent-Length: 0\r\n\r\n", "403 Forbidden"},
		{"a proxy request", "CONNECT 198.18.0.1:22 HTTP/1.1\r\nHost: 198.18.0.1:22\r\n\r\n", "403 Forbidden"},
		{"another's address", "GET http://198.18.0.1/ HTTP/1.1\r\nHost: 198.18.0.1\r\n\r\n", "403 Forbidden"},
		{"no host", "GET / HTTP/1.1\r\n\r\n", "400 Bad Request"},
		{"garbage", "\x00\x01\x02\r\n\r\n", "400 Bad Request"},
		{"a large header", "GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431 Request Header Fields Too Large"},
	} {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if p := conn.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
			t.Errorf("%s: protocol %q", c.name, p)
		}
		go func() { _, _ = io.WriteString(conn, c.request) }()
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || !strings.HasPrefix(answer.Status, c.want) {
			t.Errorf("%s: %v, %v, want %s", c.name, answer, err, c.want)
		}
		_ = conn.Close()
	}
}
