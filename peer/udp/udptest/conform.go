package udptest

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"meshd/peer/udp"
)

// Opener makes two sockets of one family that reach each other by their local
// addresses, without loss.
type Opener func(t *testing.T, v6 bool) (a, b udp.Conn)

// TestConn checks what udp.Conn promises. Every implementation has to pass it.
func TestConn(t *testing.T, open Opener) {
	cases := []struct {
		name string
		run  func(t *testing.T, a, b udp.Conn)
	}{
		{"single", testSingle},
		{"reply from the receive buffer", testReply},
		{"groups", testGroups},
		{"many packets in order", testOrder},
		{"a packet that is too large", testTooLarge},
		{"a packet of the other family", testOtherFamily},
		{"buffers are borrowed", testBorrowed},
		{"concurrent senders", testConcurrent},
		{"close", testClose},
		{"no packets", testNone},
	}
	for _, family := range []struct {
		name string
		v6   bool
	}{{"ipv4", false}, {"ipv6", true}} {
		for _, c := range cases {
			t.Run(family.name+"/"+c.name, func(t *testing.T) {
				a, b := open(t, family.v6)
				t.Cleanup(func() { _, _ = a.Close(), b.Close() })
				c.run(t, a, b)
			})
		}
	}
}

// message is one datagram received.
type message struct {
	from netip.AddrPort
	data []byte
}

// receive reads n datagrams, of which it takes packets apart.
func receive(t *testing.T, c udp.Conn, n int) []message {
	t.Helper()
	stop := time.AfterFunc(10*time.Second, func() { _ = c.Close() })
	defer stop.Stop()
	var got []message
	pkts := make([]udp.Packet, 16)
	for len(got) < n {
		k, err := c.Receive(pkts)
		if err != nil {
			t.Fatalf("received %d of %d datagrams: %v", len(got), n, err)
		}
		for _, p := range pkts[:k] {
			got = append(got, split(p)...)
		}
	}
	if len(got) > n {
		t.Fatalf("received %d datagrams, want %d", len(got), n)
	}
	return got
}

func split(p udp.Packet) []message {
	if p.Seg <= 0 || p.Seg >= len(p.Data) {
		return []message{{p.Addr, bytes.Clone(p.Data)}}
	}
	var ms []message
	for d := range slices.Chunk(p.Data, p.Seg) {
		ms = append(ms, message{p.Addr, bytes.Clone(d)})
	}
	return ms
}

// pattern is n bytes that differ from one datagram to the next.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed + i*7 + i>>8)
	}
	return b
}

func mustSend(t *testing.T, c udp.Conn, pkts ...udp.Packet) {
	t.Helper()
	if err := c.Send(pkts); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, got []message, from netip.AddrPort, want ...[]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("received %d datagrams, want %d", len(got), len(want))
	}
	for i, m := range got {
		if m.from != from {
			t.Errorf("datagram %d is from %v, want %v", i, m.from, from)
		}
		if !bytes.Equal(m.data, want[i]) {
			t.Fatalf("datagram %d has %d bytes, want other ones (%d)", i, len(m.data), len(want[i]))
		}
	}
}

func testSingle(t *testing.T, a, b udp.Conn) {
	for i, size := range []int{1, 20, 1200, 1400, 0, 3} {
		want := pattern(i, size)
		mustSend(t, a, udp.Packet{Addr: b.LocalAddr(), Data: want, Seg: i * 700}) // Seg of 0 and beyond the data
		if i*700 > 0 && i*700 < size {
			t.Fatal("not a single datagram")
		}
		expect(t, receive(t, b, 1), a.LocalAddr(), want)
	}
}

func testReply(t *testing.T, a, b udp.Conn) {
	mustSend(t, a, udp.Packet{Addr: b.LocalAddr(), Data: []byte("ping")})
	pkts := make([]udp.Packet, 2)
	n, err := b.Receive(pkts)
	if n != 1 || err != nil {
		t.Fatalf("Receive = %d, %v", n, err)
	}
	copy(pkts[0].Data, "pong")
	mustSend(t, b, pkts[:1]...)
	expect(t, receive(t, a, 1), b.LocalAddr(), []byte("pong"))
}

func testGroups(t *testing.T, a, b udp.Conn) {
	for _, c := range []struct {
		name        string
		total, size int
	}{
		{"two", 2000, 1000},
		{"last shorter", 2001, 1000},
		{"more segments than one message takes", 150*100 + 1, 100},
		{"more bytes than one message takes", 1400 * 60, 1400},
		{"tiny", 3, 1},
	} {
		data := pattern(c.total, c.total)
		mustSend(t, a, udp.Packet{Addr: b.LocalAddr(), Data: data, Seg: c.size})
		want := slices.Collect(slices.Chunk(data, c.size))
		got := receive(t, b, len(want))
		expect(t, got, a.LocalAddr(), want...)
	}
}

