package traversal

import (
	"context"
	"slices"
	"time"
)

// The timing of Watch.
const (
	settleFirst = 50 * time.Millisecond // a change comes as several messages: wait for the rest
	settleMost  = time.Second           // while changes do not end (a router with a full table)
	settleQuiet = 2 * time.Second       // after which a change is a new one
)

// Watch yields a value after the host's addresses, routes or links may have
// changed, and once more whenever it is not sure. It says that one should look,
// not what to see: a value that is not yet taken stands for all later changes.
//
// After ctx is done the channel is closed, when all that Watch has started has
// ended.
func Watch(ctx context.Context) <-chan struct{} {
	watch := watchSystem() // listens from here on
	events := make(chan struct{}, 1)
	out := make(chan struct{}, 1)
	go func() {
		defer close(events)
		watch(ctx, func() { signal(events) })
	}()
	go func() {
		defer close(out)
		coalesce(events, func() { signal(out) })
	}()
	return out
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is waiting already
	}
}

// coalesce calls emit once for events that come together, until events is closed.
func coalesce(events <-chan struct{}, emit func()) {
	var s settle
	for range events {
		timer := time.NewTimer(s.wait(time.Now()))
		for waiting := true; waiting; {
			select {
			case <-timer.C:
				waiting = false
			case _, open := <-events: // covered by the emit to come
				if !open {
					timer.Stop()
					return
				}
			}
		}
		emit()
	}
}

// settle is how long to wait for the rest of a change. Without a pause between
// changes the wait doubles, so that who looks each time is not kept busy.
type settle struct {
	last  time.Time     // when the last wait began
	delay time.Duration // of the last wait
}

func (s *settle) wait(now time.Time) time.Duration {
	if s.last.IsZero() || now.Sub(s.last) > s.delay+settleQuiet {
		s.delay = settleFirst
	} else {
		s.delay = min(2*s.delay, settleMost)
	}
	s.last = now
	return s.delay
}

const pollInterval = 2 * time.Second

// pollInterfaces is for systems that cannot tell us: it compares the addresses.
func pollInterfaces(ctx context.Context, changed func()) {
	last, _ := interfaceAddrs() // on an error it is nil, and so a change as soon as it works
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now, err := interfaceAddrs(); err == nil && !slices.Equal(now, last) {
			last = now
			changed()
		}
	}
}
