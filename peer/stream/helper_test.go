package stream

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"meshd/keys"
	"meshd/peer/udp"
	"meshd/peer/way"
)

// network is a root with its signer, who makes members.
type network struct {
	t      testing.TB
	trust  keys.Trust
	signer *keys.Signer
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	now := time.Now()
	root, err := keys.NewRoot("net", now)
	if err != nil {
		t.Fatal(err)
	}
	id := newIdentity(t)
	der, err := root.IssueSigner(id.Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.NewSigner(id, der)
	if err != nil {
		t.Fatal(err)
	}
	return &network{t, keys.Trust{Root: root.Public()}, signer}
}

func newIdentity(t testing.TB) *keys.Identity {
	t.Helper()
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// member makes an identity and its chain.
func (n *network) member(name string) (*keys.Identity, []byte) {
	n.t.Helper()
	id := newIdentity(n.t)
	chain, err := n.signer.Issue(id.Public(), name, nil, time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	return id, chain
}

// verify judges chains as a member does.
func (n *network) verify(chain []byte) (ed25519.PublicKey, error) {
	c, err := n.trust.Verify(chain, time.Now())
	if err != nil {
		return nil, err
	}
	return c.Sign[:], nil
}

func newCarrier(t testing.TB) *Carrier {
	c := NewCarrier(way.TCP, slog.New(slog.DiscardHandler), func() {})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// serve runs a server and returns where.
func serve(t testing.TB, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = s.Carrier.Close()
	})
	return l.Addr().String()
}

func connect(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// take reads one datagram, or fails.
func take(t testing.TB, c *Carrier) (string, netip.AddrPort) {
	t.Helper()
	type got struct {
		data string
		from netip.AddrPort
		err  error
	}
	ch := make(chan got, 1)
	go func() {
		var pkts [1]udp.Packet
		_, err := c.Receive(pkts[:])
		ch <- got{string(pkts[0].Data), pkts[0].Addr, err}
	}()
	select {
	case g := <-ch:
		if g.err != nil {
			t.Fatal(g.err)
		}
		return g.data, g.from
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
	}
	return "", netip.AddrPort{}
}

func send(t testing.TB, c *Carrier, to netip.AddrPort, data string) {
	t.Helper()
	if err := c.Send([]udp.Packet{{Addr: to, Data: []byte(data)}}); err != nil {
		t.Fatal(err)
	}
}

// await waits for a condition.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

var errNone = errors.New("none")

func noDial(context.Context) (io.ReadWriteCloser, error) { return nil, errNone }
