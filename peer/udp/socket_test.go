package udp_test

import (
	"net/netip"
	"testing"

	"meshd/peer/udp"
	"meshd/peer/udp/udptest"
)

func loopback(v6 bool) netip.AddrPort {
	if v6 {
		return netip.AddrPortFrom(netip.IPv6Loopback(), 0)
	}
	return netip.MustParseAddrPort("127.0.0.1:0")
}

func listen(t *testing.T, addr netip.AddrPort, opts udp.Options) *udp.Socket {
	t.Helper()
	c, err := udp.Listen(addr, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*udp.Socket)
}

// TestConformance runs with each feature turned off at either end, as on
// systems that lack it.
func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b udp.Options
	}{
		{"everything", udp.Options{}, udp.Options{}},
		{"no GSO", udp.Options{NoGSO: true}, udp.Options{}},
		{"no GRO", udp.Options{}, udp.Options{NoGRO: true}},
		{"no batches", udp.Options{NoBatch: true}, udp.Options{NoBatch: true}},
		{"nothing", udp.Options{NoGSO: true, NoBatch: true}, udp.Options{NoGRO: true, NoBatch: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			udptest.TestConn(t, func(t *testing.T, v6 bool) (a, b udp.Conn) {
				return listen(t, loopback(v6), c.a), listen(t, loopback(v6), c.b)
			})
		})
	}
}

// BenchmarkLoopback sends and receives 48 datagrams of 1300 bytes, as one group
// and singly.
func BenchmarkLoopback(b *testing.B) {
	for _, c := range []struct {
		name string
		opts udp.Options
	}{{"groups", udp.Options{}}, {"batches", udp.Options{NoGSO: true, NoGRO: true}}, {"single", udp.Options{NoGSO: true, NoGRO: true, NoBatch: true}}} {
		b.Run(c.name, func(b *testing.B) {
			from, err := udp.Listen(loopback(false), c.opts)
			if err != nil {
				b.Fatal(err)
			}
			defer from.Close()
			to, err := udp.Listen(loopback(false), c.opts)
			if err != nil {
				b.Fatal(err)
			}
			defer to.Close()
			const size, total = 1300, 48 * 1300
			out := []udp.Packet{{Addr: to.LocalAddr(), Data: make([]byte, total), Seg: size}}
			in := make([]udp.Packet, 64)
			b.SetBytes(total)
			b.ReportAllocs()
			for b.Loop() {
				if err := from.Send(out); err != nil {
					b.Fatal(err)
				}
				for got := 0; got < total; {
					n, err := to.Receive(in)
					if err != nil {
						b.Fatal(err)
					}
					for _, p := range in[:n] {
						got += len(p.Data)
					}
				}
			}
		})
	}
}
