package traversal

import (
	"time"

	"golang.org/x/sys/unix"
)

// asleep is how long the host has been suspended in all: what its clock that goes on
// then has more than the one that does not (clock_gettime(2)).
func asleep(time.Time) time.Duration {
	var on, off unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &on) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &off) != nil {
		return 0
	}
	return time.Duration(on.Nano() - off.Nano())
}
