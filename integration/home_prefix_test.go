//go:build linux

package integration

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
	"meshd/integration/lab/guest"
)

// homePrefix is examples/home-prefix: home has a /64 routed to it; a laptop at work, where there is no IPv6 and a NAT, and
// virtual machines in both places live in that prefix.
type homePrefix struct {
	*world
	prefix       netip.Prefix
	home, laptop *lab.Node
	guests       map[string]*guest.Guest
	addrs        map[string]netip.Addr // of the guests
	server       *lab.Host             // on the internet, with IPv6 only
}

func TestHomePrefix(t *testing.T) {
	s := newHomePrefix(newWorld(t))
	s.reachesInternet()
	s.reachEachOther()
	s.laptopReachesInternet()
	s.moves()
}

func newHomePrefix(w *world) *homePrefix {
	w.Helper()
	s := &homePrefix{world: w, addrs: make(map[string]netip.Addr)}
	s.server = w.net.Host("server", lab.HostConfig{V6: true})
	at := w.net.Host("home", lab.HostConfig{})
	s.prefix = at.Routed6()
	sockets := w.TempDir()
	stream, vde := "stream:"+filepath.Join(sockets, "s"), "vde:"+filepath.Join(sockets, "v")
	s.home = w.found(at, "--prefix", s.prefix.String(), "--gateway", "--plug", stream)
	work := w.net.Site("work", lab.SiteConfig{NAT: lab.Home, V4: true})
	s.laptop = w.join(work.Host("laptop"), w.invite(s.home), "--plug", vde)

	vm := w.example("vm/vm.sh")
	s.guests = w.guests(w.within(2*time.Minute), map[*lab.Host][]guest.Options{
		s.home.Host:   {{Name: "nas", QEMU: []string{vm, stream, "nas"}}},
		s.laptop.Host: {{Name: "build", QEMU: []string{vm, vde, "build"}}, {Name: "web", QEMU: []string{vm, vde, "web"}}},
	})
	for name, g := range s.guests {
		s.addrs[name] = w.configured(g, s.prefix)
	}
	if self := w.addr(s.laptop); !s.prefix.Contains(self) {
		w.Errorf("the laptop has %v, which is not of %v", self, s.prefix)
	}
	return s
}

// reachesInternet lets all guests fetch a page from a server on the internet, which must see them under their own
// addresses; and the server reaches them.
func (s *homePrefix) reachesInternet() {
	s.Helper()
	s.serve()
	// Debian's static busybox has a wget that does not run without Debian around it.
	fetch := fmt.Sprintf(`printf 'GET / HTTP/1.0\r\n\r\n' | nc %v 80 | tail -n 1`, s.server.Addr6())
	for name, g := range s.guests {
		if got := s.in(g, fetch); got != s.addrs[name].String() {
			s.Errorf("the server sees %s as %q, not %v", name, got, s.addrs[name])
		}
	}
	for _, addr := range s.addrs {
		s.reached(10*time.Second, &lab.Node{Host: s.server}, addr)
	}
}

// serve tells each visitor his address.
func (s *homePrefix) serve() {
	s.Helper()
	var l net.Listener
	s.must(s.server.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(s.Context(), "tcp6", "[::]:80")
		return err
	}))
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		_, _ = io.WriteString(w, host) // the visitor notices
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	s.Cleanup(func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			s.Errorf("the server on the internet: %v", err)
		}
	})
}

// reachEachOther lets the guests reach each other and the members, on one Ethernet and not through home's router.
func (s *homePrefix) reachEachOther() {
	s.Helper()
	s.waitDirect(s.laptop, "home")
	members := []netip.Addr{s.addr(s.home), s.addr(s.laptop)}
	s.reach(s.guests, func(name string) []netip.Addr {
		others := maps.Clone(s.addrs)
		delete(others, name)
		return slices.AppendSeq(slices.Clone(members), maps.Values(others))
	})
	for name, g := range s.guests {
		neighbours := s.in(g, "ip -6 neigh")
		for other, addr := range s.addrs {
			if other != name && !strings.Contains(lineOf(neighbours, addr.String()+" "), "lladdr") {
				s.Errorf("%s does not have %s as its neighbour:\n%s", name, other, neighbours)
			}
		}
	}
}

// laptopReachesInternet goes by the route that --default-route auto takes, since there is no IPv6 at work.
func (s *homePrefix) laptopReachesInternet() {
	s.Helper()
	s.reached(10*time.Second, s.laptop, s.server.Addr6())
	s.reached(10*time.Second, &lab.Node{Host: s.server}, s.addr(s.laptop))
}

// connection makes a TCP connection between two guests, and returns what ends it after another line, which must arrive.
func (s *homePrefix) connection(from, to *guest.Guest, addr netip.Addr) (finish func()) {
	s.Helper()
	arrived := func(want string) {
		s.Helper()
		s.eventually(15*time.Second, fmt.Sprintf("%q arrives by TCP", want), func() error {
			if got := s.in(to, "cat /tmp/got"); got != want {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
	}
	s.in(to, "sleep 600 | nc -l -p 7000 >/tmp/got &\nuntil netstat -lnt | grep -q :7000; do sleep 0.1; done")
	s.in(from, fmt.Sprintf("{ echo first; until [ -e /tmp/moved ]; do sleep 0.1; done; echo last; } | nc %v 7000 &", addr))
	arrived("first\n")
	return func() {
		s.Helper()
		s.in(from, "touch /tmp/moved")
		arrived("first\nlast\n")
	}
}

// moves carries the laptop to a café under running pings from the internet, to it and to one of its guests, and under a
// TCP connection from its other guest to the one at home. All addresses stay.
func (s *homePrefix) moves() {
	s.Helper()
	before := s.addr(s.laptop)
	var pings []*lab.Pinger
	for _, to := range []netip.Addr{before, s.addrs["web"]} {
		p, err := s.server.Pinger(to, lab.PingOptions{Linger: 100 * time.Millisecond})
		s.must(err)
		pings = append(pings, p)
	}
	finish := s.connection(s.guests["build"], s.guests["nas"], s.addrs["nas"])
	cafe := s.net.Site("cafe", lab.SiteConfig{NAT: lab.Symmetric, V4: true})
	s.must(s.laptop.Host.Move(cafe))
	s.eventually(20*time.Second, "the pings go on", func() error {
		for _, p := range pings {
			if clean := p.Clean(time.Second); clean < time.Second {
				return fmt.Errorf("%v", p.Stats())
			}
		}
		return nil
	})
	for i, p := range pings {
		stats := p.Stop()
		s.Logf("across the move, from the internet to the laptop's %s: %v", [...]string{"own address", "guest"}[i], stats)
		if stats.Outage > 5*time.Second {
			s.Errorf("an outage of %v", stats.Outage)
		}
	}
	finish()
	if after := s.addr(s.laptop); after != before {
		s.Errorf("the laptop had %v and has %v", before, after)
	}
	if got := s.configured(s.guests["web"], s.prefix); got != s.addrs["web"] {
		s.Errorf("the laptop's guest had %v and has %v", s.addrs["web"], got)
	}
}
