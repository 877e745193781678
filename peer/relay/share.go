package relay

import (
	"slices"
	"sync/atomic"
	"time"
)

// Who gets how much of what a member carries for others: pairs get fair shares of
// what there is, and there is only what the member does not need itself.

const (
	// burstFor is how much of a second a pair may be ahead of its share.
	burstFor = 100 * time.Millisecond
	// burstLeast is what it may be ahead in any case: two full batches.
	burstLeast = 128 << 10
	// reserve is how much of a second of its share a pair's probes and handshakes
	// may be ahead when data may not: else a pair that wants more than its share
	// would lose as many of those, and take the relay for dead.
	reserve = 250 * time.Millisecond
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

// Take reports whether n bytes may pass at a time in nanoseconds; data does not
// get at the reserve.
func (b *Bucket) Take(now int64, n int, data bool) bool {
	rate := b.rate.Load()
	if rate == 0 {
		return true
	}
	ahead := max(int64(burstFor), int64(burstLeast*uint64(time.Second)/rate))
	used := max(b.used.Load(), now-ahead)
	if used > now && (data || used > now+int64(reserve)) {
		return false
	}
	b.used.Store(used + int64(uint64(n)*uint64(time.Second)/rate))
	return true
}

// Divide gives each pair its fair share of a rate, given what each would use: who
// wants less than an equal part leaves the rest to the others, and what nobody
// wants is spread, so that each can grow (max-min fairness). A total of 0 is no
// limit, and so is a share of 0.
func Divide(total uint64, wanted []uint64) []uint64 {
	shares := make([]uint64, len(wanted))
	if total == 0 || len(wanted) == 0 {
		return shares
	}
	order := make([]int, len(wanted))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case wanted[a] < wanted[b]:
			return -1
		case wanted[a] > wanted[b]:
			return 1
		}
		return a - b
	})
	left := total
	for done, i := range order {
		equal := left / uint64(len(order)-done)
		shares[i] = min(wanted[i], equal)
		left -= shares[i]
	}
	for i := range shares {
		shares[i] = max(shares[i]+left/uint64(len(shares)), 1)
	}
	return shares
}

const (
	// A member whose own traffic suffers halves what it carries for others, but not
	// below leastCarried, and no more often than yieldEvery.
	yieldEvery   = 400 * time.Millisecond
	leastCarried = 64 << 10 // bytes per second: half a Mbit/s
	// It gives back a twentieth a second while its own traffic goes well, and all of
	// it when that has ceased for yieldFor.
	giveBack = 0.05
	yieldFor = 3 * time.Second
)

// Yield is how much a member carries for others when nobody has set a rate: all,
// until its own traffic suffers. The zero value has no limit.
type Yield struct {
	limit   float64 // bytes per second; 0: none
	changed time.Time
	suffers time.Time // last
	at      time.Time
}

// Observe tells what is carried for others, in bytes per second, and whether the
// member's own traffic flows and suffers. It returns the limit; 0 is none.
func (y *Yield) Observe(carried uint64, flows, suffers bool, now time.Time) uint64 {
	passed := min(now.Sub(y.at), time.Second)
	y.at = now
	switch {
	case flows && suffers:
		y.suffers = now
		if now.Sub(y.changed) >= yieldEvery && (y.limit == 0 || float64(carried) > y.limit/2) {
			y.limit, y.changed = max(min(float64(carried), orElse(y.limit, float64(carried)))/2, leastCarried), now
		}
	case y.limit == 0:
	case now.Sub(y.suffers) >= yieldFor && !flows:
		y.limit = 0
	case now.Sub(y.suffers) >= yieldEvery:
		y.limit *= 1 + giveBack*passed.Seconds()
	}
	return uint64(y.limit)
}

func orElse(v, other float64) float64 {
	if v == 0 {
		return other
	}
	return v
}
