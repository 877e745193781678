package l2

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"meshd/l2/offload"
)

// tapReader is the state of Read. One goroutine reads.
type tapReader struct {
	arena  []byte  // a frame is valid until the next Read
	slot   int     // room for the largest frame
	header int     // bytes before each frame: a virtio_net_hdr (IFF_VNET_HDR) or nothing
	frames []Frame // of the call
	n      int
	used   int // bytes of arena
	err    error
	empty  bool                  // the queue had no more
	poll   func(fd uintptr) bool // made once: no allocation per call
}

// superArena is the arena where super-frames may come. It is not larger, so that
// it stays in the cache: a few super-frames are a batch.
const superArena = 384 << 10

func (r *tapReader) init(mtu int, offloads offload.Features, hasHeader bool) {
	if hasHeader {
		r.header = offload.HeaderLen
	}
	if offloads&^offload.Checksum != 0 {
		r.slot = align(r.header + offload.MaxSuper)
		r.arena = make([]byte, superArena)
	} else {
		r.slot = align(r.header + headerLen + maxTags*tagLen + mtu)
		r.arena = make([]byte, readFrames*r.slot)
	}
	r.poll = r.drain
}

// align rounds up to cache lines.
func align(n int) int { return (n + 63) &^ 63 }

// read takes what is there, up to 128 frames, and waits only when there is nothing.
func (q *tapQueue) read(frames []Frame) (int, error) {
	r := &q.in
	r.begin(frames)
	err := q.raw.Read(r.poll)
	return r.end(err)
}

// serve is read again and again, until that fails or the queue is closed. As long as it finds nothing more it stays with the
// poller, and waits without another read. When there is more it asks the poller anew, which tells whether the queue is closed.
func (q *tapQueue) serve(frames []Frame, handle func([]Frame)) error {
	r := &q.in
	poll := func(fd uintptr) bool {
		r.begin(frames)
		r.drain(fd)
		if r.n > 0 {
			handle(frames[:r.n])
			r.n = 0
		}
		return !r.empty
	}
	for {
		if _, err := r.end(q.raw.Read(poll)); err != nil {
			return err
		}
	}
}

func (r *tapReader) begin(frames []Frame) {
	r.frames, r.n, r.used, r.err, r.empty = frames, 0, 0, nil, false
}

// end is what a call returns, whose poller has returned err.
func (r *tapReader) end(err error) (int, error) {
	r.frames = nil
	switch {
	case r.n > 0:
		return r.n, nil
	case r.err != nil:
		return 0, fmt.Errorf("read tap: %w", r.err)
	case err != nil:
		return 0, closedOr("read tap", err)
	}
	return 0, nil
}

// drain reads until the queue is empty. It reports false to be called again when
// there is something to read. Its calls are raw, as those of peer/udp: none blocks.
func (r *tapReader) drain(fd uintptr) bool {
	limit := min(len(r.frames), readFrames)
	for r.n < limit && r.used+r.slot <= len(r.arena) {
		slot := r.arena[r.used : r.used+r.slot]
		got, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(slot))), uintptr(len(slot)))
		switch {
		case errno == unix.EAGAIN:
			r.empty = true
			return r.n > 0
		case errno == unix.EINTR:
			continue
		case errno != 0:
			r.err = errno // EBADFD: the interface was deleted
			return true
		case int(got) <= r.header:
			continue
		}
		n := min(int(got), len(slot)) // the kernel returns the frame's length also where it cut it off
		frame := Frame{Data: slot[r.header:n:n]}
		if r.header > 0 {
			frame.Header, _ = offload.ParseHeader(slot)
		}
		r.frames[r.n] = frame
		r.n++
		r.used += align(n)
	}
	return true
}

// tapWriter is the state of Write.
type tapWriter struct {
	mu     sync.Mutex
	header [offload.HeaderLen]byte
	iov    [2]unix.Iovec // header (of no length where there is none) and frame
	frames []Frame       // of the call, what is left of them
	err    error         // the first
	poll   func(fd uintptr) bool
}

func (w *tapWriter) init(hasHeader bool) {
	w.iov[0] = iovec(w.header[:])
	if !hasHeader {
		w.iov[0].SetLen(0)
	}
	w.poll = w.drain
}

// iovec is a piece of memory for writev.
func iovec(b []byte) (v unix.Iovec) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	return v
}

// write needs out.mu, and gives it back.
func (q *tapQueue) write(frames []Frame) error {
	w := &q.out
	defer w.mu.Unlock()
	w.frames, w.err = frames, nil
	err := q.raw.Write(w.poll)
	w.frames, w.iov[1] = nil, unix.Iovec{}
	if err != nil {
		return closedOr("write tap", err)
	}
	if w.err != nil {
		return fmt.Errorf("write tap: %w", w.err)
	}
	return nil
}

// drain writes what is left. It reports false to be called again when the host has
// room.
func (w *tapWriter) drain(fd uintptr) bool {
	for len(w.frames) > 0 {
		if frame := &w.frames[0]; len(frame.Data) > 0 {
			frame.Put(w.header[:])
			w.iov[1] = iovec(frame.Data)
			_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(len(w.iov)))
			switch {
			case errno == unix.EAGAIN:
				return false
			case errno == unix.EINTR:
				continue
			case errno != 0 && w.err == nil:
				w.err = errno // EIO: the interface is down
			}
		}
		w.frames = w.frames[1:]
	}
	return true
}

// closedOr makes the error of a closed file the one that Device promises.
func closedOr(op string, err error) error {
	if os.IsTimeout(err) {
		return fmt.Errorf("%s: %w", op, err)
	}
	return fmt.Errorf("%s: %w", op, os.ErrClosed)
}
