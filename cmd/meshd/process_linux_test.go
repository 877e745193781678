package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meshd/mesh/api"
)

// self is this test's program as a meshd with a fake node.
func self(t *testing.T, mode string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asMainEnv+"="+mode)
	return cmd
}

func TestInvitesAreWiped(t *testing.T) {
	invite := testInvite(t)
	args := []string{"up", "--join", invite, "--join=" + invite, "--name", "nas", "--join", strings.ToUpper(invite[:7]) + invite[7:]}
	out, err := self(t, "wipe", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	stars := strings.Repeat("*", len(invite))
	want := fmt.Sprintf("%q\n%q\n", strings.Join([]string{"up", "--join", stars, "--join=" + stars, "--name", "nas", "--join", stars, ""}, "\x00"), args)
	if string(out) != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

func TestSignals(t *testing.T) {
	for _, tt := range []struct {
		signal os.Signal
		want   string
	}{
		{os.Interrupt, "the TAP goes"},
		{syscall.SIGTERM, "the TAP stays"},
		{syscall.SIGHUP, "the TAP goes"},
	} {
		t.Run(tt.signal.String(), func(t *testing.T) {
			if signal.Ignored(tt.signal) {
				t.Skip("the tests run under nohup, and so would meshd")
			}
			cmd := self(t, "signals", "up", "--state", shortDir(t))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var last string
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if last = lines.Text(); strings.HasPrefix(last, "ready") {
					if err := cmd.Process.Signal(tt.signal); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := cmd.Wait(); err != nil || last != tt.want {
				t.Errorf("%v, %q", err, last)
			}
		})
	}
}

func TestDetach(t *testing.T) {
	dir := shortDir(t)
	cmd := self(t, "detach", "up", "--detach", "--state", dir, "--join", "-", "--join", "home.example", "--log-level", "debug", "--advertise", "a:1", "--advertise", "b:2")
	cmd.Stdin = strings.NewReader("other.example\n")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	if !strings.HasSuffix(stdout.String(), "\nready node mesh0 fd00::1\n") {
		t.Errorf("stdout %q", &stdout)
	}
	c := api.NewClient(filepath.Join(dir, "meshd.sock"))
	if alive, err := c.Alive(t.Context()); !alive {
		t.Fatalf("the daemon is gone: %v", err)
	}
	pid := daemonOf(t, dir)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"up", "--state=" + dir, "--socket=" + dir + "/meshd.sock", "--advertise=a:1", "--advertise=b:2", "--log-level=debug", "--join=-", ""}
	_, got, _ := strings.Cut(string(line), "\x00")
	if got != strings.Join(want, "\x00") {
		t.Errorf("arguments %q\nwant      %q", got, want)
	}
	for fd, want := range map[int]string{0: os.DevNull, 1: os.DevNull, 2: filepath.Join(dir, detachedLog)} {
		waitFor(t, fmt.Sprintf("stream %d to be %s", fd, want), func() bool {
			got, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
			return got == want
		})
	}
	if sid, err := getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d, %v: it would end with the terminal", sid, err)
	}
	if err := c.Down(t.Context()); err != nil {
		t.Error(err)
	}
	waitFor(t, "the end", func() bool { alive, _ := c.Alive(t.Context()); return !alive })
	if fi, err := os.Stat(filepath.Join(dir, detachedLog)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("log: %v, %v", fi, err)
	}
}

// daemonOf finds the process that a test has put into the background.
func daemonOf(t *testing.T, dir string) int {
	t.Helper()
	pid, ok := findDaemon(dir)
	if !ok {
		t.Fatal("no daemon found")
	}
	return pid
}

// findDaemon looks for a process with a state folder in its arguments.
func findDaemon(state string) (pid int, ok bool) {
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, false
	}
	for _, p := range procs {
		line, err := os.ReadFile(p)
		line = bytes.ReplaceAll(line, []byte("--state\x00"), []byte("--state="))
		if err == nil && bytes.Contains(line, []byte("--state="+state+"\x00")) {
			pid, err := strconv.Atoi(strings.Split(p, "/")[2])
			return pid, err == nil
		}
	}
	return 0, false
}

func getsid(pid int) (int, error) {
	sid, _, errno := syscall.Syscall(syscall.SYS_GETSID, uintptr(pid), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(sid), nil
}

func TestDetachPassesErrors(t *testing.T) {
	for _, tt := range []struct {
		name, mode string
		args       []string
		status     int
		stderr     string
	}{
		{"of the node", "refused", nil, 1, "meshd: join: the invite has been used\nask for a new one\n"},
		{"of usage", "refused", []string{"--mtu", "1"}, 2, "meshd: --mtu: 1 is not from 1280 to 9000\nsee meshd up --help\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := self(t, tt.mode, append([]string{"up", "--detach", "--state", shortDir(t)}, tt.args...)...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			err := cmd.Run()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != tt.status || stderr.String() != tt.stderr {
				t.Errorf("%v, %q", err, &stderr)
			}
		})
	}
}

// systemd is its end of sd_notify.
type systemd struct {
	conn *net.UnixConn
	mu   sync.Mutex
	seen []string
}

func newSystemd(t *testing.T) *systemd {
	t.Helper()
	path := filepath.Join(shortDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	s := &systemd{conn: conn}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.seen = append(s.seen, string(buf[:n]))
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *systemd) count(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.seen {
		if strings.HasPrefix(m, prefix) {
			n++
		}
	}
	return n
}

func TestNotify(t *testing.T) {
	s := newSystemd(t)
	t.Setenv("WATCHDOG_USEC", "60000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out, node: &fakeNode{}, now: testNow, getenv: os.Getenv}
	ended := make(chan int, 1)
	dir := shortDir(t)
	go func() { ended <- a.run(ctx, []string{"up", "--state", dir, "--log-level", "error"}) }()
	for _, want := range []string{
		"STATUS=joining", "STATUS=waiting for approval of: apple bridge candle dragon eagle forest", "READY=1\nSTATUS=ready node mesh0 fd00::1", "WATCHDOG=1",
	} {
		waitFor(t, want, func() bool { return s.count(want) > 0 })
	}
	cancel()
	waitFor(t, "STOPPING=1", func() bool { return s.count("STOPPING=1") > 0 })
	if status := <-ended; status != 0 {
		t.Errorf("status %d: %s", status, &out)
	}
	if n := s.count("READY=1"); n != 1 {
		t.Errorf("ready %d times", n)
	}
}

// deaf is a node whose control loop hangs.
type deaf struct{ asked chan struct{} }

func (d deaf) Status(ctx context.Context) (*api.Status, error) {
	d.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestWatchdogStarves: a node that does not answer is not said to live, so that systemd restarts it.
func TestWatchdogStarves(t *testing.T) {
	s := newSystemd(t)
	n := &notifier{on: true, watchdog: 30 * time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	d, done := deaf{make(chan struct{})}, make(chan struct{})
	go func() {
		defer close(done)
		n.run(ctx, d)
	}()
	for range 3 {
		<-d.asked
	}
	cancel()
	<-done
	waitFor(t, "more patience before the node is ready", func() bool { return s.count("EXTEND_TIMEOUT_USEC=60000000") >= 3 })
	if s.count("WATCHDOG=1") > 0 {
		t.Error("the watchdog was fed for a node that hangs")
	}
}
