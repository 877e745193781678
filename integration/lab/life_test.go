//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// inTime waits for a condition that is not in our hands.
func inTime(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(procPath(pid, "stat"))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func TestCloseEndsEverything(t *testing.T) {
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	first := newLab(t) // what a process opens once is open then
	if err := first.Internet("isp").Host("host", HostConfig{}).Command(t.Context(), "true").Run(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	fds := countFDs(t)
	l := newLab(t)
	n := l.Internet("isp")
	host := n.Site("site", SiteConfig{NAT: CGNAT, Link: Link{Delay: time.Millisecond}}).Host("host")
	if _, err := host.Capture("eth0"); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Pinger(host.Addr4(), PingOptions{}); err != nil {
		t.Fatal(err)
	}
	cmd := host.Command(t.Context(), "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!; exec sleep 1001")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	detached := readPID(t, out)
	if !alive(detached) {
		t.Fatal("the detached process has not begun")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Errorf("the program has not been killed: %v", err)
	}
	if alive(detached) {
		t.Error("the detached process lives")
	}
	if after, err := netlink.LinkList(); err != nil || len(after) != len(links) {
		t.Errorf("%d interfaces before, %d after (%v)", len(links), len(after), err)
	}
	if after := countFDs(t); after > fds {
		t.Errorf("%d descriptors before, %d after", fds, after)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := host.Command(t.Context(), "true").Run(); !errors.Is(err, ErrClosed) {
		t.Errorf("a command after Close: %v", err)
	}
	if err := host.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Do after Close: %v", err)
	}
	n.Site("late", SiteConfig{}).Host("late")
	if err := l.Ready(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Ready after Close: %v", err)
	}
}

// TestCloseEndsWhatBegins closes labs at once after a program was started, which is not inside yet: it ends all the same.
func TestCloseEndsWhatBegins(t *testing.T) {
	for range 50 {
		l := newLab(t)
		cmd := l.Internet("isp").Host("host", HostConfig{}).Command(context.Background(), "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		inTime(t, "the program ends with its lab", func() bool { return !alive(cmd.Process.Pid) })
		_ = cmd.Wait() // it was killed
	}
}

// TestProgramsOutliveThreads starts programs from many threads and does what a lab does on threads: a program's parent, to
// the kernel, is the thread that started it, and must not end.
func TestProgramsOutliveThreads(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	var group sync.WaitGroup
	commands := make(chan *exec.Cmd, 64)
	for i := range cap(commands) {
		host := n.Host(fmt.Sprintf("host%d", i), HostConfig{})
		group.Go(func() {
			cmd := host.Command(t.Context(), "sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Error(err)
			}
			if err := host.Do(func() error { return nil }); err != nil {
				t.Error(err)
			}
			commands <- cmd
		})
	}
	group.Wait()
	close(commands)
	other, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Internet("isp").Host("host", HostConfig{}).Command(t.Context(), "true").Run(); err != nil {
		t.Error(err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	for cmd := range commands {
		if !alive(cmd.Process.Pid) {
			t.Fatalf("process %d has died", cmd.Process.Pid)
		}
	}
}

// countFDs counts descriptors, but for those that the runtime keeps for polling.
func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(target, "anon_inode:") {
			n++
		}
	}
	return n
}

func readPID(t *testing.T, r io.Reader) int {
	t.Helper()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// again runs one test of this binary in another process, with a variable set that lets it do more.
func again(t *testing.T, test, variable string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"=1")
	return cmd
}

// TestKilledLab kills a process with a lab in the middle of its work: what it started dies with it, but for a program
// that had detached itself, which Sweep ends. Another program's process and a living lab's are left alone.
func TestKilledLab(t *testing.T) {
	if os.Getenv("LAB_TEST_VICTIM") != "" {
		l := newLab(t)
		host := l.Internet("isp").Site("site", SiteConfig{NAT: Home}).Host("host")
		cmd := host.Command(context.Background(), "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo pids $$ $!; exec sleep 1001")
		cmd.Stdout = os.Stdout
		fmt.Println(cmd.Run())
		return
	}
	l := newLab(t)
	bystander := l.Internet("isp").Host("host", HostConfig{}).Command(t.Context(), "sleep", "1000")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	victim := again(t, t.Name(), "LAB_TEST_VICTIM")
	victim.WaitDelay = time.Second
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var direct, detached int
	lines := bufio.NewScanner(out)
	for direct == 0 && lines.Scan() {
		_, _ = fmt.Sscanf(lines.Text(), "pids %d %d", &direct, &detached)
	}
	if direct == 0 {
		t.Fatal("the victim does not say what it has started")
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if !alive(direct) || !alive(detached) {
		t.Error("Sweep ended processes of a lab that lives")
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait()
	inTime(t, "the program ends with its lab", func() bool { return !alive(direct) })
	if !alive(detached) {
		t.Error("the detached program has ended before Sweep")
	}
	inTime(t, "Sweep ends the detached program", func() bool {
		if err := Sweep(); err != nil {
			t.Fatal(err)
		}
		return !alive(detached)
	})
	if !alive(bystander.Process.Pid) {
		t.Error("Sweep ended a process of this lab")
	}
}

// TestUserNamespace runs the tests of NAT and of relays as nobody, who becomes root of a user namespace. Its limit on
// network namespaces is evidence from outside that none is left.
func TestUserNamespace(t *testing.T) {
	if os.Getenv("LAB_TEST_USERNS") != "" {
		const limit = "/proc/sys/user/max_net_namespaces"
		if err := os.WriteFile(limit, []byte("100"), 0); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			smallLab(t)
		}
		for pause := 250 * time.Millisecond; !namespacesLeft(t, 98); pause *= 2 { // a try leaves much to clean up itself
			if pause > 16*time.Second {
				t.Fatal("not all namespaces are gone")
			}
			time.Sleep(pause)
		}
		if err := os.WriteFile(limit, []byte("10000"), 0); err != nil {
			t.Fatal(err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: to become nobody")
	}
	binary := filepath.Join(t.TempDir(), "lab.test")
	if err := copyFile(binary, "/proc/self/exe"); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(binary); dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&1 == 0 {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestUserNamespace$|^TestNATKinds$|^TestLinkDelay$", "-test.v")
	cmd.Env = append(os.Environ(), "LAB_TEST_USERNS=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if bytes.Contains(out, []byte("lab: make a user namespace")) {
		t.Skipf("this system does not allow it: %s", out)
	}
	if err != nil {
		t.Fatalf("as nobody: %v\n%s", err, out)
	}
	for _, name := range []string{"TestUserNamespace", "TestNATKinds/cgnat", "TestLinkDelay"} {
		if !bytes.Contains(out, []byte("--- PASS: "+name)) {
			t.Errorf("%s did not run as nobody:\n%s", name, out)
		}
	}
}

// namespacesLeft reports whether so many network namespaces can be made.
func namespacesLeft(t *testing.T, n int) bool {
	home, err := openThreadNet()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(home)
	for range n {
		fd, err := unshareNet(home)
		if err != nil {
			return false
		}
		defer closeFD(fd)
	}
	return true
}

func smallLab(t *testing.T) {
	t.Helper()
	l, err := New(Options{Name: "small"})
	if err != nil {
		t.Fatal(err)
	}
	n := l.Internet("isp")
	server := n.Host("server", HostConfig{Link: Link{Delay: time.Millisecond}})
	host := n.Site("site", SiteConfig{NAT: CGNAT}).Host("host")
	reach(t, host, server.Addr4())
	if out, err := host.Command(t.Context(), "hostname").Output(); err != nil || string(out) != "host\n" {
		t.Errorf("hostname: %q %v", out, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

func TestManySites(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	start := time.Now()
	var hosts []*Host
	for i := range 24 {
		hosts = append(hosts, n.Site(fmt.Sprintf("site%d", i), SiteConfig{NAT: Home}).Host(fmt.Sprintf("host%d", i)))
	}
	server := n.Host("server", HostConfig{})
	if err := l.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	built := time.Since(start)
	for _, h := range hosts {
		reach(t, h, server.Addr4())
	}
	t.Logf("24 sites in %v, all reached after %v", built, time.Since(start))
	if built > 10*time.Second {
		t.Errorf("24 sites take %v", built)
	}
}
