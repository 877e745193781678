package l2

import (
	"sync"
	"sync/atomic"
	"time"

	"meshd/l2/offload"
)

// RemotePort is the port to one remote member. Its methods may be called from
// several goroutines.
type RemotePort struct {
	origin
	sw   *Switch
	name string
	at   atomic.Pointer[attachment] // nil: disconnected
	seen atomic.Int64               // time.Duration since the switch's start
	away atomic.Bool                // it cannot be reached

	place  atomic.Pointer[origin] // where its own addresses are: it, or who stands in for it; written with the switch's mu
	beside atomic.Bool            // it is on the LAN behind the device

	contested atomic.Int64 // when a frame of its own, or of whom it stands in for, was last heard on our side, too; 0: never

	rxFrames, rxBytes, txFrames, txBytes atomic.Uint64

	// mu is held while the device is written, which keeps the frames of a remote
	// in order when two sockets receive for it. A device never calls back.
	mu         sync.Mutex
	bum        bucket
	groupBytes bucket
	observed   bucket
	now        time.Duration // of the batch in hand; valid if inBatch
	inBatch    bool
	queue      *offload.Merger                // nil: nothing queued
	got        struct{ frames, bytes uint64 } // in the batch, not counted yet

	listens atomic.Pointer[listening] // nil: it wants all groups

	sent []mark // by queue; each is owned by its pump
}

// attachment is a session's port and what its owner may do.
type attachment struct {
	lanes  []Port // of the port, by queue
	copied Copied // the port; nil: it takes no copies
	rights
}

// lanesOf are what n pumps send to.
func lanesOf(p Port, n int) []Port {
	lanes := make([]Port, n)
	laned, ok := p.(Laned)
	for i := range lanes {
		if lanes[i] = p; ok && i > 0 {
			lanes[i] = laned.Lane(i)
		}
	}
	return lanes
}

// Receive takes one Ethernet frame that came from the remote, valid for the call
// only, and queues it for the device if the remote may send it. csumStart is as for
// Port.Send.
func (r *RemotePort) Receive(frame []byte, csumStart int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.inBatch {
		r.now, r.inBatch = r.sw.now(), true
	}
	v := r.sw.view.Load()
	to, why := r.judge(v, frame)
	if why == passed {
		why = r.deliver(v, to, frame, csumStart)
	}
	if why != passed {
		r.sw.fromRemotes.drop(why)
		return
	}
	r.got.frames++
	r.got.bytes += uint64(len(frame))
}

// has says whether a remote's own address is mac. It may be asked of nil.
func (r *RemotePort) has(mac MAC) bool {
	if r == nil {
		return false
	}
	at := r.at.Load()
	return at != nil && at.mac == mac
}

// account counts, once for a batch, what it brought. It needs mu.
func (r *RemotePort) account() {
	if r.got.frames == 0 {
		return
	}
	r.sw.fromRemotes.frames.Add(r.got.frames)
	r.sw.fromRemotes.bytes.Add(r.got.bytes)
	r.rxFrames.Add(r.got.frames)
	r.rxBytes.Add(r.got.bytes)
	r.got.frames, r.got.bytes = 0, 0
}

// judge decides on a frame from the remote and learns from it. It returns the local
// origin that the frame is for, nil for all of them.
func (r *RemotePort) judge(v *view, frame []byte) (to *origin, why reason) {
	s := r.sw
	h, ok := ParseHeader(frame)
	if !ok {
		return nil, malformed
	}
	at := r.at.Load()
	if at == nil {
		return nil, disconnected
	}
	if r.beside.Load() {
		return nil, blocked
	}
	if why := lawful(h, len(frame), s.cfg.MTU); why != passed {
		return nil, why
	}
	if !at.mayUse(h.VLAN) {
		return nil, vlanDenied
	}
	if why := s.admit(v, h, &r.origin, r.now); why != passed {
		return nil, why
	}
	if now := int64(r.now); r.seen.Load() != now { // once for a batch
		r.seen.Store(now)
	}
	if v.shut {
		return nil, blocked
	}
	if !h.Dst.Multicast() {
		to = s.locate(v, h.VLAN, h.Dst, r.now)
	}
	if to != nil && to.remote != nil {
		return nil, elsewhere // split horizon: it is not ours to forward
	}
	if to == nil {
		if !v.own.mayUse(h.VLAN) {
			return nil, vlanDenied // who passes copies on may not know it yet
		}
		if r.loops(v, h.Src) || s.joinedWith(r, h.VLAN, r.now) || s.hosts.loops(stationOf(h.VLAN, h.Src), r.now) {
			return nil, looped
		}
		if !r.takeFlood(h, frame) {
			return nil, storm
		}
	}
	why = s.guard(v, &at.rights, h, frame, &r.origin, r.now)
	if why == passed && to == &s.local {
		why = v.toRouter(h, frame)
	}
	return to, why
}

// deliver takes an admitted frame to the device and the plugs. It needs mu.
func (r *RemotePort) deliver(v *view, to *origin, frame []byte, csumStart int) reason {
	s := r.sw
	if to != nil && to.plug != nil {
		s.toPlugs(v, to, frame, csumStart)
		return passed
	}
	switch {
	case s.cfg.Device == nil && (len(v.plugs) == 0 || to != nil):
		return device
	case s.cfg.Device != nil && !r.enqueue(frame, csumStart):
		return malformed
	}
	s.toPlugs(v, to, frame, csumStart)
	return passed
}

// Flush ends a batch: it writes what Receive has queued to the device.
func (r *RemotePort) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inBatch = false
	r.account()
	r.write()
}

// enqueue reports false for a frame that is not what csumStart says. It needs mu.
func (r *RemotePort) enqueue(frame []byte, csumStart int) bool {
	if r.queue == nil {
		r.queue = r.sw.batches.Get().(*offload.Merger)
	}
	ok := r.queue.Add(frame, csumStart)
	if r.queue.Full() {
		r.write()
	}
	return ok
}

// write needs mu. A host that does not take frames (its interface is down) is no
// error of the remote: they are counted.
func (r *RemotePort) write() {
	q := r.queue
	if q == nil {
		return
	}
	r.queue = nil
	if err := r.sw.cfg.Device.Write(q.Frames()); err != nil {
		r.sw.fromRemotes.dropped[device].Add(uint64(q.Len()))
	}
	q.Reset()
	r.sw.batches.Put(q)
}

// settle waits for a Receive that began before a change. A disconnected remote
// learns nothing afterwards.
func (r *RemotePort) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.account()
	r.write()
}

// Traffic returns what crossed the port since Connect made it.
func (r *RemotePort) Traffic() Traffic {
	return Traffic{
		RxFrames: r.rxFrames.Load(), RxBytes: r.rxBytes.Load(),
		TxFrames: r.txFrames.Load(), TxBytes: r.txBytes.Load(),
	}
}
