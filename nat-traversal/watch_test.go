package traversal

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestCoalesce: what comes together is one change, and none is lost.
func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan struct{}, 1)
		var emitted []time.Duration
		begin := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			coalesce(events, func() { emitted = append(emitted, time.Since(begin)) })
		}()
		for range 20 { // within 40 ms
			signal(events)
			time.Sleep(2 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		if len(emitted) != 1 || emitted[0] != settleFirst {
			t.Errorf("a burst was emitted at %v", emitted)
		}
		emitted, begin = nil, time.Now()
		for range 6000 { // a minute
			signal(events)
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(emitted); n < 50 || n > 75 {
			t.Errorf("a minute of changes was emitted %d times", n)
		}
		time.Sleep(10 * time.Second)
		emitted, begin = nil, time.Now()
		signal(events)
		time.Sleep(time.Second)
		if len(emitted) != 1 || emitted[0] != settleFirst {
			t.Errorf("a change after a quiet time was emitted at %v", emitted)
		}
		signal(events)
		synctest.Wait()
		close(events)
		<-done // also while waiting
	})
}
