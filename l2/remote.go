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

	rxFrames, rxBytes, txFrames, txBytes atomic.Uint64

	// mu is held while the device is written, which keeps the frames of a remote
	// in order when two sockets receive for it. A device never calls back.
	mu      sync.Mutex
	bum     bucket
	now     time.Duration // of the batch in hand; valid if inBatch
	inBatch bool
	queue   *offload.Merger // nil: nothing queued

	sent []mark // by queue; each is owned by its pump
}

// attachment is a session's port and what its owner may do.
type attachment struct {
	lanes []Port // of the port, by queue
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
	if why := r.judge(frame); why != passed {
		r.sw.fromRemotes.drop(why)
		return
	}
	if r.sw.cfg.Device == nil {
		r.sw.fromRemotes.drop(device)
		return
	}
	if !r.enqueue(frame, csumStart) {
		r.sw.fromRemotes.drop(malformed)
		return
	}
	r.sw.fromRemotes.forwarded(len(frame))
	r.rxFrames.Add(1)
	r.rxBytes.Add(uint64(len(frame)))
}

// judge decides on a frame from the remote and learns from it.
func (r *RemotePort) judge(frame []byte) reason {
	s := r.sw
	h, ok := ParseHeader(frame)
	if !ok {
		return malformed
	}
	v, at := s.view.Load(), r.at.Load()
	if at == nil {
		return disconnected
	}
	if why := lawful(h, len(frame), s.cfg.MTU); why != passed {
		return why
	}
	if !at.mayUse(h.VLAN) {
		return vlanDenied
	}
	if why := s.admit(v, h, &r.origin, r.now); why != passed {
		return why
	}
	r.seen.Store(int64(r.now))
	bum := h.Dst.Multicast()
	if !bum {
		where := s.locate(v, h.VLAN, h.Dst, r.now)
		if where != nil && where.remote != nil {
			return elsewhere // split horizon: it is not ours to forward
		}
		bum = where == nil
	}
	if bum && !r.bum.take(r.now) {
		return storm
	}
	return s.guard(v, &at.rights, h, frame, &r.origin, r.now)
}

// Flush ends a batch: it writes what Receive has queued to the device.
func (r *RemotePort) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inBatch = false
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
	r.write()
}

// Traffic returns what crossed the port since Connect made it.
func (r *RemotePort) Traffic() Traffic {
	return Traffic{
		RxFrames: r.rxFrames.Load(), RxBytes: r.rxBytes.Load(),
		TxFrames: r.txFrames.Load(), TxBytes: r.txBytes.Load(),
	}
}
