//go:build linux

package lab

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

func TestShaper(t *testing.T) {
	const frames, gap = 20000, 100 * time.Microsecond
	tests := []struct {
		name  string
		link  Link
		check func(t *testing.T, r shaped)
	}{
		{"nothing", Link{Adjustable: true}, func(t *testing.T, r shaped) {
			r.between(t, "arrived", float64(r.arrived), frames, frames)
			r.between(t, "delay", float64(r.maxDelay), 0, 0)
		}},
		{"delay", Link{Delay: 7 * time.Millisecond}, func(t *testing.T, r shaped) {
			r.between(t, "least delay", r.minDelay.Seconds(), 0.007, 0.007)
			r.between(t, "most delay", r.maxDelay.Seconds(), 0.007, 0.007)
		}},
		{"jitter", Link{Delay: 5 * time.Millisecond, Jitter: 4 * time.Millisecond}, func(t *testing.T, r shaped) {
			r.between(t, "least delay", r.minDelay.Seconds(), 0.005, 0.007) // in order: a frame waits for those before it
			r.between(t, "most delay", r.maxDelay.Seconds(), 0.0085, 0.009)
			r.between(t, "overtaken", float64(r.overtaken), 0, 0)
		}},
		{"loss", Link{Loss: 0.1}, func(t *testing.T, r shaped) {
			r.between(t, "arrived", float64(r.arrived), 0.88*frames, 0.92*frames)
		}},
		{"all lost", Link{Loss: 1}, func(t *testing.T, r shaped) {
			r.between(t, "arrived", float64(r.arrived), 0, 0)
		}},
		{"duplicate", Link{Duplicate: 0.1}, func(t *testing.T, r shaped) {
			r.between(t, "arrived", float64(r.arrived), 1.08*frames, 1.12*frames)
		}},
		{"reorder", Link{Delay: 5 * time.Millisecond, Reorder: 0.01}, func(t *testing.T, r shaped) {
			r.between(t, "overtaken", float64(r.overtaken), 100, 20000)
		}},
		{"rate above the load", Link{Rate: 100e6}, func(t *testing.T, r shaped) { // 1250 bytes each 100 us are 100 Mbit/s
			r.between(t, "arrived", float64(r.arrived), frames, frames)
			r.between(t, "delay", r.maxDelay.Seconds(), 0.0001, 0.0001)
		}},
		{"rate below the load", Link{Rate: 50e6, Queue: 20 * time.Millisecond}, func(t *testing.T, r shaped) {
			r.between(t, "arrived", float64(r.arrived), 0.5*frames, 0.51*frames)
			r.between(t, "delay", r.maxDelay.Seconds(), 0.0199, 0.0203)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.check(t, shape(test.link, frames, gap)) })
	}
}

// shaped is what became of a steady stream of frames.
type shaped struct {
	arrived, overtaken int
	minDelay, maxDelay time.Duration
}

func (shaped) between(t *testing.T, what string, got, low, high float64) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: %v is not between %v and %v", what, got, low, high)
	}
}

func shape(link Link, frames int, gap time.Duration) shaped {
	s, now := newShaper(link, 1), time.Unix(0, 0)
	r := shaped{minDelay: time.Hour}
	var last time.Time
	for range frames {
		due, copies := s.admit(now, 1250)
		r.arrived += copies
		if copies > 0 {
			r.minDelay, r.maxDelay = min(r.minDelay, due.Sub(now)), max(r.maxDelay, due.Sub(now))
			if due.Before(last) {
				r.overtaken++
			}
			last = due
		}
		now = now.Add(gap)
	}
	return r
}

func TestLinkCheck(t *testing.T) {
	for name, link := range map[string]Link{
		"loss above 1":   {Loss: 1.1},
		"loss below 0":   {Loss: -0.1},
		"negative delay": {Delay: -1},
		"negative rate":  {Rate: -1},
		"tiny MTU":       {MTU: 100},
		"huge MTU":       {MTU: 70000},
	} {
		if link.check() == nil {
			t.Errorf("%s passes", name)
		}
	}
	if err := (Link{}).check(); err != nil {
		t.Errorf("the zero Link: %v", err)
	}
}

