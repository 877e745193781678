package punch

import (
	"net/netip"
	"slices"
	"time"

	"meshd/nat-traversal"
)

const (
	repeatAfter = time.Second // a call without an answer, doubled
	repeats     = 3           // calls of one round
	firstAgain  = 62 * time.Second
	mostAgain   = 10 * time.Minute
	changeWait  = 2 * time.Second // between rounds, whatever changes
	mostOffset  = time.Second     // of the callee's probes

	// What the remote may have us probe: calls at once, and one more each period.
	callBurst = 8
	callEvery = 15 * time.Second
)

// Local is what this node says of itself.
type Local struct {
	Candidates []traversal.Candidate
	Mapping    traversal.Mapping // of IPv4
}

// Equal reports whether both say the same.
func (l Local) Equal(o Local) bool {
	return l.Mapping == o.Mapping && slices.Equal(l.Candidates, o.Candidates)
}

// Output is what is to be done.
type Output struct {
	Send  [][]byte         // messages for the remote, in the session
	Probe []netip.AddrPort // the remote's candidates, to be probed now
	Open  netip.AddrPort   // where valid: open Ports ports, and send one probe from each to this address
	Spray []netip.AddrPort // send one probe to each of these; no candidates
	Close bool             // close the ports that nothing has come to
}

// Config is what a Machine is made with.
type Config struct {
	Rand func() uint32 // for numbers and ports
}

// Machine seeks a direct path to one remote. It is owned by one goroutine.
type Machine struct {
	cfg     Config
	local   Local
	seeking bool
	number  uint32 // of the last round that we began

	calling   bool      // it has no answer yet
	called    time.Time // its first or last call
	sent      int       // its calls
	next      time.Time // when to begin another
	again     time.Duration
	began     time.Time // last round, ours or the remote's
	mayMany   bool      // this round is for many ports
	manyAt    time.Time // when to begin one; zero: not
	manyBusy  bool      // this node is at it with another
	remoteNAT traversal.Mapping

	credit time.Time // what the remote has used of its calls, as a time
	last   uint32    // the remote's round that was answered
	heard  bool      // there was one
	lastAt time.Time

	probeAt time.Time // when to probe what the remote named; zero: not
	named   []traversal.Candidate
	many    many
	send    [][]byte
}

// New makes a machine that seeks nothing.
func New(cfg Config) *Machine { return &Machine{cfg: cfg} }

// SetLocal says what this node offers. A change is a cause for a round.
func (m *Machine) SetLocal(l Local, now time.Time) {
	if m.local.Equal(l) {
		return
	}
	m.local = l
	m.Changed(now)
}

// Changed says that either side may be reached in other ways than before.
func (m *Machine) Changed(now time.Time) {
	if !m.seeking {
		return
	}
	m.again = firstAgain
	m.next = earlier(m.next, later(now, m.began.Add(changeWait)))
}

// Seek says whether there is a session and no direct path, and something uses it.
func (m *Machine) Seek(on bool, now time.Time) {
	if on == m.seeking {
		return
	}
	m.seeking = on
	if !on {
		m.next, m.manyAt, m.calling = time.Time{}, time.Time{}, false
		m.many.stop()
		return
	}
	m.again = firstAgain
	m.next = later(now, m.began.Add(changeWait))
}

// Busy says whether this node may not try many ports with this remote now, since it
// has just done so with another: each node does it with one at a time.
func (m *Machine) Busy(busy bool) { m.manyBusy = busy }

// RemoteNAT is the mapping behaviour of the NAT in front of the remote, as it said
// in its last call or answer.
func (m *Machine) RemoteNAT() traversal.Mapping { return m.remoteNAT }

// Trying reports whether it tries many ports.
func (m *Machine) Trying() bool { return m.many.running() }

// Receive takes a message of the remote's, that came over a way with this round
// trip.
func (m *Machine) Receive(b []byte, rtt time.Duration, now time.Time) error {
	msg, err := Parse(b)
	if err != nil {
		return err
	}
	m.remoteNAT = msg.Mapping
	if msg.Step == Answer {
		m.answer(msg, now)
		return nil
	}
	if m.heard && msg.Number == m.last && now.Sub(m.lastAt) < callEvery { // our answer was lost
		m.reply(msg)
		return nil
	}
	if !m.allow(now) {
		return nil
	}
	m.heard, m.last, m.lastAt, m.began = true, msg.Number, now, now
	m.named = msg.Candidates
	offset := min(max(rtt/2, 0), mostOffset)
	m.probeAt = now.Add(offset)
	agreed := msg.Many && !m.manyBusy && m.manyAgreed(now)
	m.reply(msg)
	if agreed {
		m.many.start(m.manyRole(), m.named, now.Add(offset), m.cfg.Rand)
	}
	return nil
}

