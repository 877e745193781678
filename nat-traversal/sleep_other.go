//go:build !linux

package traversal

import "time"

// asleep compares the wall clock with Go's, which stands still while the host is
// suspended. Setting the clock looks the same, and does no harm.
func asleep(since time.Time) time.Duration {
	now := time.Now()
	return now.Round(0).Sub(since.Round(0)) - now.Sub(since)
}