func TestLinkDelay(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n := l.Internet("isp")
	a := n.Host("a", HostConfig{Link: Link{Delay: 10 * time.Millisecond}})
	b := n.Site("site", SiteConfig{NAT: Home, Link: Link{Delay: 5 * time.Millisecond}}).Host("b")
	for _, to := range []netip.Addr{a.Addr4(), a.Addr6()} {
		// The delay is never shorter. A busy machine makes it longer, so that the best of some rounds counts.
		for best := time.Hour; best > 34*time.Millisecond; {
			s, err := b.Ping(ctx, to, 20, PingOptions{Interval: 5 * time.Millisecond})
			if err != nil {
				t.Fatalf("the shortest round trip in time takes %v: %v", best, err)
			}
			t.Log(to, s)
			if s.Lost() > 0 || s.MinRTT < 30*time.Millisecond {
				t.Fatalf("to %v: %v; want 30 ms and none lost", to, s)
			}
			best = min(best, s.MinRTT)
		}
	}
}

func TestLinkLoss(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	a, b := n.Host("a", HostConfig{Link: Link{Adjustable: true}}), n.Host("b", HostConfig{})
	ping := func(count int) PingStats {
		t.Helper()
		s, err := b.Ping(t.Context(), a.Addr4(), count, PingOptions{Interval: time.Millisecond, Linger: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(s)
		return s
	}
	if s := ping(100); s.Lost() > 0 {
		t.Errorf("without loss: %v", s)
	}
	if err := a.SetLink(Link{Loss: 0.1}); err != nil {
		t.Fatal(err)
	}
	if s := ping(500); s.Lost() < 50 || s.Lost() > 150 { // 19 % is 95
		t.Errorf("with a loss of 10 %% each way: %v", s)
	}
	if err := a.SetLink(Link{Loss: 1}); err != nil {
		t.Fatal(err)
	}
	if s := ping(10); s.Received > 0 {
		t.Errorf("through a link that loses all: %v", s)
	}
	if err := b.SetLink(Link{Loss: 1}); err == nil {
		t.Error("a link without a relay was changed")
	}
}

// TestLinkRate sends more than the link carries and looks at what arrives.
func TestLinkRate(t *testing.T) {
	const rate = 20e6
	l := newLab(t)
	n := l.Internet("isp")
	src := listen(t, n.Host("a", HostConfig{Link: Link{Rate: rate, Queue: 10 * time.Millisecond}}), 1000)
	dst := listen(t, n.Host("b", HostConfig{}), 1000)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		payload := make([]byte, 1200)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			for range 5 { // 48 Mbit/s
				_, _ = src.conn.WriteToUDPAddrPort(payload, dst.addr)
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	const frames = 1500
	dst.expectAny(t)
	start := time.Now()
	for range frames {
		dst.expectAny(t)
	}
	took := time.Since(start)
	close(stop)
	<-done
	got := frames * (1200 + 42) * 8 / took.Seconds()
	t.Logf("%.1f Mbit/s", got/1e6)
	if got < 0.85*rate || got > 1.1*rate {
		t.Errorf("%.1f Mbit/s through a link of %.1f", got/1e6, rate/1e6)
	}
}

func (e *endpoint) expectAny(t *testing.T) {
	t.Helper()
	if _, _, err := e.receive(5 * time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestLinkMTU(t *testing.T) {
	for _, blackhole := range []bool{false, true} {
		for _, made := range []int{1300, 0} { // with that MTU, or given it later
			testLinkMTU(t, blackhole, made)
		}
	}
}

func testLinkMTU(t *testing.T, blackhole bool, made int) {
	t.Helper()
	l := newLab(t)
	n := l.Internet("isp")
	a := n.Host("a", HostConfig{Link: Link{MTU: made}})
	b := n.Site("site", SiteConfig{NAT: Home}).Host("b")
	if blackhole {
		if err := n.DropTooBig(); err != nil {
			t.Fatal(err)
		}
	}
	ping := func(size string) error {
		return b.Command(t.Context(), "ping", "-c2", "-i0.1", "-W1", "-Mdo", "-s", size, a.Addr4().String()).Run()
	}
	if made == 0 {
		if err := ping("1472"); err != nil {
			t.Errorf("a packet of 1500 bytes: %v", err)
		}
		if err := n.SetMTU(a, 1300); err != nil {
			t.Fatal(err)
		}
	}
	if err := ping("1272"); err != nil {
		t.Errorf("a packet of the MTU: %v", err)
	}
	if err := ping("1273"); err == nil {
		t.Error("a packet larger than the MTU passes")
	}
	// What the sender has learned: nothing, when the messages are dropped.
	out, err := b.Command(t.Context(), "ip", "route", "get", a.Addr4().String()).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	if learned := string(out); blackhole == containsMTU(learned) {
		t.Errorf("blackhole %v: %s", blackhole, learned)
	}
}
