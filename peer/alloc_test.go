package peer

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"meshd/keys"
	"meshd/peer/hello"
	"meshd/peer/relay"
	"meshd/peer/udp"
)

// pipe is one end of a link in memory. Its sender can be told to keep what is
// sent instead of passing it on, without allocating.
type pipe struct {
	at     netip.AddrPort
	in     chan udp.Packet
	other  *pipe
	closed chan struct{}
	keep   atomic.Bool
	kept   []byte // the last datagram, when keep is set
}

func newPipes() (a, b *pipe) {
	a = &pipe{at: netip.MustParseAddrPort("198.18.0.1:1"), in: make(chan udp.Packet, 256), closed: make(chan struct{})}
	b = &pipe{at: netip.MustParseAddrPort("198.18.0.2:1"), in: make(chan udp.Packet, 256), closed: make(chan struct{})}
	a.other, b.other = b, a
	return a, b
}

func (p *pipe) Receive(pkts []udp.Packet) (int, error) {
	select {
	case pkts[0] = <-p.in:
		return 1, nil
	case <-p.closed:
		return 0, net.ErrClosed
	}
}

func (p *pipe) Send(pkts []udp.Packet) error {
	for _, pkt := range pkts {
		if p.keep.Load() {
			p.kept = append(p.kept[:0], pkt.Data...)
			continue
		}
		p.other.in <- udp.Packet{Addr: p.at, Data: bytes.Clone(pkt.Data), Seg: pkt.Seg}
	}
	return nil
}

func (p *pipe) LocalAddr() netip.AddrPort { return p.at }

func (p *pipe) Close() error {
	close(p.closed)
	return nil
}

// sink counts frames.
type sink struct{ frames atomic.Int64 }

func (s *sink) Receive([]byte, int) { s.frames.Add(1) }
func (s *sink) Flush()              {}

// deaf is an observer without interest.
type deaf struct{}

func (deaf) Met(*hello.Result, netip.AddrPort) {}
func (deaf) Control(*Remote, []byte)           {}
func (deaf) STUN(netip.AddrPort, []byte)       {}
func (deaf) Changed(*Remote)                   {}

// pair is two engines with a session, and their remotes for each other.
func pair(t testing.TB) (toB, toA *Remote, a, b *pipe) {
	t.Helper()
	a, b = newPipes()
	var ids [2]*keys.Identity
	var engines [2]*Engine
	for i, conn := range []*pipe{a, b} {
		id, err := keys.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = id
		engines[i], err = New(Config{
			Identity: id, Conns: []udp.Conn{conn}, Hello: hello.Config{Identity: id}, Observer: deaf{},
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	for _, e := range engines {
		go func() { done <- e.Run(ctx) }()
	}
	t.Cleanup(func() {
		a.keep.Store(true)
		b.keep.Store(true)
		cancel()
		for range engines {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	var remotes [2]*Remote
	for i, conn := range []*pipe{b, a} {
		r, err := engines[i].SetRemote(Spec{Public: ids[1-i].Public(), Class: Member, Candidates: []netip.AddrPort{conn.at}})
		if err != nil {
			t.Fatal(err)
		}
		remotes[i] = r
	}
	remotes[0].Want()
	for began := time.Now(); !remotes[0].Status().Up || !remotes[1].Status().Up || remotes[0].Status().PathMTU != 1500; {
		if time.Since(began) > 10*time.Second {
			t.Fatal("no session within 10 s")
		}
		time.Sleep(time.Millisecond)
	}
	for began := time.Now(); !remotes[0].session.SendKey().Far.Settled.Load(); time.Sleep(time.Millisecond) {
		remotes[0].Send(make([]byte, 60), 0) // the question what the other can goes with frames
		remotes[0].Flush()
		if time.Since(began) > 10*time.Second {
			t.Fatal("no answer within 10 s")
		}
	}
	return remotes[0], remotes[1], a, b
}

// A frame costs no allocation on its way out: whole, and in pieces.
func TestSendDoesNotAllocate(t *testing.T) {
	for _, size := range []int{60, 1300, 1514} {
		toB, _, a, _ := pair(t)
		a.keep.Store(true)
		frame := make([]byte, size)
		allocs := testing.AllocsPerRun(500, func() {
			for range 8 {
				toB.Send(frame, 0)
			}
			toB.Flush()
		})
		if allocs >= 1 { // less: the pool gave up a buffer to a collection
			t.Errorf("%d bytes: %v allocations for 8 frames", size, allocs)
		}
	}
}

// And none on its way in.
func TestReceiveDoesNotAllocate(t *testing.T) {
	const runs = 300
	for _, size := range []int{60, 1514} {
		toB, toA, a, _ := pair(t)
		got := new(sink)
		toA.Attach(got)
		a.keep.Store(true)
		frame := make([]byte, size)
		var sealed []udp.Packet
		for range runs + 1 { // AllocsPerRun calls once more to warm up
			toB.Send(frame, 0)
			toB.Flush()
			sealed = append(sealed, udp.Packet{Addr: a.at, Data: bytes.Clone(a.kept), Seg: toB.segment(len(a.kept))})
		}
		rx := &receiver{engine: toA.engine, now: time.Now()}
		rx.stamp = toA.engine.stamp(rx.now)
		next := 0
		allocs := testing.AllocsPerRun(runs, func() {
			rx.packet(&sealed[next])
			rx.flush()
			next++
		})
		if allocs > 0 {
			t.Errorf("%d bytes: %v allocations for a frame", size, allocs)
		}
		if got.frames.Load() != runs+1 {
			t.Errorf("%d bytes: %d of %d frames arrived", size, got.frames.Load(), runs+1)
		}
	}
}

// segment is the size of the datagrams in a kept run: two equal pieces, or one.
func (r *Remote) segment(n int) int {
	if n > 1472 {
		return n / 2
	}
	return 0
}

func BenchmarkSend(b *testing.B) {
	toB, _, a, _ := pair(b)
	a.keep.Store(true)
	frame := make([]byte, 1400)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		toB.Send(frame, 0)
		if i%32 == 31 {
			toB.Flush()
		}
	}
}

// Forwarding costs none either, nor does sending and receiving on a circuit.
func TestForwardDoesNotAllocate(t *testing.T) {
	toB, toA, a, b := pair(t)
	b.keep.Store(true)
	rx := &receiver{engine: toA.engine, now: time.Now()}
	rx.stamp = toA.engine.stamp(rx.now)
	const in, out = 7, 9
	rx.engine.circuits.Store(&circuits{legs: map[uint32]*leg{
		in: {sources: []netip.AddrPort{a.at}, to: toA, out: relay.NewHeader(true, out), flow: &flow{}},
	}})
	const seg, runs = 1460, 100
	data := make([]byte, 20*seg+300)
	fill := func() {
		for at := 0; at < len(data); at += seg {
			relay.NewHeader(false, in).Put(data[at:])
		}
	}
	p := &udp.Packet{Addr: a.at, Data: data, Seg: seg}
	fill()
	allocs := testing.AllocsPerRun(runs, func() {
		fill()
		rx.packet(p)
		rx.sendForwarded()
	})
	if allocs > 0 {
		t.Errorf("%v allocations to forward a run", allocs)
	}
	if !relay.NewHeader(true, out).Is(b.kept) || len(b.kept) != len(data) {
		t.Errorf("forwarded %d of %d bytes, beginning with %x", len(b.kept), len(data), b.kept[:8])
	}
	_ = toB
}
