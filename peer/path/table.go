package path

import (
	"cmp"
	"crypto/rand"
	"io"
	"net/netip"
	"slices"
	"time"

	"meshd/peer/way"
)

const (
	maxListed  = 16 // candidates taken from records
	maxTracked = 64 // addresses remembered, those included that only have a budget left
)

// Config is what a Table is made with.
type Config struct {
	Rand io.Reader // source of transaction ids; nil: crypto/rand
}

// Ping is a probe to be sent.
type Ping struct {
	Addr        netip.AddrPort
	Transaction [12]byte
	Size        int // of the UDP payload to pad to; 0: no padding
}

// PathState is one address as the status command shows it.
type PathState struct {
	Addr      netip.AddrPort
	RTT       time.Duration // smoothed; 0 until measured
	Loss      float64       // of the last 16 probes or of data lately, 0 to 1
	Up        bool          // confirmed and not silent
	Active    bool          // the one that Best returns
	MTU       int           // IP packets known to pass
	LastHeard time.Time     // a pong or authenticated data from there
}

// Table is the candidates of one remote node and what is known of each. It is
// owned by one goroutine.
type Table struct {
	cfg        Config
	candidates []*candidate
	active     *candidate // nil: none is up
	wanted     bool
	alarmed    bool      // the active path is failing, and the others were roused
	switched   time.Time // when the active path last changed
	class      way.Class // of the last active path
	worse      time.Time // when it last changed to one of a worse class
	sent       time.Time // when data was last sent
	used       time.Time // when a frame last went or came
	pings      []Ping    // what Tick returns; reused

	calm  bool          // of the last pong, see Calm
	quiet time.Duration // the longest pause on a quiet path; 0: the usual one
}

// New makes a Table without candidates.
func New(cfg Config) *Table {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	return &Table{cfg: cfg}
}

// SetCandidates replaces the addresses that records name. At most 16 are taken.
// A path that is up stays, whether it is named or not.
func (t *Table) SetCandidates(addrs []netip.AddrPort, now time.Time) {
	for _, c := range t.candidates {
		c.listed = false
	}
	listed := 0
	for _, addr := range addrs {
		if listed == maxListed {
			break
		}
		if c := t.add(addr, now); c != nil && !c.listed {
			c.listed = true
			listed++
		}
	}
}

// Learn says that something authentic, a ping or a handshake, came from addr.
// Unless that is up, it is probed before anything else is sent there, and the
// active path is put to the test: the remote may have moved.
func (t *Table) Learn(addr netip.AddrPort, now time.Time) {
	c := t.add(addr, now)
	if c == nil {
		return
	}
	c.learnt = later(c.learnt, now)
	if c.up {
		return
	}
	c.poked = true
	if t.active != nil {
		t.active.poked = true
	}
}

// Vouch says that something secret that was sent to addr has come back: whoever
// is there takes part. Its budget is whole again, so that an address that did not
// answer for long is confirmed as soon as the remote is back.
func (t *Table) Vouch(addr netip.AddrPort, now time.Time) {
	c := t.add(addr, now)
	if c == nil {
		return
	}
	c.learnt = later(c.learnt, now)
	if !c.up {
		c.budget = budget{}
		c.rouse()
	}
}

// Want says whether frames wait for the remote or a session with it is in use.
// What was up before a long pause has to be confirmed again.
func (t *Table) Want(on bool, now time.Time) {
	if on && !t.wanted {
		for _, c := range t.candidates {
			if c.up && now.Sub(c.heard) >= freshness {
				t.drop(c)
			}
			c.rest()
			c.rouse()
		}
	}
	t.wanted = on
}

// Pong says that the remote answered transaction, from addr, and that it had
// received so many messages with data from us there. It reports whether that
// answers a ping of ours; if not, it is late, repeated or replayed.
func (t *Table) Pong(addr netip.AddrPort, transaction [12]byte, received uint32, now time.Time) (fresh bool) {
	c, i := t.pinged(transaction)
	if c == nil {
		return false
	}
	if c.addr != unmap(addr) {
		t.Learn(addr, now) // alive, but not where it was asked
		return false
	}
	ping := c.pings[i]
	c.pings = slices.Delete(c.pings, i, i+1)
	t.calm = ping.calm && !ping.lost && !c.late(now.Sub(ping.at))
	c.answered(ping, now)
	if c == t.active {
		c.loss.pong(ping.sent, received, c.mostLoss(), ping.at, now)
	}
	if t.active == nil {
		t.choose(c, now)
	}
	t.judge(now)
	return true
}

// Up reports whether an address is a path.
func (t *Table) Up(addr netip.AddrPort) bool {
	c := t.find(addr)
	return c != nil && c.up
}

// Known reports whether an address is remembered.
func (t *Table) Known(addr netip.AddrPort) bool { return t.find(addr) != nil }

// Heard says that authenticated transport data came from addr. Saying the same
// again changes nothing.
func (t *Table) Heard(addr netip.AddrPort, now time.Time) {
	c := t.find(addr)
	if c != nil && !now.After(c.data) {
		return
	}
	if c == nil || !c.up {
		t.Learn(addr, now)
		if c = t.find(addr); c == nil {
			return
		}
	}
	c.data = later(c.data, now)
	if now.After(c.heard) {
		c.alive(now)
	}
	if t.active != nil && c != t.active && now.Sub(t.active.heard) >= quietTest {
		t.active.poked = true
	}
}

// Used says that a frame went or came at that time. The active path is watched
// closely for a while: control messages alone, which never cease, are no reason.
func (t *Table) Used(at time.Time) { t.used = later(t.used, at) }

