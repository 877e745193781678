package udptest

import (
	"math/rand/v2"
	"time"
)

// Link describes one direction of a line. The zero value is a perfect line with
// an MTU of 1500.
type Link struct {
	Delay     time.Duration // one way
	Jitter    time.Duration // up to this much more, evenly distributed; reorders
	Loss      float64       // probability
	Duplicate float64       // probability
	MTU       int           // largest IP packet; 0: 1500. Beyond it the sender's own line gives EMSGSIZE, any other drops
	Rate      int64         // bits per second; 0: no limit
	Queue     int           // bytes that may wait for Rate; 0: 256 KiB
}

func (l Link) mtu() int {
	if l.MTU > 0 {
		return l.MTU
	}
	return 1500
}

func (l Link) queue() int {
	if l.Queue > 0 {
		return l.Queue
	}
	return 256 << 10
}

// line is a Link in use.
type line struct {
	Link
	name string
	rng  *rand.Rand
	free time.Time // when the last byte queued will have left
}

// admit says after which delays a packet, and its duplicate, arrive at the other
// end; or why it does not.
func (l *line) admit(now time.Time, size int) (delays []time.Duration, reason string) {
	switch {
	case size > l.mtu():
		return nil, "too large for " + l.name
	case l.Loss > 0 && l.rng.Float64() < l.Loss:
		return nil, "lost on " + l.name
	}
	wait, ok := l.enqueue(now, size)
	if !ok {
		return nil, "queue full on " + l.name
	}
	delays = []time.Duration{wait + l.delay()}
	if l.Duplicate > 0 && l.rng.Float64() < l.Duplicate {
		delays = append(delays, wait+l.delay())
	}
	return delays, ""
}

// enqueue returns the time until the packet's last byte has left.
func (l *line) enqueue(now time.Time, size int) (time.Duration, bool) {
	if l.Rate <= 0 {
		return 0, true
	}
	wait := max(0, l.free.Sub(now))
	if backlog := int64(wait.Seconds() * float64(l.Rate) / 8); backlog+int64(size) > int64(l.queue()) {
		return 0, false
	}
	wait += time.Duration(float64(size) * 8 / float64(l.Rate) * float64(time.Second))
	l.free = now.Add(wait)
	return wait, true
}

func (l *line) delay() time.Duration {
	if l.Jitter <= 0 {
		return l.Delay
	}
	return l.Delay + time.Duration(l.rng.Int64N(int64(l.Jitter)+1))
}
