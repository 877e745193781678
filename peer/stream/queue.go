package stream

import (
	"encoding/binary"
	"time"
)

const (
	// queueBytes bounds the data that waits for one stream, and urgentBytes what
	// goes before it.
	queueBytes  = 256 << 10
	urgentBytes = 64 << 10
	// queueAge is how long data may wait: what is older has been given up by the
	// connections inside, or makes them late.
	queueAge = 300 * time.Millisecond
)

// queue is what waits to be written to one stream. Probes, hellos and handshakes
// go before data, so that a full queue does not look like a dead path.
type queue struct {
	urgent, data ring
	dropped      uint64 // datagrams that were displaced or grew too old, not yet reported
}

// push adds a datagram of at most maxDatagram bytes.
func (q *queue) push(datagram []byte, now time.Time) {
	r, limit := &q.data, queueBytes
	if isUrgent(datagram) {
		r, limit = &q.urgent, urgentBytes
	}
	for r.len()+entryHeader+len(datagram) > limit {
		r.pop()
		q.dropped++
	}
	r.push(datagram, now)
}

// take appends the frames of what waits to b, at least one if there is any and as
// many as fit its capacity.
func (q *queue) take(b []byte, now time.Time) []byte {
	for _, r := range []*ring{&q.urgent, &q.data} {
		for r.len() > 0 {
			datagram, since := r.first()
			if r == &q.data && now.Sub(since) > queueAge {
				r.pop()
				q.dropped++
				continue
			}
			if len(b)+headerLen+len(datagram) > cap(b) {
				return b
			}
			b = appendFrame(b, datagram)
			r.pop()
		}
	}
	return b
}

// lost is how many datagrams were dropped since the last call.
func (q *queue) lost() uint64 {
	n := q.dropped
	q.dropped = 0
	return n
}

// isUrgent says that a datagram is none of data: WireGuard's transport messages
// are, and relay frames around them (PROTOCOL.md, section 1).
func isUrgent(b []byte) bool {
	const transport, relay, relayHeader = 4, 0xd3, 8
	for len(b) > relayHeader && b[0] == relay {
		b = b[relayHeader:]
	}
	return len(b) == 0 || b[0] != transport
}

// entryHeader is what a ring keeps with each datagram: when it came (8) and its length (2).
const entryHeader = 10

// ring is a first-in, first-out line of datagrams in one piece of memory, so that
// a steady flow allocates nothing.
type ring struct {
	buf  []byte
	head int
}

func (r *ring) len() int { return len(r.buf) - r.head }

func (r *ring) push(datagram []byte, now time.Time) {
	need := entryHeader + len(datagram)
	if r.head > 0 && (r.head == len(r.buf) || len(r.buf)+need > cap(r.buf)) {
		r.buf = r.buf[:copy(r.buf, r.buf[r.head:])]
		r.head = 0
	}
	r.buf = binary.BigEndian.AppendUint64(r.buf, uint64(now.UnixNano()))
	r.buf = binary.BigEndian.AppendUint16(r.buf, uint16(len(datagram)))
	r.buf = append(r.buf, datagram...)
}

// first is the datagram that has waited the longest. There must be one.
func (r *ring) first() (datagram []byte, since time.Time) {
	b := r.buf[r.head:]
	n := int(binary.BigEndian.Uint16(b[8:]))
	return b[entryHeader : entryHeader+n], time.Unix(0, int64(binary.BigEndian.Uint64(b)))
}

// pop forgets it.
func (r *ring) pop() {
	r.head += entryHeader + int(binary.BigEndian.Uint16(r.buf[r.head+8:]))
	if r.head == len(r.buf) {
		r.buf, r.head = r.buf[:0], 0
	}
}
