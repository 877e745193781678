package lanport

import (
	"bytes"
	"slices"
	"time"
)

const (
	// Interval is between two statements when nothing happens.
	Interval = 250 * time.Millisecond
	// Hold is how long who was heard counts as there, and how long a port listens.
	Hold = 3 * Interval
	// askFrom is how long a forwarder may be silent before it is asked, askEvery how often.
	askFrom  = Hold - Interval
	askEvery = Interval / 3
	// gap bounds how often anybody makes us speak; suspicions, which come with frames, are
	// bounded by suspectGap.
	gap        = 20 * time.Millisecond
	suspectGap = 100 * time.Millisecond
	// maxNeighbors bounds who is remembered.
	maxNeighbors = 256
)

// Config is what a Machine needs.
type Config struct {
	Self       ID
	Epoch      uint32         // of the node's start, larger than that of its last one
	NewSegment func() Segment // a fresh one
}

// Machine is the port of one member. It is pure and not safe for concurrent use.
type Machine struct {
	cfg     Config
	state   State
	segment Segment
	settled bool // the segment is in use: others' bindings may name it
	link    bool
	fit     bool

	forwarder ID
	neighbors map[ID]*neighbor
	known     map[ID]known // who was ever heard on the LAN

	listenUntil time.Time
	seq         uint32
	said        Statement // last
	saidAt      time.Time
	sayAt       time.Time // when to speak again
	ask         bool      // in the next statement
	asked       time.Time
	suspected   time.Time
	poll        time.Time // when Poll is to be called next, as it said
}

// known is what is kept of another member.
type known struct {
	floor   uint64  // counters up to it are old
	segment Segment // of ours, when it was last heard
}

// neighbor is another member on the LAN.
type neighbor struct {
	Statement
	at   time.Time // last heard
	deaf time.Time // since when it does not hear us; zero: it does
}

// New makes the machine of a port without link.
func New(cfg Config) *Machine {
	return &Machine{
		cfg: cfg, state: Alone, segment: cfg.NewSegment(), forwarder: cfg.Self,
		neighbors: map[ID]*neighbor{}, known: map[ID]known{},
	}
}

// State is what the port does.
func (m *Machine) State() State { return m.state }

// Open reports whether frames may pass between LAN and overlay.
func (m *Machine) Open() bool { return m.state == Forwarding || m.state == Alone }

// Segment names the LAN; its bindings are all its members'.
func (m *Machine) Segment() Segment { return m.segment }

// Forwarder is who forwards for the LAN; zero: nobody that is known.
func (m *Machine) Forwarder() ID { return m.forwarder }

