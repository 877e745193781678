package peer

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"meshd/peer/fragment"
	"meshd/peer/inner"
	"meshd/peer/relay"
	"meshd/peer/udp"
	"meshd/peer/wireguard"
)

const (
	// attendEvery is how soon the engine hears that a quiet remote is in use
	// again, so that it notices when nothing comes back.
	attendEvery = time.Second
	// arenaSize holds one batch of sealed datagrams: what one UDP_SEGMENT send
	// takes at most.
	arenaSize = 64 << 10
	// maxDatagram is the largest datagram that a batch has to make room for.
	maxDatagram = 2048
	// maxRuns is how many runs of equal-sized datagrams one batch holds.
	maxRuns = 64
)

// route is an immutable snapshot of where datagrams to a remote go.
type route struct {
	conn    udp.Conn
	addr    netip.AddrPort
	via     *end // the circuit that addr stands for; nil: a way of its own
	maxBody int  // bytes of frame that fit one datagram on this path

	maxPlain int // bytes of padded plaintext that do
	mtu      int // bytes of IP packet that the path carries

	held  atomic.Bool    // frames wait until those on the path before have arrived
	out   *atomic.Uint32 // messages sent to addr
	sent  atomic.Int64   // Engine.stamp of the last datagram with a frame sent; 0: none
	asked atomic.Int64   // and of the last with a control message
	heard atomic.Int64   // and of the last authenticated one received from addr
}

// batch collects sealed datagrams that lie back to back in one arena.
type batch struct {
	arena []byte
	runs  []udp.Packet
	start int // of the current run in arena
	seg   int // size of its datagrams; 0: no run is open
	count uint32
	route *route

	key     *wireguard.Keypair // whose use was noted; nil: none yet
	control bool               // it was noted for control messages
}

// Shared by all engines: buffers without contents of their own.
var batches = sync.Pool{New: func() any {
	return &batch{arena: make([]byte, 0, arenaSize), runs: make([]udp.Packet, 0, maxRuns)}
}}

// full reports whether another datagram might not fit.
func (b *batch) full() bool {
	return len(b.arena)+maxDatagram > arenaSize || len(b.runs)+2 > maxRuns
}

// added accounts for the datagram of n bytes at the arena's end.
func (b *batch) added(n int) {
	if b.seg == 0 || n > b.seg {
		b.closeRun(len(b.arena) - n)
		b.seg = n
		return
	}
	if n < b.seg { // a shorter one ends its run
		b.closeRun(len(b.arena))
	}
}

// closeRun ends the open run at offset end; the next one starts there.
func (b *batch) closeRun(end int) {
	if b.seg != 0 && end > b.start {
		b.runs = append(b.runs, udp.Packet{Addr: b.route.addr, Data: b.arena[b.start:end], Seg: b.seg})
	}
	b.start, b.seg = end, 0
}

func (b *batch) flush() {
	b.closeRun(len(b.arena))
	if len(b.runs) > 0 {
		// Datagrams may be lost; the connections above repair that.
		if b.route.via != nil {
			sendHeaded(b.route.via, b.runs, 0)
		} else {
			_ = b.route.conn.Send(b.runs)
		}
	}
	if b.count > 0 {
		b.route.out.Add(b.count)
		b.count = 0
	}
	clear(b.runs)
	b.arena, b.runs, b.start, b.route, b.key = b.arena[:0], b.runs[:0], 0, nil, nil
}

// Send queues one Ethernet frame towards the remote. The frame is borrowed for
// the call. Without a session it waits, for a second at most, while one is made.
//
// A csumStart other than 0 says where the transport header begins whose checksum was
// left out. Send reports false when the remote has to get it whole for now.
func (r *Remote) Send(frame []byte, csumStart int) bool { return r.first.Send(frame, csumStart) }

// Flush sends what Send has sealed.
func (r *Remote) Flush() { r.first.Flush() }

// Lane returns one of the ways by which goroutines send to a remote side by side, each
// with a batch of its own. Send and Flush of the Remote are those of Lane(0). Frames
// keep their order within a lane. Of those beyond Config.Lanes all are the first.
func (r *Remote) Lane(n int) *Lane {
	if n < 1 || n > len(r.more) {
		return &r.first
	}
	return &r.more[n-1]
}

func (r *Remote) transmit(h inner.Header, body []byte) bool { return r.first.transmit(h, body) }

// Lane collects what one goroutine sends to a remote.
type Lane struct {
	remote  *Remote
	touched atomic.Bool // since the last Flush

	mu    sync.Mutex
	tx    *batch
	bytes uint64 // of frames that were sealed, not counted yet
}

// Send is Remote.Send.
func (l *Lane) Send(frame []byte, csumStart int) bool {
	r := l.remote
	if Class(r.class.Load()) != Member {
		r.drops.Add(1)
		return true
	}
	if !l.touched.Load() {
		l.touched.Store(true)
		r.touch()
	}
	if r.waiting.length.Load() > 0 || !l.transmit(inner.Header{Kind: inner.KindFrame, CsumStart: csumStart}, frame) {
		if csumStart != 0 {
			return false
		}
		r.wait(inner.KindFrame, frame)
		return true
	}
	return true
}

// touch notes, once for all frames up to a Flush, that the remote is in use: a look
// at the clock costs as much as a small packet does otherwise.
func (r *Remote) touch() {
	now := r.engine.stamp(r.engine.now())
	r.lastUsed.Store(now)
	if now-r.carried.Swap(now) > int64(attendEvery) {
		r.engine.attend(r) // the path is watched closely from now on
	}
}

