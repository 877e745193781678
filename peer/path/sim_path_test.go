package path

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

const (
	a1, a2, a6 = "192.0.2.1:1", "192.0.2.2:1", "[2001:db8:a::1]:1"
	b1, b2, b6 = "198.51.100.1:1", "198.51.100.2:1", "[2001:db8:b::1]:1"
)

func list(s ...string) []string { return s }

func TestFirstPathTakesOneRoundTrip(t *testing.T) {
	w := newWorld(t, list(a1), list(b1))
	w.introduce()
	w.run(19 * time.Millisecond)
	if w.a.table.Confirmed() {
		t.Error("confirmed before a pong")
	}
	w.run(time.Millisecond)
	w.best(w.a, b1)
	w.best(w.b, a1)
}

func TestSteadyTraffic(t *testing.T) {
	w := newWorld(t, list(a1, a6), list(b1, b6))
	w.settle()
	clear(w.probes)
	w.run(time.Minute)
	if w.outage > 21*time.Millisecond {
		t.Errorf("outage %v", w.outage)
	}
	// On the active path a full one each 2 s, on the other a small one each 15 s.
	if n := len(w.probes[addr(b1)]) + len(w.probes[addr(b6)]); n < 30 || n > 36 {
		t.Errorf("%d probes in a minute of traffic", n)
	}
	if got := w.a.table.MTU(); got != 1500 {
		t.Errorf("MTU %d", got)
	}
}

// The remote, or we, move to another address under traffic.
func TestAddressChange(t *testing.T) {
	for _, tt := range []struct {
		name    string
		mover   func(w *world) *host
		to      string
		tell    bool // the mover notices
		oneWay  bool
		atMost  time.Duration
		newBest string
	}{
		{"the sender moves and notices", func(w *world) *host { return w.a }, a2, true, false, 500 * time.Millisecond, a2},
		{"the sender moves and does not notice", func(w *world) *host { return w.a }, a2, false, false, 500 * time.Millisecond, a2},
		{"the echo moves and notices", func(w *world) *host { return w.b }, b2, true, false, time.Second, b2},
		{"the echo moves and does not notice", func(w *world) *host { return w.b }, b2, false, false, 4 * time.Second, b2},
		{"the receiver moves and notices", func(w *world) *host { return w.b }, b2, true, true, 2 * time.Second, b2},
		{"the receiver moves and does not notice", func(w *world) *host { return w.b }, b2, false, true, 4 * time.Second, b2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, list(a1), list(b1))
			w.oneWay = tt.oneWay
			w.settle()
			mover := tt.mover(w)
			mover.addrs = []netip.AddrPort{addr(tt.to)}
			if tt.tell {
				mover.act(func() { mover.table.LocalChange(w.now) })
			}
			w.run(20 * time.Second)
			if w.outage > tt.atMost || w.outage < 20*time.Millisecond {
				t.Errorf("outage %v, want at most %v", w.outage, tt.atMost)
			}
			w.best(mover.remote, tt.newBest)
			w.outage = 0
			w.run(time.Minute)
			if w.outage > 25*time.Millisecond {
				t.Errorf("later outage %v", w.outage)
			}
		})
	}
}

func TestSilentDeathWithAnother(t *testing.T) {
	for _, oneWay := range []bool{false, true} {
		w := newWorld(t, list(a1, a6), list(b1, b6))
		w.oneWay = oneWay
		dead := netip.AddrPort{}
		slow6 := func(_, to netip.AddrPort, _ int) (time.Duration, bool) {
			if is6(to) {
				return 30 * time.Millisecond, to != dead
			}
			return 10 * time.Millisecond, to != dead
		}
		w.way = slow6
		w.settle()
		w.best(w.a, b1)
		dead = addr(b1)
		w.run(5 * time.Second)
		if w.outage > 3*time.Second {
			t.Errorf("one way %v: outage %v", oneWay, w.outage)
		}
		w.best(w.a, b6)
		// It comes back, and is preferred again.
		dead, w.outage = netip.AddrPort{}, 0
		w.run(30 * time.Second)
		w.best(w.a, b1)
		if w.outage > 100*time.Millisecond {
			t.Errorf("one way %v: outage on the way back %v", oneWay, w.outage)
		}
	}
}

// Only our direction dies: data still comes from the remote. At any moment
// between two probes.
func TestDeafPathIsLeft(t *testing.T) {
	for phase := range 5 {
		w := newWorld(t, list(a1, a6), list(b1, b6))
		deaf := false
		w.way = func(_, to netip.AddrPort, _ int) (time.Duration, bool) {
			if is6(to) {
				return 30 * time.Millisecond, true
			}
			return 10 * time.Millisecond, !deaf || to != addr(b1)
		}
		w.oneWay = true
		w.settle()
		// b sends on its own, so that a keeps hearing over the dead path.
		var chatter func()
		chatter = func() {
			w.data(w.b, 100, func() {})
			w.after(20*time.Millisecond, chatter)
		}
		chatter()
		w.run(10*time.Second + time.Duration(phase)*3100*time.Millisecond)
		w.best(w.a, b1)
		deaf = true
		w.run(6 * time.Second)
		w.best(w.a, b6)
		if w.outage > 5*time.Second {
			t.Errorf("phase %d: outage %v", phase, w.outage)
		}
	}
}

