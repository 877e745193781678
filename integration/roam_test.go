//go:build linux

package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"meshd/integration/lab"
)

// repeats is how often each change is made: three times in CI, MESHD_REPEATS times by `make soak`.
func repeats(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("MESHD_REPEATS"))
	if err != nil || n < 1 {
		return 3
	}
	return n
}

// holdOutages compares outages with what 95 of 100 may be; with a few repeats the longest may be twice that.
func holdOutages(t *testing.T, what string, outages []time.Duration, p95 time.Duration) {
	t.Helper()
	slices.Sort(outages)
	at := func(part float64) time.Duration { return outages[int(part*float64(len(outages)-1)+0.5)] }
	longest := outages[len(outages)-1]
	t.Logf("%s: outages of p50 %v, p95 %v, max %v in %d repeats", what, at(0.5), at(0.95), longest, len(outages))
	got, most := at(0.95), p95
	if len(outages) < 20 {
		got, most = longest, 2*p95
	}
	if got > most {
		t.Errorf("%s: an outage of %v, want %v at most", what, got, most)
	}
}

// traffic is what runs while something changes.
type traffic interface {
	Stats() lab.PingStats
	Stop() lab.PingStats
}

// roamer is a node to which something happens while it talks to another.
type roamer struct {
	w       *world
	nodes   []*lab.Node // the pair, first the one that it happens to
	oneWay  bool        // frames go to the first only
	change  func() error
	restore func() error // before the next time; may be nil
	check   func()       // that something has changed; may be nil
}

// start begins the traffic, and returns when it flows.
func (r *roamer) start() []traffic {
	r.w.Helper()
	first, second := r.nodes[0], r.nodes[1]
	var list []traffic
	if r.oneWay {
		list = append(list, r.w.oneWay(second, first))
	} else {
		for _, n := range [][2]*lab.Node{{first, second}, {second, first}} {
			p, err := n[0].Host.Pinger(r.w.addr(n[1]), lab.PingOptions{Linger: 100 * time.Millisecond})
			r.w.must(err)
			list = append(list, p)
		}
	}
	r.flows(list, 10*time.Second, 25)
	return list
}

// flows waits until some packets have been answered that were sent from now on, and the last ones are.
func (r *roamer) flows(list []traffic, limit time.Duration, packets int) {
	r.w.Helper()
	before := make([]int, len(list))
	for i, x := range list {
		before[i] = x.Stats().Sent
	}
	r.w.eventually(limit, "packets flow", func() error {
		for i, x := range list {
			if s := x.Stats(); s.Sent < before[i]+packets || s.Trailing > time.Second/2 {
				return fmt.Errorf("%v, the last one %v ago", s, s.Trailing)
			}
		}
		return nil
	})
}

// renewed is the age at which sessions are renewed at the soonest, whatever happens.
const renewed = 100 * time.Second

// sessions is when each of the pair made its session with the other.
func (r *roamer) sessions() (made [2]time.Time) {
	r.w.Helper()
	for i, n := range r.nodes {
		for _, p := range r.w.status(n).Peers {
			if p.Name == r.nodes[1-i].Host.Name() {
				made[i] = p.LastHandshake
			}
		}
		if made[i].IsZero() {
			r.w.Fatalf("%s has no session with %s", n.Host.Name(), r.nodes[1-i].Host.Name())
		}
	}
	return made
}

// once makes the change and measures the longest outage around it.
func (r *roamer) once() time.Duration {
	r.w.Helper()
	list := r.start()
	keys := r.sessions()
	r.w.must(r.change())
	r.flows(list, 30*time.Second, 50)
	if now := r.sessions(); now != keys && time.Since(keys[0]) < renewed && time.Since(keys[1]) < renewed {
		r.w.Errorf("the session of %v was replaced by one of %v: no handshake is needed to move", keys, now)
	}
	var longest time.Duration
	for _, x := range list {
		longest = max(longest, x.Stop().Outage)
	}
	if r.check != nil {
		r.check()
	}
	if r.restore != nil {
		r.w.must(r.restore())
		time.Sleep(time.Second) // not part of what is measured
	}
	return longest
}