// MaxFrame is the largest frame that crosses the path in one piece; 0 when there
// is none.
func (r *Remote) MaxFrame() int {
	if to := r.route.Load(); to != nil {
		return to.maxBody
	}
	return 0
}

// MaxFrame is Remote.MaxFrame.
func (l *Lane) MaxFrame() int { return l.remote.MaxFrame() }

// Flush is Remote.Flush.
func (l *Lane) Flush() {
	l.touched.Store(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tx == nil {
		return
	}
	l.remote.txBytes.Add(l.bytes)
	l.bytes = 0
	l.offer(l.tx)
	l.tx.flush()
	batches.Put(l.tx)
	l.tx = nil
}

// try has a session wanted for tryFor, unless one is for longer.
func (r *Remote) try(now time.Time) {
	before := r.lastUsed.Load()
	if try := r.engine.stamp(now) - int64(idleAfter-tryFor); before < try {
		r.lastUsed.CompareAndSwap(before, try)
	}
}

// SendControl sends one control message, of at most 1,100 bytes, if there is a
// session; otherwise it tries to make one for a while and reports false. Control
// messages are idempotent and repeated by their senders, so that none waits here.
func (r *Remote) SendControl(msg []byte) bool {
	now := r.engine.stamp(r.engine.now())
	before := r.lastUsed.Load()
	if !r.transmit(inner.Header{Kind: inner.KindControl}, msg) {
		r.try(r.engine.at(now))
		r.engine.attend(r)
		return false
	}
	r.lastUsed.Store(now)
	r.Flush()
	if now-before > int64(attendEvery) {
		r.engine.attend(r)
	}
	return true
}

// transmit seals one body into the batch, in pieces if the path is too small
// for it. It reports false when there is no key or no path, or when who has the key
// does not take checksums that are left out.
func (l *Lane) transmit(h inner.Header, body []byte) bool {
	r := l.remote
	key := r.session.SendKey()
	if key == nil || (h.CsumStart != 0 && !r.takesPartial(key)) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	to := r.route.Load() // under the lock, so that nothing follows the last ping of a path
	if to == nil || (to.held.Load() && h.Kind != inner.KindControl) {
		return false
	}
	var sealed bool
	if len(body) <= to.maxBody {
		sealed = l.seal(key, to, h, nil, body)
	} else {
		sealed = l.sealPieces(key, to, h, body)
	}
	if sealed && h.Kind == inner.KindFrame {
		l.bytes += uint64(len(body))
	}
	return sealed
}

// seal appends one transport message, whose body is head and then tail. l.mu is held.
func (l *Lane) seal(key *wireguard.Keypair, to *route, h inner.Header, head, tail []byte) bool {
	b := l.batchFor(to)
	start := len(b.arena)
	if to.via != nil {
		b.arena = b.arena[:start+relay.HeaderLen]
		to.via.out.Put(b.arena[start:])
	}
	at := len(b.arena) + wireguard.HeaderSize
	plain := b.arena[at:at:cap(b.arena)]
	plain = inner.AppendHeader(plain, h, len(head)+len(tail))
	plain = append(append(plain, head...), tail...)
	if pad := inner.PadTo(len(plain), to.maxPlain) - len(plain); pad > 0 {
		plain = append(plain, zeros[:pad]...)
	}
	sealed, err := key.Seal(b.arena, plain)
	if err != nil { // used up or expired: the session makes another
		b.arena = b.arena[:start]
		l.remote.engine.attend(l.remote)
		return false
	}
	b.arena = sealed
	b.count++
	b.added(len(sealed) - start)
	if control := h.Kind >= inner.KindControl; b.key != key || b.control != control {
		b.key, b.control = key, control
		l.remote.mark(key, to, control)
	}
	return true
}

// mark notes, once for a batch, that a key and a path are in use, by frames or by
// control messages. A copy of a frame for all counts as one of these (docs/adr/0019).
func (r *Remote) mark(key *wireguard.Keypair, to *route, control bool) {
	now := r.engine.now()
	if key.MarkSent(now) {
		r.tickSession.Store(true)
		r.engine.attend(r)
	}
	if control {
		to.asked.Store(r.engine.stamp(now))
	} else {
		to.sent.Store(r.engine.stamp(now))
	}
}

// zeros is what plaintexts are padded with.
var zeros [16]byte

// sealPieces sends a frame that is too large for the path as fragments. l.mu is held.
func (l *Lane) sealPieces(key *wireguard.Keypair, to *route, h inner.Header, body []byte) bool {
	count := fragment.Pieces(len(body), to.maxBody)
	if h.Kind == inner.KindControl || count == 0 {
		l.remote.drops.Add(1)
		return true // a session would not help
	}
	number, copied := l.remote.nextFrame.Add(1), h.Kind == inner.KindCopy
	if h.Kind = inner.KindFragment; copied {
		h.Kind = inner.KindCopyPart
	}
	var header [fragment.HeaderLen]byte
	for i := range count {
		head := fragment.Append(header[:0], number, i, count, nil)
		if !l.seal(key, to, h, head, fragment.Piece(body, i, count)) {
			return false
		}
	}
	return true
}

// batchFor returns a batch with room for one more datagram on that route. l.mu is held.
func (l *Lane) batchFor(to *route) *batch {
	if l.tx == nil {
		l.tx = batches.Get().(*batch)
	}
	if l.tx.full() || (l.tx.route != nil && l.tx.route != to) {
		l.tx.flush()
	}
	l.tx.route = to
	return l.tx
}
