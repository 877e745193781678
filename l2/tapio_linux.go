package l2

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tapReader is the state of Read. One goroutine reads.
type tapReader struct {
	arena  []byte // readFrames slots; a frame is valid until the next Read
	slot   int
	frames [][]byte // of the call
	n      int
	err    error
	poll   func(fd uintptr) bool // made once: no allocation per call
}

func (r *tapReader) init(mtu int) {
	r.slot = (vnetHdrLen + headerLen + maxTags*tagLen + mtu + 63) &^ 63
	r.arena = make([]byte, readFrames*r.slot)
	r.poll = r.drain
}

// Read is Device.Read: it takes what is there, up to 128 frames, and waits only
// when there is nothing.
//
// With offloads on (they are not yet) a frame may be a super-frame described by
// its virtio_net_hdr; cutting it belongs here, before the switch sees it.
func (t *TAP) Read(frames [][]byte) (int, error) {
	r := &t.in
	r.frames, r.n, r.err = frames, 0, nil
	err := t.raw.Read(r.poll)
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
// there is something to read.
func (r *tapReader) drain(fd uintptr) bool {
	limit := min(len(r.frames), readFrames)
	for r.n < limit {
		slot := r.arena[r.n*r.slot : (r.n+1)*r.slot]
		n, err := unix.Read(int(fd), slot)
		switch {
		case err == unix.EAGAIN:
			return r.n > 0
		case err == unix.EINTR:
			continue
		case err != nil:
			r.err = err // EBADFD: the interface was deleted
			return true
		case n <= vnetHdrLen:
			continue
		}
		n = min(n, len(slot)) // the kernel returns the frame's length also where it cut it off
		r.frames[r.n] = slot[vnetHdrLen:n:n]
		r.n++
	}
	return true
}

// tapWriter is the state of Write.
type tapWriter struct {
	mu     sync.Mutex
	header [vnetHdrLen]byte // zero: nothing is left for the host to complete
	iov    [2]unix.Iovec
	frames [][]byte // of the call, what is left of them
	err    error    // the first
	poll   func(fd uintptr) bool
}

func (w *tapWriter) init() {
	w.iov[0] = iovec(w.header[:])
	w.poll = w.drain
}

// Write is Device.Write. It tries every frame and returns the first error. Merging
// of segments belongs here, before the frames are written.
func (t *TAP) Write(frames [][]byte) error {
	w := &t.out
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames, w.err = frames, nil
	err := t.raw.Write(w.poll)
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
		if frame := w.frames[0]; len(frame) > 0 {
			w.iov[1] = iovec(frame)
			_, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(len(w.iov)))
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
