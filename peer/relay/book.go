package relay

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"time"

	"meshd/keys"
)

const (
	// refreshEvery is how often the asker refreshes a circuit that it needs, or up to a quarter more often: pairs that
	// learn at once that a relay has little to give, or much, would go to and fro together.
	refreshEvery = 40 * time.Second
	// maxOffered bounds the circuits that relays may have here for others, for one
	// of those others and in all.
	maxOfferedBy = 4
	maxOffered   = 256
	// forgiveAfter is how long a relay that could not serve a pair is not asked
	// again, doubled for each failure in a row up to forgiveAtMost.
	forgiveAfter  = 2 * time.Second
	forgiveAtMost = time.Minute
	// avoidFor is how long one that lost data is not asked again while there is
	// another.
	avoidFor = 5 * time.Minute
	// goodFor is how long a circuit has to have been there for that to begin anew.
	goodFor = 30 * time.Second
	// answerWithin is how soon a relay is expected to answer, besides two of its round trips: it may
	// have died, and asks the other end in turn.
	answerWithin = 300 * time.Millisecond
)

// Way is a circuit that ends here.
type Way struct {
	Key    uint64        // local, never used twice
	Relay  keys.NodeID   // who carries
	Other  keys.NodeID   // the other end
	ID     uint32        // on our side of the relay
	Beyond []keys.NodeID // further relays between that one and the other end
	Asked  bool          // by us
	Rate   uint64        // offered, bytes per second; 0: no limit or not known
	RTT    time.Duration // between the relay and the other end; 0: not known
}

// Book is an end's side: the circuits that end at this node. It is owned by one
// goroutine.
type Book struct {
	cfg     Config
	last    uint64 // key
	ways    []*entry
	failed  map[served]failure // by relay and other end
	terms   map[served]terms   // by relay and other end, and of the relay alone what it said last to any pair
	refused []keys.NodeID      // other ends of those that have failed since Refused
	changes []uint64           // keys of open ways whose rate has changed since Restated
	out     []Message
	changed bool
}

// entry is a way with what is under way for it.
type entry struct {
	Way
	ticket  Ticket
	open    bool
	since   time.Time
	expires time.Time
	next    time.Time // asked: when to ask or refresh again
	tries   int       // asked: without an answer
	needed  time.Time // asked: last said to be
}

// served is a pair of this node as a relay may serve it.
type served struct{ relay, other keys.NodeID }

// failure is how often a relay could not serve a pair in a row, and whether it has
// lost the pair's data.
type failure struct {
	until time.Time
	wait  time.Duration
	poor  time.Time // until when it counts as one that loses data
}

// NewBook makes an empty book.
func NewBook(cfg Config) *Book {
	return &Book{cfg: cfg, failed: map[served]failure{}, terms: map[served]terms{}}
}

// Take returns what is to be sent, and whether the ways have changed.
func (b *Book) Take() (out []Message, changed bool) {
	out, changed = b.out, b.changed
	b.out, b.changed = nil, false
	return out, changed
}

// Refused returns the other ends of circuits that relays could not make since the last call: others are to be asked.
func (b *Book) Refused() []keys.NodeID {
	list := b.refused
	b.refused = nil
	return list
}

// Ask begins to ask a relay for a circuit to another member, unless that is under
// way or has failed lately. It reports whether it did.
func (b *Book) Ask(through, other keys.NodeID, now time.Time) bool {
	if b.Failed(through, other, now) || b.has(through, other) {
		return false
	}
	b.last++
	e := &entry{Way: Way{Key: b.last, Relay: through, Other: other, Asked: true}, since: now, next: now, needed: now}
	_, _ = io.ReadFull(b.cfg.Rand, e.ticket[:]) // crypto/rand never fails
	b.ways = append(b.ways, e)
	b.advance(e, now)
	return true
}

// Failed reports whether a relay could not serve a pair lately.
func (b *Book) Failed(through, other keys.NodeID, now time.Time) bool {
	return now.Before(b.failed[served{through, other}].until)
}

// Poor reports whether a relay has lost a pair's data lately: it is better than
// none, and than nothing else.
func (b *Book) Poor(through, other keys.NodeID, now time.Time) bool {
	return now.Before(b.failed[served{through, other}].poor)
}

// Forgive has a relay asked again at once that could not serve pairs: there is a new
// session with it. It returns the other ends of those; that it has lost data is not
// forgotten.
func (b *Book) Forgive(through keys.NodeID) (others []keys.NodeID) {
	for key, f := range b.failed {
		if key.relay == through {
			f.until, f.wait = time.Time{}, 0
			b.failed[key] = f
			others = append(others, key.other)
		}
	}
	return others
}