// Sent says that data was sent to the active path. Saying the same again changes
// nothing.
func (t *Table) Sent(now time.Time) {
	if !now.After(t.sent) {
		return
	}
	t.sent = now
	if c := t.active; c != nil && now.After(c.heard) && c.waiting.IsZero() {
		c.waiting = now
	}
}

// Count says how many messages with data have been sent to an address so far.
func (t *Table) Count(addr netip.AddrPort, sent uint32) {
	if c := t.find(addr); c != nil {
		c.loss.out = sent
	}
}

// SentControl is Sent for a control message. Many of those are answers, or want
// none: that nothing comes back says nothing, and only when the path has been silent
// for a while a ping goes along.
func (t *Table) SentControl(now time.Time) {
	if c := t.active; c != nil && now.Sub(c.heard) >= controlTest && c.waiting.IsZero() {
		c.poked = true
	}
}

// LocalChange says that our own addresses or routes have changed: verdicts on
// paths no longer hold and all are probed again at once. The active one stays
// in use until another answers and it does not.
func (t *Table) LocalChange(now time.Time) {
	for _, c := range t.candidates {
		c.up = c == t.active
		c.rtt.samples, c.mtu = min(c.rtt.samples, 1), c.newSearch()
		c.pings = c.pings[:0]
		c.rest()
		c.rouse()
	}
	if t.active != nil {
		t.active.doubted = true
	}
}

// Best is the address to send to; ok is false while none is up.
func (t *Table) Best() (addr netip.AddrPort, ok bool) {
	if t.active == nil {
		return netip.AddrPort{}, false
	}
	return t.active.addr, true
}

// Confirmed reports whether there is a path to send on.
func (t *Table) Confirmed() bool { return t.active != nil }

// MTU is the largest IP packet known to pass on the active path.
func (t *Table) MTU() int {
	if t.active == nil {
		return baseMTU
	}
	return t.active.mtu.size()
}

// Snapshot returns the state of every address, the active one first, then what
// is up, by round trip.
func (t *Table) Snapshot() []PathState {
	states := make([]PathState, 0, len(t.candidates))
	for _, c := range t.candidates {
		if c.ghost() {
			continue
		}
		states = append(states, PathState{
			Addr: c.addr, RTT: c.rtt.smoothed, Loss: max(c.history.loss(), c.loss.rate), Up: c.up,
			Active: c == t.active, MTU: c.mtu.size(), LastHeard: c.heard,
		})
	}
	rank := func(s PathState) int {
		switch {
		case s.Active:
			return 0
		case s.Up:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(states, func(a, b PathState) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.RTT, b.RTT))
	})
	return states
}

// find returns the candidate with an address, nil if there is none.
func (t *Table) find(addr netip.AddrPort) *candidate {
	addr = unmap(addr)
	for _, c := range t.candidates {
		if c.addr == addr {
			return c
		}
	}
	return nil
}

// add returns the candidate with an address, a new one if need be; nil when the
// address is none or there is no room, which only a remote that keeps naming new
// addresses can bring about.
func (t *Table) add(addr netip.AddrPort, now time.Time) *candidate {
	if c := t.find(addr); c != nil || !addr.IsValid() || addr.Port() == 0 {
		return c
	}
	t.prune(now)
	if len(t.candidates) >= maxTracked && !t.evict() {
		return nil
	}
	c := newCandidate(unmap(addr))
	t.candidates = append(t.candidates, c)
	return c
}

// evict forgets the address that something authentic came from the longest ago:
// such packets may be replayed from anywhere, and must not keep a new one out.
func (t *Table) evict() bool {
	oldest := -1
	for i, c := range t.candidates {
		if c.up || c.listed || c.held || c.learnt.IsZero() {
			continue
		}
		if oldest < 0 || c.learnt.Before(t.candidates[oldest].learnt) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	t.candidates = slices.Delete(t.candidates, oldest, oldest+1)
	return true
}

// prune forgets addresses that nobody names any more. Not before their budget is
// whole again: a record that comes and goes must not renew it.
func (t *Table) prune(now time.Time) {
	t.candidates = slices.DeleteFunc(t.candidates, func(c *candidate) bool {
		if !c.learnt.IsZero() && !c.up && now.Sub(later(c.learnt, c.heard)) >= learntFor {
			c.learnt = time.Time{}
		}
		return c.ghost() && !c.budget.spent(now)
	})
}

// pinged finds the ping with a transaction.
func (t *Table) pinged(transaction [12]byte) (*candidate, int) {
	for _, c := range t.candidates {
		for i := range c.pings {
			if c.pings[i].transaction == transaction {
				return c, i
			}
		}
	}
	return nil, 0
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Ask makes a ping to an address at once, in answer to a packet that just came
// from there. Where the address has no budget left for it, extra is false: it
// may go only in the place of the packet's other answer, and is free then.
func (t *Table) Ask(addr netip.AddrPort, now time.Time) (p Ping, extra, ok bool) {
	c := t.find(addr)
	if c == nil {
		return p, false, false
	}
	was := c.budget
	extra = c.verified(now) || !was.free().After(now)
	t.pings = t.pings[:0]
	t.ping(c, 0, now)
	if !extra {
		c.budget = was
	}
	if len(t.pings) == 0 {
		return p, false, false
	}
	return t.pings[0], extra, true
}

// Afford reports whether something other than a ping may be sent to an address
// now, and takes it off the budget that an address has until it has answered. It
// may not where a ping could not even be sent.
func (t *Table) Afford(addr netip.AddrPort, now time.Time) bool {
	c := t.find(addr)
	if c == nil || c.stuck || !c.held && c.budget.free().After(now) {
		return false
	}
	c.budget.spend(now)
	return true
}
