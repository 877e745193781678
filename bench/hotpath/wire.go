package hotpath

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"meshd/peer/udp"
)

// wireMode says what becomes of what is sent.
type wireMode uint32

const (
	queued  wireMode = iota // it is copied to the other end's queue: for handshakes and probes
	lent                    // the other end works on it while Send waits: nothing is copied
	dropped                 // it is forgotten: what sending alone costs
	kept                    // it is kept, for Replay
)

// wireQueue is how many runs of datagrams wait at an end; what comes on top is lost.
const wireQueue = 256

// Wire is one end of a link in memory. It is a udp.Conn.
type Wire struct {
	at     netip.AddrPort
	peers  map[netip.AddrPort]*Wire // that it can reach
	in     chan udp.Packet
	mode   atomic.Uint32
	closed chan struct{}

	lend sync.Mutex        // one sender lends at a time
	lent chan []udp.Packet // handed over by an end in mode lent
	back chan struct{}     // the receiver is done with them
	busy bool              // the receiver has some: owned by its goroutine
	sent atomic.Int64      // datagrams, in all modes but queued

	record []udp.Packet // in mode kept: owned by the goroutine that sends frames
	replay chan []udp.Packet
	played chan struct{}
	script []udp.Packet // what is left of a replay: owned by the goroutine that receives
	meter  cpuMeter     // of that
}

func newWire(at netip.AddrPort) *Wire {
	return &Wire{
		at: at, peers: map[netip.AddrPort]*Wire{}, in: make(chan udp.Packet, wireQueue), closed: make(chan struct{}),
		lent: make(chan []udp.Packet), back: make(chan struct{}),
		replay: make(chan []udp.Packet), played: make(chan struct{}),
	}
}

// join lets two ends reach each other. It comes before their engines run.
func join(a, b *Wire) {
	a.peers[b.at], b.peers[a.at] = b, a
}

// Receive is udp.Conn's.
func (w *Wire) Receive(pkts []udp.Packet) (int, error) {
	if w.busy {
		w.busy = false
		w.back <- struct{}{}
	}
	if w.script != nil {
		if n := copy(pkts, w.script); n > 0 {
			w.script = w.script[n:]
			return n, nil
		}
		w.script = nil
		w.meter.stop()
		w.played <- struct{}{}
	}
	select {
	case w.script = <-w.replay:
		w.meter.start()
		n := copy(pkts, w.script)
		w.script = w.script[n:]
		return n, nil
	case pkts[0] = <-w.in:
		return 1, nil
	case lent := <-w.lent:
		w.busy = true
		return copy(pkts, lent), nil
	case <-w.closed:
		return 0, net.ErrClosed
	}
}

// Send is udp.Conn's.
func (w *Wire) Send(pkts []udp.Packet) error {
	mode := wireMode(w.mode.Load())
	if mode == queued {
		w.queue(pkts)
		return nil
	}
	to := w.peers[pkts[0].Addr]
	for i := range pkts { // all have one address: they are one remote's
		w.sent.Add(int64(datagrams(&pkts[i])))
		pkts[i].Addr = w.at
		if mode == kept {
			w.record = append(w.record, udp.Packet{Addr: w.at, Data: bytes.Clone(pkts[i].Data), Seg: pkts[i].Seg})
		}
	}
	if mode == lent && to != nil {
		to.lend.Lock()
		defer to.lend.Unlock()
		to.lent <- pkts
		<-to.back
	}
	return nil
}

func (w *Wire) queue(pkts []udp.Packet) {
	for _, pkt := range pkts {
		to := w.peers[pkt.Addr]
		if to == nil {
			continue
		}
		select {
		case to.in <- udp.Packet{Addr: w.at, Data: bytes.Clone(pkt.Data), Seg: pkt.Seg}:
		default:
		}
	}
}

func datagrams(p *udp.Packet) int {
	if p.Seg <= 0 {
		return 1
	}
	return (len(p.Data) + p.Seg - 1) / p.Seg
}

// LocalAddr is udp.Conn's.
func (w *Wire) LocalAddr() netip.AddrPort { return w.at }

// Close is udp.Conn's.
func (w *Wire) Close() error {
	close(w.closed)
	return nil
}