// asked finds the circuit through a relay that we asked for.
func (b *Book) asked(through, other keys.NodeID) *entry {
	for _, e := range b.ways {
		if e.Asked && e.Relay == through && e.Other == other {
			return e
		}
	}
	return nil
}

func (b *Book) has(through, other keys.NodeID) bool {
	return slices.ContainsFunc(b.ways, func(e *entry) bool { return e.Relay == through && e.Other == other })
}

// Need says that the circuits to another member are in use, or may soon be: those
// that we asked for are refreshed.
func (b *Book) Need(other keys.NodeID, now time.Time) {
	for _, e := range b.ways {
		if e.Other == other {
			e.needed = now
		}
	}
}

// Avoid ends a circuit over which nothing comes, and its relay is not asked again
// for a while. One that is bad, that lost data on purpose or for want of capacity,
// is a poor one for long.
func (b *Book) Avoid(key uint64, bad bool, now time.Time) {
	for _, e := range b.ways {
		if e.Key == key {
			b.fail(e, now)
			if f := b.failed[served{e.Relay, e.Other}]; bad {
				f.poor = now.Add(avoidFor)
				b.failed[served{e.Relay, e.Other}] = f
			}
			b.remove(e, Ended, true)
			return
		}
	}
}

// Count says how many circuits to another member there are, how many more are asked for, and how many of those
// are overdue. The next will be so at late; zero: none.
func (b *Book) Count(other keys.NodeID, now time.Time) (open, asking, overdue int, late time.Time) {
	for _, e := range b.ways {
		switch {
		case e.Other != other:
		case e.open:
			open++
		default:
			asking++
			switch at := e.since.Add(answerWithin + 2*b.cfg.Link(e.Relay).RTT); {
			case !now.Before(at):
				overdue++
			case late.IsZero() || at.Before(late):
				late = at
			}
		}
	}
	return open, asking, overdue, late
}

