package l2

import "time"

// bucket is a token bucket without a clock: a token is a BUM frame, or a byte of a group's. It counts in
// billionths of a token, so that it is exact. The zero value starts full.
type bucket struct {
	rate  int64 // tokens per second
	burst int64
	spent int64         // billionths missing until it is full
	last  time.Duration // when spent was brought up to date
}

const token = int64(time.Second) // billionths: one nanosecond at rate 1 is one of them

// take removes one token and reports whether there was one.
func (b *bucket) take(now time.Duration) bool { return b.takeN(now, 1) }

// takeN removes n, or none where there are fewer.
func (b *bucket) takeN(now time.Duration, n int64) bool {
	b.fill(now)
	if b.spent > (b.burst-n)*token {
		return false
	}
	b.spent += n * token
	return true
}

func (b *bucket) fill(now time.Duration) {
	elapsed := int64(now - b.last)
	if elapsed <= 0 {
		return
	}
	b.last = now
	if elapsed >= b.spent/b.rate+1 { // also what could overflow below
		b.spent = 0
		return
	}
	b.spent = max(0, b.spent-elapsed*b.rate)
}
