package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"meshd/mesh/api"
)

func TestClientAndServer(t *testing.T) {
	node := sample()
	c := api.NewClient(start(t, node))
	ctx := t.Context()
	same := cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

	s, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := node.StatusAnswer
	want.Canonical()
	if d := cmp.Diff(&want, s, same); d != "" {
		t.Error("status:", d)
	}
	var names []string
	for _, p := range s.Peers {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); got != "laptop nas phone tv" {
		t.Errorf("peers in the order %q", got)
	}
	hosts, err := c.Hosts(ctx)
	if d := cmp.Diff(node.HostsAnswer, hosts, same); err != nil || d != "" {
		t.Error("hosts:", err, d)
	}
	reqs, err := c.Requests(ctx)
	if d := cmp.Diff(node.RequestsAnswer, reqs, same); err != nil || d != "" {
		t.Error("requests:", err, d)
	}
	i, err := c.NewInvite(ctx, api.InviteOptions{Uses: 3, Expires: time.Hour})
	if err != nil || i.Invite != node.InviteAnswer || i.Uses != 3 || len(i.Roles) != 1 || i.Roles[0] != "member" || !i.Expires.After(time.Now().Add(59*time.Minute)) {
		t.Errorf("invite: %+v, %v", i, err)
	}
	r, err := c.Approve(ctx, node.RequestsAnswer[0].Words)
	if d := cmp.Diff(node.RequestsAnswer[0], r, same); err != nil || d != "" {
		t.Error("approve:", err, d)
	}
	if err := c.Deny(ctx, node.RequestsAnswer[0].Words); err != nil {
		t.Error("deny:", err)
	}
	if err := c.Wait(ctx, api.WaitSpec{Peers: 3, Peer: "nas", Direct: "laptop"}); err != nil {
		t.Error("wait:", err)
	}
	if err := c.Down(ctx); err != nil {
		t.Error("down:", err)
	}
}

func TestPingStream(t *testing.T) {
	node := sample()
	c := api.NewClient(start(t, node))
	var seqs []int
	var lost int
	err := c.Ping(t.Context(), "lapt", 3, func(r api.PingReply) {
		seqs = append(seqs, r.Seq)
		if r.Lost {
			lost++
		}
	})
	if err != nil || !cmp.Equal(seqs, []int{1, 2, 3}) || lost != 1 {
		t.Errorf("got %v, %d lost, %v", seqs, lost, err)
	}
	for name, code := range map[string]api.Code{"nobody": api.CodeUnknownName, "cccc": api.CodeAmbiguousName, "": api.CodeUsage, "a\x1bb": api.CodeUsage} {
		if err := c.Ping(t.Context(), name, 1, func(api.PingReply) {}); api.CodeOf(err) != code {
			t.Errorf("ping %q: %v, want code %q", name, err, code)
		}
	}
}

// endless is a node whose pings go on for ever, and which says when they have ended.
type endless struct {
	api.Node
	ended chan error
}

func (e endless) Ping(ctx context.Context, _ string, _ int, each func(api.PingReply)) error {
	for seq := 1; ctx.Err() == nil; seq++ {
		each(api.PingReply{Seq: seq})
	}
	e.ended <- ctx.Err()
	return ctx.Err()
}

