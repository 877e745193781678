package api_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"meshd/mesh/api"
	"meshd/mesh/api/apitest"
)

// now is the time of all samples.
var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// quiet is a log that nobody reads.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start serves node at a socket of its own and returns the socket's path.
func start(t *testing.T, node api.Node) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "meshd-api") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "run", "meshd.sock")
	l, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- api.Serve(ctx, l, node, quiet()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket is still there after the end")
		}
	})
	return path
}

// rawClient speaks HTTP over the socket without our client's manners.
func rawClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}

// body reads and closes a response's body.
func body(t *testing.T, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sample() *apitest.Node { return apitest.Sample(now) }

// serveForGroup serves node in dir, at a socket that belongs to a group.
func serveForGroup(t *testing.T, node api.Node, dir string, group int) string {
	t.Helper()
	path := filepath.Join(dir, "run", "meshd.sock")
	l, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, filepath.Dir(path)} {
		if err := os.Chown(p, -1, group); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- api.Serve(ctx, l, node, quiet()) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return path
}

// contextWithTimeout is for what has no test around it.
func contextWithTimeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 10*time.Second)
}
