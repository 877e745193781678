package fragment

import "time"

const (
	maxFrames = 32          // in reassembly at once
	lifetime  = time.Second // of a frame that has not completed
	idle      = 10 * lifetime

	// Buffers have one of two sizes, so that they fit the next frame too.
	smallBuffer = 2048 // any frame of a segment with MTU 1500
	largeBuffer = MaxFrame + 2
)

// Stats counts what came, and what did not become a frame, by reason.
type Stats struct {
	Frames    uint64 // completed
	Expired   uint64 // frames whose pieces did not all come within a second
	Overflow  uint64 // frames given up because 32 others waited
	Duplicate uint64 // pieces that had come before
	Malformed uint64 // pieces that break the rules or contradict earlier ones
}

// Reassembler puts the frames of one session together again. It is owned by one
// goroutine at a time. The zero value is ready for use. It holds at most 32
// frames, in buffers of 2 KiB unless jumbo frames come, and no memory after ten
// idle seconds if Expire is called.
type Reassembler struct {
	slots   [maxFrames]slot
	recent  [64]recentID // completed frames, so that late duplicates do not begin them anew
	waiting int          // slots in use
	last    int          // the slot of the last piece, where the next one mostly belongs
	expiry  time.Time    // no waiting frame expires before
	used    time.Time    // when a piece last came
	stats   Stats
}

// slot is a frame in reassembly.
//
//	| piece 0 | piece 1 | ... |        | the last piece |
//	0         size      2*size                          len(buf)
//
// The last piece waits at the end of the buffer, since where it belongs is
// known only from another. It cannot reach into the others: (count-1)*size + tail <= len(buf).
type slot struct {
	buf   []byte
	id    uint32
	began time.Time
	have  uint8 // a bit for each piece
	count uint8 // pieces; 0: the slot is free
	size  int   // of every piece but the last; 0: none has come
	tail  int   // of the last piece; 0: it has not come
}

// recentID is the number of a completed frame and until when it counts, so that a
// remote that starts again with the same numbers is not shut out.
type recentID struct {
	id    uint32
	until time.Time
}

// Stats returns the counters.
func (r *Reassembler) Stats() Stats { return r.stats }

// Add takes the body of one fragment. When it completes a frame, frame is that
// frame, valid until the next call.
func (r *Reassembler) Add(body []byte, now time.Time) (frame []byte, ok bool) {
	id, index, count, piece, ok := Parse(body)
	if !ok {
		r.stats.Malformed++
		return nil, false
	}
	r.used = now
	if r.waiting > 0 && !now.Before(r.expiry) {
		r.sweep(now)
	}
	if recent := &r.recent[id%uint32(len(r.recent))]; recent.id == id && now.Before(recent.until) {
		r.stats.Duplicate++
		return nil, false
	}
	s := r.find(id)
	if s != nil && s.have&(1<<index) != 0 && int(s.count) == count {
		r.stats.Duplicate++
		return nil, false
	}
	if !s.fits(index, count, len(piece)) {
		r.stats.Malformed++
		return nil, false
	}
	if s == nil {
		s = r.begin(id, count, now)
	}
	s.put(index, piece)
	if s.have != 1<<s.count-1 {
		return nil, false
	}
	r.waiting--
	r.stats.Frames++
	r.recent[id%uint32(len(r.recent))] = recentID{id, now.Add(lifetime)}
	return s.finish(), true
}

// find returns the slot of a frame, nil if it has none.
func (r *Reassembler) find(id uint32) *slot {
	if s := &r.slots[r.last]; s.count != 0 && s.id == id {
		return s
	}
	if r.waiting == 0 {
		return nil
	}
	for i := range r.slots {
		if s := &r.slots[i]; s.count != 0 && s.id == id {
			r.last = i
			return s
		}
	}
	return nil
}

