package wireguard

import (
	"container/heap"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var linkHours = flag.Int("link.hours", 1, "simulated hours of each case of TestLink")

// link is two ends on simulated time, and the network between them, which
// loses, repeats and delays. It drives the Sessions as package peer does.
type link struct {
	t      testing.TB
	rng    *rand.Rand
	now    time.Time
	events events
	ends   [2]*side
	opts   [2]Options

	loss, dup float64
	delay     time.Duration // of each packet, random up to this

	sent      map[uint64]time.Time // by packet number
	delivered map[uint64]bool
	last      uint64
}

// side is an end with the queue that its owner would have.
type side struct {
	*end
	id    int
	life  int // counts restarts: a packet to a former life is one to the new
	queue [][]byte
	timer time.Time
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events struct {
	list []event
	seq  int
}

func (e *events) Len() int      { return len(e.list) }
func (e *events) Swap(i, j int) { e.list[i], e.list[j] = e.list[j], e.list[i] }
func (e *events) Push(x any)    { e.list = append(e.list, x.(event)) }
func (e *events) Pop() any {
	x := e.list[len(e.list)-1]
	e.list = e.list[:len(e.list)-1]
	return x
}

func (e *events) Less(i, j int) bool {
	a, b := e.list[i], e.list[j]
	return a.at.Before(b.at) || a.at.Equal(b.at) && a.seq < b.seq
}

func newLink(t testing.TB, seed uint64, opts Options) *link {
	l := &link{
		t:         t,
		rng:       rand.New(rand.NewPCG(seed, 1)),
		now:       testStart,
		sent:      make(map[uint64]time.Time),
		delivered: make(map[uint64]bool),
	}
	opts.Jitter = func() time.Duration { return time.Duration(l.rng.Int64N(int64(MaxJitter))) }
	l.opts = [2]Options{opts, opts}
	a, b := newPair(t, opts, opts)
	l.ends = [2]*side{{end: a}, {end: b, id: 1}}
	l.perfect()
	return l
}

func (l *link) perfect() { l.loss, l.dup, l.delay = 0, 0, 50*time.Millisecond }

func (l *link) after(d time.Duration, do func()) {
	l.events.seq++
	heap.Push(&l.events, event{l.now.Add(d), l.events.seq, do})
}

// run lets time pass.
func (l *link) run(d time.Duration) {
	end := l.now.Add(d)
	for l.events.Len() > 0 && !l.events.list[0].at.After(end) {
		ev := heap.Pop(&l.events).(event)
		l.now = ev.at
		ev.do()
	}
	l.now = end
}

// restart loses all that s knows but its key.
func (l *link) restart(s *side) {
	index := s.index
	s.end = newEnd(l.t, wgKey(s.local), s.session.Remote(), l.opts[s.id])
	s.index = index
	s.queue, s.timer = nil, time.Time{}
	s.life++
}

// transmit puts a datagram on the way to the other side.
func (l *link) transmit(from *side, b []byte) {
	to := l.ends[1-from.id]
	copies := 1
	if l.rng.Float64() < l.loss {
		copies = 0
	}
	if l.rng.Float64() < l.dup {
		copies++
	}
	for range copies {
		data := append([]byte(nil), b...)
		l.after(time.Duration(l.rng.Int64N(int64(l.delay)+1)), func() { l.arrive(to, data) })
	}
}

// arrive handles a datagram at s.
func (l *link) arrive(s *side, b []byte) {
	if t, _ := Type(b); t != TypeTransport {
		_ = s.handshake(b, l.now) // may be late, or repeated
	} else if plaintext, err := s.open(b, l.now); err == nil && len(plaintext) > 0 {
		n := binary.BigEndian.Uint64([]byte(plaintext))
		if _, ok := l.sent[n]; !ok || l.delivered[n] {
			l.t.Fatalf("packet %d was delivered twice, or never sent", n)
		}
		l.delivered[n] = true
	}
	l.settle(s)
}

// send is an application that sends a numbered packet.
func (l *link) send(s *side) {
	l.last++
	l.sent[l.last] = l.now
	s.queue = append(s.queue, binary.BigEndian.AppendUint64(nil, l.last))
	if s.session.SendKey() == nil {
		s.initiate(l.now)
	}
	l.settle(s)
}

// settle does what s has put out, and sets its timer.
func (l *link) settle(s *side) {
	for {
		for _, m := range s.messages() {
			l.transmit(s, m)
		}
		out := s.happened()
		if out.GaveUp {
			s.queue = nil
		}
		if out.Keepalive && len(s.queue) == 0 {
			if p := s.seal("", l.now); p != nil {
				l.transmit(s, p)
			}
		}
		if len(s.queue) > 0 {
			p := s.seal(string(s.queue[0]), l.now)
			if p != nil {
				l.transmit(s, p)
				s.queue = s.queue[1:]
				continue
			}
		}
		if len(s.sent) == 0 {
			break
		}
	}
	if w := s.wake; !w.IsZero() && !w.Equal(s.timer) {
		if w.Before(l.now) {
			w = l.now
		}
		s.timer = w
		life := s.life
		l.after(w.Sub(l.now), func() {
			if s.timer.Equal(w) && s.life == life {
				s.timer = time.Time{}
				s.tick(l.now)
				if !s.wake.IsZero() && !s.wake.After(l.now) {
					l.t.Fatalf("after a Tick at %v the next is at %v", l.now, s.wake)
				}
				l.settle(s)
			}
		})
	}
}

// chat lets both sides send for d, about every interval.
func (l *link) chat(d, interval time.Duration) {
	for end := l.now.Add(d); l.now.Before(end); {
		l.send(l.ends[l.rng.IntN(2)])
		l.run(time.Duration(l.rng.Int64N(int64(interval))))
	}
}

// lost is the packets that were sent since then and not delivered.
func (l *link) lost(since time.Time) (n int) {
	for i, at := range l.sent {
		if !at.Before(since) && !l.delivered[i] {
			n++
		}
	}
	return n
}

// recovery is how long it may take after the network is whole again: what was
// sent is unanswered for 15 s, then RekeyTimeout since the handshake before.
const recovery = KeepaliveTimeout + 2*RekeyTimeout + 2*MaxJitter + time.Second

// heal makes the network whole, and checks that everything works again.
func (l *link) heal() {
	l.t.Helper()
	l.perfect()
	l.chat(recovery, time.Second)
	since := l.now
	l.chat(10*time.Second, time.Second)
	l.run(time.Second)
	if n := l.lost(since); n > 0 {
		l.t.Fatalf("%d packets lost in a whole network, %v after it became whole", n, recovery)
	}
}

// trouble does something bad, by the byte b.
func (l *link) trouble(b byte) {
	s := l.ends[b&1]
	switch b >> 1 & 7 {
	case 0:
		l.loss = float64(b>>4) / 16
	case 1:
		l.dup = float64(b>>4) / 16
	case 2:
		l.delay = time.Duration(1+b>>4) * 200 * time.Millisecond
	case 3:
		s.do(s.session.Expire(l.now), l.now)
	case 4:
		l.restart(s)
	case 5:
		s.do(s.session.Rekey(l.now), l.now)
	case 6:
		l.chat(time.Duration(b>>4)*5*time.Second, time.Second)
	case 7:
		l.run(time.Duration(b>>4) * 15 * time.Second)
	}
	l.settle(s)
	l.chat(5*time.Second, 500*time.Millisecond)
}

func linkModes() map[string]Options {
	return map[string]Options{
		"standard":   {},
		"members":    {Member: true},
		"persistent": {PersistentKeepalive: 25 * time.Second},
	}
}

// Hours of one trouble after the other: it always recovers, nothing is
// delivered twice, and (in end.do) keys and indexes stay few.
func TestLink(t *testing.T) {
	for name, opts := range linkModes() {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s, seed %d", name, seed), func(t *testing.T) {
				l := newLink(t, seed, opts)
				for l.now.Sub(testStart) < time.Duration(*linkHours)*time.Hour {
					for range 1 + l.rng.IntN(20) {
						l.trouble(byte(l.rng.Uint32()))
					}
					l.heal()
				}
			})
		}
	}
}

