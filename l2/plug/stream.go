package plug

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// framing is the length that stands before each frame on a stream, big-endian.
type framing int

const (
	framingVDE  framing = 2 // vde_plug's
	framingQEMU framing = 4 // of QEMU's -netdev stream and socket
)

const (
	// queueFrames and queueBytes bound what waits for a slow reader.
	queueFrames = 512
	queueBytes  = 1 << 20
)

// errFraming says that the two ends have lost each other's place.
var errFraming = errors.New("a frame's length makes no sense")

// stream is a transport over a byte stream.
type stream struct {
	framing framing
	r       *bufio.Reader
	w       io.Writer
	end     func() error
	buf     []byte
	err     error // of the read after this one

	mu      sync.Mutex
	more    sync.Cond
	pending []byte // frames with their lengths, for the writer
	spare   []byte
	frames  int
	done    bool
	writer  sync.WaitGroup
}

func newStream(f framing, r io.Reader, w io.Writer, end func() error) *stream {
	s := &stream{framing: f, r: bufio.NewReaderSize(r, 64<<10), w: w, end: end, buf: make([]byte, readBatch*maxFrame)}
	s.more.L = &s.mu
	s.writer.Go(s.drain)
	return s
}

// read waits for one frame and takes those that have come with it.
func (s *stream) read(frames [][]byte) (n int, err error) {
	room := s.buf
	if s.err != nil {
		return 0, s.err
	}
	for n < len(frames) && (n == 0 || s.whole()) {
		frame, err := s.next(room)
		if err != nil && n > 0 {
			s.err = err
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		if frame == nil { // longer than the segment can carry
			continue
		}
		frames[n], room = frame, room[len(frame):]
		n++
	}
	return n, nil
}

// whole says that another frame can be read without waiting.
func (s *stream) whole() bool {
	if s.r.Buffered() < int(s.framing) {
		return false
	}
	head, err := s.r.Peek(int(s.framing))
	return err == nil && s.r.Buffered() >= int(s.framing)+s.length(head)
}

func (s *stream) length(head []byte) int {
	if s.framing == framingVDE {
		return int(binary.BigEndian.Uint16(head))
	}
	return int(min(binary.BigEndian.Uint32(head), 1<<30))
}

// next reads a frame into room; nil is one that was too long and has been passed over.
func (s *stream) next(room []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(s.r, head[:s.framing]); err != nil {
		return nil, err
	}
	size := s.length(head[:s.framing])
	switch {
	case size == 0 || size > 1<<16+maxFrame:
		return nil, fmt.Errorf("%w: %d bytes", errFraming, size)
	case size > maxFrame:
		_, err := s.r.Discard(size)
		return nil, unexpected(err)
	}
	_, err := io.ReadFull(s.r, room[:size])
	return room[:size:size], unexpected(err)
}

// unexpected makes of the stream's end within a frame what it is.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s *stream) write(frame []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done || s.frames >= queueFrames || len(s.pending)+len(frame) > queueBytes || len(frame) > maxFrame {
		return false
	}
	if s.framing == framingVDE {
		s.pending = binary.BigEndian.AppendUint16(s.pending, uint16(len(frame)))
	} else {
		s.pending = binary.BigEndian.AppendUint32(s.pending, uint32(len(frame)))
	}
	s.pending = append(s.pending, frame...)
	s.frames++
	s.more.Signal()
	return true
}

// drain writes what has been queued, all at once, until the stream ends.
func (s *stream) drain() {
	for {
		s.mu.Lock()
		for len(s.pending) == 0 && !s.done {
			s.more.Wait()
		}
		if s.done {
			s.mu.Unlock()
			return
		}
		out := s.pending
		s.pending, s.spare, s.frames = s.spare[:0], nil, 0
		s.mu.Unlock()

		_, err := s.w.Write(out)

		s.mu.Lock()
		s.spare = out[:0]
		s.done = s.done || err != nil
		s.mu.Unlock()
	}
}

func (s *stream) close() error {
	s.mu.Lock()
	s.done = true
	s.more.Signal()
	s.mu.Unlock()
	err := s.end() // ends a Write that waits
	s.writer.Wait()
	return err
}

// Pipe is a cable in vde_plug's framing on a pair of streams, such as stdin and
// stdout. Closing it calls end, which has to end a Read and a Write that wait.
func Pipe(name string, r io.Reader, w io.Writer, end func() error) *Cable {
	return newCable(name, newStream(framingVDE, r, w, end))
}
