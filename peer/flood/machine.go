package flood

import (
	"math/rand/v2"
	"slices"
	"time"

	"meshd/keys"
)

const (
	// Fanout is how many copies of a frame a node sends at most, repairs included.
	Fanout = 8

	// A frame was on its way for three steps when the last member has it; only then do
	// neighbours hear of it. Who is told asks only if it has not come a little later.
	tellAfter  = 100 * time.Millisecond
	tellJitter = 150 * time.Millisecond // wide, so that of two neighbours mostly one speaks
	askAfter   = 100 * time.Millisecond
	// askAgain is how long an answer may take until the next neighbour is asked.
	askAgain = 150 * time.Millisecond
	maxAsked = 6

	// minTold is how many are told of a frame that is not for all: so many neighbours, or
	// others that it is for.
	minTold = 6

	// holdFor is how long a frame is kept for those who ask, within bounds of memory for
	// each origin and for all.
	holdFor      = 2 * time.Second
	maxHeldOf    = 128 << 10
	maxHeld      = 8 << 20
	entryCost    = 256 // bytes of memory for a frame besides its own
	maxMissing   = 256 // frames that one member says are there and that have not come
	maxAllMissed = 8192
	maxSources   = 8
)

var (
	// originTerms are what an origin may send (THREATS.md; l2.DefaultStormRate).
	originTerms = terms{time.Second / 300, 600}
	// passTerms are how many copies this node sends on for one origin: all parts of a
	// burst, and for as long as it likes two of each frame. A hostile origin could else
	// give everybody a part that is everything.
	passTerms = terms{time.Second / 600, Fanout * 600}
	// answerTerms are how many copies a member gets because it asked.
	answerTerms = terms{time.Second / 300, 600}
	// messageTerms are how many messages of a member are looked at.
	messageTerms = terms{time.Second / 50, 100}
	// forgedTerms are how many copies with a wrong signature a member may bring before
	// what it brings is dropped unseen: the check is what costs.
	forgedTerms = terms{10 * time.Second, 8}
)

// Verdict is what becomes of a copy.
type Verdict uint8

// The verdicts.
const (
	Verify    Verdict = iota // the signature is to be checked; then Accept or Reject
	Fresh                    // it is for this node, and for those that Accept names
	Duplicate                // it was here before, or is this node's own
	Stale                    // it is of a former life of its origin: a replay
	Unknown                  // its origin, or who brought it, is no member for this node
	Storm                    // its origin sends too much
	Forged                   // the signature is wrong, or who brought it has brought many such
	verdicts
)

// Stats counts copies by what became of them, and what was done for repair.
type Stats struct {
	Verdicts [verdicts]uint64 // all but Verify
	Sent     uint64           // copies on the way down
	Told     uint64           // messages that say what is here
	Asked    uint64           // frames that were asked for
	Answered uint64           // copies that were sent for the asking
	Missed   uint64           // frames that others had and that never came
}

// node is a member with what is remembered of it.
type node struct {
	id     keys.NodeID
	member Member

	// As an origin.
	epoch  uint32
	window window
	rate   meter
	passed meter
	held   []*held // the oldest first
	bytes  int     // of these

	// As who brings copies.
	forged   meter
	caught   bool // it has brought a forged one lately
	caughtAt time.Time
	messages meter
	answers  meter
	missing  int // frames that it was the first to speak of
}

// caughtFor is how long who has brought a forged copy is passed over for a child.
const caughtFor = 10 * time.Minute

// held is a frame that was seen lately.
type held struct {
	name  Name
	body  []byte // of a copy for nobody further; nil: it had to make room
	since time.Time
	sent  int
	told  bool
	has   []keys.NodeID // members that have it, as they say
}

// Machine decides for one node. Its methods are called by one goroutine at a time.
type Machine struct {
	self    keys.NodeID
	epoch   uint32
	number  uint64 // of the last frame of our own
	jitter  func() time.Duration
	ring    ring
	nodes   map[keys.NodeID]*node
	holding map[Name]*held
	order   []*held // the oldest first
	bytes   int     // held
	missing map[Name]*missing
	tellAt  time.Time // zero: there is nothing to tell
	stats   Stats
	scratch ring
}

// New makes a machine without members. jitter nil is the usual.
func New(self keys.NodeID, jitter func() time.Duration) *Machine {
	if jitter == nil {
		jitter = func() time.Duration { return rand.N(tellJitter) }
	}
	return &Machine{
		self: self, jitter: jitter, nodes: map[keys.NodeID]*node{},
		holding: map[Name]*held{}, missing: map[Name]*missing{},
	}
}

