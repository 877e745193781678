package traversal

import "time"

// Sleep notices that this host has been suspended. Go's clock, which timers run by,
// stands still meanwhile (CLOCK_MONOTONIC), so that nothing seems to have happened:
// no connection is late, and yet every NAT and every remote has forgotten us.
type Sleep struct {
	// Asleep is for how long there was no waking time, in all, as seen from since; nil: the host's clocks tell. It is set before
	// the first call.
	Asleep func(since time.Time) time.Duration

	since time.Time // of the first call
	last  time.Duration
	known bool
}

// sleepLeast is what counts: clocks are not read at quite the same moment.
const sleepLeast = time.Second

// Woke reports whether the host has slept since the last call. The first is false.
func (s *Sleep) Woke() bool {
	if s.Asleep == nil {
		s.Asleep = asleep
	}
	if !s.known {
		s.since = time.Now()
	}
	now := s.Asleep(s.since)
	woke := s.known && now-s.last >= sleepLeast
	s.last, s.known = now, true
	return woke
}
