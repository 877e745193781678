package traversal

import (
	"testing"
	"time"
)

func TestSleep(t *testing.T) {
	var total time.Duration
	s := Sleep{Asleep: func(time.Time) time.Duration { return total }}
	for i, c := range []struct {
		add  time.Duration
		want bool
	}{
		{time.Hour, false}, // it slept before we looked
		{0, false},
		{10 * time.Millisecond, false},
		{2 * time.Second, true},
		{0, false},
		{8 * time.Hour, true},
		{-time.Hour, false}, // a clock was set
		{0, false},
	} {
		total += c.add
		if got := s.Woke(); got != c.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

// TestSleepHere: this host does not sleep while it is asked.
func TestSleepHere(t *testing.T) {
	var s Sleep
	for range 100 {
		if s.Woke() {
			t.Fatal("the host is said to have slept")
		}
	}
}