// TestOutages changes the underlay of a node in the middle of its traffic, and measures how long that is interrupted.
func TestOutages(t *testing.T) {
	home := func(w *world, cfg lab.HostConfig) *lab.Node { return w.found(w.net.Host("home", cfg)) }
	pair := func(w *world, home *lab.Node, h *lab.Host) []*lab.Node {
		laptop := w.join(h, w.invite(home))
		w.waitPeers(home, laptop)
		w.pingAll(20, home, laptop)
		return []*lab.Node{laptop, home}
	}
	public := func(cfg lab.HostConfig) func(w *world) *roamer {
		return func(w *world) *roamer {
			home := home(w, lab.HostConfig{})
			h := w.net.Host("laptop", cfg)
			return &roamer{w: w, nodes: pair(w, home, h), change: h.Renumber}
		}
	}
	natted := func(change func(*lab.Site) error, oneWay, out bool) func(w *world) *roamer {
		return func(w *world) *roamer {
			home := home(w, lab.HostConfig{})
			site := w.net.Site("flat", lab.SiteConfig{NAT: lab.Home, V4: true})
			nodes := pair(w, home, site.Host("laptop"))
			if out {
				slices.Reverse(nodes)
			}
			seen := func() string { return w.status(home).Peers[0].Endpoint }
			before := seen()
			return &roamer{
				w: w, nodes: nodes, oneWay: oneWay, change: func() error { return change(site) },
				check: func() {
					if now := seen(); now == before {
						t.Errorf("home still sends to %s: the router has changed nothing", now)
					} else {
						before = now
					}
				},
			}
		}
	}
	tests := []struct {
		name  string
		p95   time.Duration
		place func(*world) *roamer
	}{
		{"another IPv4 address", 1500 * time.Millisecond, public(lab.HostConfig{V4: true})},
		{"another IPv6 address", 1500 * time.Millisecond, public(lab.HostConfig{V6: true})},
		{"the router's address", 3 * time.Second, natted((*lab.Site).Renumber, false, false)},
		{"the router restarts", 3 * time.Second, natted((*lab.Site).Rebind, false, false)},
		{"the router restarts, traffic goes in only", 3 * time.Second, natted((*lab.Site).Rebind, true, false)},
		{"the router restarts, traffic goes out only", 3 * time.Second, natted((*lab.Site).Rebind, true, true)},
		{"a path dies silently", 3 * time.Second, dyingPath(home, pair)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := test.place(newWorld(t))
			var outages []time.Duration
			for range repeats(t) {
				outages = append(outages, r.once())
			}
			holdOutages(t, test.name, outages, test.p95)
		})
	}
}

// dyingPath is a pair with IPv4 and IPv6 between them, of which the one in use is cut.
func dyingPath(home func(*world, lab.HostConfig) *lab.Node, pair func(*world, *lab.Node, *lab.Host) []*lab.Node) func(*world) *roamer {
	return func(w *world) *roamer {
		there := home(w, lab.HostConfig{})
		h := w.net.Host("laptop", lab.HostConfig{})
		nodes := pair(w, there, h)
		time.Sleep(2 * time.Second) // both paths are known
		run := func(args ...string) error {
			out, err := h.Command(w.within(10*time.Second), "nft", args...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("nft: %w: %s", err, out)
			}
			return nil
		}
		return &roamer{
			w: w, nodes: nodes,
			change: func() error {
				used := "ip"
				for _, p := range w.status(nodes[0]).Peers {
					if p.Transport == "udp6" {
						used = "ip6"
					}
				}
				return run("add table " + used + " dead; " +
					"add chain " + used + " dead in { type filter hook input priority 0; }; add rule " + used + " dead in udp dport 51830 drop; " +
					"add chain " + used + " dead out { type filter hook output priority 0; }; add rule " + used + " dead out udp sport 51830 drop")
			},
			restore: func() error { return errors.Join(run("flush ruleset")) },
		}
	}
}

// oneWay sends numbered datagrams across the mesh, 50 a second, of which none is answered.
func (w *world) oneWay(from, to *lab.Node) traffic {
	w.Helper()
	s := &numbered{ended: make(chan struct{})}
	w.must(to.Host.Do(func() (err error) {
		s.in, err = net.ListenUDP("udp6", &net.UDPAddr{IP: w.addr(to).AsSlice()})
		return err
	}))
	w.must(from.Host.Do(func() (err error) {
		s.out, err = net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(s.in.LocalAddr().(*net.UDPAddr).AddrPort()))
		return err
	}))
	s.running.Go(s.send)
	s.running.Go(s.receive)
	w.Cleanup(func() { s.Stop() })
	return s
}

// numbered is traffic in one direction. Its Stats count what has arrived as answered.
type numbered struct {
	in, out *net.UDPConn
	ended   chan struct{}
	once    sync.Once
	running sync.WaitGroup

	mu       sync.Mutex
	sent     []time.Time
	received map[uint32]bool
}

func (s *numbered) send() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		n := len(s.sent)
		s.sent = append(s.sent, time.Now())
		s.mu.Unlock()
		_, _ = s.out.Write(binary.BigEndian.AppendUint32(nil, uint32(n))) // loss is what is measured
	}
}

func (s *numbered) receive() {
	buf := make([]byte, 100)
	for {
		n, err := s.in.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if n != 4 {
			continue
		}
		s.mu.Lock()
		if s.received == nil {
			s.received = map[uint32]bool{}
		}
		s.received[binary.BigEndian.Uint32(buf)] = true
		s.mu.Unlock()
	}
}

// Stats is what has come of them so far.
func (s *numbered) Stats() (stats lab.PingStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sent) == 0 {
		return stats
	}
	last := s.sent[0]
	for i, at := range s.sent {
		if s.received[uint32(i)] {
			stats.Received++
			stats.Outage = max(stats.Outage, at.Sub(last))
			last = at
		}
	}
	stats.Sent = len(s.sent)
	stats.Trailing = s.sent[len(s.sent)-1].Sub(last)
	stats.Outage = max(stats.Outage, stats.Trailing)
	return stats
}

