package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc: USER_HZ, which is 100 on every system that Go runs on.
const clockTick = 10 * time.Millisecond

// process is a line of /proc/PID/stat.
type process struct {
	pid, parent int
	own         time.Duration // user and system time
	reaped      time.Duration // that of children which have ended and been waited for
}

// parseProcess reads the content of /proc/PID/stat (proc(5)).
func parseProcess(text string) (process, error) {
	// The second field is the program's name in parentheses, and may hold anything.
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return process{}, errors.New("parse stat: no name")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text[:open]))
	if err != nil {
		return process{}, fmt.Errorf("parse stat: %w", err)
	}
	fields := strings.Fields(text[end+1:]) // from the third on
	const parent, user, children = 4 - 3, 14 - 3, 16 - 3
	if len(fields) < children+2 {
		return process{}, errors.New("parse stat: too short")
	}
	var n [5]int64
	for i, at := range []int{parent, user, user + 1, children, children + 1} {
		if n[i], err = strconv.ParseInt(fields[at], 10, 64); err != nil {
			return process{}, fmt.Errorf("parse stat: %w", err)
		}
	}
	return process{
		pid: pid, parent: int(n[0]),
		own:    time.Duration(n[1]+n[2]) * clockTick,
		reaped: time.Duration(n[3]+n[4]) * clockTick,
	}, nil
}

// processes reads all that run.
func processes() (map[int]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := make(map[int]process)
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		text, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		p, err := parseProcess(string(text))
		if err != nil {
			return nil, err
		}
		all[p.pid] = p
	}
	return all, nil
}

// family is the processes that descend from one of roots, and the roots.
func family(all map[int]process, roots ...int) map[int]bool {
	in := make(map[int]bool)
	for _, r := range roots {
		if _, runs := all[r]; runs {
			in[r] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if in[p.parent] && !in[p.pid] {
				in[p.pid], grown = true, true
			}
		}
	}
	return in
}

// usage is the CPU time that the roots and their descendants have had.
func usage(all map[int]process, roots []int) time.Duration {
	var sum time.Duration
	for pid := range family(all, roots...) {
		sum += all[pid].own + all[pid].reaped
	}
	return sum
}

// kernelThreads is the parent of all kernel threads.
const kernelThreads = 2

// foreign is the CPU time of all but this process, its descendants and the kernel's threads (which work for us, too). What a
// process has had is not lost when it ends: its parent inherits it.
func foreign(all map[int]process, self int) time.Duration {
	mine := family(all, self, kernelThreads)
	var sum time.Duration
	for pid, p := range all {
		if !mine[pid] {
			sum += p.own + p.reaped
		}
	}
	return sum
}

// machineTime is the first line of /proc/stat.
type machineTime struct{ busy, stolen time.Duration }

// parseMachine reads the content of /proc/stat.
func parseMachine(text string) (machineTime, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	const idle, iowait, steal = 4, 5, 8
	if len(fields) <= steal || fields[0] != "cpu" {
		return machineTime{}, fmt.Errorf("parse /proc/stat: unexpected line %q", line)
	}
	var t machineTime
	for i := 1; i <= steal; i++ {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return machineTime{}, fmt.Errorf("parse /proc/stat: %w", err)
		}
		switch i {
		case idle, iowait:
		case steal:
			t.stolen = time.Duration(n) * clockTick
		default:
			t.busy += time.Duration(n) * clockTick
		}
	}
	return t, nil
}

// snapshot is what has been used so far.
type snapshot struct {
	at      time.Time
	tunnel  time.Duration // by the variant's programs
	middle  time.Duration // by those of them on a host in between
	machine time.Duration // by everything
	foreign time.Duration // by others, and by the host under this machine
}

// takeSnapshot looks at the machine; roots are the variant's programs, middle those on a host in between.
func takeSnapshot(roots, middle []int) (snapshot, error) {
	all, err := processes()
	if err != nil {
		return snapshot{}, err
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return snapshot{}, err
	}
	m, err := parseMachine(string(text))
	if err != nil {
		return snapshot{}, err
	}
	return snapshot{
		at: time.Now(), tunnel: usage(all, roots), middle: usage(all, middle), machine: m.busy,
		foreign: foreign(all, os.Getpid()) + m.stolen,
	}, nil
}

// since is what was used between two snapshots.
func (s snapshot) since(from snapshot) cost {
	return cost{
		wall:    s.at.Sub(from.at),
		tunnel:  s.tunnel - from.tunnel,
		middle:  s.middle - from.middle,
		machine: s.machine - from.machine,
		foreign: max(0, s.foreign-from.foreign),
	}
}

// cost is what a sample has used.
type cost struct{ wall, tunnel, middle, machine, foreign time.Duration }

// disturbance is how many cores others used.
func (c cost) disturbance() float64 {
	if c.wall <= 0 {
		return 0
	}
	return c.foreign.Seconds() / c.wall.Seconds()
}

// parsePeak returns VmHWM, the most memory that a process has had, from the content of /proc/PID/status, in bytes.
func parsePeak(text string) (int64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "VmHWM:")
		if !ok {
			continue
		}
		kB, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse VmHWM: %w", err)
		}
		return kB << 10, nil
	}
	return 0, errors.New("parse status: no VmHWM")
}

// peakMemory is the sum of the peaks of the roots and their descendants, in bytes.
func peakMemory(roots []int) (int64, error) {
	all, err := processes()
	if err != nil {
		return 0, err
	}
	var sum int64
	for pid := range family(all, roots...) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue // it has ended
		}
		peak, err := parsePeak(string(text))
		if err != nil {
			continue // it is ending
		}
		sum += peak
	}
	return sum, nil
}