// Ways lists the circuits that are open.
func (b *Book) Ways() []Way {
	var list []Way
	for _, e := range b.ways {
		if e.open {
			list = append(list, e.Way)
		}
	}
	slices.SortFunc(list, func(a, b Way) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

// Receive takes a message of a member. It reports whether that was for a book.
func (b *Book) Receive(from keys.NodeID, body []byte, now time.Time) bool {
	m, err := parse(body)
	if err != nil {
		return false
	}
	switch m.kind {
	case kindOpened:
		b.opened(from, m, now)
	case kindOffer:
		b.offered(from, m, now)
	case kindTerms:
		if e := b.byTicket(from, m.ticket); e != nil && !e.Asked {
			b.agree(e, m, now)
		}
	case kindEnd:
		if e := b.byTicket(from, m.ticket); e != nil {
			if e.Asked {
				b.fail(e, now)
			}
			b.remove(e, m.reason, false)
		}
	default:
		return false
	}
	return true
}

func (b *Book) opened(from keys.NodeID, m message, now time.Time) {
	e := b.byTicket(from, m.ticket)
	if e == nil || !e.Asked {
		b.send(from, message{kind: kindEnd, ticket: m.ticket, reason: Ended})
		return
	}
	if !b.fits(from, e.Other, m.chain) {
		b.fail(e, now)
		b.remove(e, TooFar, true)
		return
	}
	e.tries = 0
	every := min(refreshEvery, m.lifetime/3)
	e.next = now.Add(every - every/4*time.Duration(e.ticket[0])/256)
	b.update(e, m, now)
	b.agree(e, m, now)
}

// offered takes a relay at its word that somebody wants to reach us through it.
// Whether that is so, only what comes through can show.
func (b *Book) offered(from keys.NodeID, m message, now time.Time) {
	if m.other == b.cfg.Self || m.other == from || !b.fits(from, m.other, m.chain) {
		b.send(from, message{kind: kindEnd, ticket: m.ticket, reason: TooFar})
		return
	}
	if own := b.asked(from, m.other); own != nil { // both have asked: one circuit is enough, that of the lower id
		if b.cfg.Self.Compare(m.other) < 0 {
			b.send(from, message{kind: kindEnd, ticket: m.ticket, reason: Ended})
			return
		}
		b.remove(own, Ended, true)
	}
	e := b.byTicket(from, m.ticket)
	if e == nil {
		if !b.roomFor(m.other) {
			b.send(from, message{kind: kindEnd, ticket: m.ticket, reason: Busy})
			return
		}
		b.last++
		e = &entry{Way: Way{Key: b.last, Relay: from, Other: m.other}, ticket: m.ticket, since: now}
		b.ways = append(b.ways, e)
	}
	b.update(e, m, now)
	b.send(from, message{kind: kindAccept, ticket: m.ticket})
}

// update takes over what a relay says of an open circuit.
func (b *Book) update(e *entry, m message, now time.Time) {
	e.expires = now.Add(min(m.lifetime, Lifetime))
	if e.open && e.ID == m.id && slices.Equal(e.Beyond, m.chain) {
		return
	}
	e.open, e.ID, e.Beyond = true, m.id, m.chain
	b.changed = true
}

// fits reports whether a circuit is short enough as seen from here.
func (b *Book) fits(through, other keys.NodeID, beyond []keys.NodeID) bool {
	link := b.cfg.Link(through)
	chain := append(slices.Clone(link.Chain), through)
	return Fits(b.cfg.Self, other, append(chain, beyond...))
}

// roomFor reports whether a relay may have one more circuit here.
func (b *Book) roomFor(other keys.NodeID) bool {
	all, of := 0, 0
	for _, e := range b.ways {
		if !e.Asked {
			all++
			if e.Other == other {
				of++
			}
		}
	}
	return all < maxOffered && of < maxOfferedBy
}

// Tick asks again, refreshes what is needed and ends what is not. It returns when
// to be called next, zero if not before another call.
func (b *Book) Tick(now time.Time) (wake time.Time) {
	for _, e := range slices.Clone(b.ways) {
		b.advance(e, now)
	}
	for key, f := range b.failed {
		if now.Sub(f.until) > forgiveAtMost && now.After(f.poor) {
			delete(b.failed, key)
		}
	}
	b.forgetTerms(now)
	for _, e := range b.ways {
		for _, at := range []time.Time{e.next, e.expires} {
			if !at.IsZero() && (wake.IsZero() || at.Before(wake)) {
				wake = at
			}
		}
	}
	return wake
}

func (b *Book) advance(e *entry, now time.Time) {
	switch {
	case e.open && !now.Before(e.expires):
		b.remove(e, Ended, e.Asked)
	case !e.Asked || now.Before(e.next):
	case e.open && now.Sub(e.needed) >= refreshEvery:
		b.remove(e, Ended, true)
	case e.tries >= repeatTimes && !e.open:
		b.fail(e, now)
		b.remove(e, Unreachable, true)
	default:
		if e.open && now.Sub(e.since) > goodFor && !b.Poor(e.Relay, e.Other, now) {
			delete(b.failed, served{e.Relay, e.Other})
		}
		b.send(e.Relay, message{kind: kindOpen, ticket: e.ticket, other: e.Other})
		e.next = now.Add(repeatFirst << min(e.tries, repeatTimes))
		e.tries++
	}
}

// Forget ends what goes through or to a member who is one no longer.
func (b *Book) Forget(id keys.NodeID) {
	for _, e := range slices.Clone(b.ways) {
		if e.Relay == id || e.Other == id {
			b.remove(e, Ended, e.Relay != id)
		}
	}
	maps.DeleteFunc(b.terms, func(key served, _ terms) bool { return key.relay == id || key.other == id })
}

func (b *Book) fail(e *entry, now time.Time) {
	key := served{e.Relay, e.Other}
	f := b.failed[key]
	f.wait = min(max(2*f.wait, forgiveAfter), forgiveAtMost)
	f.until = now.Add(f.wait)
	b.failed[key] = f
	b.refused = append(b.refused, e.Other)
}

// remove takes a way away, and tells the relay where that does not know.
func (b *Book) remove(e *entry, why Reason, tell bool) {
	b.ways = slices.DeleteFunc(b.ways, func(o *entry) bool { return o == e })
	if e.open {
		b.changed = true
	}
	if tell {
		b.send(e.Relay, message{kind: kindEnd, ticket: e.ticket, reason: why})
	}
}

func (b *Book) send(to keys.NodeID, m message) {
	b.out = append(b.out, Message{to, m.append(nil)})
}

func (b *Book) byTicket(from keys.NodeID, t Ticket) *entry {
	for _, e := range b.ways {
		if e.Relay == from && e.ticket == t {
			return e
		}
	}
	return nil
}
