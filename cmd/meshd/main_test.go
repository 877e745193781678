package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/keys"
	"meshd/mesh"
	"meshd/mesh/api"
	"meshd/mesh/api/apitest"
	"meshd/mesh/doctor"
)

// asMainEnv makes the test's program a meshd with a fake node, for what needs a process of its own.
const asMainEnv = "MESHD_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	enterLab()
	switch os.Getenv(asMainEnv) {
	case "":
		os.Exit(m.Run())
	case "real":
		os.Exit(newApp().run(context.Background(), os.Args[1:]))
	case "wipe":
		wipeChild()
	default:
		a := newApp()
		a.node = &fakeNode{out: os.Stdout, mode: os.Getenv(asMainEnv)}
		os.Exit(a.run(context.Background(), os.Args[1:]))
	}
}

// wipeChild does with its arguments what main does, and prints them as the kernel and as itself see them.
func wipeChild() {
	args := make([]string, 0, len(os.Args))
	for _, a := range os.Args[1:] {
		args = append(args, strings.Clone(a))
	}
	wipeInvites(os.Args[1:])
	line, err := os.ReadFile("/proc/self/cmdline")
	if err != nil {
		fmt.Println(err)
	}
	_, rest, _ := bytes.Cut(line, []byte{0})
	fmt.Printf("%q\n%q\n", rest, args)
}

// fakeNode is a node that joins nothing. Its mode says what it does besides.
type fakeNode struct {
	mode string
	out  io.Writer

	mu       sync.Mutex
	got      nodeConfig
	cleaned  []string
	forgot   []string
	cleanErr []error // what CleanUp returns, in turn; nil afterwards
}

// Run serves the control socket, says that it is ready and waits for the end.
func (f *fakeNode) Run(ctx context.Context, c nodeConfig) error {
	f.mu.Lock()
	f.got = c
	f.mu.Unlock()
	if f.mode == "refused" {
		return &api.Error{Code: api.CodeFailed, What: "join", Why: "the invite has been used", Remedy: "ask for a new one"}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var serving sync.WaitGroup
	defer serving.Wait()
	if c.SocketPath != "" {
		if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
			return err
		}
		l, err := api.Listen(c.SocketPath)
		if err != nil {
			return err
		}
		n := apitest.Sample(testNow())
		n.OnDown = cancel
		serving.Go(func() { _ = api.Serve(ctx, l, n, c.Logger) })
	}
	c.Progress(progress{kind: mesh.Progress, text: "joining"})
	c.Progress(progress{kind: mesh.WaitingForApproval, words: strings.Fields("apple bridge candle dragon eagle forest")})
	c.Progress(progress{kind: mesh.Ready, text: "ready node mesh0 fd00::1"})
	c.Logger.Info("the node is up")
	<-ctx.Done()
	if f.mode == "signals" {
		if c.KeepTAP() {
			io.WriteString(f.out, "the TAP stays\n")
		} else {
			io.WriteString(f.out, "the TAP goes\n")
		}
	}
	return nil
}

func (f *fakeNode) CleanUp(stateDir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cleaned = append(f.cleaned, stateDir)
	if len(f.cleanErr) == 0 {
		return nil
	}
	err := f.cleanErr[0]
	f.cleanErr = f.cleanErr[1:]
	return err
}

// Examine finds one of each.
func (f *fakeNode) Examine(_ context.Context, c doctor.Config) []api.Check {
	list := []api.Check{{Name: "tun", State: api.CheckOK, Text: "mesh0 is up"}, {Name: "clock", State: api.CheckWarning, Text: "slow", Remedy: "set it"}}
	if f.mode == "ill" {
		list = append(list, api.Check{Name: "port", State: api.CheckFailed, Text: "taken", Remedy: "choose another"})
	}
	return list
}

// Netcheck finds a network without UDP.
func (f *fakeNode) Netcheck(_ context.Context, _ string, servers []string) (*api.Netcheck, error) {
	return &api.Netcheck{Asked: len(servers)}, nil
}

// Forget notes the folder.
func (f *fakeNode) Forget(stateDir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot = append(f.forgot, stateDir)
	return nil
}

func testNow() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// result is what a command has done.
type result struct {
	status         int
	stdout, stderr string
}

// runWith runs a command in this process. The state is a folder that does not exist, unless args say otherwise.
func runWith(t *testing.T, n node, stdin string, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	none := filepath.Join(t.TempDir(), "state")
	a := &app{
		stdin: strings.NewReader(stdin), stdout: &out, stderr: &errOut, node: n, now: testNow,
		getenv: func(k string) string { return map[string]string{"MESHD_STATE": none}[k] },
	}
	status := a.run(t.Context(), args)
	return result{status, out.String(), errOut.String()}
}

func runIt(t *testing.T, args ...string) result { return runWith(t, &fakeNode{}, "", args...) }

// serve serves a node at a socket and returns its path.
func serve(t *testing.T, n api.Node) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "meshd-cmd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- api.Serve(ctx, l, n, discard()) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return path
}

// testInvite is a real invite of some network, good for a day from testNow.
func testInvite(t testing.TB) string {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	id, err := keys.NewIdentity()
	must(err)
	root, err := keys.NewRoot("home", testNow())
	must(err)
	cert, err := root.IssueSigner(id.Public(), testNow())
	must(err)
	signer, err := keys.NewSigner(id, cert)
	must(err)
	i, err := keys.NewInvite(signer, keys.InviteOptions{
		Root: root.Public(), Network: "home", Entries: []string{"home.example:51830"}, Expires: testNow().Add(24 * time.Hour),
	}, testNow())
	must(err)
	return i.Text()
}
