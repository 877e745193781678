package offload

import (
	"bytes"
	"encoding/binary"
)

const (
	maxOpen     = 16    // flows that are merged side by side
	maxIP       = 65535 // bytes of the IP packet in a super-frame
	maxDatagram = 64    // UDP datagrams in one (UDP_MAX_SEGMENTS of kernels before 6.9)
	batchFrames = 128   // what is worth a write
	batchBytes  = 2 << 16
)

// Merger collects copies of frames and merges what belongs together. What it has
// put out, cut again, is what was put in, flow by flow in the same order. It
// grows to what its use needs and is used again. The zero value merges nothing.
type Merger struct {
	Features Features // of the device that is written to

	bytes  []byte // frames, and behind an item's frame the payload of others, in the order of arrival
	pieces []piece
	items  []item
	open   []growing // items that may grow, the oldest first
	frames int       // that were added

	flat []byte  // super-frames whose pieces do not lie together
	out  []Frame // of Frames
}

// growing is an item that others may be merged into.
type growing struct {
	flow uint32 // of the item: most comparisons end here
	item uint32 // its index
}

// piece is a part of an item in Merger.bytes.
type piece struct {
	start, end int
	next       int // index of the following piece; 0: none (the first is always some item's head)
}

// item is a frame, or several of one flow.
type item struct {
	packet
	head, tail int    // pieces
	size       int    // of all of it
	segment    int    // payload of the first frame
	count      int    // of frames
	seq        uint32 // of the byte that must come next
	id         uint16 // of the last frame
	push       bool   // the last frame has PSH
	short      bool   // the last frame has less payload than the first
	partial    bool   // the first frame's checksum is left out
	verified   bool   // checksums of the first frame; of the others always
}

// Add takes a copy of frame. A csumStart other than 0 is where the transport header
// begins whose checksum was left out (Cutter.CsumStart). It reports false when there
// is no such header: the frame is to be dropped. Look at Full afterwards.
func (m *Merger) Add(frame []byte, csumStart int) bool {
	merges := m.Features.Has(Checksum) && m.Features != Checksum
	var p packet
	found := false
	if merges || csumStart != 0 {
		p, found = parse(frame)
	}
	if csumStart != 0 && (!found || p.l4 != csumStart) {
		return false
	}
	m.frames++
	switch it := (item{packet: p, partial: csumStart != 0}); {
	case merges && found && m.Features.Has(p.feature()):
		m.addPacket(&it, frame)
	case merges && !found: // it may be of any flow
		m.open = m.open[:0]
		m.append(frame, it)
	default:
		m.append(frame, it)
	}
	return true
}

func (m *Merger) addPacket(next *item, frame []byte) {
	p, flow := next.packet, next.packet.flow(frame)
	for i, at := range m.open {
		if at.flow != flow {
			continue
		}
		it := &m.items[at.item]
		if !it.sameFlow(p, m.first(it), frame) {
			continue
		}
		if m.extend(it, next, frame) {
			if !it.mayGrow() {
				m.closeOpen(i)
			}
			return
		}
		m.closeOpen(i) // nothing may overtake what comes now
		break
	}
	next.segment = len(frame) - p.end
	grows := p.begins(frame)
	if p.proto == protoTCP {
		next.seq = binary.BigEndian.Uint32(frame[p.l4+4:]) + uint32(next.segment)
	}
	if !p.v6 {
		next.id = binary.BigEndian.Uint16(frame[p.l3+4:])
	}
	m.append(frame, *next)
	if grows {
		if len(m.open) == maxOpen {
			m.closeOpen(0)
		}
		m.open = append(m.open, growing{flow, uint32(len(m.items) - 1)})
	}
}

// feature is what a device must have to take such packets in a super-frame.
func (p packet) feature() Features {
	switch {
	case p.proto == protoUDP:
		return USO
	case p.v6:
		return TSO6
	}
	return TSO4
}

// closeOpen ends the growth of the item at place i.
func (m *Merger) closeOpen(i int) { m.open = append(m.open[:i], m.open[i+1:]...) }

