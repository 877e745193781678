package stream

import (
	"context"
	"crypto/ed25519"
	"io"
	"testing"
	"time"
)

// A member calls another that listens: both prove themselves, datagrams pass both
// ways, and the listener knows at once whom it has before it.
func TestMembers(t *testing.T) {
	net := newNetwork(t)
	home, _ := net.member("home")
	away, chain := net.member("away")
	server := &Server{Key: home.Sign, Verify: net.verify, Carrier: newCarrier(t)}
	address := serve(t, server)
	client := &Client{Key: away.Sign, Chain: func(context.Context) []byte { return chain }, Connect: connect}
	c := newCarrier(t)
	addr := c.Open("home", func(ctx context.Context) (io.ReadWriteCloser, error) {
		return client.Dial(ctx, []string{address}, home.Sign.Public().(ed25519.PublicKey))
	})
	if err := c.Await(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	if got := c.Name(addr); got != address {
		t.Errorf("the stream leads to %q, want %q", got, address)
	}
	send(t, c, addr, "ping")
	data, from := take(t, server.Carrier)
	if data != "ping" {
		t.Fatalf("got %q", data)
	}
	send(t, server.Carrier, from, "pong")
	if data, at := take(t, c); data != "pong" || at != addr {
		t.Fatalf("got %q from %v", data, at)
	}
	if links := *server.Carrier.links.Load(); !links[from].known.Load() {
		t.Error("a member counts as a stranger")
	}
	// Lost, it is dialled again, and both ends keep their addresses.
	began := time.Now()
	for _, l := range *server.Carrier.links.Load() {
		l.close(errNone)
	}
	await(t, "the line ends", func() bool { return !c.Up(addr) })
	c.Redial(addr)
	await(t, "the line is up again", func() bool { return c.Up(addr) })
	send(t, c, addr, "again")
	if data, at := take(t, server.Carrier); data != "again" || at != from {
		t.Fatalf("got %q from %v, want it from %v", data, at, from)
	}
	t.Log("up again after", time.Since(began))
}