func TestDeathAloneAndReturn(t *testing.T) {
	for _, away := range []time.Duration{time.Second, 5 * time.Second, 50 * time.Second} {
		w := newWorld(t, list(a1), list(b1))
		cut := false
		w.way = func(netip.AddrPort, netip.AddrPort, int) (time.Duration, bool) { return 10 * time.Millisecond, !cut }
		w.settle()
		cut = true
		w.run(away)
		if away > hopeless+time.Second && w.a.table.Confirmed() {
			t.Errorf("still sends after %v", away)
		}
		cut, w.outage = false, 0
		w.run(5 * time.Second)
		if over := w.outage - away; over > 1200*time.Millisecond || !w.a.table.Confirmed() {
			t.Errorf("away for %v: back after another %v", away, over)
		}
	}
}

func TestLossyPathStays(t *testing.T) {
	w := newWorld(t, list(a1), list(b1))
	w.way = func(netip.AddrPort, netip.AddrPort, int) (time.Duration, bool) {
		return 40*time.Millisecond + time.Duration(w.rng.IntN(20))*time.Millisecond, w.rng.IntN(10) != 0
	}
	w.settle()
	w.run(5 * time.Minute)
	if w.outage > 500*time.Millisecond {
		t.Errorf("outage %v at 10 %% loss", w.outage)
	}
	for _, s := range w.a.table.Snapshot() {
		if s.Active && (s.Loss == 0 || s.RTT < 80*time.Millisecond || s.RTT > 120*time.Millisecond) {
			t.Errorf("state %+v", s)
		}
	}
}

func TestLongRoundTrip(t *testing.T) {
	w := newWorld(t, list(a1), list(b1))
	w.way = func(netip.AddrPort, netip.AddrPort, int) (time.Duration, bool) { return 350 * time.Millisecond, true }
	w.settle()
	w.run(time.Minute)
	if w.outage > 21*time.Millisecond {
		t.Errorf("outage %v over a satellite", w.outage)
	}
}

// Of two paths the better is taken, and jitter does not make it flap.
func TestHysteresis(t *testing.T) {
	for _, tt := range []struct {
		name       string
		v4, v6     time.Duration
		want       string
		mayBe      string
		maxChanges int
	}{
		{"clearly better", 30 * time.Millisecond, 10 * time.Millisecond, b6, b6, 2},
		{"the same", 10 * time.Millisecond, 10 * time.Millisecond, b1, b6, 0},
		{"better by less than 20 %", 40 * time.Millisecond, 34 * time.Millisecond, b1, b6, 0},
		{"better by less than 3 ms", 2 * time.Millisecond, 1 * time.Millisecond, b1, b6, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, list(a1, a6), list(b1, b6))
			w.way = func(_, to netip.AddrPort, _ int) (time.Duration, bool) {
				d := tt.v4
				if is6(to) {
					d = tt.v6
				}
				return d + time.Duration(w.rng.Int64N(int64(d/10))), true
			}
			w.settle()
			before, _ := w.a.table.Best()
			changes := 0
			for range 3000 {
				w.run(100 * time.Millisecond)
				if after, _ := w.a.table.Best(); after != before {
					before, changes = after, changes+1
				}
			}
			w.best(w.a, tt.want, tt.mayBe)
			if changes > tt.maxChanges {
				t.Errorf("%d changes in five minutes", changes)
			}
			if w.outage > 80*time.Millisecond {
				t.Errorf("outage %v", w.outage)
			}
		})
	}
}