// first is the first frame of an item, with its headers.
func (m *Merger) first(it *item) []byte {
	p := m.pieces[it.head]
	return m.bytes[p.start : p.start+it.end+it.segment]
}

func (m *Merger) append(frame []byte, it item) {
	start := len(m.bytes)
	m.bytes = append(m.bytes, frame...)
	it.head, it.tail = len(m.pieces), len(m.pieces)
	it.size, it.count = len(frame), 1
	m.pieces = append(m.pieces, piece{start: start, end: len(m.bytes)})
	m.items = append(m.items, it)
}

// flow is a hash: equal for the frames of one flow.
func (p packet) flow(b []byte) uint32 {
	ports := binary.NativeEndian.Uint32(b[p.l4:])
	// The low halves of the addresses differ where anything does.
	from, to := binary.NativeEndian.Uint32(b[p.l3+12:]), binary.NativeEndian.Uint32(b[p.l3+16:])
	if p.v6 {
		from, to = binary.NativeEndian.Uint32(b[p.l3+20:]), binary.NativeEndian.Uint32(b[p.l3+36:])
	}
	return (ports*0x9e3779b1+from)*0x85ebca6b + to + uint32(p.proto)
}

// sameFlow compares protocol, addresses and ports of two frames.
func (it *item) sameFlow(p packet, a, b []byte) bool {
	if it.v6 != p.v6 || it.proto != p.proto || binary.NativeEndian.Uint32(a[it.l4:]) != binary.NativeEndian.Uint32(b[p.l4:]) {
		return false
	}
	if p.v6 {
		return bytes.Equal(a[it.l3+8:it.l3+ip6Len], b[p.l3+8:p.l3+ip6Len])
	}
	return bytes.Equal(a[it.l3+12:it.l3+ip4Len], b[p.l3+12:p.l3+ip4Len])
}

// begins reports whether others may follow the frame in one super-frame.
func (p packet) begins(b []byte) bool {
	if p.end == len(b) {
		return false
	}
	if p.proto == protoUDP {
		return true
	}
	// PSH ends a super-frame, CWR is for its first segment alone.
	return b[p.l4+13]&^flagECE == flagACK && sizable(b[p.l4:])
}

// extend merges the frame into an item of its flow, if it continues it exactly.
func (m *Merger) extend(it, next *item, frame []byte) bool {
	p := next.packet
	first, n := m.first(it), len(frame)-p.end
	if n == 0 || n > it.segment || it.size-it.l3+n > maxIP || p.l3 != it.l3 || p.end != it.end {
		return false
	}
	if !bytes.Equal(first[:p.l3], frame[:p.l3]) || !it.continuesIP(first, frame) {
		return false
	}
	if p.proto == protoTCP && !it.continuesTCP(first, frame) {
		return false
	}
	if !it.verified && !it.sound(first, it.partial) || !p.sound(frame, next.partial) {
		return false
	}
	it.verified = true
	it.count++
	it.size += n
	it.seq += uint32(n)
	it.id++
	it.push = p.proto == protoTCP && frame[p.l4+13]&flagPSH != 0
	it.short = n < it.segment
	m.join(it, frame[p.end:])
	return true
}

// mayGrow reports whether the last frame was not the end of a super-frame.
func (it *item) mayGrow() bool {
	return !it.push && !it.short && (it.proto == protoTCP || it.count < maxDatagram)
}

// continuesIP compares what must be the same in the IP headers.
func (it *item) continuesIP(a, b []byte) bool {
	a, b = a[it.l3:it.l4], b[it.l3:it.l4]
	if it.v6 { // class, flow label; next header, hop limit
		return bytes.Equal(a[:4], b[:4]) && a[6] == b[6] && a[7] == b[7]
	}
	// DF must be the same, and without it the identifications must be in sequence.
	atomic := a[6]&ip4DF != 0
	return a[1] == b[1] && a[6] == b[6] && a[7] == b[7] && a[8] == b[8] &&
		(atomic || binary.BigEndian.Uint16(b[4:]) == it.id+1)
}

