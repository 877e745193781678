package lanport

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// world is members on LANs that are joined and split, in simulated time.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	now     time.Time
	loss    float64
	ports   []*port
	queue   []delivery
	changed map[int]time.Time // LAN: when it last came to be as it is
}

type port struct {
	*Machine
	lan    int // -1: the cable is pulled
	dead   bool
	next   time.Time
	latest *Statement
}

type delivery struct {
	at      time.Time
	to      int
	lan     int // -1: over the overlay
	message Statement
}

func idOf(n int) (id ID) {
	binary.BigEndian.PutUint32(id[:], uint32(n+1))
	return id
}

func newWorld(t *testing.T, seed uint64, members int, loss float64) *world {
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), loss: loss, changed: map[int]time.Time{}}
	for i := range members {
		w.ports = append(w.ports, &port{Machine: w.machine(i, 1), lan: -1, next: w.now})
	}
	return w
}

func (w *world) machine(i int, epoch uint32) *Machine {
	m := New(Config{Self: idOf(i), Epoch: epoch, NewSegment: func() (s Segment) {
		binary.BigEndian.PutUint64(s[:], w.rnd.Uint64()|1)
		return s
	}})
	m.SetFit(w.now, true)
	return m
}

// plug moves a member to a LAN, or to none.
func (w *world) plug(i, lan int) {
	p := w.ports[i]
	w.changed[p.lan], w.changed[lan] = w.now, w.now
	same := p.lan >= 0 && lan >= 0 // somewhere a switch was joined or split: no link event here
	p.lan = lan
	if !same {
		p.Link(w.now, lan >= 0)
	}
	p.next = w.now
}

// kill ends a member without a word; revive starts it anew.
func (w *world) kill(i int) { w.ports[i].dead = true; w.changed[w.ports[i].lan] = w.now }

func (w *world) revive(i int) {
	p := w.ports[i]
	p.dead, p.Machine, p.next = false, w.machine(i, uint32(w.now.Unix())), w.now
	p.Link(w.now, p.lan >= 0)
	w.changed[p.lan] = w.now
}

// run lets time pass, in steps of 5 ms, and calls each after every step.
func (w *world) run(d time.Duration, each func()) {
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(5 * time.Millisecond) {
		due := w.queue
		w.queue = nil
		for _, q := range due {
			if q.at.After(w.now) {
				w.queue = append(w.queue, q)
				continue
			}
			p := w.ports[q.to]
			switch {
			case p.dead:
			case q.lan < 0:
				p.Told(w.now, q.message)
			case p.lan == q.lan:
				p.Hear(w.now, q.message)
				p.next = w.now
			}
		}
		for i, p := range w.ports {
			if p.dead || w.now.Before(p.next) {
				continue
			}
			say, next := p.Poll(w.now)
			p.next = next
			if say != nil {
				w.spread(i, say)
			}
		}
		each()
	}
}

func (w *world) spread(from int, s *Statement) {
	parsed, rest, err := Parse(s.Append(nil))
	if err != nil || len(rest) > 0 || !parsed.Same(s) {
		w.t.Fatalf("%+v comes back as %+v, %v", s, parsed, err)
	}
	news := w.ports[from].latest == nil || !w.ports[from].latest.Same(s)
	w.ports[from].latest = s
	for to, p := range w.ports {
		if to == from {
			continue
		}
		if lan := w.ports[from].lan; lan >= 0 && p.lan == lan && w.rnd.Float64() >= w.loss {
			w.queue = append(w.queue, delivery{w.now.Add(time.Duration(w.rnd.IntN(10)) * time.Millisecond), to, lan, parsed})
		}
		if news || w.rnd.IntN(40) == 0 {
			w.queue = append(w.queue, delivery{w.now.Add(50 * time.Millisecond), to, -1, parsed})
		}
	}
}

// forwarders lists who forwards on a LAN.
func (w *world) forwarders(lan int) (list []int) {
	for i, p := range w.ports {
		if p.lan == lan && !p.dead && p.Open() {
			list = append(list, i)
		}
	}
	return list
}

// invariants returns what holds at every moment: never two forwarders on a LAN for
// longer than a second, and never none for longer than two.
func (w *world) invariants(lans int) func() {
	many, none := map[int]time.Time{}, map[int]time.Time{}
	held := func(since map[int]time.Time, lan int, bad bool, limit time.Duration, what string) {
		start, on := since[lan]
		switch {
		case !bad:
			delete(since, lan)
		case !on || start.Before(w.changed[lan]):
			since[lan] = w.now
		case w.now.Sub(start) > limit:
			w.t.Fatalf("%v: LAN %d has %s for %v: %s", w.now.Sub(time.Unix(1e9, 0)), lan, what, w.now.Sub(start), w)
		}
	}
	return func() {
		for lan := range lans {
			n := len(w.forwarders(lan))
			members := 0
			for _, p := range w.ports {
				if p.lan == lan && !p.dead {
					members++
				}
			}
			held(many, lan, n > 1, time.Second, "several forwarders")
			held(none, lan, n == 0 && members > 0, 2*time.Second, "no forwarder")
		}
	}
}

func (w *world) String() (s string) {
	for i, p := range w.ports {
		s += fmt.Sprintf("\n%d on %d dead %v: %v %x, forwarder %x, beside %d", i, p.lan, p.dead, p.State(), p.Segment(), p.Forwarder(), len(p.Beside()))
	}
	return s
}

// TestNeverTwoForwarders joins and splits LANs at random, kills members, and loses
// statements.
func TestNeverTwoForwarders(t *testing.T) {
	const lans = 3
	for seed := range uint64(60) {
		loss := []float64{0, 0.05, 0.1}[seed%3]
		t.Run(fmt.Sprintf("seed %d, loss %v", seed, loss), func(t *testing.T) {
			w := newWorld(t, seed, 2+int(seed%6), loss)
			for i := range w.ports {
				w.plug(i, w.rnd.IntN(lans))
			}
			check := w.invariants(lans)
			for range 40 {
				w.disturb(lans)
				w.run(time.Duration(w.rnd.IntN(4000))*time.Millisecond, check)
			}
			w.run(time.Minute, check) // and overlay statements have come round
			w.checkSettled()
		})
	}
}

// disturb changes something.
func (w *world) disturb(lans int) {
	i := w.rnd.IntN(len(w.ports))
	switch p := w.ports[i]; {
	case p.dead:
		w.revive(i)
	case w.rnd.IntN(5) == 0:
		w.kill(i)
	case w.rnd.IntN(4) == 0: // two LANs are joined
		to := w.rnd.IntN(lans)
		for j, other := range w.ports {
			if other.lan == p.lan && j != i && !other.dead {
				w.plug(j, to)
			}
		}
		w.plug(i, to)
	default:
		w.plug(i, w.rnd.IntN(lans+1)-1)
	}
}

// checkSettled holds what is true once nothing has changed for a while: members of a
// LAN agree, and LANs have names of their own.
func (w *world) checkSettled() {
	names := map[Segment]int{}
	for i, p := range w.ports {
		if p.dead {
			continue
		}
		lan := p.lan
		if lan < 0 {
			lan = -1 - i
		}
		if at, known := names[p.Segment()]; known && at != lan {
			w.t.Errorf("LANs %d and %d have one name: %s", at, lan, w)
		}
		names[p.Segment()] = lan
		for j, o := range w.ports {
			if o.dead || lan < 0 || o.lan != lan {
				continue
			}
			if o.Segment() != p.Segment() || o.Forwarder() != p.Forwarder() {
				w.t.Errorf("%d and %d do not agree: %s", i, j, w)
			}
		}
	}
}
