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
		story := func(changes int, gap time.Duration) []time.Duration {
			time.Sleep(10 * time.Second) // quiet
			synctest.Wait()
			emitted, begin = nil, time.Now()
			for range changes {
				signal(events)
				time.Sleep(gap)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			return emitted
		}
		if e := story(20, 2*time.Millisecond); len(e) != 1 || e[0] != settleFirst {
			t.Errorf("a burst was emitted at %v", e)
		}
		if e := story(6000, 10*time.Millisecond); len(e) < 50 || len(e) > 75 || e[len(e)-1] < time.Minute {
			t.Errorf("a minute of changes was emitted %d times, last at %v", len(e), e[len(e)-1])
		}
		if e := story(1, 0); len(e) != 1 || e[0] != settleFirst {
			t.Errorf("a change after a quiet time was emitted at %v", e)
		}
		signal(events)
		synctest.Wait()
		close(events) // while it waits
		<-done
	})
}