// continuesTCP: the next byte of the stream, the same acknowledgement, window,
// flags (PSH apart) and options.
func (it *item) continuesTCP(a, b []byte) bool {
	a, b = a[it.l4:it.end], b[it.l4:it.end]
	return binary.BigEndian.Uint32(b[4:]) == it.seq &&
		bytes.Equal(a[8:13], b[8:13]) && a[13] == b[13]&^flagPSH &&
		bytes.Equal(a[14:16], b[14:16]) && bytes.Equal(a[18:], b[18:])
}

// join adds payload to an item: to its last piece if that is the last of all.
func (m *Merger) join(it *item, payload []byte) {
	start := len(m.bytes)
	m.bytes = append(m.bytes, payload...)
	tail := &m.pieces[it.tail]
	if tail.end == start {
		tail.end = len(m.bytes)
		return
	}
	tail.next = len(m.pieces)
	it.tail = len(m.pieces)
	m.pieces = append(m.pieces, piece{start: start, end: len(m.bytes)})
}

// Full reports whether it is time to take the Frames.
func (m *Merger) Full() bool { return len(m.items) >= batchFrames || len(m.bytes) >= batchBytes }

// Len is the number of frames that were added since the last Reset.
func (m *Merger) Len() int { return m.frames }

// Frames returns what has become of the frames. It ends what could still grow; call
// Reset next. The frames are valid until then.
func (m *Merger) Frames() []Frame {
	m.open = m.open[:0]
	for i := range m.items {
		it := &m.items[i]
		p := m.pieces[it.head]
		f := Frame{Data: m.bytes[p.start:p.end:p.end]}
		if it.count > 1 {
			if p.next != 0 {
				f.Data = m.flatten(it)
			}
			f.Header = it.finish(f.Data)
		} else if it.partial {
			f.Header = m.leave(it, f.Data)
		}
		m.out = append(m.out, f)
	}
	return m.out
}

// leave passes a checksum that was left out on to the device, if it takes that.
func (m *Merger) leave(it *item, b []byte) Header {
	it.leaveOut(b) // whatever the sender has put there
	if m.Features.Has(Checksum) {
		return it.packet.partial()
	}
	it.complete(b)
	return Header{}
}

// flatten brings the pieces of an item together.
func (m *Merger) flatten(it *item) []byte {
	start := len(m.flat)
	for at := it.head; ; {
		p := m.pieces[at]
		m.flat = append(m.flat, m.bytes[p.start:p.end]...)
		if at = p.next; at == 0 {
			break
		}
	}
	return m.flat[start:len(m.flat):len(m.flat)]
}

// finish sets what depends on the size of the super-frame. The checksum is left to
// the host: the field has the sum of the pseudo-header.
func (it *item) finish(b []byte) Header {
	h := Header{
		Flags: FlagNeedsCsum, HdrLen: uint16(it.end), GSOSize: uint16(it.segment),
		CsumStart: uint16(it.l4), CsumOffset: uint16(it.csumOffset()),
	}
	if it.v6 {
		h.GSOType = GSOTCPv6
		binary.BigEndian.PutUint16(b[it.l3+4:], uint16(len(b)-it.l4))
	} else {
		h.GSOType = GSOTCPv4
		setIP4(b[it.l3:], ip4Len, len(b)-it.l3)
	}
	if it.proto == protoUDP {
		h.GSOType = GSOUDP
		binary.BigEndian.PutUint16(b[it.l4+4:], uint16(len(b)-it.l4))
	} else if it.push {
		b[it.l4+13] |= flagPSH
	}
	it.leaveOut(b)
	return h
}

// Reset forgets all frames.
func (m *Merger) Reset() {
	clear(m.out)
	m.bytes, m.pieces, m.items, m.open = m.bytes[:0], m.pieces[:0], m.items[:0], m.open[:0]
	m.flat, m.out, m.frames = m.flat[:0], m.out[:0], 0
}
