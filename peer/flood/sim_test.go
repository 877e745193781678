package flood

import (
	"bytes"
	"container/heap"
	"crypto/sha512"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"meshd/keys"
)

// sim is a network of machines in simulated time, with delays and without loss.
type sim struct {
	t      testing.TB
	rng    *rand.Rand
	now    time.Time
	began  time.Time
	queue  events
	serial int
	nodes  []*simNode
	byID   map[keys.NodeID]*simNode
	delay  func(a, b *simNode) time.Duration
	deaf   func(by, of *simNode) bool // that a frame is not for one, as another sees it; nil: for all
	tells  int                        // messages sent
	octets int                        // of copies and messages, as bodies
}

type event struct {
	at     time.Time
	serial int
	do     func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].serial < e[j].serial
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// simNode is a machine with what a node around it does.
type simNode struct {
	sim   *sim
	index int
	id    keys.NodeID
	m     *Machine
	dead  bool
	wake  time.Time
	got   map[Name][]time.Duration // when a frame was delivered, since the start
	texts map[Name]string
	sent  map[Name]int                                         // copies of it
	abuse func(from *simNode, to *simNode, body []byte) []byte // what leaves instead; nil: nothing
}

// seen is how one node sees another.
type seen struct{ by, of *simNode }

func (s seen) Node() keys.NodeID { return s.of.id }
func (s seen) Reach() Reach {
	if s.Neighbour() {
		return Direct
	}
	return NoSession
}
func (s seen) Away() bool { return false }
func (s seen) Wants([]byte) bool {
	return s.of.sim.deaf == nil || !s.of.sim.deaf(s.by, s.of)
}

// Neighbour is as mesh has it: the next ones in both directions on six rings.
func (s seen) Neighbour() bool {
	n := len(s.of.sim.nodes)
	for stride := 1; stride <= 6; stride++ {
		// One circle for each stride: index i has the place i*coprime on it.
		d := (s.by.index - s.of.index + n) % n
		if step := strides[stride-1] % n; d == step || d == n-step {
			return true
		}
	}
	return false
}

var strides = [6]int{1, 37, 71, 13, 89, 53}

const hop = 20 * time.Millisecond

func newSim(t testing.TB, size int, seed uint64) *sim {
	start := time.Unix(1e9, 0)
	s := &sim{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: start, began: start, byID: map[keys.NodeID]*simNode{},
		delay: func(_, _ *simNode) time.Duration { return hop },
	}
	for i := range size {
		n := &simNode{sim: s, index: i, got: map[Name][]time.Duration{}, texts: map[Name]string{}, sent: map[Name]int{}}
		for k := range n.id {
			n.id[k] = byte(s.rng.Uint32())
		}
		n.m = New(n.id, func() time.Duration { return time.Duration(s.rng.Int64N(int64(tellJitter))) })
		n.m.SetEpoch(1)
		s.nodes, s.byID[n.id] = append(s.nodes, n), n
	}
	for _, a := range s.nodes {
		for _, b := range s.nodes {
			a.m.Join(seen{a, b})
		}
	}
	return s
}

func (s *sim) after(d time.Duration, do func()) {
	s.serial++
	heap.Push(&s.queue, event{s.now.Add(d), s.serial, do})
}

// run lets simulated time pass.
func (s *sim) run(d time.Duration) {
	for end := s.now.Add(d); ; {
		if len(s.queue) == 0 || s.queue[0].at.After(end) {
			s.now = end
			return
		}
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		e.do()
	}
}

// sign stands for a signature: only who knows the origin can tell whether it is right, and
// nobody here makes one for another.
func sign(c *Copy) (out [64]byte) {
	return sha512.Sum512(c.AppendSigned([]byte("secret"), keys.NetworkID{1}))
}

