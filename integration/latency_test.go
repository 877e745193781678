//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

const (
	// wakeupsPerPing is what a node may be woken for one echo request and its answer. Two are needed, one for each
	// way of the frame; the runtime adds its own, more so on a busy machine.
	wakeupsPerPing = 10
	// wakeupsIdle is what it may be woken in a second without traffic, for timers: what polls does so more often.
	wakeupsIdle = 300
)

// TestWakeups counts how often the threads of a node go to sleep: nothing polls, and an idle ping costs little more than
// the two wake-ups that it must, in whatever time.
func TestWakeups(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{V4: true}))
	office := w.join(w.net.Host("office", lab.HostConfig{V4: true}), w.invite(home))
	nodes := []*lab.Node{home, office}
	w.waitPeers(nodes...)
	ctx := w.within(time.Minute)
	ping := func(count int) {
		s, err := home.Host.Ping(ctx, w.addr(office), count, lab.PingOptions{Interval: 10 * time.Millisecond})
		w.must(err)
		if s.Lost() > 0 {
			t.Errorf("%v", s)
		}
	}
	ping(100) // paths and tables are made
	measure := func(what func()) (counts [2]int, took time.Duration) {
		began := time.Now()
		for i, n := range nodes {
			counts[i] = -w.switches(n.PID())
		}
		what()
		for i, n := range nodes {
			counts[i] += w.switches(n.PID())
		}
		return counts, time.Since(began)
	}
	const count = 300
	idle, quiet := measure(func() { time.Sleep(3 * time.Second) }) // what is measured is time without work
	busy, took := measure(func() { ping(count) })
	for i, n := range nodes {
		perSecond := float64(idle[i]) / quiet.Seconds()
		perPing := (float64(busy[i]) - perSecond*took.Seconds()) / count
		t.Logf("%s: %.1f wake-ups for each ping, %.1f a second without", n.Host.Name(), perPing, perSecond)
		if perPing > wakeupsPerPing {
			t.Errorf("%s: %.1f wake-ups for each ping, want %d at most", n.Host.Name(), perPing, wakeupsPerPing)
		}
		if perSecond > wakeupsIdle {
			t.Errorf("%s: %.1f wake-ups a second without traffic, want %d at most", n.Host.Name(), perSecond, wakeupsIdle)
		}
	}
}

// switches sums the voluntary context switches of a process's threads (proc_pid_status(5)).
func (w *world) switches(pid int) (sum int) {
	w.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	w.must(err)
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // the thread has ended
		}
		w.must(err)
		_, rest, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:")
		n, err := strconv.Atoi(strings.Fields(rest)[0])
		w.must(err)
		sum += n
	}
	return sum
}
