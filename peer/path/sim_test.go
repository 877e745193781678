package path

import (
	"container/heap"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"meshd/peer/inner"
)

func begin() time.Time { return time.Unix(1_800_000_000, 0) }

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// source is a random source that gives the same bytes in every run.
type source struct{ *rand.Rand }

func newSource(seed uint64) io.Reader { return source{rand.New(rand.NewPCG(seed, 1))} }

func (s source) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.Uint32())
	}
	return len(b), nil
}

// world is two hosts, each with a Table for the other, under simulated time. One
// sends data each 20 ms when it has a path, the other echoes it.
type world struct {
	t     testing.TB
	now   time.Time
	queue events
	seq   int
	rng   *rand.Rand
	a, b  *host

	// way says what becomes of a packet between two addresses.
	way func(from, to netip.AddrPort, size int) (delay time.Duration, ok bool)

	sending  bool
	oneWay   bool      // no echoes
	answered time.Time // when an echo last came
	arrived  time.Time // when data last came to b
	outage   time.Duration
	probes   map[netip.AddrPort][]time.Time // at each address
	turns    int                            // of either table
}

type host struct {
	name   string
	w      *world
	table  *Table
	addrs  []netip.AddrPort // its own, now
	remote *host
	wake   int                          // the sequence number of its timer
	pongs  map[netip.AddrPort]time.Time // when an address last answered
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newWorld(t testing.TB, aAddrs, bAddrs []string) *world {
	w := &world{t: t, now: begin(), rng: rand.New(rand.NewPCG(7, 7)), probes: map[netip.AddrPort][]time.Time{}}
	w.way = func(netip.AddrPort, netip.AddrPort, int) (time.Duration, bool) { return 10 * time.Millisecond, true }
	newHost := func(name string, seed uint64, addrs []string) *host {
		h := &host{name: name, w: w, table: New(Config{Rand: newSource(seed)}), pongs: map[netip.AddrPort]time.Time{}}
		for _, s := range addrs {
			h.addrs = append(h.addrs, addr(s))
		}
		return h
	}
	w.a, w.b = newHost("a", 1, aAddrs), newHost("b", 2, bAddrs)
	w.a.remote, w.b.remote = w.b, w.a
	return w
}

// introduce lets each know the other's addresses.
func (w *world) introduce() {
	w.a.act(func() { w.a.table.SetCandidates(w.b.addrs, w.now); w.a.table.Want(true, w.now) })
	w.b.act(func() { w.b.table.SetCandidates(w.a.addrs, w.now); w.b.table.Want(true, w.now) })
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now.Add(d), w.seq, do})
}

func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

// act does something to a host's table and then what the table asks for.
func (h *host) act(do func()) {
	w := h.w
	w.turns++
	do()
	pings, wake := h.table.Tick(w.now)
	for _, p := range pings {
		size := 85
		if p.Size != 0 {
			size = p.Size
		}
		w.probes[p.Addr] = append(w.probes[p.Addr], w.now)
		txid := p.Transaction
		h.send(p.Addr, size, func(r *host, from, to netip.AddrPort) {
			r.act(func() { r.table.Learn(from, w.now) })
			r.sendFrom(to, from, 85, func(o *host, from, _ netip.AddrPort) {
				o.pongs[from] = w.now
				o.act(func() { o.table.Pong(from, txid, 0, w.now) })
			})
		})
	}
	if !wake.IsZero() && !wake.After(w.now) {
		w.t.Fatalf("%s is to be woken in the past", h.name)
	}
	w.seq++
	h.wake = w.seq
	if !wake.IsZero() {
		mine := h.wake
		w.after(wake.Sub(w.now), func() {
			if h.wake == mine {
				h.act(func() {})
			}
		})
	}
}

// send transmits from the host's first address of the family.
func (h *host) send(to netip.AddrPort, size int, receive func(r *host, from, to netip.AddrPort)) {
	for _, from := range h.addrs {
		if is6(from) == is6(to) {
			h.sendFrom(from, to, size, receive)
			return
		}
	}
}

func (h *host) sendFrom(from, to netip.AddrPort, size int, receive func(r *host, from, to netip.AddrPort)) {
	w := h.w
	delay, ok := w.way(from, to, inner.IPPacket(size, is6(to)))
	if !ok {
		return
	}
	w.after(delay, func() {
		for _, own := range h.remote.addrs {
			if own == to {
				receive(h.remote, from, to)
				return
			}
		}
	})
}

// traffic starts the data.
func (w *world) traffic(size int) {
	w.sending, w.answered, w.arrived = true, w.now, w.now
	var tick func()
	tick = func() {
		if !w.sending {
			return
		}
		w.data(w.a, size, func() {
			gap := w.now.Sub(w.arrived)
			w.arrived = w.now
			if w.oneWay {
				w.outage = max(w.outage, gap)
				return
			}
			w.data(w.b, size, func() {
				w.outage = max(w.outage, w.now.Sub(w.answered))
				w.answered = w.now
			})
		})
		w.after(20*time.Millisecond, tick)
	}
	tick()
}

// data sends one data packet to the host's best address, as large as its path allows.
func (w *world) data(h *host, size int, arrived func()) {
	h.act(func() { h.table.Want(true, w.now) })
	to, ok := h.table.Best()
	if !ok {
		return
	}
	if at, ok := h.pongs[to]; !ok || w.now.Sub(at) > freshness {
		w.t.Fatalf("%s sends data to %v, which last answered at %v", h.name, to, at)
	}
	h.act(func() { h.table.Sent(w.now); h.table.Used(w.now) })
	h.send(to, min(size, inner.UDPPayload(h.table.MTU(), is6(to))), func(r *host, from, _ netip.AddrPort) {
		r.act(func() { r.table.Heard(from, w.now); r.table.Used(w.now) })
		arrived()
	})
}

// settle runs until the path is measured, with traffic, and forgets the outage of the start.
func (w *world) settle() {
	w.introduce()
	w.run(time.Second)
	w.traffic(1400)
	w.run(10 * time.Second)
	w.outage = 0
}

// best fails unless a host's best path is one of those.
func (w *world) best(h *host, want ...string) {
	w.t.Helper()
	got, ok := h.table.Best()
	for _, s := range want {
		if ok && got == addr(s) {
			return
		}
	}
	w.t.Errorf("%s sends to %v (%v), want %v", h.name, got, ok, want)
}

// perMinute is the most probes that an address got in any minute.
func (w *world) perMinute(to netip.AddrPort) (most int) {
	times := w.probes[to]
	for i := range times {
		n := 0
		for _, at := range times[i:] {
			if at.Sub(times[i]) < time.Minute {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}
