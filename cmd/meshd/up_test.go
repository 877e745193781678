package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/mesh/api"
	"meshd/mesh/api/apitest"
)

// upConfig is what the flags of up come to.
func upConfig(t *testing.T, stdin string, args ...string) nodeConfig {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := &fakeNode{}
	var out, errOut bytes.Buffer
	a := &app{
		stdin: strings.NewReader(stdin), stdout: &out, stderr: &errOut, node: n, now: testNow,
		getenv: func(k string) string { return map[string]string{"MESHD_STATE": filepath.Join(t.TempDir(), "s")}[k] },
	}
	if status := a.run(ctx, append([]string{"up"}, args...)); status != 0 {
		t.Fatalf("up %q: status %d: %s", args, status, &errOut)
	}
	return n.got
}

func TestUpFlags(t *testing.T) {
	ap, pfx := netip.MustParseAddrPort, netip.MustParsePrefix
	c := upConfig(t, "", "--name", "nas", "--tap", "m-1", "--no-tap", "--mtu", "1400", "--prefix", "fd00:0::/64", "--prefix", "2001:db8::/64",
		"--prefix", "fd00::/64", "--advertise", "h.example:1", "--advertise", "[2001:db8::1]:2", "--stun", "s:3478", "--listen", "192.0.2.1:7", "--resume")
	if c.Name != "nas" || c.TAP != "m-1" || !c.NoTAP || c.MTU != 1400 || !c.Resume || c.Listen != ap("192.0.2.1:7") ||
		!slices.Equal(c.Prefixes, []netip.Prefix{pfx("fd00::/64"), pfx("2001:db8::/64")}) ||
		!slices.Equal(c.Advertise, []string{"h.example:1", "[2001:db8::1]:2"}) || !slices.Equal(c.STUN, []string{"s:3478"}) {
		t.Errorf("%+v", c)
	}
	c = upConfig(t, "")
	if keys.ValidateName(c.Name) != nil || c.TAP != "mesh0" || c.NoTAP || c.MTU != 0 || c.Resume || c.Listen != ap("[::]:51830") || c.Join != nil {
		t.Errorf("defaults: %+v", c)
	}
	for in, want := range map[string]string{":0": "[::]:0", "[::]:5": "[::]:5", "0.0.0.0:5": "0.0.0.0:5", "[::ffff:192.0.2.1]:5": "192.0.2.1:5"} {
		if c := upConfig(t, "", "--listen", in); c.Listen != ap(want) {
			t.Errorf("--listen %s: %v", in, c.Listen)
		}
	}
}