// Beside lists the other members on the LAN, in ascending order.
func (m *Machine) Beside() []ID {
	ids := make([]ID, 0, len(m.neighbors))
	for id := range m.neighbors {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// Link says whether there is a link to a LAN. One that has come is listened to first;
// one that has gone leaves a LAN behind, whose name is not ours any longer.
func (m *Machine) Link(now time.Time, up bool) {
	if up == m.link {
		return
	}
	m.link, m.settled = up, false
	clear(m.neighbors)
	if up {
		m.listenUntil = now.Add(Hold)
		m.say(now, true)
	} else {
		m.segment = m.cfg.NewSegment()
	}
	m.decide(now)
}

// Changed says that something about the LAN side may be different, such as one cable
// of several: whoever is there now is to speak.
func (m *Machine) Changed(now time.Time) { m.say(now, true) }

// Suspect says that a frame came in from the LAN that belongs on the overlay: there
// may be another forwarder.
func (m *Machine) Suspect(now time.Time) {
	if now.Sub(m.suspected) >= suspectGap {
		m.suspected = now
		m.say(now, true)
	}
}

// SetFit says whether members beyond the LAN are reached.
func (m *Machine) SetFit(now time.Time, fit bool) {
	m.fit = fit
	m.decide(now)
}

// say has a statement made soon.
func (m *Machine) say(now time.Time, ask bool) {
	m.ask = m.ask || ask
	if at := later(now, m.saidAt.Add(gap)); at.Before(m.sayAt) {
		m.sayAt = at
	}
}

// Hear takes a statement that came in from the LAN, of a member that may bridge, with
// its signature verified. It reports false for one that is old.
func (m *Machine) Hear(now time.Time, s Statement) bool {
	if s.From == m.cfg.Self || s.Counter <= m.known[s.From].floor || !m.raise(s) || !m.link {
		return false
	}
	n := m.neighbors[s.From]
	switch {
	case s.State == Gone || s.State == Alone:
		delete(m.neighbors, s.From)
		m.decide(now)
		return true
	case n == nil && len(m.neighbors) >= maxNeighbors:
		return true
	case n == nil:
		n = &neighbor{}
		m.neighbors[s.From] = n
		m.say(now, false) // it shall know of us
	}
	if s.Hears(m.cfg.Self) || len(s.Heard) == MaxHeard {
		n.deaf = time.Time{}
	} else if n.deaf.IsZero() {
		n.deaf = now
	}
	n.Statement, n.at = s, now
	if s.Ask {
		m.say(now, false)
	}
	m.agree(s)
	m.known[s.From] = known{s.Counter, m.segment}
	m.decide(now)
	if m.state == Forwarding && s.State == Forwarding {
		m.say(now, true) // it is to block
	}
	return true
}

// raise notes the counter of a statement.
func (m *Machine) raise(s Statement) bool {
	k, is := m.known[s.From]
	if !is && len(m.known) >= 4*maxNeighbors {
		return false
	}
	k.floor = max(k.floor, s.Counter)
	m.known[s.From] = k
	return true
}

// agree takes the neighbour's name of the LAN if ours has to give way: one in use wins
// over one that is not, and then that of the lowest member.
func (m *Machine) agree(s Statement) {
	settled := s.State != Listening
	if settled != m.settled {
		if settled {
			m.segment = s.Segment
		}
		return
	}
	if !less(s.From, m.cfg.Self) {
		return
	}
	for id, n := range m.neighbors {
		if less(id, s.From) && (n.State != Listening) == settled {
			return
		}
	}
	m.segment = s.Segment
}

// Told takes a verified statement that came over the overlay. Where a LAN has been
// split, both parts would keep its name: the part without the lowest member gives it up. Who was
// not heard on the LAN of this name is none of a part of it, whatever it says.
func (m *Machine) Told(now time.Time, s Statement) {
	if s.From == m.cfg.Self || s.Segment != m.segment || m.known[s.From].segment != m.segment || s.State == Gone || m.neighbors[s.From] != nil || s.Hears(m.cfg.Self) {
		return
	}
	lowest := m.cfg.Self
	for id := range m.neighbors {
		if less(id, lowest) {
			lowest = id
		}
	}
	if less(s.From, lowest) && (m.settled || !m.link) {
		m.segment = m.cfg.NewSegment()
		m.decide(now)
	}
}

// expire forgets who has been silent for too long.
func (m *Machine) expire(now time.Time) {
	for id, n := range m.neighbors {
		if now.Sub(n.at) >= Hold {
			delete(m.neighbors, id)
		}
	}
}

// outranks reports whether a neighbour that forwards is the one to go on, of it and us.
// One that does not hear us cannot give way.
func (m *Machine) outranks(n *neighbor, now time.Time) bool {
	if !n.deaf.IsZero() && now.Sub(n.deaf) >= Hold {
		return true
	}
	return m.better(n.Fit, n.From)
}

// better reports whether somebody is to forward rather than us.
func (m *Machine) better(fit bool, id ID) bool {
	if fit != m.fit {
		return fit
	}
	return less(id, m.cfg.Self)
}

// decide is level-triggered: it makes state and forwarder what they should be.
func (m *Machine) decide(now time.Time) {
	m.expire(now)
	before := m.state
	m.state, m.forwarder = m.judge(now)
	if m.state == Forwarding || m.state == Blocked {
		m.settled = true
	}
	if m.state != before {
		m.say(now, m.state == Forwarding)
	}
}

func (m *Machine) judge(now time.Time) (State, ID) {
	if !m.link {
		return Alone, m.cfg.Self
	}
	first, rival, heir := m.survey(now)
	named := ID{}
	if first != nil {
		named = first.From
	}
	switch {
	case m.state == Forwarding && rival != nil:
		return Blocked, rival.From
	case m.state == Forwarding && heir && !m.fit:
		return Blocked, ID{} // it takes over as soon as it hears that we have stopped
	case m.state == Forwarding:
		return Forwarding, m.cfg.Self
	case now.Before(m.listenUntil):
		return Listening, named
	case first != nil || heir:
		return Blocked, named
	}
	return Forwarding, m.cfg.Self
}

// survey looks at the neighbours: the first of those that forward, one of them that
// outranks us, and whether one that blocks would rather forward than us.
func (m *Machine) survey(now time.Time) (first, rival *neighbor, heir bool) {
	for _, n := range m.neighbors {
		switch {
		case n.State == Blocked && m.better(n.Fit, n.From):
			heir = true
		case n.State == Forwarding:
			if first == nil || n.Fit && !first.Fit || n.Fit == first.Fit && less(n.From, first.From) {
				first = n
			}
			if m.outranks(n, now) && (rival == nil || less(n.From, rival.From)) {
				rival = n
			}
		}
	}
	return first, rival, heir
}

// Poll returns what to say on the LAN now, nil for nothing, and when to call again.
func (m *Machine) Poll(now time.Time) (say *Statement, next time.Time) {
	if late := now.Sub(m.poll); !m.poll.IsZero() && late > Interval { // we were not running, and heard nobody
		for _, n := range m.neighbors {
			n.at = n.at.Add(late)
		}
		if m.state == Listening {
			m.listenUntil = m.listenUntil.Add(late)
		}
	}
	m.decide(now)
	m.askSilent(now)
	s := Statement{
		From: m.cfg.Self, Segment: m.segment, State: m.state, Fit: m.fit, Forwarder: m.forwarder,
		Heard: m.Beside()[:min(len(m.neighbors), MaxHeard)], Counter: m.said.Counter,
	}
	if !s.Same(&m.said) {
		m.say(now, false)
	}
	if !now.Before(m.sayAt) {
		m.seq++
		s.Counter, s.Ask = uint64(m.cfg.Epoch)<<32|uint64(m.seq), m.ask
		m.said, m.saidAt, m.sayAt, m.ask = s, now, now.Add(Interval), false
		say = &s
	}
	m.poll = m.due(now)
	return say, m.poll
}

// Leave returns the farewell: those who are still there may speak for us.
func (m *Machine) Leave() *Statement {
	m.seq++
	return &Statement{
		From: m.cfg.Self, Segment: m.segment, State: Gone, Heard: m.Beside()[:min(len(m.neighbors), MaxHeard)],
		Counter: uint64(m.cfg.Epoch)<<32 | uint64(m.seq),
	}
}

// askSilent asks before a silent forwarder counts as gone: three statements may have
// been lost on a busy LAN.
func (m *Machine) askSilent(now time.Time) {
	n := m.neighbors[m.forwarder]
	if n != nil && now.Sub(n.at) >= askFrom && now.Sub(m.asked) >= askEvery {
		m.asked = now
		m.say(now, true)
	}
}

// due is when something is to be done without a cause from outside.
func (m *Machine) due(now time.Time) time.Time {
	at := m.sayAt
	if m.state == Listening && m.listenUntil.Before(at) {
		at = m.listenUntil
	}
	for _, n := range m.neighbors {
		if gone := n.at.Add(Hold); gone.Before(at) {
			at = gone
		}
	}
	if n := m.neighbors[m.forwarder]; n != nil {
		if ask := later(n.at.Add(askFrom), m.asked.Add(askEvery)); ask.Before(at) {
			at = ask
		}
	}
	return later(at, now.Add(time.Millisecond))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
