package hotpath

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// cpuMeter measures the CPU time of the goroutine that calls it, when it is on:
// what others do meanwhile does not count.
type cpuMeter struct {
	on    bool
	began time.Duration
	used  time.Duration // between the last start and stop
}

func (m *cpuMeter) start() {
	if m.on {
		runtime.LockOSThread()
		m.began = threadTime()
	}
}

func (m *cpuMeter) stop() {
	if m.on {
		m.used = threadTime() - m.began
		runtime.UnlockOSThread()
	}
}

func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
