package udp_test

import (
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"meshd/peer/udp"
)

// What one source sends comes by one of the sockets, in order; many sources come by
// several. The port is still ours alone.
func TestMore(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		first := listen(t, loopback(v6), udp.Options{})
		conns := append(udp.More(first, 2, udp.Options{}), first)
		if len(conns) != 3 {
			t.Fatalf("%d sockets, want 3", len(conns))
		}
		for _, c := range conns {
			if c.LocalAddr() != first.LocalAddr() {
				t.Errorf("bound to %v, want %v", c.LocalAddr(), first.LocalAddr())
			}
		}
		if c, err := udp.Listen(first.LocalAddr(), udp.Options{}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("another program got the port: %v %v", c, err)
		}
		const sources, each = 16, 50
		type arrival struct {
			socket int
			from   netip.AddrPort
			number int
		}
		arrivals := make(chan arrival, sources*each)
		var readers sync.WaitGroup
		for i, c := range conns {
			readers.Go(func() {
				pkts := make([]udp.Packet, 8)
				for {
					n, err := c.Receive(pkts)
					if err != nil {
						return
					}
					for _, p := range pkts[:n] {
						for data := p.Data; len(data) > 0; data = data[2:] { // datagrams of two bytes, together or not
							arrivals <- arrival{i, p.Addr, int(data[0])<<8 | int(data[1])}
						}
					}
				}
			})
		}
		for range sources {
			from := listen(t, loopback(v6), udp.Options{})
			for number := range each {
				if err := from.Send([]udp.Packet{{Addr: first.LocalAddr(), Data: []byte{byte(number >> 8), byte(number)}}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		socket, next, used := map[netip.AddrPort]int{}, map[netip.AddrPort]int{}, map[int]bool{}
		for range sources * each {
			a := <-arrivals
			if at, known := socket[a.from]; known && at != a.socket || a.number != next[a.from] {
				t.Fatalf("%v: %d came by socket %d, want %d by %d", a.from, a.number, a.socket, next[a.from], at)
			}
			socket[a.from], used[a.socket] = a.socket, true
			next[a.from]++
		}
		if len(used) < 2 {
			t.Error("16 sources came by one socket")
		}
		for _, c := range conns {
			_ = c.Close()
		}
		readers.Wait()
	}
}
