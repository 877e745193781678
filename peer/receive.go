package peer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"meshd/peer/inner"
	"meshd/peer/relay"
	"meshd/peer/udp"
	"meshd/peer/way"
	"meshd/peer/wireguard"
)

// receiveBatch is how many runs of datagrams are taken from a socket at once.
const receiveBatch = 64

// keyEntry is what a receiver index stands for.
type keyEntry struct {
	key    *wireguard.Keypair
	remote *Remote
}

// receiver is the state of one socket's goroutine.
type receiver struct {
	engine *Engine
	conn   udp.Conn
	class  way.Class // of the addresses that datagrams come from
	now    time.Time
	stamp  int64       // of now
	sinks  []FrameSink // that got frames in this batch
	outs   []outbox    // what is forwarded in this batch, by socket
	tally  tally
	depth  int // circuits that the datagram in hand came out of
}

// receive reads one socket until it is closed. Transport data runs from here
// to the host's TAP without a hand-over.
func (e *Engine) receive(ctx context.Context, conn udp.Conn, class way.Class) error {
	rx := &receiver{engine: e, conn: conn, class: class}
	pkts := make([]udp.Packet, receiveBatch)
	err := rx.serve(pkts)
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (rx *receiver) serve(pkts []udp.Packet) error {
	if s, ok := rx.conn.(udp.Server); ok {
		return s.Serve(pkts, rx.batch)
	}
	for {
		n, err := rx.conn.Receive(pkts)
		if err != nil {
			return err
		}
		rx.batch(pkts[:n])
	}
}

// batch is what one system call has brought.
func (rx *receiver) batch(pkts []udp.Packet) {
	rx.now = rx.engine.now()
	rx.stamp = rx.engine.stamp(rx.now)
	for i := range pkts {
		rx.packet(&pkts[i])
	}
	rx.tally.flush()
	rx.sendForwarded()
	rx.flush()
}

// foreign reports whether a source is not of the kind that this socket or carrier
// has.
func (rx *receiver) foreign(from netip.AddrPort) bool {
	if rx.class == way.Direct && from.Addr().Is4() {
		return false
	}
	return way.ClassOf(from) != rx.class
}

// packet takes a run of datagrams apart.
func (rx *receiver) packet(p *udp.Packet) {
	if rx.engine.inside(p.Addr.Addr()) || rx.foreign(p.Addr) {
		rx.engine.counts.FromOverlay.Add(1)
		return
	}
	data := p.Data
	for len(data) > 0 {
		n := len(data)
		if p.Seg > 0 && p.Seg < n {
			n = p.Seg
		}
		if relay.Is(data) {
			n = rx.relayed(data, n, p.Addr)
		} else {
			rx.datagram(data[:n:n], p.Addr)
		}
		data = data[n:]
	}
}

func (rx *receiver) datagram(b []byte, from netip.AddrPort) {
	e := rx.engine
	switch udp.Classify(b) {
	case udp.KindWireGuard:
		switch t, ok := wireguard.Type(b); {
		case !ok:
			e.counts.Malformed.Add(1)
		case t == wireguard.TypeTransport:
			rx.transport(b, from)
		default:
			e.enqueue(e.handshakeQ, from, b, &e.counts.HandshakesDropped)
		}
	case udp.KindProbe:
		e.enqueue(e.probeQ, from, b, &e.counts.ProbesDropped)
	case udp.KindHello, udp.KindSTUN:
		e.enqueue(e.strangerQ, from, b, &e.counts.StrangersDropped)
	case udp.KindRelay: // a circuit over another
		rx.relayed(b, len(b), from)
	default:
		e.counts.Unknown.Add(1)
	}
}

// transport opens one WireGuard transport message and acts on what is in it.
func (rx *receiver) transport(b []byte, from netip.AddrPort) {
	e := rx.engine
	index, ok := wireguard.Receiver(b)
	if !ok {
		e.counts.Malformed.Add(1)
		return
	}
	entry, ok := (*e.keys.Load())[index]
	if !ok {
		e.counts.NoKey.Add(1)
		return
	}
	plain, err := entry.key.Open(b)
	if err != nil {
		e.counts.Unopened.Add(1)
		return
	}
	r := entry.remote
	if entry.key.MarkReceived(rx.now, len(plain) == 0) {
		r.tickSession.Store(true)
		e.attend(r)
	}
	rx.tally.add(r, from)
	rx.heard(r, from)
	if len(plain) == 0 {
		return
	}
	h, body, err := inner.Parse(plain)
	if err != nil {
		e.counts.Malformed.Add(1)
		return
	}
	rx.body(entry, h, body)
}

// note is Store for what is the same in all of a batch: a load is much cheaper.
func note(at *atomic.Int64, stamp int64) {
	if at.Load() != stamp {
		at.Store(stamp)
	}
}

// heard notes that the remote is alive at that address. Data never moves a
// path: an address that is not the path's is left to the engine to probe.
func (rx *receiver) heard(r *Remote, from netip.AddrPort) {
	if to := r.route.Load(); to != nil && to.addr == from {
		note(&to.heard, rx.stamp)
		return
	}
	if old := r.strange.Load(); old == nil || *old != from {
		addr := from // so that it is on the heap in this branch alone
		r.strange.Store(&addr)
	}
	if last := r.strangeAt.Load(); rx.stamp-last > int64(50*time.Millisecond) {
		r.strangeAt.Store(rx.stamp)
		rx.engine.attend(r)
	}
}

func (rx *receiver) body(from keyEntry, h inner.Header, body []byte) {
	r := from.remote
	switch h.Kind {
	case inner.KindFrame:
		rx.frame(r, body, h.CsumStart)
	case inner.KindFragment:
		if Class(r.class.Load()) != Member {
			r.drops.Add(1)
			return
		}
		r.pieceMu.Lock()
		frame, ok := r.pieces.Add(body, rx.now)
		if ok {
			rx.frame(r, frame, h.CsumStart) // as the piece that came last says
		}
		r.pieceMu.Unlock()
	case inner.KindControl:
		rx.control(from, body)
	case inner.KindCopy:
		rx.copied(r, body)
	case inner.KindCopyPart:
		rx.copiedPart(r, body)
	default:
		rx.engine.counts.Malformed.Add(1)
	}
}

// control takes the messages that are between engines. The others are mesh's.
func (rx *receiver) control(from keyEntry, body []byte) {
	kind := byte(0)
	if len(body) > 0 {
		kind = body[0]
	}
	r := from.remote
	switch kind {
	case controlCall:
		r.called(body[1:])
	case controlFeatures:
		rx.features(from, body)
	case controlFlood:
		rx.engine.heardOfCopies(r, body[1:], rx.now)
	case kindRelay:
		r.lastUsed.Store(rx.stamp)
		rx.engine.enqueueRelay(r, body[1:])
	default:
		r.lastUsed.Store(rx.stamp)
		rx.engine.observer.Control(r, body)
	}
}

func (rx *receiver) frame(r *Remote, frame []byte, csumStart int) {
	if Class(r.class.Load()) != Member {
		r.drops.Add(1)
		return
	}
	sink := r.sink.Load()
	if sink == nil {
		r.drops.Add(1)
		return
	}
	note(&r.lastUsed, rx.stamp)
	note(&r.carried, rx.stamp)
	rx.tally.bytes += uint64(len(frame))
	(*sink).Receive(frame, csumStart)
	for _, s := range rx.sinks {
		if s == *sink {
			return
		}
	}
	rx.sinks = append(rx.sinks, *sink)
}

// flush ends the batch on every sink that got a frame.
func (rx *receiver) flush() {
	for i, s := range rx.sinks {
		s.Flush()
		rx.sinks[i] = nil
	}
	rx.sinks = rx.sinks[:0]
}
