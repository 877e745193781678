package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// nothing is a node that the fuzzer may ask for anything; it notes what comes through.
type nothing struct{ t *testing.T }

func (nothing) Status(context.Context) (*Status, error)     { return &Status{}, nil }
func (nothing) Hosts(context.Context) ([]Host, error)       { return nil, nil }
func (nothing) Requests(context.Context) ([]Request, error) { return nil, nil }
func (nothing) Down(context.Context) error                  { return nil }
func (n nothing) Netcheck(_ context.Context, servers []string) (*Netcheck, error) {
	if len(servers) > maxServers {
		n.t.Errorf("%d servers", len(servers))
	}
	return &Netcheck{}, nil
}

func (n nothing) Ping(_ context.Context, name string, count int, _ func(PingReply)) error {
	if CheckName(name) != nil || count < 0 {
		n.t.Errorf("ping %q %d came through", name, count)
	}
	return nil
}

func (nothing) Leave(context.Context, bool) error { return nil }

func (n nothing) Revoke(_ context.Context, o RevokeOptions) (Member, error) {
	if CheckName(o.Name) != nil {
		n.t.Errorf("revoke %q came through", o.Name)
	}
	return Member{}, nil
}

func (n nothing) SetRoles(_ context.Context, name string, roles []string) (Member, error) {
	if CheckName(name) != nil || CheckRoles(roles) != nil {
		n.t.Errorf("role %q %q came through", name, roles)
	}
	return Member{}, nil
}

func (n nothing) Invite(_ context.Context, o InviteOptions) (string, error) {
	if err := o.Check(); err != nil {
		n.t.Errorf("invite came through: %v", err)
	}
	return "x", nil
}

func (n nothing) Approve(_ context.Context, words string) (Request, error) {
	return Request{}, n.Deny(context.Background(), words)
}

func (n nothing) Deny(_ context.Context, words string) error {
	if again, err := Words(words); err != nil || again != words {
		n.t.Errorf("words %q came through", words)
	}
	return nil
}

func (n nothing) Prefixes(_ context.Context, c PrefixChange) ([]Prefix, error) {
	if err := c.Check(); err != nil {
		n.t.Errorf("prefixes came through: %v", err)
	}
	return nil, nil
}

func (n nothing) Gateway(context.Context) (*Gateway, error) { return &Gateway{}, nil }

func (n nothing) Share(context.Context, ShareChange) (*Share, error) { return &Share{}, nil }

func (n nothing) Wait(_ context.Context, w WaitSpec) error {
	if err := w.Check(); err != nil {
		n.t.Errorf("wait came through: %v", err)
	}
	return nil
}

// FuzzRequest sends any body to any operation: no panic, and nothing reaches the node unchecked.
func FuzzRequest(f *testing.F) {
	ops := []string{"ping", "invite", "approve", "deny", "wait", "down", "revoke", "role", "leave", "share", "prefix"}
	for i, seed := range []string{
		`{"name":"laptop","count":4}`, `{"uses":1,"expires_seconds":86400,"roles":["member","vlan=1-9"]}`,
		`{"words":"apple bridge candle dragon eagle forest"}`, `{"words":""}`, `{"peers":2,"peer":"a","direct":"b","timeout_seconds":1.5}`, `{}`,
		`{"name":"laptop","since":"2026-01-02T03:04:05Z"}`, `{"name":"laptop","roles":["router"]}`, `{"force":true}`, `{"on":true,"rate_bps":1,"volume_bytes":0}`,
	} {
		f.Add(i, seed)
	}
	f.Add(4, `{"timeout_seconds":9.3e18}`)
	f.Add(0, `{"name":"\u0000"}`)
	f.Fuzz(func(t *testing.T, op int, body string) {
		if op < 0 || op >= len(ops) {
			return
		}
		r := httptest.NewRequest(http.MethodPost, "http://meshd/v1/"+ops[op], strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r = r.WithContext(context.WithValue(r.Context(), rightsKey{}, mayChange))
		w := httptest.NewRecorder()
		NewServer(nothing{t}, slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s: status %d: %s", ops[op], w.Code, w.Body)
		}
	})
}

// FuzzAnswer gives any answer to the client: an error or not, but no panic.
func FuzzAnswer(f *testing.F) {
	f.Add(200, `{"reply":{"seq":1}}`+"\n"+`{"done":true}`)
	f.Add(200, `{"version":"1","self":{"addresses":["fd00::1"]},"peers":[{"last_seen":"2026-01-02T03:04:05Z"}]}`)
	f.Add(403, `{"error":{"code":"denied","what":"a","why":"b"}}`)
	f.Add(500, `x`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			return
		}
		answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		})
		c := NewClient("/nowhere")
		c.http = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			answer(w, r)
			return w.Result(), nil
		})}
		if s, err := c.Status(t.Context()); err == nil && (s == nil || status != 200) {
			t.Errorf("status %d gave %v without error", status, s)
		}
		_ = c.Ping(t.Context(), "x", 1, func(PingReply) {})
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestNobodyByDefault: a request whose sender nobody has looked at may do nothing.
func TestNobodyByDefault(t *testing.T) {
	w := httptest.NewRecorder()
	NewServer(nothing{t}, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest("GET", "http://meshd/v1/status", nil))
	if w.Code != http.StatusForbidden {
		t.Errorf("status %d", w.Code)
	}
}