// begin takes a slot for a new frame: a free one, best one that has a buffer,
// else that of the oldest frame.
func (r *Reassembler) begin(id uint32, count int, now time.Time) *slot {
	best := -1
	for i := range r.slots {
		s := &r.slots[i]
		switch {
		case s.count != 0:
		case s.buf != nil:
			return r.take(i, id, count, now)
		case best < 0:
			best = i
		}
	}
	if best >= 0 {
		return r.take(best, id, count, now)
	}
	best = 0
	for i := range r.slots {
		if r.slots[i].began.Before(r.slots[best].began) {
			best = i
		}
	}
	r.stats.Overflow++
	r.slots[best].free()
	r.waiting--
	return r.take(best, id, count, now)
}

func (r *Reassembler) take(i int, id uint32, count int, now time.Time) *slot {
	r.last = i
	s := &r.slots[i]
	s.id, s.count, s.began = id, uint8(count), now
	if r.waiting == 0 {
		r.expiry = now.Add(lifetime)
	}
	r.waiting++
	return s
}

// sweep gives up what is too old and finds out when the next will be.
func (r *Reassembler) sweep(now time.Time) {
	first := true
	for i := range r.slots {
		s := &r.slots[i]
		if s.count == 0 {
			continue
		}
		end := s.began.Add(lifetime)
		if !now.Before(end) {
			s.free()
			r.waiting--
			r.stats.Expired++
			continue
		}
		if first || end.Before(r.expiry) {
			first, r.expiry = false, end
		}
	}
}

// Expire gives up frames older than a second, and the buffers of a reassembler
// that has been idle for ten. It returns when to call it again; the zero time
// if it holds nothing. Add gives up frames too, so that a session may call this as seldom as it likes.
func (r *Reassembler) Expire(now time.Time) (wake time.Time) {
	if r.waiting > 0 {
		r.sweep(now)
	}
	if r.waiting > 0 {
		return r.expiry
	}
	if end := r.used.Add(idle); now.Before(end) {
		return end
	}
	for i := range r.slots {
		r.slots[i].buf = nil
	}
	return time.Time{}
}

// fits says whether a piece of n bytes agrees with the rules and with what has
// come. A nil slot is a frame of which nothing has.
func (s *slot) fits(index, count, n int) bool {
	size, tail := 0, 0
	if s != nil {
		size, tail = s.size, s.tail
		if int(s.count) != count {
			return false
		}
	}
	if index == count-1 {
		tail = n
	} else {
		if size != 0 && size != n {
			return false
		}
		size = n
	}
	// Until both are known, the smallest that the other can be counts.
	if size != 0 && tail > size {
		return false
	}
	return (count-1)*max(size, tail)+max(tail, 1) <= MaxFrame
}

// put stores a piece that fits.
func (s *slot) put(index int, piece []byte) {
	s.have |= 1 << index
	last := index == int(s.count)-1
	if last {
		s.tail = len(piece)
	} else {
		s.size = len(piece)
	}
	s.grow((int(s.count)-1)*s.size+s.tail, last)
	if last {
		copy(s.buf[len(s.buf)-s.tail:], piece)
		return
	}
	copy(s.buf[index*s.size:], piece)
}

// grow makes the buffer hold need bytes, and moves what is in it: nothing, or
// the last piece, since all others have told the size. fresh says that the last
// piece is only about to be stored.
func (s *slot) grow(need int, fresh bool) {
	if need <= len(s.buf) {
		return
	}
	size := smallBuffer
	if need > smallBuffer {
		size = largeBuffer
	}
	old := s.buf
	s.buf = make([]byte, size)
	if fresh {
		copy(s.buf, old)
		return
	}
	if s.tail > 0 {
		copy(s.buf[size-s.tail:], old[len(old)-s.tail:])
	}
}

// finish joins the last piece to the others and frees the slot. The frame is in
// its buffer until it is taken again.
func (s *slot) finish() []byte {
	end := (int(s.count) - 1) * s.size
	copy(s.buf[end:], s.buf[len(s.buf)-s.tail:])
	frame := s.buf[: end+s.tail : end+s.tail]
	s.free()
	return frame
}

func (s *slot) free() { *s = slot{buf: s.buf} }
