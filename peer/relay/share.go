package relay

import (
	"sync/atomic"
	"time"
)

const (
	// burstFor is how much of a second a pair may be ahead of its share.
	burstFor = 100 * time.Millisecond
	// burstLeast is what it may be ahead in any case: two full batches.
	burstLeast = 128 << 10
)

// Bucket holds one pair to its share, without a lock: what it admits is off by no
// more than what two sockets take at the same instant. The zero value has no
// limit.
type Bucket struct {
	rate atomic.Uint64 // bytes per second; 0: no limit
	used atomic.Int64  // the time, in nanoseconds, up to which the share is used
}

// Limit sets the share, in bytes per second; 0 is no limit.
func (b *Bucket) Limit(rate uint64) { b.rate.Store(rate) }

// Take reports whether n bytes may pass at a time in nanoseconds.
func (b *Bucket) Take(now int64, n int) bool {
	rate := b.rate.Load()
	if rate == 0 {
		return true
	}
	ahead := max(int64(burstFor), int64(burstLeast*uint64(time.Second)/rate))
	used := max(b.used.Load(), now-ahead)
	if used > now {
		return false
	}
	b.used.Store(used + int64(uint64(n)*uint64(time.Second)/rate))
	return true
}