func testOrder(t *testing.T, a, b udp.Conn) {
	var pkts []udp.Packet
	var want [][]byte
	for i := range 200 {
		data := pattern(i, 10+i%5*100)
		p := udp.Packet{Addr: b.LocalAddr(), Data: data}
		if i%7 == 0 {
			p.Seg = 64
			want = append(want, slices.Collect(slices.Chunk(data, 64))...)
		} else {
			want = append(want, data)
		}
		pkts = append(pkts, p)
	}
	mustSend(t, a, pkts...)
	expect(t, receive(t, b, len(want)), a.LocalAddr(), want...)
}

func testTooLarge(t *testing.T, a, b udp.Conn) {
	to := b.LocalAddr()
	err := a.Send([]udp.Packet{
		{Addr: to, Data: []byte("before")},
		{Addr: to, Data: make([]byte, 65536)},
		{Addr: to, Data: pattern(1, 300), Seg: 100},
		{Addr: to, Data: make([]byte, 3*65536), Seg: 65536},
		{Addr: to, Data: []byte("after")},
	})
	if !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("Send = %v, want EMSGSIZE", err)
	}
	want := [][]byte{[]byte("before")}
	want = append(want, slices.Collect(slices.Chunk(pattern(1, 300), 100))...)
	want = append(want, []byte("after"))
	expect(t, receive(t, b, len(want)), a.LocalAddr(), want...)
}

func testOtherFamily(t *testing.T, a, b udp.Conn) {
	other := netip.MustParseAddrPort("[2001:db8::1]:9")
	if b.LocalAddr().Addr().Is6() {
		other = netip.MustParseAddrPort("192.0.2.1:9")
	}
	err := a.Send([]udp.Packet{
		{Addr: other, Data: []byte("x")},
		{Addr: netip.AddrPort{}, Data: []byte("x")},
		{Addr: b.LocalAddr(), Data: []byte("y")},
	})
	if !errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Errorf("Send = %v, want EAFNOSUPPORT", err)
	}
	expect(t, receive(t, b, 1), a.LocalAddr(), []byte("y"))
}

// testBorrowed: what Send was given may change once it has returned.
func testBorrowed(t *testing.T, a, b udp.Conn) {
	data := pattern(0, 1000)
	for i := range 10 {
		copy(data, pattern(i, 1000))
		mustSend(t, a, udp.Packet{Addr: b.LocalAddr(), Data: data, Seg: 500})
	}
	clear(data)
	var want [][]byte
	for i := range 10 {
		p := pattern(i, 1000)
		want = append(want, p[:500], p[500:])
	}
	expect(t, receive(t, b, len(want)), a.LocalAddr(), want...)
}

func testConcurrent(t *testing.T, a, b udp.Conn) {
	const senders, each = 4, 25
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				data := []byte{byte(s), byte(i), 0, byte(s), byte(i), 1}
				if err := a.Send([]udp.Packet{{Addr: b.LocalAddr(), Data: data, Seg: 3}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	next := make([]int, senders)
	for _, m := range receive(t, b, senders*each*2) {
		if len(m.data) != 3 || int(m.data[0]) >= senders {
			t.Fatalf("received %v", m.data)
		}
		s := m.data[0]
		if seq := int(m.data[1])*2 + int(m.data[2]); seq != next[s] {
			t.Fatalf("sender %d: datagram %d, want %d", s, seq, next[s])
		}
		next[s]++
	}
}

func testClose(t *testing.T, a, b udp.Conn) {
	done := make(chan error, 1)
	go func() {
		_, err := b.Receive(make([]udp.Packet, 1))
		done <- err
	}()
	if err := b.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	select {
	case err := <-done:
		if err != net.ErrClosed {
			t.Errorf("Receive = %v, want net.ErrClosed", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Close does not wake Receive")
	}
	if _, err := b.Receive(make([]udp.Packet, 1)); err != net.ErrClosed {
		t.Errorf("Receive after Close = %v, want net.ErrClosed", err)
	}
	if err := b.Send([]udp.Packet{{Addr: a.LocalAddr(), Data: []byte("x")}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after Close = %v, want net.ErrClosed", err)
	}
	if err := b.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close = %v, want net.ErrClosed", err)
	}
}

func testNone(t *testing.T, a, b udp.Conn) {
	if err := a.Send(nil); err != nil {
		t.Errorf("Send of nothing = %v", err)
	}
	if n, err := b.Receive(nil); n != 0 || err != nil {
		t.Errorf("Receive of nothing = %d, %v", n, err)
	}
}
