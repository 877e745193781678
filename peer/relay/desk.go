package relay

import (
	"cmp"
	"encoding/binary"
	"io"
	"slices"
	"time"

	"meshd/keys"
)

const (
	// Lifetime is how long a circuit stays without being refreshed.
	Lifetime = 2 * time.Minute
	// maxCircuits bounds what one relay carries, and maxPerMember what it carries
	// for one asker.
	maxCircuits  = 1024
	maxPerMember = 64
	// A member's new circuits: openBurst at once, and one every openEvery. Each
	// costs a new table for the data path.
	openBurst = 32
	openEvery = 250 * time.Millisecond

	// Messages that want an answer are repeated after repeatFirst, doubling.
	repeatFirst = 250 * time.Millisecond
	repeatTimes = 5
)

// Link is what a desk or a book has to know of its session with a member.
type Link struct {
	Up    bool // there is a session and a path
	RTT   time.Duration
	Chain []keys.NodeID // relays on the path in use, from here on
}

// Message is one to send inside the session with a member.
type Message struct {
	To   keys.NodeID
	Body []byte
}

// Config is what a Desk or Book is made with.
type Config struct {
	Self keys.NodeID
	Link func(keys.NodeID) Link // zero for who is not known
	// Share is what a circuit that the desk carries gets when it wants all that it can
	// have, in bytes per second, 0: no limit; not ok until that is known. Nil: never.
	Share func(Circuit) (rate uint64, ok bool)
	Rand  io.Reader
}

// Circuit is one that the desk carries.
type Circuit struct {
	Asker, Other     keys.NodeID
	AskerID, OtherID uint32 // on either side
}

// Offer is what a desk does for others.
type Offer struct {
	On    bool
	Spent bool   // the month's volume
	Rate  uint64 // bytes per second for one more pair; 0: no limit
}

// Desk is the relay's side: which circuits it carries. It is owned by one
// goroutine.
type Desk struct {
	cfg      Config
	offer    Offer
	circuits map[pair]*carried
	ids      map[uint32]bool
	askers   map[keys.NodeID]*asker
	out      []Message
	changed  bool
}

// pair is an asker and whom it asked for.
type pair struct{ asker, other keys.NodeID }

// carried is a circuit with what is under way for it.
type carried struct {
	Circuit
	asked, offered Ticket
	expires        time.Time
	repeat         time.Time // of the offer; zero: it was accepted
	tries          int
	accepted       bool // ever: then its half lasts for a while without
}

// asker is how fast a member asks.
type asker struct {
	used     time.Time // the time at which what it had has been made good
	circuits int
}

// NewDesk makes a desk that carries nothing.
func NewDesk(cfg Config) *Desk {
	return &Desk{
		cfg: cfg, offer: Offer{On: true},
		circuits: map[pair]*carried{}, ids: map[uint32]bool{}, askers: map[keys.NodeID]*asker{},
	}
}

// Take returns what is to be sent, and whether the circuits have changed.
func (d *Desk) Take() (out []Message, changed bool) {
	out, changed = d.out, d.changed
	d.out, d.changed = nil, false
	return out, changed
}

// SetOffer says what the desk does for others from now on. Off ends all circuits.
func (d *Desk) SetOffer(o Offer) {
	d.offer = o
	reason := Off
	switch {
	case o.On && !o.Spent:
		return
	case o.On:
		reason = Spent
	}
	for _, c := range d.circuits {
		d.end(c, reason, keys.NodeID{})
	}
}

// Circuits lists what is carried, in a fixed order.
func (d *Desk) Circuits() []Circuit {
	list := make([]Circuit, 0, len(d.circuits))
	for _, c := range d.circuits {
		list = append(list, c.Circuit)
	}
	slices.SortFunc(list, func(a, b Circuit) int {
		return cmp.Or(a.Asker.Compare(b.Asker), a.Other.Compare(b.Other))
	})
	return list
}

// Receive takes a message of a member. It reports whether that was for a desk.
func (d *Desk) Receive(from keys.NodeID, body []byte, now time.Time) bool {
	m, err := parse(body)
	if err != nil {
		return false
	}
	switch m.kind {
	case kindOpen:
		d.open(from, m, now)
	case kindAccept:
		if c := d.byTicket(from, m.ticket); c != nil && c.Other == from {
			c.repeat, c.accepted = time.Time{}, true
		}
	case kindEnd:
		if c := d.byTicket(from, m.ticket); c != nil {
			d.end(c, m.reason, from)
		}
	default:
		return false
	}
	return true
}

// open answers who asks for a circuit, or refreshes one.
func (d *Desk) open(from keys.NodeID, m message, now time.Time) {
	key := pair{from, m.other}
	c := d.circuits[key]
	if reason := d.judge(key, c == nil, now); reason != 0 {
		if c != nil {
			d.end(c, reason, keys.NodeID{})
		}
		d.refuse(from, m.ticket, reason)
		return
	}
	if c == nil {
		c = &carried{Circuit: Circuit{Asker: from, Other: m.other, AskerID: d.newID(), OtherID: d.newID()}}
		d.circuits[key] = c
		d.askers[from].circuits++
		d.changed = true
	}
	c.asked = m.ticket
	c.expires = now.Add(Lifetime)
	if c.offered == (Ticket{}) {
		c.offered = d.newTicket()
	}
	c.tries, c.repeat = 0, now // the other end's half is refreshed, too
	link := d.cfg.Link(m.other)
	opened := message{
		kind: kindOpened, ticket: m.ticket, id: c.AskerID, lifetime: Lifetime,
		rate: d.rate(c), rtt: link.RTT, chain: link.Chain,
	}
	d.advance(c, now)
	d.send(from, opened)
}