func TestPingEndsWithItsClient(t *testing.T) {
	node := endless{sample(), make(chan error, 1)}
	c := api.NewClient(start(t, node))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := c.Ping(ctx, "x", 0, func(r api.PingReply) {
		if r.Seq == 10 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("client: %v", err)
	}
	if err := <-node.ended; err == nil {
		t.Error("the node's ping did not end by its context")
	}
}

func TestErrorsCrossWhole(t *testing.T) {
	for _, want := range []*api.Error{
		{Code: api.CodeFailed, What: "approve", Why: "nobody shows these words", Remedy: "look again"},
		{Code: api.CodeUsage, What: "a", Why: "b"},
		{Code: api.CodeNotConnected, What: "a", Why: "b"},
		{Code: api.CodeDenied, What: "a", Why: "b"},
		{Code: api.CodeUnknownName, What: "a", Why: "b"},
		{Code: api.CodeAmbiguousName, What: "a", Why: "b"},
		{Code: api.CodeUnsupported, What: "a", Why: "b"},
		{Code: api.CodeBusy, What: "a", Why: "b"},
	} {
		t.Run(string(want.Code), func(t *testing.T) {
			node := sample()
			node.Err = errors.Join(errors.New("around it"), want)
			_, err := api.NewClient(start(t, node)).Status(t.Context())
			got, ok := errors.AsType[*api.Error](err)
			if !ok || *got != *want {
				t.Errorf("got %#v, want %#v", err, want)
			}
		})
	}
	t.Run("plain", func(t *testing.T) {
		node := sample()
		node.Err = errors.New("disk full")
		_, err := api.NewClient(start(t, node)).Status(t.Context())
		if err == nil || err.Error() != "status: disk full" || api.CodeOf(err).ExitStatus() != 1 {
			t.Errorf("got %v", err)
		}
	})
}

func TestExitStatus(t *testing.T) {
	for code, want := range map[api.Code]int{
		api.CodeFailed: 1, api.CodeUsage: 2, api.CodeNoDaemon: 3, api.CodeNotConnected: 4, api.CodeDenied: 1, api.CodeUnknownName: 1,
		api.CodeAmbiguousName: 2, api.CodeUnsupported: 1, api.CodeBusy: 1, "from-the-future": 1,
	} {
		if got := code.ExitStatus(); got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for name, path := range map[string]string{"no socket": filepath.Join(dir, "none"), "dead socket": dead} {
		t.Run(name, func(t *testing.T) {
			c := api.NewClient(path)
			_, err := c.Status(t.Context())
			if !errors.Is(err, api.ErrNoDaemon) || api.CodeOf(err) != api.CodeNoDaemon {
				t.Errorf("got %v", err)
			}
			if alive, err := c.Alive(t.Context()); alive || err != nil {
				t.Errorf("Alive = %v, %v", alive, err)
			}
		})
	}
}

func TestWaitRunsOut(t *testing.T) {
	c := api.NewClient(start(t, sample()))
	err := c.Wait(t.Context(), api.WaitSpec{Peers: 9, Peer: "tv", Timeout: 50 * time.Millisecond})
	if api.CodeOf(err) != api.CodeNotConnected || err.Error() != `wait: not after 50ms: 3 of 9 members are alive, "tv" is idle` {
		t.Errorf("got %v", err)
	}
}

func TestWaitEndsWithItsClient(t *testing.T) {
	c := api.NewClient(start(t, sample()))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Wait(ctx, api.WaitSpec{Peers: 9}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestRefused holds what a web page could try, and what is no request of ours.
func TestRefused(t *testing.T) {
	node := sample()
	path := start(t, node)
	for _, tt := range []struct {
		name, method, url, host, body string
		header                        map[string]string
		status                        int
	}{
		{name: "status", method: "GET", url: "/v1/status", status: 200},
		{name: "localhost, as curl sends it", method: "GET", url: "/v1/status", host: "localhost", status: 200},
		{name: "other host", method: "GET", url: "/v1/status", host: "evil.example", status: 403},
		{name: "localhost with a port", method: "GET", url: "/v1/status", host: "localhost:80", status: 403},
		{name: "our host with a dot", method: "GET", url: "/v1/status", host: "meshd.", status: 403},
		{name: "address", method: "GET", url: "/v1/status", host: "127.0.0.1", status: 403},
		{name: "origin", method: "GET", url: "/v1/status", header: map[string]string{"Origin": "https://evil.example"}, status: 403},
		{name: "origin null", method: "GET", url: "/v1/status", header: map[string]string{"Origin": "null"}, status: 403},
		{name: "our own origin", method: "GET", url: "/v1/status", header: map[string]string{"Origin": "http://meshd"}, status: 403},
		{name: "empty origin", method: "GET", url: "/v1/status", header: map[string]string{"Origin": ""}, status: 403},
		{name: "referer", method: "POST", url: "/v1/down", body: "{}", header: map[string]string{"Referer": "http://meshd/"}, status: 403},
		{name: "fetch metadata", method: "GET", url: "/v1/hosts", header: map[string]string{"Sec-Fetch-Site": "same-origin"}, status: 403},
		{name: "form", method: "POST", url: "/v1/down", body: "{}", header: map[string]string{"Content-Type": "text/plain"}, status: 400},
		{name: "change by GET", method: "GET", url: "/v1/down", status: 501},
		{name: "read by POST", method: "POST", url: "/v1/status", body: "{}", status: 501},
		{name: "no such thing", method: "GET", url: "/v1/nothing", status: 501},
		{name: "dots", method: "GET", url: "/v1/../etc/passwd", status: 307},
		{name: "unknown key", method: "POST", url: "/v1/invite", body: `{"uses":1,"expires_seconds":60,"force":true}`, status: 400},
		{name: "two values", method: "POST", url: "/v1/down", body: `{}{}`, status: 400},
		{name: "no JSON", method: "POST", url: "/v1/approve", body: `words`, status: 400},
		{name: "nothing", method: "POST", url: "/v1/approve", body: ``, status: 400},
		{name: "too large", method: "POST", url: "/v1/approve", body: `{"words":"` + strings.Repeat("a", 64<<10) + `"}`, status: 400},
		{name: "five words", method: "POST", url: "/v1/deny", body: `{"words":"a b c d e"}`, status: 400},
		{name: "no uses", method: "POST", url: "/v1/invite", body: `{"expires_seconds":60}`, status: 400},
		{name: "expired at once", method: "POST", url: "/v1/invite", body: `{"uses":1}`, status: 400},
		{name: "a hundred years", method: "POST", url: "/v1/invite", body: `{"uses":1,"expires_seconds":3e9}`, status: 400},
		{name: "infinite", method: "POST", url: "/v1/invite", body: `{"uses":1,"expires_seconds":1e300}`, status: 400},
		{name: "role", method: "POST", url: "/v1/invite", body: `{"uses":1,"expires_seconds":60,"roles":["king"]}`, status: 400},
		{name: "negative count", method: "POST", url: "/v1/ping", body: `{"name":"laptop","count":-1}`, status: 400},
		{name: "negative peers", method: "POST", url: "/v1/wait", body: `{"peers":-1}`, status: 400},
		{name: "negative timeout", method: "POST", url: "/v1/wait", body: `{"timeout_seconds":-1}`, status: 400},
		{name: "timeout beyond time", method: "POST", url: "/v1/wait", body: `{"timeout_seconds":1e300}`, status: 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.NewRequest(tt.method, "http://meshd"+tt.url, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if tt.host != "" {
				r.Host = tt.host
			}
			if tt.method == "POST" {
				r.Header.Set("Content-Type", "application/json")
			}
			for k, v := range tt.header {
				r.Header.Set(k, v)
			}
			before := len(node.Calls())
			resp, err := rawClient(path).Transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			text := body(t, resp)
			if resp.StatusCode != tt.status {
				t.Fatalf("status %d, want %d: %s", resp.StatusCode, tt.status, text)
			}
			if tt.status < 400 {
				return
			}
			if calls := node.Calls(); len(calls) != before {
				t.Errorf("the node was asked for %v", calls[before:])
			}
			var e struct{ Error *api.Error }
			if json.Unmarshal([]byte(text), &e) != nil || e.Error == nil || e.Error.Why == "" {
				t.Errorf("the answer is no error: %s", text)
			}
		})
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }

	t.Run("mode and folder", func(t *testing.T) {
		path := at("run/a")
		l, err := api.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil || fi.Mode().Perm() != 0o660 {
			t.Errorf("socket: %v, %v", fi.Mode(), err)
		}
		fi, err = os.Stat(at("run"))
		if err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("folder: %v, %v", fi.Mode(), err)
		}
		if err := os.WriteFile(at("umask"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if fi, _ := os.Stat(at("umask")); fi.Mode().Perm() != 0o644 {
			t.Errorf("the umask was not put back: %v", fi.Mode())
		}
		l.Close()
		if _, err := os.Lstat(path); err == nil {
			t.Error("still there after Close")
		}
	})
	t.Run("live", func(t *testing.T) {
		path := at("live")
		l, err := api.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := api.Listen(path); err == nil || !strings.Contains(err.Error(), "another meshd answers there") {
			t.Errorf("second Listen: %v", err)
		}
		if c, err := net.Dial("unix", path); err != nil {
			t.Errorf("the first is gone: %v", err)
		} else {
			c.Close()
		}
	})
	t.Run("stale", func(t *testing.T) {
		path := at("stale")
		old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		old.SetUnlinkOnClose(false)
		old.Close()
		l, err := api.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
	for name, make := range map[string]func(path string) error{
		"a file":   func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) },
		"a folder": func(p string) error { return os.Mkdir(p, 0o700) },
		"a link":   func(p string) error { return os.Symlink("/dev/null", p) },
	} {
		t.Run("not a socket: "+name, func(t *testing.T) {
			path := at(name)
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			if _, err := api.Listen(path); err == nil {
				t.Error("no error")
			}
			if _, err := os.Lstat(path); err != nil {
				t.Error("it was removed")
			}
		})
	}
	t.Run("path too long", func(t *testing.T) {
		if _, err := api.Listen(at(strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "more than") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("folder open to all", func(t *testing.T) {
		open := at("open")
		if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
			t.Fatal(err)
		}
		if _, err := api.Listen(filepath.Join(open, "s")); err == nil {
			t.Error("no error")
		}
	})
}

// TestConnectionLimit opens more connections than there may be: those beyond are told so, and it works again once they are gone.
func TestConnectionLimit(t *testing.T) {
	path := start(t, sample())
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range 32 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	if !strings.HasPrefix(string(text), "HTTP/1.1 503") || !strings.Contains(string(text), `"busy"`) {
		t.Errorf("the 33rd was told %q, %v", text, err)
	}
	for _, c := range open {
		c.Close()
	}
	open = nil
	deadline := time.Now().Add(5 * time.Second)
	for {
		_, err := api.NewClient(path).Status(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still: %v", err)
		}
	}
}
