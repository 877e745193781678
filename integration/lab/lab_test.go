//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	Shim()
	if os.Getenv("LAB_TEST_USERNS") != "" {
		if err := EnterUserNamespace(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// newLab makes a lab that ends with the test.
func newLab(t *testing.T) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces (or run with LAB_TEST_USERNS=1)")
	}
	l, err := New(Options{Name: t.Name(), Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// TestMachine looks at what a program on a host has for its own.
func TestMachine(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	a, b := n.Host("a", HostConfig{}), n.Site("home", SiteConfig{NAT: Home}).Host("b")
	n.SetName("a.example", a.Addr4())
	run := func(h *Host, name string, args ...string) string {
		t.Helper()
		cmd := h.Command(t.Context(), name, args...)
		cmd.Dir = "/usr"
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s %v: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, check := range []struct{ what, got, want string }{
		{"host name", run(a, "hostname"), "a"},
		{"directory", run(a, "pwd"), "/usr"},
		{"interfaces in sysfs", run(b, "ls", "/sys/class/net"), "eth0\nlo"},
		{"name", run(b, "getent", "ahostsv4", "a.example")[:11], "198.18.0.2 "},
		{"congestion control", strings.Fields(run(b, "ip", "route", "show", "default"))[8], "cubic"},
		{"name of the lab", strings.SplitN(run(a, "printenv", markVariable), ".", 5)[4], t.Name()},
		{"argument 0", run(a, "sh", "-c", "tr '\\0' ' ' </proc/$$/cmdline | cut -c1-5"), "sh -c"},
	} {
		if check.got != check.want {
			t.Errorf("%s: %q, want %q", check.what, check.got, check.want)
		}
	}
	run(a, "touch", "/run/mine")
	if got := run(a, "ls", "/run/mine"); got != "/run/mine" {
		t.Errorf("a second program on the host does not see the first one's file: %q", got)
	}
	if err := b.Command(t.Context(), "ls", "/run/mine").Run(); err == nil {
		t.Error("hosts share /run")
	}
	if _, err := os.Stat("/run/mine"); err == nil {
		t.Error("a host writes into the system's /run")
	}
	if name, err := os.Hostname(); err != nil || name == "a" || name == "b" {
		t.Errorf("the system is called %q now (%v)", name, err)
	}
	const files = "cd /proc/$$/fd && echo *"
	outside, err := exec.Command("sh", "-c", files).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := run(a, "sh", "-c", files); got != strings.TrimSpace(string(outside)) {
		t.Errorf("a program has descriptors %s, one outside %s", got, outside)
	}
}

func TestCommandFiles(t *testing.T) {
	l := newLab(t)
	host := l.Internet("isp").Host("host", HostConfig{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := host.Command(t.Context(), "sh", "-c", "echo three >&3; exit 5")
	cmd.ExtraFiles = append(cmd.ExtraFiles, w)
	err = cmd.Run()
	w.Close()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Errorf("%v, want exit status 5", err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "three\n" {
		t.Errorf("descriptor 3 brought %q (%v)", got, err)
	}
	if err := host.Command(t.Context(), "no-such-program").Run(); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a program that is not there: %v", err)
	}
	if out, err := host.Command(t.Context(), "/etc/hostname").CombinedOutput(); err == nil {
		t.Errorf("a file that is no program runs: %s", out)
	}
}

func TestDo(t *testing.T) {
	l := newLab(t)
	host := l.Internet("isp").Host("host", HostConfig{})
	want := errors.New("mine")
	if err := host.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do returns %v", err)
	}
	if err := host.Do(func() error { runtime.Goexit(); return nil }); !errors.Is(err, errExited) {
		t.Errorf("Do returns %v for a function that does not return", err)
	}
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	inside := ""
	err = host.Do(func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	if err != nil || inside == before {
		t.Errorf("Do runs in %s, as the test does (%v)", inside, err)
	}
	for range 100 { // on whatever thread this runs
		if here, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || here != before {
			t.Fatalf("the test is in %s after Do, was in %s (%v)", here, before, err)
		}
		runtime.Gosched()
	}
}

func TestCounters(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	server := n.Host("server", HostConfig{})
	site := n.Site("site", SiteConfig{NAT: Home})
	host := site.Host("host")
	if err := server.CountPackets(); err != nil {
		t.Fatal(err)
	}
	at, c := listen(t, server, 4000), listen(t, host, 5000)
	for range 3 {
		at.seen(t, c)
	}
	other := listen(t, server, 4001)
	other.send(t, at.seen(t, c), "unsolicited")
	at.send(t, at.seen(t, c), "answer")
	c.expect(t, "answer")
	got, err := site.Counters()
	if err != nil {
		t.Fatal(err)
	}
	const hello, unsolicited, answer = 28 + 5, 28 + 11, 28 + 6 // with the headers of IPv4 and UDP
	want := Counters{UDPOut: Count{5, 5 * hello}, UDPIn: Count{2, unsolicited + answer}, Dropped: Count{1, unsolicited}}
	if got.UDPOut != want.UDPOut || got.UDPIn != want.UDPIn || got.Dropped != want.Dropped {
		t.Errorf("the router counts %+v, want %+v", got, want)
	}
	if got, err = server.Counters(); err != nil || got.UDPIn != want.UDPOut || got.UDPOut != want.UDPIn {
		t.Errorf("the server counts %+v (%v)", got, err)
	}
}