// SetEpoch says which life of this node it is: greater than all before.
func (m *Machine) SetEpoch(epoch uint32) { m.epoch = max(m.epoch, epoch) }

// Join adds a member, or replaces how it is seen.
func (m *Machine) Join(member Member) {
	id := member.Node()
	if n := m.nodes[id]; n != nil {
		n.member = member
		return
	}
	if id == m.self {
		return
	}
	n := &node{id: id, member: member}
	m.nodes[id] = n
	at, _ := m.ring.search(id)
	m.ring = slices.Insert(m.ring, at, n)
}

// Leave removes a member.
func (m *Machine) Leave(id keys.NodeID) {
	n := m.nodes[id]
	if n == nil {
		return
	}
	for len(n.held) > 0 {
		m.release(n.held[0])
	}
	delete(m.nodes, id)
	at, _ := m.ring.search(id)
	m.ring = slices.Delete(m.ring, at, at+1)
}

// Started says which life an origin is in, as its records have it: what it sent before is
// a replay.
func (m *Machine) Started(id keys.NodeID, epoch uint32) {
	if n := m.nodes[id]; n != nil && epoch > n.epoch {
		n.epoch, n.window = epoch, window{}
	}
}

// Member returns a member, nil if it is none.
func (m *Machine) Member(id keys.NodeID) Member {
	if n := m.nodes[id]; n != nil {
		return n.member
	}
	return nil
}

// Members is how many there are, besides this node.
func (m *Machine) Members() int { return len(m.ring) }

// Stats returns the counters.
func (m *Machine) Stats() Stats { return m.stats }

// Next names the next frame of this node's own.
func (m *Machine) Next() Name {
	m.number++
	return Name{m.self, m.epoch, m.number}
}

// Begin spreads a frame of this node's own. body is the copy as bytes, borrowed.
func (m *Machine) Begin(name Name, body []byte, now time.Time) []Send {
	sends := m.divide(name, everywhere, m.self, body[HeaderLen:])
	m.stats.Sent += uint64(len(sends))
	m.hold(nil, name, body, len(sends), now)
	return sends
}

// Judge looks at a copy before anything is computed for it. With Verify it comes back by
// Accept or Reject.
func (m *Machine) Judge(from keys.NodeID, c *Copy, now time.Time) Verdict {
	v := m.judge(from, c, now)
	if v != Verify {
		m.stats.Verdicts[v]++
	}
	return v
}

func (m *Machine) judge(from keys.NodeID, c *Copy, now time.Time) Verdict {
	by, origin := m.nodes[from], m.nodes[c.Origin]
	switch {
	case c.Origin == m.self:
		return Duplicate
	case by == nil || origin == nil:
		return Unknown
	case c.Epoch < origin.epoch:
		return Stale
	case c.Epoch == origin.epoch && origin.window.seen(c.Number):
		m.noteHas(c.Name, from)
		return Duplicate
	case origin.rate.empty(now, originTerms):
		return Storm
	case by.forged.empty(now, forgedTerms):
		return Forged
	}
	return Verify
}

// Reject takes note of a copy whose signature is wrong: who brought it has made it so.
func (m *Machine) Reject(from keys.NodeID, now time.Time) {
	m.stats.Verdicts[Forged]++
	if by := m.nodes[from]; by != nil {
		by.forged.take(now, forgedTerms)
		by.caught, by.caughtAt = true, now
	}
}

// Accept takes a copy whose signature is right; body is all of it as bytes, borrowed. With
// Fresh it is to be delivered here and sent on.
func (m *Machine) Accept(from keys.NodeID, c *Copy, body []byte, now time.Time) ([]Send, Verdict) {
	v := m.judge(from, c, now) // anew: it may have come by another socket meanwhile
	if v == Verify {
		v = Fresh
	}
	m.stats.Verdicts[v]++
	if v != Fresh {
		return nil, v
	}
	origin := m.nodes[c.Origin]
	origin.rate.take(now, originTerms)
	if c.Epoch > origin.epoch {
		origin.epoch, origin.window = c.Epoch, window{}
	}
	origin.window.mark(c.Number)
	m.found(c.Name)
	sends := m.divide(c.Name, c.Part, from, c.Frame)
	for i := range sends {
		if !origin.passed.take(now, passTerms) {
			sends = sends[:i]
			break
		}
	}
	m.stats.Sent += uint64(len(sends))
	m.hold(origin, c.Name, body, len(sends), now)
	m.noteHas(c.Name, from)
	return sends, Fresh
}
