package peer

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"meshd/keys"
	"meshd/peer/relay"
	"meshd/peer/udp"
)

// Circuits on the data path. A relay forwards what comes on one in the goroutine
// that read it, unopened and in the runs that it came in; an end takes the header
// off and treats what is inside as if it had come from the circuit's virtual
// address. What may pass is looked up in a table that is replaced whole.

// circuits is the table. It is immutable.
type circuits struct {
	legs  map[uint32]*leg // that this node carries, by the id towards it
	ends  map[uint32]*end // that end here, by the id from the relay
	byWay map[netip.AddrPort]*end
}

// leg is one direction of a circuit that this node carries.
type leg struct {
	sources []netip.AddrPort // where the sender's own session has confirmed it to be
	to      *Remote
	out     relay.Header
	flow    *flow
}

// flow counts what a circuit carries, both ways.
type flow struct {
	bytes   atomic.Uint64
	offered atomic.Uint64 // bytes that came, whether carried or not
	share   relay.Bucket

	bytesBefore, offeredBefore uint64 // when shares were last divided
	most                       uint64 // of the share, bytes per second, if the pair wants all; 0: no limit
	divided                    bool   // it has a share
}

// end is a circuit that ends here.
type end struct {
	addr    netip.AddrPort // virtual
	relay   *Remote
	sources []netip.AddrPort // where our session with the relay has confirmed it to be
	beyond  []keys.NodeID
	out     relay.Header
	next    *end // with the same id, of another relay
}

// find returns the end of a circuit that a datagram from a relay is on.
func (c *circuits) find(id uint32, from netip.AddrPort) *end {
	for e := c.ends[id]; e != nil; e = e.next {
		if slices.Contains(e.sources, from) {
			return e
		}
	}
	return nil
}

// outbox is what goes out by one socket when the batch that came in is done.
type outbox struct {
	conn udp.Conn
	pkts []udp.Packet
}

// relayed takes a run of relay frames off the front of data, and returns its
// length.
func (rx *receiver) relayed(data []byte, seg int, from netip.AddrPort) int {
	e := rx.engine
	n := min(seg, len(data))
	h, ok := relay.ParseHeader(data[:n])
	if !ok {
		e.counts.Malformed.Add(1)
		return n
	}
	table := e.circuits.Load()
	if h.FromRelay() {
		to := table.find(h.ID(), from)
		if to == nil || rx.depth >= relay.MaxHops {
			e.counts.RelayRefused.Add(1)
			return n
		}
		rx.depth++
		rx.datagram(data[relay.HeaderLen:n:n], to.addr)
		rx.depth--
		return n
	}
	leg := table.legs[h.ID()]
	if leg == nil || !slices.Contains(leg.sources, from) {
		e.counts.RelayRefused.Add(1)
		return n
	}
	for n < len(data) && h.Is(data[n:min(n+seg, len(data))]) {
		n = min(n+seg, len(data))
	}
	rx.forward(leg, data[:n:n], seg)
	return n
}

// forward passes a run of datagrams of one circuit on.
func (rx *receiver) forward(l *leg, data []byte, seg int) {
	e := rx.engine
	l.flow.offered.Add(uint64(len(data)))
	to := l.to.route.Load()
	if to == nil || !l.flow.share.Take(rx.stamp, len(data), relay.CarriesData(data)) {
		e.counts.RelayDropped.Add(1)
		return
	}
	for at := 0; at < len(data); at += seg {
		l.out.Put(data[at:])
	}
	l.flow.bytes.Add(uint64(len(data)))
	p := udp.Packet{Addr: to.addr, Data: data, Seg: seg}
	if to.via != nil {
		sendThrough(to.via, []udp.Packet{p}, 1)
		return
	}
	for i := range rx.outs {
		if rx.outs[i].conn == to.conn {
			rx.outs[i].pkts = append(rx.outs[i].pkts, p)
			return
		}
	}
	rx.outs = append(rx.outs, outbox{to.conn, append(make([]udp.Packet, 0, receiveBatch), p)})
}

// sendForwarded sends what forward has collected.
func (rx *receiver) sendForwarded() {
	for i := range rx.outs {
		o := &rx.outs[i]
		if len(o.pkts) > 0 {
			_ = o.conn.Send(o.pkts) // the ends repair losses
			clear(o.pkts)
			o.pkts = o.pkts[:0]
		}
	}
}

// sendHeaded sends runs of datagrams that begin with a circuit's header to the
// circuit's relay. It changes the packets' addresses.
func sendHeaded(via *end, pkts []udp.Packet, depth int) {
	to := via.relay.route.Load()
	switch {
	case to == nil || depth > relay.MaxHops:
	case to.via != nil:
		sendThrough(to.via, pkts, depth+1)
	default:
		for i := range pkts {
			pkts[i].Addr = to.addr
		}
		_ = to.conn.Send(pkts)
	}
}

// wrapper is room for datagrams that get a header.
type wrapper struct {
	arena []byte
	pkts  []udp.Packet
}

// Shared by all engines: buffers without contents of their own.
var wrappers = sync.Pool{New: func() any {
	return &wrapper{arena: make([]byte, 0, arenaSize), pkts: make([]udp.Packet, 0, maxRuns)}
}}

// sendThrough puts a circuit's header before every datagram and sends them to the
// circuit's relay. This copies: it is for control messages, and for circuits over
// other circuits.
func sendThrough(via *end, pkts []udp.Packet, depth int) {
	w := wrappers.Get().(*wrapper)
	defer wrappers.Put(w)
	flush := func() {
		sendHeaded(via, w.pkts, depth)
		clear(w.pkts)
		w.arena, w.pkts = w.arena[:0], w.pkts[:0]
	}
	for _, p := range pkts {
		seg := p.Seg
		if seg <= 0 || seg > len(p.Data) {
			seg = len(p.Data)
		}
		if seg == 0 {
			continue
		}
		start := len(w.arena)
		closeRun := func() {
			if len(w.arena) > start {
				w.pkts = append(w.pkts, udp.Packet{Data: w.arena[start:], Seg: seg + relay.HeaderLen})
			}
		}
		for data := p.Data; len(data) > 0; {
			n := min(seg, len(data))
			if len(w.arena)+relay.HeaderLen+n > cap(w.arena) || len(w.pkts)+1 >= maxRuns {
				closeRun()
				flush()
				start = 0
			}
			at := len(w.arena)
			w.arena = append(w.arena[:at+relay.HeaderLen], data[:n]...)
			via.out.Put(w.arena[at:])
			data = data[n:]
		}
		closeRun()
	}
	flush()
}

// relayConn carries datagrams to the virtual addresses of circuits. What comes
// from there arrives on the sockets.
type relayConn struct{ engine *Engine }

// Send implements udp.Conn.
func (c relayConn) Send(pkts []udp.Packet) error {
	table := c.engine.circuits.Load()
	for i := range pkts {
		if to := table.byWay[pkts[i].Addr]; to != nil {
			sendThrough(to, pkts[i:i+1], 0)
		}
	}
	return nil
}

// Receive implements udp.Conn.
func (relayConn) Receive([]udp.Packet) (int, error) { return 0, net.ErrClosed }

// LocalAddr implements udp.Conn.
func (relayConn) LocalAddr() netip.AddrPort { return netip.AddrPort{} }

// Close implements udp.Conn.
func (relayConn) Close() error { return nil }
