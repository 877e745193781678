//go:build linux && !race

package peer

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshd/peer/relay"
	"meshd/peer/udp"
)

// threadTime is the CPU time that this thread has used.
func threadTime(t testing.TB) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// TestForwardCost compares the CPU time of forwarding on a circuit with that of the
// least that a forwarder on the same sockets can do: receive a batch, send it on.
func TestForwardCost(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var socks [3]udp.Conn // who sends, who forwards, who gets
	for i := range socks {
		s, err := udp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udp.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		socks[i] = s
	}
	from, via, to := socks[0], socks[1], socks[2]
	_, toA, _, _ := pair(t)
	rx := &receiver{engine: toA.engine, now: time.Now()}
	rx.stamp = toA.engine.stamp(rx.now)
	next := &Remote{engine: toA.engine} // no engine looks after it
	next.route.Store(&route{conn: via, addr: to.LocalAddr()})
	const in, out, seg = 7, 9, 1460
	rx.engine.circuits.Store(&circuits{legs: map[uint32]*leg{
		in: {sources: []netip.AddrPort{from.LocalAddr()}, to: next, out: relay.NewHeader(true, out), flow: &flow{}},
	}})
	data := make([]byte, 40*seg)
	for at := 0; at < len(data); at += seg {
		relay.NewHeader(false, in).Put(data[at:])
	}
	pkts, sink := make([]udp.Packet, receiveBatch), make([]udp.Packet, receiveBatch)
	round := func(forward func(n int)) time.Duration {
		var used time.Duration
		for range 150 {
			for range 4 {
				if err := from.Send([]udp.Packet{{Addr: via.LocalAddr(), Data: data, Seg: seg}}); err != nil {
					t.Fatal(err)
				}
			}
			for got := 0; got < 4*len(data); {
				before := threadTime(t)
				n, err := via.Receive(pkts)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range pkts[:n] {
					got += len(p.Data)
				}
				forward(n)
				used += threadTime(t) - before
			}
			for got := 0; got < 4*len(data); {
				n, err := to.Receive(sink)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range sink[:n] {
					got += len(p.Data)
				}
			}
		}
		return used
	}
	least := func(n int) {
		for i := range pkts[:n] {
			pkts[i].Addr = to.LocalAddr()
		}
		if err := via.Send(pkts[:n]); err != nil {
			t.Fatal(err)
		}
	}
	ours := func(n int) {
		for i := range pkts[:n] {
			rx.packet(&pkts[i])
		}
		rx.sendForwarded()
	}
	bestLeast, bestOurs := round(least), round(ours)
	for range 8 { // the least of each: what else the machine does only adds
		bestLeast, bestOurs = min(bestLeast, round(least)), min(bestOurs, round(ours))
	}
	ratio := float64(bestOurs) / float64(bestLeast)
	t.Logf("%.2f times the CPU time of the least forwarder", ratio)
	if ratio > 1.3 {
		t.Errorf("%.2f times the CPU time, want 1.3 at most", ratio)
	}
	if n := rx.engine.counts.RelayRefused.Load() + rx.engine.counts.RelayDropped.Load(); n > 0 {
		t.Errorf("%d refused or dropped", n)
	}
}