// Hours in a network that only reorders: nothing is lost, through all rekeys
// and for members also when both sides rekey at once.
func TestLinkLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and long under the race detector; the same without it runs too")
	}
	for name, opts := range linkModes() {
		for _, interval := range []time.Duration{200 * time.Millisecond, 20 * time.Second} {
			t.Run(fmt.Sprintf("%s, every %v", name, interval), func(t *testing.T) {
				l := newLink(t, 1, opts)
				l.send(l.ends[0])
				l.send(l.ends[1])
				handshakes := 0
				var key *Keypair
				for range 60 * 2 {
					l.chat(time.Minute, interval)
					for _, s := range l.ends { // both at once, which only members settle
						if !opts.Member {
							break
						}
						s.do(s.session.Rekey(l.now), l.now)
						l.settle(s)
					}
					l.chat(10*time.Second, interval)
					if kp := l.ends[0].session.SendKey(); kp != nil && kp != key {
						key = kp
						handshakes++
					}
				}
				l.run(time.Minute)
				if n := l.lost(testStart); n > 0 {
					t.Errorf("%d of %d packets lost", n, len(l.sent))
				}
				if handshakes < 40 {
					t.Errorf("%d keys in two hours", handshakes)
				}
			})
		}
	}
}

// After hours of silence the first packet finds its way, and idle sessions are
// quiet: no messages, no timers.
func TestLinkIdle(t *testing.T) {
	l := newLink(t, 1, Options{Member: true})
	for i := range 10 {
		since := l.now
		l.send(l.ends[i%2])
		l.run(time.Second)
		if n := l.lost(since); n > 0 {
			t.Fatalf("round %d: not there within a second", i)
		}
		l.run(RejectAfterTime + time.Minute)
		if n := l.events.Len(); n > 0 {
			t.Fatalf("round %d: %d timers or packets while idle", i, n)
		}
	}
}

// Members meet soon also when a tenth of all packets is lost.
func TestLinkFirstSessionUnderLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and long under the race detector; the same without it runs too")
	}
	worst, sum := time.Duration(0), time.Duration(0)
	const rounds = 500
	for seed := range uint64(rounds) {
		l := newLink(t, seed, Options{Member: true})
		l.loss = 0.1
		l.send(l.ends[0])
		l.send(l.ends[1])
		for l.ends[0].session.SendKey() == nil || l.ends[1].session.SendKey() == nil {
			l.run(10 * time.Millisecond)
		}
		took := l.now.Sub(testStart)
		worst, sum = max(worst, took), sum+took
	}
	t.Logf("mean %v, worst %v", sum/rounds, worst)
	if sum/rounds > 300*time.Millisecond || worst > 5*time.Second {
		t.Errorf("mean %v, worst %v", sum/rounds, worst)
	}
}

func FuzzLink(f *testing.F) {
	f.Add(false, []byte{0xf0, 0x06, 0x09, 0x0a, 0x0b})
	f.Add(true, []byte{0x80, 0x82, 0x44, 0x0a, 0x0b, 0x08, 0xfe, 0x07})
	f.Fuzz(func(t *testing.T, member bool, script []byte) {
		if len(script) > 64 {
			return
		}
		l := newLink(t, 1, Options{Member: member})
		for _, b := range script {
			l.trouble(b)
		}
		l.heal()
	})
}
