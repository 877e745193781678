package peer

import (
	"sync"
	"sync/atomic"
	"time"

	"meshd/peer/inner"
)

const (
	// maxQueued is how many frames wait for a remote without a session
	// (DESIGN.md, "The idea in one picture").
	maxQueued = 128
	// maxQueueBytes is how much they may be: the full number at the usual MTU.
	maxQueueBytes = 256 << 10
	// maxQueueAge is how long they wait.
	maxQueueAge = time.Second
	// maxQueuedBytes is how much may wait for all remotes: a broadcast waits once
	// for every member that is away.
	maxQueuedBytes = 8 << 20
	// maxHeldFrames and maxHeldBytes are the bounds while frames wait for those
	// that went another way to arrive: more than what TCP has under way then.
	maxHeldFrames = 4096
	maxHeldBytes  = 4 << 20
)

// waitQueue holds copies of frames until a session can carry them. The oldest goes
// when there are too many.
type waitQueue struct {
	total  *atomic.Int64 // bytes that wait for all remotes of the engine
	length atomic.Int32  // of frames, for who does not want to wait for mu

	dropped atomic.Uint64

	mu     sync.Mutex
	frames []waitingFrame
	bytes  int
}

// waitingFrame is a frame that waits for a session.
type waitingFrame struct {
	data  []byte
	since time.Time
	kind  inner.Kind
}

// put adds a copy of a frame. q.mu is held.
func (q *waitQueue) put(kind inner.Kind, frame []byte, held bool, now time.Time) {
	most, mostBytes := maxQueued, maxQueueBytes
	if held {
		most, mostBytes = maxHeldFrames, maxHeldBytes
	}
	for len(q.frames) > 0 && (len(q.frames) >= most || q.bytes+len(frame) > mostBytes || q.total.Load()+int64(len(frame)) > maxQueuedBytes) {
		q.drop()
	}
	if q.total.Add(int64(len(frame))) > maxQueuedBytes { // by what waits for others
		q.total.Add(-int64(len(frame)))
		q.dropped.Add(1)
	} else {
		q.bytes += len(frame)
		q.frames = append(q.frames, waitingFrame{append([]byte(nil), frame...), now, kind})
	}
	q.length.Store(int32(len(q.frames)))
}

// take removes the oldest frame. Who is done sets length. q.mu is held.
func (q *waitQueue) take() {
	n := len(q.frames[0].data)
	q.frames[0] = waitingFrame{}
	q.frames = q.frames[1:]
	if len(q.frames) == 0 {
		q.frames = nil
	}
	q.bytes -= n
	q.total.Add(-int64(n))
}

// drop takes the oldest frame and counts it. q.mu is held.
func (q *waitQueue) drop() {
	q.take()
	q.dropped.Add(1)
}

// clear drops all frames.
func (q *waitQueue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.frames) > 0 {
		q.drop()
	}
	q.length.Store(0)
}

// expires is when the oldest frame has waited long enough; zero when none waits.
func (q *waitQueue) expires() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.frames) == 0 {
		return time.Time{}
	}
	return q.frames[0].since.Add(maxQueueAge + time.Millisecond)
}

// wait keeps a frame, or a copy of one, until a session can carry it.
func (r *Remote) wait(kind inner.Kind, frame []byte) {
	r.waiting.mu.Lock()
	if Class(r.class.Load()) != Member { // forgotten meanwhile
		r.waiting.mu.Unlock()
		return
	}
	to := r.route.Load()
	held := to != nil && to.held.Load()
	r.waiting.put(kind, frame, held, r.engine.now())
	r.waiting.mu.Unlock()
	if !held || !to.held.Load() { // else who lets them go will see to it
		r.engine.attend(r)
	}
}

// drain sends the frames that waited, now that there is a key and a route.
// Frames that arrive meanwhile queue behind them, so that order is kept.
func (r *Remote) drain(now time.Time) {
	q := &r.waiting
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.frames) > 0 {
		w := q.frames[0]
		if now.Sub(w.since) > maxQueueAge {
			q.drop()
			continue
		}
		if !r.transmit(inner.Header{Kind: w.kind}, w.data) {
			break
		}
		q.take()
	}
	r.Flush() // before any other lane may send
	q.length.Store(int32(len(q.frames)))
}