func TestUnansweringAddressesAreSpared(t *testing.T) {
	victim := addr("203.0.113.9:9")
	for _, tt := range []struct {
		name string
		stir func(w *world)
	}{
		{"named once", func(*world) {}},
		{"record comes and goes", func(w *world) {
			w.a.act(func() { w.a.table.SetCandidates(w.b.addrs, w.now) })
			w.after(time.Millisecond, func() {
				w.a.act(func() { w.a.table.SetCandidates(append([]netip.AddrPort{victim}, w.b.addrs...), w.now) })
			})
		}},
		{"authentic pings replayed from there", func(w *world) { w.a.act(func() { w.a.table.Learn(victim, w.now) }) }},
		{"data relayed from there", func(w *world) { w.a.act(func() { w.a.table.Heard(victim, w.now) }) }},
		{"wanted on and off", func(w *world) {
			w.a.act(func() { w.a.table.Want(false, w.now) })
			w.a.act(func() { w.a.table.Want(true, w.now) })
		}},
		{"our addresses change all the time", func(w *world) { w.a.act(func() { w.a.table.LocalChange(w.now) }) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, list(a1), list(b1))
			w.introduce()
			w.traffic(1000)
			w.a.act(func() { w.a.table.SetCandidates(append([]netip.AddrPort{victim}, w.b.addrs...), w.now) })
			for range 600 {
				tt.stir(w)
				w.run(500 * time.Millisecond)
			}
			if n := w.perMinute(victim); n > 5 || n == 0 {
				t.Errorf("%d probes in a minute", n)
			}
			if w.outage > 100*time.Millisecond {
				t.Errorf("the honest path suffers: outage %v", w.outage)
			}
			w.best(w.a, b1)
		})
	}
}

// A middlebox relays the remote's packets from its own address for a while, so
// that everything authentic comes from there: we may go there when it answers,
// and are back soon after it stops.
func TestRedirectionDoesNotStick(t *testing.T) {
	w := newWorld(t, list(a1), list(b1))
	w.settle()
	box := addr("203.0.113.9:9")
	w.b.addrs = []netip.AddrPort{box}
	w.run(30 * time.Second)
	w.best(w.a, box.String())
	w.b.addrs = []netip.AddrPort{addr(b1)}
	w.outage = 0
	w.run(20 * time.Second)
	w.best(w.a, b1)
	if w.outage > 7*time.Second {
		t.Errorf("outage %v", w.outage)
	}
}

func TestPathMTU(t *testing.T) {
	limit := 1500
	w := newWorld(t, list(a1), list(b1))
	w.way = func(_, _ netip.AddrPort, size int) (time.Duration, bool) { return 10 * time.Millisecond, size <= limit }
	check := func(want int, within time.Duration) {
		t.Helper()
		w.outage = 0
		for range int(within / (100 * time.Millisecond)) {
			if w.run(100 * time.Millisecond); w.a.table.MTU() == want {
				return
			}
		}
		t.Errorf("limit %d: MTU %d, want %d within %v", limit, w.a.table.MTU(), want, within)
	}
	w.introduce()
	w.run(time.Second)
	w.traffic(1472)
	check(1500, time.Second)
	limit = 1450 // a black hole for full packets
	check(1280, 3*time.Second)
	check(1420, 5*time.Second)
	w.outage = 0
	w.run(5 * time.Second)
	if w.outage > 50*time.Millisecond {
		t.Errorf("outage %v", w.outage)
	}
	w.best(w.a, b1)
	limit = 1300
	check(1280, 3*time.Second)
	limit = 1500
	check(1500, mtuAgain+mtuRaise+time.Minute)
	limit = 1492
	w.a.act(func() { w.a.table.LocalChange(w.now) })
	check(1280, 200*time.Millisecond)
	check(1492, 5*time.Second)
}

func TestIdleIsSilent(t *testing.T) {
	w := newWorld(t, list(a1, a6), list(b1, b6))
	w.settle()
	w.sending = false
	w.run(100 * time.Millisecond) // what is under way
	stop := func() {
		w.a.act(func() { w.a.table.Want(false, w.now) })
		w.b.act(func() { w.b.table.Want(false, w.now) })
	}
	stop()
	w.run(time.Second)
	clear(w.probes)
	w.run(10 * time.Minute)
	if len(w.probes) != 0 {
		t.Errorf("probes while idle: %d addresses", len(w.probes))
	}
	// Wanted again: nothing is sent before a fresh pong.
	w.a.act(func() { w.a.table.Want(true, w.now) })
	if w.a.table.Confirmed() {
		t.Error("an old verdict is still good")
	}
	w.run(20 * time.Millisecond)
	w.best(w.a, b1, b6)
}

// Wanted and quiet: a ping now and then, and the path stays good.
func TestQuietPathStaysFresh(t *testing.T) {
	w := newWorld(t, list(a1), list(b1))
	w.introduce()
	w.run(time.Minute)
	clear(w.probes)
	w.run(10 * time.Minute)
	if n := len(w.probes[addr(b1)]); n < 20 || n > 32 {
		t.Errorf("%d probes in ten quiet minutes", n)
	}
	w.best(w.a, b1)
}