// Stop ends them.
func (s *numbered) Stop() lab.PingStats {
	stats := s.Stats()
	s.once.Do(func() {
		close(s.ended)
		s.in.Close()
		s.running.Wait()
		s.out.Close()
	})
	return stats
}

// TestCarriedLaptop moves a laptop to and fro between two sites: a TCP connection and a login by ssh survive.
func TestCarriedLaptop(t *testing.T) {
	for _, family := range []struct {
		name string
		cfg  lab.SiteConfig
	}{{"IPv4", lab.SiteConfig{NAT: lab.Home, V4: true}}, {"both", lab.SiteConfig{NAT: lab.Home}}} {
		t.Run(family.name, func(t *testing.T) {
			w := newWorld(t)
			home := w.found(w.net.Host("home", lab.HostConfig{}))
			flat, cafe := w.net.Site("flat", family.cfg), w.net.Site("cafe", family.cfg)
			h := flat.Host("laptop")
			laptop := w.join(h, w.invite(home))
			w.waitPeers(home, laptop)
			echo, err := home.Host.Echo(netip.AddrPortFrom(w.addr(home), 7000))
			w.must(err)
			defer echo.Close()
			stream, err := h.Stream(w.within(10*time.Second), echo.Addr())
			w.must(err)
			defer stream.Close()
			login := w.ssh(laptop, home)
			login.works()
			here, there := flat, cafe
			r := &roamer{w: w, nodes: []*lab.Node{laptop, home}}
			r.change = func() error {
				here, there = there, here
				return h.Move(here)
			}
			var outages []time.Duration
			for range repeats(t) {
				outages = append(outages, r.once())
				w.must(stream.Alive(w.within(10 * time.Second)))
				login.works()
			}
			holdOutages(t, "carried, "+family.name, outages, 2*time.Second)
		})
	}
}

// frozenAtOnce is how many nodes are stopped at the same time: each is a repeat.
const frozenAtOnce = 10

// TestFrozen stops nodes for a while, as a laptop's lid or a busy hypervisor does.
func TestFrozen(t *testing.T) {
	pauses := []time.Duration{10 * time.Second}
	if repeats(t) >= 20 {
		pauses = append(pauses, 200*time.Second)
	}
	for _, pause := range pauses {
		t.Run(pause.String(), func(t *testing.T) {
			w := newWorld(t)
			home := w.found(w.net.Host("home", lab.HostConfig{}))
			invite := w.invite(home, "--uses", strconv.Itoa(frozenAtOnce))
			var laptops []*lab.Node
			for i := range min(repeats(t), frozenAtOnce) {
				site := w.net.Site(fmt.Sprintf("flat-%d", i+1), lab.SiteConfig{NAT: lab.Home, V4: true})
				laptops = append(laptops, w.join(site.Host(fmt.Sprintf("laptop-%d", i+1)), invite))
			}
			w.waitPeers(append(laptops, home)...)
			var outages []time.Duration
			for len(outages) < repeats(t) {
				outages = append(outages, w.freeze(home, laptops, pause)...)
			}
			holdOutages(t, "stopped for "+pause.String(), outages, 3*time.Second)
		})
	}
}

// freeze stops nodes that another pings, and returns after which time it reaches each again.
func (w *world) freeze(from *lab.Node, nodes []*lab.Node, pause time.Duration) []time.Duration {
	w.Helper()
	pings, before, back := make([]*lab.Pinger, len(nodes)), make([]int, len(nodes)), make([]time.Duration, len(nodes))
	for i, n := range nodes {
		var err error
		pings[i], err = from.Host.Pinger(w.addr(n), lab.PingOptions{Linger: 100 * time.Millisecond})
		w.must(err)
	}
	began := time.Now()
	run := func() error { // until each is reached, noting when
		waiting := 0
		for i, p := range pings {
			if s := p.Stats(); back[i] == 0 && s.Sent >= before[i]+10 && s.Trailing <= 200*time.Millisecond {
				back[i] = time.Since(began)
			}
			if back[i] == 0 {
				waiting++
			}
		}
		if waiting > 0 {
			return fmt.Errorf("%d of %d are not reached", waiting, len(nodes))
		}
		return nil
	}
	w.eventually(10*time.Second, "pings run", run)
	w.all(nodes, func(n *lab.Node) error { return n.Signal(syscall.SIGSTOP) })
	time.Sleep(pause)
	for i, p := range pings {
		before[i], back[i] = p.Stats().Sent, 0
	}
	began = time.Now()
	w.all(nodes, func(n *lab.Node) error { return n.Signal(syscall.SIGCONT) })
	w.eventually(30*time.Second, "pings run again", run)
	for _, p := range pings {
		p.Stop()
	}
	return back
}