func TestJoins(t *testing.T) {
	invite := testInvite(t)
	wrapped := invite[:30] + "\n  " + invite[30:80] + "\r\n" + invite[80:]
	for _, tt := range []struct {
		name  string
		stdin string
		flags []string
		want  []string
	}{
		{"hosts", "", []string{"home.example", "h:1", "192.0.2.1", "192.0.2.1:5", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:5", "a_b.example.", "x"}, nil},
		{"invite", "", []string{invite}, nil},
		{"invite with spaces around", "", []string{" " + invite + " "}, []string{invite}},
		{"stdin", invite + "\n", []string{"-"}, []string{invite}},
		{"stdin without newline", invite, []string{"-"}, []string{invite}},
		{"stdin, broken by mail", wrapped, []string{"-"}, []string{invite}},
		{"stdin, invite and hosts", "h1\n" + wrapped + "\nh2.example:5\n\n", []string{"-"}, []string{"h1", invite, "h2.example:5"}},
		{"stdin among others", "b\n", []string{"a", "-", "c", "-"}, []string{"a", "b", "c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var args []string
			for _, f := range tt.flags {
				args = append(args, "--join", f)
			}
			if tt.want == nil {
				tt.want = tt.flags
			}
			if c := upConfig(t, tt.stdin, args...); !slices.Equal(c.Join, tt.want) {
				t.Errorf("got  %q\nwant %q", c.Join, tt.want)
			}
		})
	}
}

func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "c.toml")
	text := `
name = "nas"
state = "` + dir + `/st"   # for every command
join = ["a.example", "b.example"]
no-tap = true
listen = ":7"
"log-level" = 'debug'
watch = true               # of another command
timeout = "5s"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := upConfig(t, "", "--config", file, "--listen", ":8")
	if c.Name != "nas" || c.StateDir != dir+"/st" || c.SocketPath != dir+"/st/meshd.sock" || !c.NoTAP || c.Listen.Port() != 8 ||
		!slices.Equal(c.Join, []string{"a.example", "b.example"}) {
		t.Errorf("%+v", c)
	}
	c = upConfig(t, "", "--config", file, "--join", "c.example", "--no-tap=false")
	if c.NoTAP || !slices.Equal(c.Join, []string{"c.example"}) {
		t.Errorf("flags must win: %+v", c)
	}
}

func TestPaths(t *testing.T) {
	env := func(kv ...string) func(string) string {
		return func(k string) string {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == k {
					return kv[i+1]
				}
			}
			return ""
		}
	}
	for _, tt := range []struct {
		name   string
		uid    int
		getenv func(string) string
		want   string
	}{
		{"root", 0, env("XDG_STATE_HOME", "/x"), "/var/lib/meshd"},
		{"user", 1000, env("XDG_STATE_HOME", "/x", "HOME", "/h"), "/x/meshd"},
		{"user without XDG", 1000, env("HOME", "/h"), "/h/.local/state/meshd"},
		{"relative XDG does not count", 1000, env("XDG_STATE_HOME", "x", "HOME", "/h"), "/h/.local/state/meshd"},
		{"nothing", 1000, env(), ""},
	} {
		got, err := defaultState(tt.uid, tt.getenv)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
	have := func(paths ...string) func(string) bool {
		return func(p string) bool { return slices.Contains(paths, p) }
	}
	for _, tt := range []struct {
		name, state string
		guess       bool
		exists      func(string) bool
		want        string
	}{
		{"the machine's", "/var/lib/meshd", false, have(), "/run/meshd/meshd.sock"},
		{"another", "/x", false, have(), "/x/meshd.sock"},
		{"a user with a node", "/h/meshd", true, have("/h/meshd/meshd.sock"), "/h/meshd/meshd.sock"},
		{"a user without", "/h/meshd", true, have(), "/run/meshd/meshd.sock"},
	} {
		if got := defaultSocket(tt.state, tt.guess, tt.exists); got != tt.want {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

// TestNeedsNoNode: what concerns no node works also for who has no place for one.
func TestNeedsNoNode(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"completion", "bash"}, {"help"}, {"help", "up"}} {
		var out, errOut bytes.Buffer
		a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errOut, node: &fakeNode{}, now: testNow, getenv: func(string) string { return "" }}
		if status := a.run(t.Context(), append(args, "--config", "/nonexistent")); status != 0 || out.Len() == 0 || errOut.Len() > 0 {
			t.Errorf("%q: status %d, %q", args, status, &errOut)
		}
	}
}

// TestExplain holds the remedies for what a machine may lack.
func TestExplain(t *testing.T) {
	c := nodeConfig{StateDir: "/var/lib/meshd"}
	for _, tt := range []struct {
		name   string
		err    error
		remedy string
	}{
		{"port", errors.Join(errors.New("listen"), syscall.EADDRINUSE), "choose another port with --listen"},
		{"locked", keys.ErrLocked, "end the other meshd with meshd down, or give this one its own --state"},
		{"no TUN", &fs.PathError{Op: "open", Path: tunDevice, Err: syscall.ENOENT}, "load the module (modprobe tun) or give the container the device /dev/net/tun; --no-tap does without"},
		{"no right to TUN", &fs.PathError{Op: "open", Path: tunDevice, Err: syscall.EACCES}, tunRemedy},
		{"no right", syscall.EPERM, tunRemedy},
		{"no right to the state", &fs.PathError{Op: "open", Path: "/var/lib/meshd/lock", Err: syscall.EACCES}, "run it as the user that owns the folder, or name another with --state"},
		{"disk full", &fs.PathError{Op: "write", Path: "/var/lib/meshd/x", Err: syscall.ENOSPC}, "make room in /var/lib/meshd, or name another folder with --state"},
		{"not our address", syscall.EADDRNOTAVAIL, "give an address of this host to --listen"},
		{"no right to the state, as it says itself", fmt.Errorf("open state directory: %w; run as root, or choose a directory of your own with --state", fs.ErrPermission), ""},
		{"no place for a plug", &fs.PathError{Op: "plug vde:/x: mkdir", Path: "/x", Err: syscall.ENOENT}, "give another place to --plug"},
		{"the TAP's name is taken", &l2.DeviceError{Op: "open tap", Name: "mesh0", Err: errors.New("an interface of that name exists"), Remedy: "choose another"}, "choose another"},
		{"its own remedy", &api.Error{Why: "w", Remedy: "r"}, "r"},
		{"anything else", errors.New("x\ny"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := asError(explain(tt.err, c))
			if e.Remedy != tt.remedy || e.Code.ExitStatus() != 1 || strings.Contains(e.Error(), "\n") {
				t.Errorf("%q, remedy %q", e, e.Remedy)
			}
		})
	}
	if explain(nil, c) != nil {
		t.Error("nil has become an error")
	}
}

func TestUpShows(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut bytes.Buffer
	dir := t.TempDir()
	a := &app{
		stdin: strings.NewReader(""), stdout: &out, stderr: &errOut, node: &fakeNode{}, now: testNow,
		getenv: func(k string) string { return map[string]string{"MESHD_STATE": dir}[k] },
	}
	if status := a.run(ctx, []string{"up", "--log-level", "error"}); status != 0 {
		t.Fatalf("status %d: %s", status, &errOut)
	}
	want := `joining
waiting for approval: apple bridge candle dragon eagle forest
an admin compares these words and runs: meshd approve apple bridge candle dragon eagle forest
ready node mesh0 fd00::1
`
	if out.String() != want || errOut.String() != "" {
		t.Errorf("%q\n%q", out.String(), errOut.String())
	}
}

func TestDown(t *testing.T) {
	t.Run("running", func(t *testing.T) {
		dir := shortDir(t)
		ended := make(chan int, 1)
		go func() {
			var out bytes.Buffer
			a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out, node: &fakeNode{}, now: testNow, getenv: func(string) string { return "" }}
			ended <- a.run(context.Background(), []string{"up", "--state", dir, "--log-level", "error"})
		}()
		waitFor(t, "the socket", func() bool { ok, _ := api.NewClient(dir + "/meshd.sock").Alive(t.Context()); return ok })
		n := &fakeNode{cleanErr: []error{keys.ErrLocked, keys.ErrLocked}} // it still has its state for a moment
		r := runWith(t, n, "", "down", "--state", dir)
		if r.status != 0 || r.stderr != "" || len(n.cleaned) != 3 {
			t.Errorf("%+v, cleaned %q", r, n.cleaned)
		}
		if status := <-ended; status != 0 {
			t.Errorf("up: %d", status)
		}
	})
	t.Run("running as another user", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root, to give a folder away")
		}
		node := apitest.Sample(testNow())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		node.OnDown = cancel
		dir := shortDir(t)
		l, err := api.Listen(filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- api.Serve(ctx, l, node, discard()) }()
		state := t.TempDir()
		if err := os.Chown(state, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		n := &fakeNode{}
		if r := runWith(t, n, "", "down", "--state", state, "--socket", filepath.Join(dir, "s")); r.status != 0 || r.stderr != "" || len(n.cleaned) > 0 {
			t.Errorf("%+v, cleaned %q", r, n.cleaned)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Run("after a crash", func(t *testing.T) {
		dir, n := t.TempDir(), &fakeNode{}
		if r := runWith(t, n, "", "down", "--state", dir); r.status != 0 || r.stderr != "" || !slices.Equal(n.cleaned, []string{dir}) {
			t.Errorf("%+v, cleaned %q", r, n.cleaned)
		}
	})
	t.Run("cannot clean up", func(t *testing.T) {
		n := &fakeNode{cleanErr: []error{errors.New("remove tap: busy")}}
		if r := runWith(t, n, "", "down", "--state", t.TempDir()); r.status != 1 || r.stderr != "meshd: remove tap: busy\n" {
			t.Errorf("%+v", r)
		}
	})
}

// shortDir is a folder whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "meshd-cmd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// waitFor polls a condition that nothing announces.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-tick.C
	}
}

func TestLeave(t *testing.T) {
	t.Run("running", func(t *testing.T) {
		dir := shortDir(t)
		ended := make(chan int, 1)
		go func() {
			var out bytes.Buffer
			a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out, node: &fakeNode{}, now: testNow, getenv: func(string) string { return "" }}
			ended <- a.run(context.Background(), []string{"up", "--state", dir, "--log-level", "error"})
		}()
		waitFor(t, "the socket", func() bool { ok, _ := api.NewClient(dir + "/meshd.sock").Alive(t.Context()); return ok })
		n := &fakeNode{}
		r := runWith(t, n, "", "leave", "--state", dir, "--json")
		if r.status != 0 || r.stderr != "" || r.stdout != fmt.Sprintf("{\n  \"left\": %q\n}\n", dir) || len(n.forgot) > 0 {
			t.Errorf("%+v, forgot %q", r, n.forgot) // the daemon removes its state itself
		}
		if status := <-ended; status != 0 {
			t.Errorf("up: %d", status)
		}
	})
	t.Run("not running", func(t *testing.T) {
		dir, n := t.TempDir(), &fakeNode{}
		r := runWith(t, n, "", "leave", "--state", dir, "--socket", "/nonexistent/s")
		if r.status != 3 || !strings.Contains(r.stderr, "--force") || len(n.forgot) > 0 {
			t.Errorf("%+v, forgot %q", r, n.forgot)
		}
		r = runWith(t, n, "", "leave", "--force", "--state", dir, "--socket", "/nonexistent/s")
		if r.status != 0 || r.stderr != "" || len(n.cleaned) != 1 || len(n.forgot) != 1 || n.forgot[0] != dir {
			t.Errorf("%+v, cleaned %q, forgot %q", r, n.cleaned, n.forgot)
		}
	})
}