// broadcast has a node send a frame to all.
func (n *simNode) broadcast(text string) Name {
	name := n.m.Next()
	c := Copy{Name: name, Part: nowhere, Frame: []byte(text)}
	c.Signature = sign(&c)
	body := c.Append(nil)
	n.forward(name, n.m.Begin(name, body, n.sim.now), body)
	n.tick()
	return name
}

func (n *simNode) forward(name Name, sends []Send, body []byte) {
	for _, s := range sends {
		body := bytes.Clone(body)
		SetPart(body, s.Part)
		n.send(n.sim.byID[s.To.Node()], name, body)
	}
}

func (n *simNode) send(to *simNode, name Name, body []byte) {
	if n.abuse != nil {
		if body = n.abuse(n, to, body); body == nil {
			return
		}
	}
	n.sent[name]++
	n.sim.octets += len(body)
	n.sim.after(n.sim.delay(n, to), func() { to.receive(n, body) })
}

func (n *simNode) receive(from *simNode, body []byte) {
	if n.dead {
		return
	}
	c, err := Parse(body)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	if n.m.Judge(from.id, &c, n.sim.now) != Verify {
		return
	}
	if c.Signature != sign(&c) {
		n.m.Reject(from.id, n.sim.now)
		return
	}
	sends, v := n.m.Accept(from.id, &c, body, n.sim.now)
	if v != Fresh {
		return
	}
	n.got[c.Name] = append(n.got[c.Name], n.sim.now.Sub(n.sim.began))
	n.texts[c.Name] = string(c.Frame)
	n.forward(c.Name, sends, body)
	n.tick()
}

// tick does what the machine has due, and sees to it that it happens again.
func (n *simNode) tick() {
	if n.dead {
		return
	}
	tells, next := n.m.Tick(n.sim.now)
	for _, t := range tells {
		to := n.sim.byID[t.To.Node()]
		for left := t.Message; len(left.Names) > 0; {
			var msg []byte
			msg, left.Names = left.Append(nil)
			n.sim.tells++
			n.sim.octets += len(msg)
			n.sim.after(n.sim.delay(n, to), func() { to.hear(n, msg) })
		}
	}
	if !next.IsZero() && (!n.wake.After(n.sim.now) || next.Before(n.wake)) {
		n.wake = next
		n.sim.after(next.Sub(n.sim.now), n.tick)
	}
}

func (n *simNode) hear(from *simNode, raw []byte) {
	if n.dead {
		return
	}
	msg, err := ParseMessage(raw)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	for _, a := range n.m.Hear(from.id, msg, n.sim.now) {
		c, _ := Parse(a.Body)
		n.send(n.sim.byID[a.To.Node()], c.Name, bytes.Clone(a.Body))
	}
	n.tick()
}

// check holds that the living have a frame once and within a limit, and that nobody has sent
// more copies than it may. It returns the last arrival.
func (s *sim) check(name Name, text string, limit time.Duration) (last time.Duration) {
	s.t.Helper()
	for _, n := range s.nodes {
		if n.sent[name] > Fanout {
			s.t.Errorf("%d sent %d copies", n.index, n.sent[name])
		}
		if n.dead || n.id == name.Origin {
			continue
		}
		got := n.got[name]
		if s.deaf != nil && s.deaf(n, n) {
			if len(got) > 0 {
				s.t.Errorf("%d got what is not for it", n.index)
			}
			continue
		}
		if len(got) != 1 {
			s.t.Errorf("%d got it %d times", n.index, len(got))
			continue
		}
		if n.texts[name] != text {
			s.t.Errorf("%d got %q", n.index, n.texts[name])
		}
		last = max(last, got[0])
	}
	if last > limit {
		s.t.Errorf("the last has it after %v, want %v", last, limit)
	}
	return last
}

// some picks n nodes that are none of those.
func (s *sim) some(n int, but ...*simNode) []*simNode {
	var out []*simNode
	for _, i := range s.rng.Perm(len(s.nodes)) {
		if len(out) < n && !slices.Contains(but, s.nodes[i]) {
			out = append(out, s.nodes[i])
		}
	}
	return out
}
