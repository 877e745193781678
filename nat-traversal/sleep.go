package traversal

import "time"

// Sleep notices that this host has been suspended. Go's clock, which timers run by,
// stands still meanwhile (CLOCK_MONOTONIC), so that nothing seems to have happened:
// no connection is late, and yet every NAT and every remote has forgotten us.
type Sleep struct {
	asleep func(since time.Time) time.Duration // in all; nil: the host's
	since  time.Time                           // of the first call
	last   time.Duration
	known  bool
}

// sleepLeast is what counts: clocks are not read at quite the same moment.
const sleepLeast = time.Second

// Woke reports whether the host has slept since the last call. The first is false.
func (s *Sleep) Woke() bool {
	if s.asleep == nil {
		s.asleep = asleep
	}
	if !s.known {
		s.since = time.Now()
	}
	now := s.asleep(s.since)
	woke := s.known && now-s.last >= sleepLeast
	s.last, s.known = now, true
	return woke
}