// rate is what a circuit is told that it can have. To one that is new this is what one more would get.
func (d *Desk) rate(c *carried) uint64 {
	if d.cfg.Share != nil {
		if share, ok := d.cfg.Share(c.Circuit); ok {
			return share
		}
	}
	return d.offer.Rate
}

// judge says why a circuit is not to be, 0 if it is.
func (d *Desk) judge(key pair, fresh bool, now time.Time) Reason {
	from, to := d.cfg.Link(key.asker), d.cfg.Link(key.other)
	switch {
	case !d.offer.On:
		return Off
	case d.offer.Spent:
		return Spent
	case key.other == d.cfg.Self || !from.Up || !to.Up:
		return Unreachable
	case !Fits(key.asker, key.other, Join(from.Chain, d.cfg.Self, to.Chain)):
		return TooFar
	case fresh && !d.room(key.asker, now):
		return Busy
	}
	return 0
}

// room reports whether a member may have another circuit, and takes it off its
// budget.
func (d *Desk) room(id keys.NodeID, now time.Time) bool {
	a := d.askers[id]
	if a == nil {
		a = &asker{}
		d.askers[id] = a
	}
	if full := now.Add(-openBurst * openEvery); a.used.Before(full) {
		a.used = full
	}
	if a.circuits >= maxPerMember || len(d.circuits) >= maxCircuits || a.used.Add(openEvery).After(now) {
		return false
	}
	a.used = a.used.Add(openEvery)
	return true
}

// Tick repeats what was not answered and ends what was not refreshed. It returns
// when to be called next, zero if not before another call.
func (d *Desk) Tick(now time.Time) (wake time.Time) {
	for _, c := range d.circuits {
		d.advance(c, now)
	}
	for _, c := range d.circuits {
		if wake.IsZero() || c.expires.Before(wake) {
			wake = c.expires
		}
		if !c.repeat.IsZero() && c.repeat.Before(wake) {
			wake = c.repeat
		}
	}
	for id, a := range d.askers {
		if a.circuits == 0 && now.Sub(a.used) > openBurst*openEvery {
			delete(d.askers, id)
		}
	}
	return wake
}

func (d *Desk) advance(c *carried, now time.Time) {
	switch {
	case !now.Before(c.expires):
		d.end(c, Ended, keys.NodeID{})
	case c.repeat.IsZero() || now.Before(c.repeat):
	case c.tries >= repeatTimes && c.accepted:
		c.repeat = time.Time{}
	case c.tries >= repeatTimes:
		d.end(c, Unreachable, c.Other)
	default:
		link := d.cfg.Link(c.Asker)
		d.send(c.Other, message{
			kind: kindOffer, ticket: c.offered, id: c.OtherID, lifetime: Lifetime,
			other: c.Asker, chain: link.Chain,
		})
		d.send(c.Other, message{kind: kindTerms, ticket: c.offered, rate: d.rate(c), rtt: link.RTT})
		c.repeat = now.Add(repeatFirst << c.tries)
		c.tries++
	}
}

// Recheck ends circuits whose ends are now farther away than is allowed. It is
// called when paths to members have changed.
func (d *Desk) Recheck() {
	for key, c := range d.circuits {
		from, to := d.cfg.Link(key.asker), d.cfg.Link(key.other)
		if !Fits(key.asker, key.other, Join(from.Chain, d.cfg.Self, to.Chain)) {
			d.end(c, TooFar, keys.NodeID{})
		}
	}
}

// Forget ends what a member has who is one no longer.
func (d *Desk) Forget(id keys.NodeID) {
	for _, c := range d.circuits {
		if c.Asker == id || c.Other == id {
			d.end(c, Unreachable, id)
		}
	}
	delete(d.askers, id)
}

// end takes a circuit away and tells the ends, but not the one that knows.
func (d *Desk) end(c *carried, why Reason, knows keys.NodeID) {
	delete(d.circuits, pair{c.Asker, c.Other})
	delete(d.ids, c.AskerID)
	delete(d.ids, c.OtherID)
	if a := d.askers[c.Asker]; a != nil {
		a.circuits--
	}
	d.changed = true
	if c.Asker != knows {
		d.refuse(c.Asker, c.asked, why)
	}
	if c.Other != knows {
		d.refuse(c.Other, c.offered, why)
	}
}

func (d *Desk) refuse(to keys.NodeID, t Ticket, why Reason) {
	d.send(to, message{kind: kindEnd, ticket: t, reason: why})
}

func (d *Desk) send(to keys.NodeID, m message) {
	d.out = append(d.out, Message{to, m.append(nil)})
}

// byTicket finds the circuit that a member knows by a ticket.
func (d *Desk) byTicket(from keys.NodeID, t Ticket) *carried {
	for _, c := range d.circuits {
		if c.Asker == from && c.asked == t || c.Other == from && c.offered == t {
			return c
		}
	}
	return nil
}

func (d *Desk) newID() uint32 {
	for {
		var b [4]byte
		_, _ = io.ReadFull(d.cfg.Rand, b[:]) // crypto/rand never fails
		if id := binary.BigEndian.Uint32(b[:]); !d.ids[id] {
			d.ids[id] = true
			return id
		}
	}
}

func (d *Desk) newTicket() (t Ticket) {
	_, _ = io.ReadFull(d.cfg.Rand, t[:])
	return t
}
