//go:build linux

package lab

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// markVariable is in the environment of every process of a lab. Its value names the lab, and the process that owns it:
// PIDNAMESPACE.PID.STARTTIME.RANDOM.NAME, where a pid with its start time never comes again.
const markVariable = "MESHD_LAB"

// killTimeout bounds the wait for processes to end after SIGKILL.
const killTimeout = 5 * time.Second

func newMark(name string) (string, error) {
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return "", fmt.Errorf("lab: name it: %w", err)
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		return "", fmt.Errorf("lab: name it: %w", err)
	}
	return fmt.Sprintf("%s.%d.%s.%s.%s", ns, os.Getpid(), start, rand.Text()[:8], name), nil
}

// Sweep ends processes that labs which died have left behind: those that had detached themselves from the process that
// the lab started. Labs that live, and other programs, are left alone.
func Sweep() error {
	pids, err := processes()
	if err != nil {
		return fmt.Errorf("lab: sweep: %w", err)
	}
	self, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("lab: sweep: %w", err)
	}
	orphan := func(pid int) bool {
		mark, ok := readMark(pid)
		return ok && strings.HasPrefix(mark, self+".") && !ownerLives(mark)
	}
	return killWhere(pids, orphan)
}

// readMark returns the lab that a process belongs to.
func readMark(pid int) (string, bool) {
	env, err := os.ReadFile(procPath(pid, "environ"))
	if err != nil {
		return "", false // ended, or of another user
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if mark, ok := bytes.CutPrefix(entry, []byte(markVariable+"=")); ok {
			return string(mark), true
		}
	}
	return "", false
}

// ownerLives reports whether the process that made a lab still runs. A mark that says nothing is taken for a living lab's.
func ownerLives(mark string) bool {
	fields := strings.SplitN(mark, ".", 5)
	if len(fields) != 5 {
		return true
	}
	pid, err := strconv.Atoi(fields[1])
	if err != nil {
		return true
	}
	start, err := startTime(pid)
	return err == nil && start == fields[2]
}

// killInside ends all processes in the namespaces but this one, and those of the lab of this mark that are about to enter them.
func killInside(spaces []*namespace, mark string) error {
	inside := make(map[string]bool)
	for _, ns := range spaces {
		ino, err := ns.inode()
		if err != nil {
			return fmt.Errorf("lab: identify namespace %q: %w", ns.name, err)
		}
		inside[fmt.Sprintf("net:[%d]", ino)] = true
	}
	deadline := time.Now().Add(killTimeout)
	for {
		pids, err := processes()
		if err != nil {
			return fmt.Errorf("lab: end processes: %w", err)
		}
		found := 0
		err = killWhere(pids, func(pid int) bool {
			switch shim, begins := isShim(pid, mark); { // asked first: it is inside when it is none any more
			case shim:
				found++
				return true
			case begins:
				found++ // it shows its arguments soon
				return false
			}
			ns, err := os.Readlink(procPath(pid, "ns/net"))
			if err != nil || !inside[ns] {
				return false // a process that has ended has no namespace
			}
			found++
			return true
		})
		if err != nil || found == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("lab: %d processes do not end", found)
		}
		time.Sleep(time.Millisecond) // the kernel tells nobody but the parent; ask again
	}
}

// isShim reports whether a process is to enter a machine of the lab of this mark, and has not become its command yet. It
// begins when it executes this program and the kernel does not show its arguments yet: it may be one.
func isShim(pid int, mark string) (shim, begins bool) {
	line, err := os.ReadFile(procPath(pid, "cmdline"))
	if err != nil {
		return false, false
	}
	if len(line) == 0 {
		its, err := os.Readlink(procPath(pid, "exe")) // a process that has ended has none, nor has the kernel's
		own, ownErr := os.Readlink("/proc/self/exe")
		return false, err == nil && ownErr == nil && its == own
	}
	return bytes.HasPrefix(line, []byte(shimName+"\x00"+mark+"\x00")), false
}

// killWhere ends those of the processes that are to be ended. The handle is taken before the question is asked, so that
// it cannot have passed to another process when the signal is sent.
func killWhere(pids []int, which func(pid int) bool) error {
	var errs error
	for _, pid := range pids {
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		if which(pid) {
			if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
				errs = errors.Join(errs, fmt.Errorf("lab: end process %d: %w", pid, err))
			}
		}
		_ = p.Release()
	}
	return errs
}

// processes lists the pids of all processes but this one.
func processes() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// startTime is when a process was started, in ticks since boot: field 22 of proc_pid_stat(5). The second field may hold
// spaces and brackets; its end is the last bracket.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("%s: %d fields", procPath(pid, "stat"), len(fields))
	}
	return fields[19], nil
}

func procPath(pid int, file string) string { return fmt.Sprintf("/proc/%d/%s", pid, file) }