// Whatever happens: nothing goes where nothing answers but a few probes, and
// when the network is sound again, traffic flows within seconds.
func TestChaos(t *testing.T) {
	for seed := range uint64(4) {
		w := newWorld(t, list(a1, a6), list(b1, b6))
		w.rng = rand.New(rand.NewPCG(seed, 9))
		loss, cut4, cut6 := 0, false, false
		w.way = func(_, to netip.AddrPort, size int) (time.Duration, bool) {
			if is6(to) && cut6 || !is6(to) && cut4 || w.rng.IntN(100) < loss || size > 1500 {
				return 0, false
			}
			return time.Duration(5+w.rng.IntN(50)) * time.Millisecond, true
		}
		w.introduce()
		w.traffic(1400)
		for round := range 150 {
			h := w.a
			if w.rng.IntN(2) == 0 {
				h = w.b
			}
			junk := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(w.rng.IntN(100))}), 9)
			h.act(func() {
				switch w.rng.IntN(9) {
				case 0:
					loss = w.rng.IntN(60)
				case 1:
					cut4 = !cut4
				case 2:
					cut6 = !cut6
				case 3:
					h.addrs = []netip.AddrPort{netip.AddrPortFrom(h.addrs[0].Addr(), uint16(round+2)), h.addrs[1]}
				case 4:
					h.table.LocalChange(w.now)
				case 5:
					h.table.Learn(junk, w.now)
				case 6:
					h.table.Heard(junk, w.now)
				case 7:
					h.table.SetCandidates(append([]netip.AddrPort{junk}, h.remote.addrs...), w.now)
				case 8:
					h.table.Want(w.rng.IntN(2) == 0, w.now)
				}
			})
			w.run(time.Duration(w.rng.IntN(4000)) * time.Millisecond)
		}
		loss, cut4, cut6 = 0, false, false
		w.introduce()
		w.run(40 * time.Second)
		w.outage, w.answered = 0, w.now
		w.run(10 * time.Second)
		if w.outage > 200*time.Millisecond || w.outage == 0 {
			t.Errorf("seed %d: outage %v on a sound network", seed, w.outage)
		}
		for to := range w.probes {
			if to.Port() == 9 && to.Addr().Is4() && to.Addr().As4()[0] == 203 && w.perMinute(to) > 10 { // two hosts, five each
				t.Errorf("seed %d: %d probes to %v in a minute", seed, w.perMinute(to), to)
			}
		}
		if n := max(len(w.a.table.candidates), len(w.b.table.candidates)); n > maxTracked {
			t.Errorf("seed %d: %d addresses tracked", seed, n)
		}
	}
}

// A table that has nothing to do is not called often.
func TestTurnsAreFew(t *testing.T) {
	w := newWorld(t, list(a1, a6), list(b1, b6))
	w.introduce()
	w.run(time.Minute)
	w.turns = 0
	w.run(10 * time.Minute)
	// Each ping: when due, the ping at the other, the pong, and when it would be overdue.
	if pings := 2 * (10*3 + 10*4); w.turns > 4*pings+20 {
		t.Errorf("%d turns in ten quiet minutes", w.turns)
	}
}

// Many paths share something that is slow for a while, such as a processor: that they are in
// doubt, all at once, must not be what keeps it slow.
func TestOverloadEnds(t *testing.T) {
	for _, capacity := range []int{800, 1500, 3000} { // packets a second, of which 60 are needed at rest
		overload(t, capacity)
	}
}

func overload(t *testing.T, capacity int) {
	const (
		pairs = 300
		queue = 3 * time.Second // what is to wait longer is lost
	)
	free, packets, lost := begin(), 0, 0
	var worlds []*world
	for i := range pairs {
		w := newWorld(t, list(a1), list(b1))
		w.way = func(netip.AddrPort, netip.AddrPort, int) (time.Duration, bool) {
			if free.Sub(w.now) > queue {
				lost++
				return 0, false
			}
			packets++
			free = later(free, w.now).Add(time.Second / time.Duration(capacity))
			return free.Sub(w.now) + 10*time.Millisecond, true
		}
		w.after(time.Duration(i)*50*time.Millisecond, w.introduce)
		worlds = append(worlds, w)
	}
	run := func(what string, d time.Duration) (up int) {
		packets, lost = 0, 0
		for range d / (10 * time.Millisecond) {
			for _, w := range worlds {
				w.run(10 * time.Millisecond)
			}
		}
		for _, w := range worlds {
			if w.a.table.Confirmed() && w.b.table.Confirmed() {
				up++
			}
		}
		t.Logf("%d/s, %s of %v: %d packets, %d lost, %d paths", capacity, what, d, packets, lost, up)
		return up
	}
	run("the start", time.Minute)
	run("rest", time.Minute)
	free = worlds[0].now.Add(15 * time.Second) // nothing comes through
	run("a jam", 15*time.Second)
	run("its end", time.Minute)
	run("its end", time.Minute)
	if up := run("rest", time.Minute); up < pairs || packets > 60*100 || lost > 0 {
		t.Errorf("%d/s, three minutes after a jam: %d paths, %d packets in a minute, %d lost", capacity, up, packets, lost)
	}
}
