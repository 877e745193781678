package outside

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	now := time.Unix(1e9, 0)
	v4, v6 := netip.MustParseAddr("192.168.1.2"), netip.MustParseAddr("2001:db8::2")
	good := Facts{Now: now, V4: v4, V6: v6, Known: true, Addresses: []netip.Addr{v4, v6}, Members: 3, Reached: 2, By6: 1, Dead6: 1}
	for _, test := range []struct {
		name   string
		change func(*Facts)
		want   []string
	}{
		{"good", func(*Facts) {}, nil},
		{"nothing known yet", func(f *Facts) { *f = Facts{Now: now} }, nil},
		{"no route", func(f *Facts) { f.V4, f.V6 = netip.Addr{}, netip.Addr{} }, []string{"no-route"}},
		{"only link-local", func(f *Facts) {
			f.V4, f.V6, f.Addresses = netip.Addr{}, netip.Addr{}, []netip.Addr{netip.MustParseAddr("169.254.3.4")}
		}, []string{"link-local-only"}},
		{"no address", func(f *Facts) { f.V4, f.V6, f.Addresses = netip.Addr{}, netip.Addr{}, nil }, []string{"link-local-only"}},
		{"alone for a moment", func(f *Facts) { f.Reached, f.AloneSince = 0, now.Add(-time.Second) }, nil},
		{"alone for long", func(f *Facts) { f.Reached, f.By6, f.Dead6, f.AloneSince = 0, 0, 0, now.Add(-time.Minute) }, []string{"unreachable"}},
		{"alone, and nobody else there is", func(f *Facts) {
			f.Members, f.Reached, f.By6, f.Dead6, f.AloneSince = 0, 0, 0, 0, now.Add(-time.Minute)
		}, nil},
		{"a portal", func(f *Facts) { f.Portal, f.AloneSince = "portal.example", now.Add(-time.Minute) }, []string{"captive-portal"}},
		{"IPv6 is dead", func(f *Facts) { f.By6, f.Dead6 = 0, 2 }, []string{"ipv6-broken"}},
		{"no IPv6 here", func(f *Facts) { f.V6, f.By6, f.Dead6 = netip.Addr{}, 0, 2 }, nil},
		{"no DNS", func(f *Facts) { f.DNS = "timeout" }, []string{"dns-failing"}},
		{"the clock is behind", func(f *Facts) { f.Clocks = []time.Duration{time.Hour} }, []string{"clock-skew"}},
		{"the clock is ahead", func(f *Facts) { f.Clocks = []time.Duration{0, -time.Hour, -2 * time.Hour} }, []string{"clock-skew"}},
		{"a clock is wrong elsewhere", func(f *Facts) { f.Clocks = []time.Duration{0, time.Hour} }, nil},
		{"clocks are wrong elsewhere, one each way", func(f *Facts) { f.Clocks = []time.Duration{-time.Hour, time.Hour} }, nil},
		{"clocks differ a little", func(f *Facts) { f.Clocks = []time.Duration{clockTolerance, clockTolerance} }, nil},
		{"all at once", func(f *Facts) {
			f.V4, f.V6, f.DNS, f.Clocks = netip.Addr{}, netip.Addr{}, "timeout", []time.Duration{time.Hour}
		}, []string{"no-route", "dns-failing", "clock-skew"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := good
			test.change(&f)
			var got []string
			for _, finding := range Judge(f) {
				got = append(got, finding.Code)
				if finding.Text == "" || finding.Remedy == "" {
					t.Errorf("%+v does not say enough", finding)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestClockForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Hour + 2*time.Second:        "1h0m",
		-6*time.Minute - time.Second:     "6m",
		10 * 365 * 24 * time.Hour:        "3650 days",
		-20 * 365 * 24 * time.Hour:       "7300 days",
		50*time.Hour + 30*time.Minute:    "50h30m",
		clockTolerance + time.Nanosecond: "5m",
	} {
		list := Judge(Facts{Clocks: []time.Duration{d}})
		side := " behind those of"
		if d < 0 {
			side = " ahead of those of"
		}
		if len(list) != 1 || !strings.Contains(list[0].Text, "clock is "+want+side) {
			t.Errorf("%v: %+v, want %q", d, list, want+side)
		}
	}
}

func TestFindPortal(t *testing.T) {
	member := netip.MustParseAddr("198.18.0.1")
	for _, test := range []struct{ name, answer, want string }{
		{"sent to sign in", "HTTP/1.1 302 Found\r\nLocation: https://portal.example:8443/in?x=1\r\n\r\n", "portal.example:8443"},
		{"told to sign in", "HTTP/1.1 511 Network Authentication Required\r\n\r\n", "198.18.0.1"},
		{"a member's own page", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", ""},
		{"a member's own redirect", "HTTP/1.1 301 Moved\r\nLocation: https://198.18.0.1/\r\n\r\n", ""},
		{"a relative redirect", "HTTP/1.1 301 Moved\r\nLocation: /login\r\n\r\n", ""},
		{"no HTTP", "SSH-2.0-x\r\n", ""},
		{"nothing", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dial := func(_ context.Context, address string) (net.Conn, error) {
				if address != "198.18.0.1:80" {
					t.Errorf("asked %s", address)
				}
				here, there := net.Pipe()
				go func() {
					defer there.Close()
					buf := make([]byte, 1024)
					if n, err := there.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "GET / HTTP/1.1\r\nHost: 198.18.0.1:80\r\n") {
						t.Errorf("asked %q, %v", buf[:n], err)
					}
					_, _ = there.Write([]byte(test.answer))
				}()
				return here, nil
			}
			if got := FindPortal(t.Context(), dial, member); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
	refused := func(context.Context, string) (net.Conn, error) { return nil, http.ErrServerClosed }
	if got := FindPortal(t.Context(), refused, member); got != "" {
		t.Errorf("nobody is there: %q", got)
	}
}

func FuzzPortal(f *testing.F) {
	f.Add("HTTP/1.1 302 Found\r\nLocation: https://portal.example/\r\n\r\n")
	f.Fuzz(func(t *testing.T, answer string) {
		if got := portalIn(strings.NewReader(answer), netip.MustParseAddr("198.18.0.1")); len(got) > 253 {
			t.Fatalf("%q", got)
		}
	})
}