func (m *Machine) reply(msg Message) {
	many := msg.Many && (m.many.running() || !m.manyBusy && m.manyAgreed(m.lastAt))
	m.send = append(m.send, Message{
		Step: Answer, Many: many, Mapping: m.local.Mapping, Number: msg.Number, Candidates: m.local.Candidates,
	}.Append(nil))
}

// answer begins to probe what the callee has named.
func (m *Machine) answer(msg Message, now time.Time) {
	if !m.calling || msg.Number != m.number {
		return
	}
	m.calling = false
	m.named, m.probeAt = msg.Candidates, now
	if !m.mayMany {
		m.manyAt = now.Add(manyAfter)
	}
	if m.mayMany && !msg.Many && m.manyRole() != idle { // the other is at it elsewhere
		m.manyAt = now.Add(manyLater)
	}
	if msg.Many && m.mayMany && !m.manyBusy && m.manyAgreed(now) {
		m.many.start(m.manyRole(), m.named, now, m.cfg.Rand)
	}
}

// allow takes a round off what the remote may begin.
func (m *Machine) allow(now time.Time) bool {
	full := now.Add(-callBurst * callEvery)
	if m.credit.Before(full) {
		m.credit = full
	}
	if m.credit.Add(callEvery).After(now) {
		return false
	}
	m.credit = m.credit.Add(callEvery)
	return true
}

// Tick returns what is due and when to call it next; zero: when something is said.
// Every other method may bring that forward.
func (m *Machine) Tick(now time.Time) (out Output, wake time.Time) {
	if m.seeking {
		m.begin(now)
		m.tryMany(now)
	}
	m.repeat(now)
	out.Send, m.send = m.send, nil
	if !m.probeAt.IsZero() && !m.probeAt.After(now) {
		for _, c := range m.named {
			out.Probe = append(out.Probe, c.Addr)
		}
		m.probeAt = time.Time{}
	}
	manyWake := m.many.tick(&out, now)
	wake = earlier(earlier(m.probeAt, manyWake), earlier(m.nextCall(), m.manyAt))
	return out, wake
}

// begin starts the round that is due.
func (m *Machine) begin(now time.Time) {
	if m.next.IsZero() || m.next.After(now) {
		return
	}
	m.call(false, now)
	m.next = now.Add(m.again)
	m.again = min(2*m.again, mostAgain)
}

// tryMany starts a round for many ports some time after an ordinary one, which has
// told us of the other's NAT.
func (m *Machine) tryMany(now time.Time) {
	if m.manyAt.IsZero() || m.manyAt.After(now) {
		return
	}
	m.manyAt = time.Time{}
	switch {
	case m.many.running() || !m.manyAgreed(now):
	case m.manyBusy:
		m.manyAt = now.Add(manyLater)
	default:
		m.call(true, now)
	}
}

func (m *Machine) call(many bool, now time.Time) {
	if m.number == 0 {
		m.number = m.cfg.Rand()
	}
	m.number++
	m.calling, m.sent, m.called, m.began, m.mayMany = true, 0, time.Time{}, now, many
}

// repeat sends the call of the round that has no answer.
func (m *Machine) repeat(now time.Time) {
	if !m.calling || !m.seeking {
		return
	}
	if m.sent > 0 && now.Before(m.called.Add(repeatAfter<<(m.sent-1))) {
		return
	}
	if m.sent == repeats {
		m.calling = false
		return
	}
	m.sent, m.called = m.sent+1, now
	m.send = append(m.send, Message{
		Step: Call, Many: m.mayMany, Mapping: m.local.Mapping, Number: m.number, Candidates: m.local.Candidates,
	}.Append(nil))
}

func (m *Machine) nextCall() time.Time {
	if !m.seeking {
		return time.Time{}
	}
	if m.calling {
		return earlier(m.called.Add(repeatAfter<<(m.sent-1)), m.next)
	}
	return m.next
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
