package fragment

import "time"

const (
	maxFrames = 32          // in reassembly at once
	lifetime  = time.Second // of a frame that has not completed

	smallBuffer = 2048 // holds any frame of a segment with MTU 1500
)

// Stats counts what did not become a frame, by reason.
type Stats struct {
	Frames    uint64 // completed
	Expired   uint64 // frames whose pieces did not all come within a second
	Overflow  uint64 // frames given up because 32 others were begun after them
	Duplicate uint64 // pieces that had come before
	Malformed uint64 // pieces that break the rules or contradict earlier ones
}

// Reassembler puts the frames of one session together again. It is owned by one
// goroutine at a time. Its zero value is ready for use; it holds at most 32
// buffers, of 2 KiB unless jumbo frames come.
type Reassembler struct {
	slots  [maxFrames]slot
	recent [64]mark // completed frames, so that late duplicates do not begin them anew
	expiry time.Time
	active int
	last   int // the slot of the last piece, where the next one mostly belongs
	stats  Stats
}

// Add takes the body of one fragment. When it completes a frame, frame is that
// frame, valid until the next call.
func (r *Reassembler) Add(body []byte, now time.Time) (frame []byte, ok bool) {
	return nil, false
}

// Expire gives up frames older than a second, and returns when to call it
// again, the zero time if nothing waits. Add does the same, so a session calls it
// only where it wants counters and memory to be exact while nothing comes.
func (r *Reassembler) Expire(now time.Time) (wake time.Time) { return time.Time{} }

// Stats returns the counters.
func (r *Reassembler) Stats() Stats { return r.stats }

type slot struct{}
type mark struct{}
