package peer

import (
	"cmp"
	"crypto/rand"
	"net/netip"
	"slices"
	"time"

	"meshd/keys"
	"meshd/peer/inner"
	"meshd/peer/relay"
	"meshd/peer/way"
)

// Circuits as the engine's goroutine sees them: whom to ask for one, what to
// carry for others. All of it runs under the control lock.

const (
	// kindRelay is the kind of the control messages that the engine keeps to
	// itself (PROTOCOL.md, 4.3).
	kindRelay = 7
	// maxRelayMessage is more than the longest of them.
	maxRelayMessage = 128
	relayQueue      = 256

	// directFirst is how long a direct path is sought alone, where the other end
	// does not say that it has contacts.
	directFirst = 200 * time.Millisecond
	// wantedWays is how many circuits a pair without a direct path has: one in use
	// and one that is ready.
	wantedWays = 2
	// seekFirst and seekAtMost are the pauses between attempts to get them, and askFirst and askMore how many relays are
	// asked in the first one and in each other.
	seekFirst  = 200 * time.Millisecond
	seekAtMost = 10 * time.Second
	askFirst   = 8
	askMore    = 2
	// keepFor is how long circuits stay after frames last went, once there is a
	// direct path.
	keepFor = 30 * time.Second
)

// relaying is what the engine's goroutine knows of circuits.
type relaying struct {
	desk    *relay.Desk
	book    *relay.Book
	wake    time.Time
	dirty   bool // the data path's table has to be made anew
	held    map[uint64]*Remote
	scratch []netip.AddrPort
	flows   map[relay.Circuit]*flow
	ended   uint64 // bytes carried on circuits that are no more

	share sharing

	reached time.Time // when somebody came whom we had not sent anything to; zero: never
}

// relayMessage is one that waits for the engine's goroutine.
type relayMessage struct {
	from *Remote
	n    int
	body [maxRelayMessage]byte
}

func (e *Engine) newRelaying() relaying {
	cfg := relay.Config{Self: e.identity.Public().ID(), Link: e.linkTo, Share: e.shareOf, Rand: rand.Reader}
	return relaying{
		desk: relay.NewDesk(cfg), book: relay.NewBook(cfg),
		held: map[uint64]*Remote{}, flows: map[relay.Circuit]*flow{}, share: sharing{Sharing: Sharing{On: true}},
	}
}

// Sharing is what this node does for others.
type Sharing struct {
	On    bool
	Spent bool   // the month's volume is used up
	Rate  uint64 // bytes per second for all of them; 0: no limit
}

// SetSharing says what this node does for others.
func (e *Engine) SetSharing(s Sharing) {
	e.call(func(now time.Time) {
		c := &e.control.relay
		c.share.Sharing, c.wake = s, now
		if len(c.flows) > 0 {
			c.share.at = now
		}
		c.desk.SetOffer(relay.Offer{On: s.On, Spent: s.Spent, Rate: s.Rate})
	})
}

// enqueueRelay copies a control message for the engine's goroutine.
func (e *Engine) enqueueRelay(from *Remote, body []byte) {
	m := relayMessage{from: from}
	if len(body) > len(m.body) {
		e.counts.Malformed.Add(1)
		return
	}
	m.n = copy(m.body[:], body)
	select {
	case e.relayQ <- m:
	default:
		e.counts.RelayDropped.Add(1)
	}
}

func (e *Engine) handleRelay(m *relayMessage, now time.Time) {
	if m.from.closed || m.from.Class() != Member {
		return
	}
	c := &e.control.relay
	body := m.body[:m.n]
	desk, book := c.desk.Receive(m.from.ID, body, now), c.book.Receive(m.from.ID, body, now)
	if !desk && !book {
		e.counts.Malformed.Add(1)
	}
	c.wake = now
}

// linkTo is the session with a member as the relay machines want to know it.
func (e *Engine) linkTo(id keys.NodeID) relay.Link {
	r := e.control.byID[id]
	if r == nil || r.Class() != Member || !r.Up() {
		return relay.Link{}
	}
	chain, ok := chainTo(r.route.Load(), 0)
	return relay.Link{Up: ok, RTT: r.paths.RTT(), Chain: chain}
}

// chainTo lists the relays on a route. It is not ok when there are too many: then
// two routes may lead through each other.
func chainTo(to *route, depth int) (chain []keys.NodeID, ok bool) {
	switch {
	case to == nil || depth > relay.MaxHops:
		return nil, false
	case to.via == nil:
		return nil, true
	}
	chain, ok = chainOf(to.via, depth)
	return chain, ok
}

// chainOf lists the relays of a circuit that ends here.
func chainOf(w *end, depth int) (chain []keys.NodeID, ok bool) {
	chain, ok = chainTo(w.relay.route.Load(), depth+1)
	return append(append(chain, w.relay.ID), w.beyond...), ok && len(chain) < relay.MaxHops
}

// advanceRelays lets the relay machines act, and makes the data path's table anew
// where something has changed.
func (e *Engine) advanceRelays(now time.Time) {
	c := &e.control.relay
	for range 4 { // what changes here may have consequences here
		due := !c.wake.IsZero() && !c.wake.After(now)
		if !due && !c.dirty {
			return
		}
		if c.dirty {
			c.desk.Recheck()
		}
		c.wake = earliest(c.desk.Tick(now), c.book.Tick(now))
		out, changed := c.desk.Take()
		more, changed2 := c.book.Take()
		for _, m := range append(out, more...) {
			e.sendRelayMessage(m, now)
		}
		for _, id := range c.book.Refused() {
			if r := e.control.byID[id]; r != nil {
				e.control.schedule(r, now)
			}
		}
		for _, w := range c.book.Restated() {
			if r := c.held[w.Key]; r != nil && !r.closed {
				r.paths.Slow(virtual(w.Key), relay.Slower(w.Rate), now)
				e.control.schedule(r, now)
			}
		}
		if !c.dirty && !changed && !changed2 {
			return
		}
		c.dirty = false
		e.publishCircuits(now)
	}
}

func (e *Engine) sendRelayMessage(m relay.Message, now time.Time) {
	r := e.control.byID[m.To]
	if r == nil || r.Class() != Member || !r.Up() {
		return
	}
	r.lastUsed.Store(e.stamp(now))
	if r.transmit(inner.Header{Kind: inner.KindControl}, append([]byte{kindRelay}, m.Body...)) {
		r.Flush()
	}
}

// publishCircuits makes the data path's table anew, and gives remotes the ways
// that lead to them.
func (e *Engine) publishCircuits(now time.Time) {
	c := &e.control.relay
	for _, r := range e.control.byID {
		r.onCircuits, r.upBefore = false, nil
	}
	table := &circuits{legs: map[uint32]*leg{}, ends: map[uint32]*end{}, byWay: map[netip.AddrPort]*end{}}
	e.addLegs(table)
	ways := c.book.Ways()
	for _, w := range ways {
		e.addEnd(table, w)
	}
	e.circuits.Store(table)
	for key, r := range c.held {
		if !slices.ContainsFunc(ways, func(w relay.Way) bool { return w.Key == key && e.control.byID[w.Other] == r }) {
			delete(c.held, key)
			if !r.closed {
				r.paths.Release(virtual(key), now)
				r.advance(now)
			}
		}
	}
	for _, w := range ways {
		r := e.control.byID[w.Other]
		if r == nil || table.byWay[virtual(w.Key)] == nil {
			continue
		}
		if c.held[w.Key] == nil {
			c.held[w.Key] = r
			r.paths.Hold(virtual(w.Key), r.session.SendKey() == nil, now)
			r.paths.Slow(virtual(w.Key), relay.Slower(w.Rate), now)
		}
		r.advance(now) // its route may lead over a circuit that has moved
	}
}

func virtual(key uint64) netip.AddrPort { return way.Virtual(way.Relayed, key) }

// addLegs puts what the desk carries into a table.
func (e *Engine) addLegs(table *circuits) {
	c := &e.control.relay
	flows := map[relay.Circuit]*flow{}
	for _, k := range c.desk.Circuits() {
		a, b := e.control.byID[k.Asker], e.control.byID[k.Other]
		if a == nil || b == nil {
			continue
		}
		f := c.flows[k]
		if f == nil {
			f = &flow{}
		}
		flows[k] = f
		a.joinCircuits()
		b.joinCircuits()
		table.legs[k.AskerID] = &leg{sources: e.sourcesFor(a, b), to: b, out: relay.NewHeader(true, k.OtherID), flow: f}
		table.legs[k.OtherID] = &leg{sources: e.sourcesFor(b, a), to: a, out: relay.NewHeader(true, k.AskerID), flow: f}
	}
	for k, f := range c.flows {
		if flows[k] == nil {
			c.ended += f.bytes.Load()
		}
	}
	c.flows = flows
	if len(flows) > 0 && c.share.at.IsZero() {
		c.share.at = e.now()
	}
}

// sourcesFor lists the addresses from which a member may send to another through
// this node: those that its session has confirmed, and of relayed ones those that
// are near enough.
func (e *Engine) sourcesFor(from, to *Remote) (list []netip.AddrPort) {
	self := e.identity.Public().ID()
	onward, ok := chainTo(to.route.Load(), 0)
	if !ok {
		return nil
	}
	for _, addr := range from.upBefore {
		var chain []keys.NodeID
		if way.ClassOf(addr) == way.Relayed {
			via := e.circuits.Load().byWay[addr]
			if via == nil {
				continue
			}
			if chain, ok = chainOf(via, 0); !ok {
				continue
			}
		}
		if relay.Fits(from.ID, to.ID, relay.Join(chain, self, onward)) {
			list = append(list, addr)
		}
	}
	return list
}

// addEnd puts a circuit that ends here into a table.
func (e *Engine) addEnd(table *circuits, w relay.Way) {
	r := e.control.byID[w.Relay]
	if r == nil {
		return
	}
	r.joinCircuits()
	id := w.ID
	next := &end{
		addr: virtual(w.Key), relay: r, sources: r.upBefore, beyond: w.Beyond,
		out: relay.NewHeader(false, id), next: table.ends[id],
	}
	table.ends[id] = next
	table.byWay[next.addr] = next
}

// joinCircuits notes where a remote is that is part of circuits.
func (r *Remote) joinCircuits() {
	if !r.onCircuits {
		r.onCircuits, r.upBefore = true, r.paths.AppendUp(nil)
	}
}

// noteMoved asks for a new table when the addresses of a remote that is part of
// circuits have changed.
func (r *Remote) noteMoved() {
	if !r.onCircuits {
		return
	}
	c := &r.engine.control.relay
	c.scratch = r.paths.AppendUp(c.scratch[:0])
	if !slices.Equal(c.scratch, r.upBefore) {
		c.dirty = true
	}
}

// seek gets circuits for a remote that has no direct path, and keeps those that it
// has. It returns when to be called next.
func (r *Remote) seek(wanted bool, now time.Time) time.Time {
	if !wanted || r.Class() != Member {
		r.restartSeek(time.Time{})
		return time.Time{}
	}
	book := r.engine.control.relay.book
	if r.direct(now) {
		if t := r.carried.Load(); t != 0 && now.Sub(r.engine.at(t)) < keepFor {
			book.Need(r.ID, now)
		}
		r.restartSeek(time.Time{})
		return time.Time{}
	}
	book.Need(r.ID, now)
	if r.leaveBad(now) {
		r.seekAt = now
	}
	switch {
	case r.seekAt.IsZero() && len(r.contacts) == 0 && !r.everUp:
		r.seekAt = now.Add(directFirst)
	case r.seekAt.IsZero():
		r.seekAt = now
	}
	open, asking, overdue, late := book.Count(r.ID, now)
	if !now.Before(r.seekAt) {
		r.nextSeek(open, now)
	}
	if !r.engine.wasTardy(now) { // else answers may be late by our own doing
		asking -= overdue
	}
	if r.seekLeft == 0 || open+asking >= wantedWays {
		return earliest(r.seekAt, late)
	}
	if asked := r.askRelays(open, min(wantedWays-open-asking, r.seekLeft), now); asked > 0 {
		r.seekLeft -= asked
		_, _, _, late = book.Count(r.ID, now)
	} else {
		r.seekLeft = 0 // nobody is left to ask
	}
	return earliest(r.seekAt, late)
}

// nextSeek says how many relays may be asked from now on, and until when.
func (r *Remote) nextSeek(open int, now time.Time) {
	switch {
	case open >= wantedWays:
		r.restartSeek(now.Add(seekAtMost))
		return
	case r.seekWait == 0 && !r.engine.wasTardy(now):
		r.seekLeft, r.seekWait = askFirst, seekFirst
	default:
		r.seekLeft, r.seekWait = askMore, min(max(2*r.seekWait, seekFirst), seekAtMost)
	}
	r.seekAt = now.Add(r.seekWait)
}

// restartSeek has relays sought anew, at a time or when there is need (zero).
func (r *Remote) restartSeek(at time.Time) { r.seekAt, r.seekWait, r.seekLeft = at, 0, 0 }

// forgive has the remote asked for circuits again that it could not make before: it may
// have started anew. Those who need one do not wait for their next attempt.
func (r *Remote) forgive(now time.Time) {
	c := &r.engine.control
	for _, id := range c.relay.book.Forgive(r.ID) {
		if other := c.byID[id]; other != nil {
			other.restartSeek(time.Time{})
			c.schedule(other, now)
		}
	}
}

// leaveBad ends circuits on which data is lost while there is another path, and
// those on which nothing comes back. It reports whether there were any.
func (r *Remote) leaveBad(now time.Time) (left bool) {
	c := &r.engine.control.relay
	for key, held := range c.held {
		if held != r {
			continue
		}
		bad, dead := r.paths.Confirmed() && r.paths.Bad(virtual(key), now), r.paths.Dead(virtual(key))
		if bad || dead {
			r.engine.log.Info("circuit left", "peer", r.ID.String(), "loses_data", bad)
			c.book.Avoid(key, bad, now)
			c.wake, left = now, true
		}
	}
	return left
}

// direct says that a path is in use that needs no relay, and is not in doubt.
func (r *Remote) direct(now time.Time) bool {
	to := r.route.Load()
	return to != nil && way.ClassOf(to.addr) == way.Direct && !r.paths.Doubted(now)
}

// askRelays asks so many of the best members for circuits to the remote, of which some are
// open, and makes sessions with its contacts where there are none. It returns how many it has asked.
func (r *Remote) askRelays(open, most int, now time.Time) (asked int) {
	e := r.engine
	book := e.control.relay.book
	var list []relay.Candidate
	for _, x := range e.control.byID {
		if x == r || !x.relays || x.Class() != Member || book.Failed(x.ID, r.ID, now) {
			continue
		}
		contact := slices.Contains(r.contacts, x.ID)
		link := e.linkTo(x.ID)
		if !link.Up {
			if contact && x.wantSince.IsZero() {
				x.lastUsed.Store(e.stamp(now))
				e.attend(x)
			}
			continue
		}
		if !relay.Fits(e.identity.Public().ID(), r.ID, append(link.Chain, x.ID)) {
			continue
		}
		rate, beyond := book.Terms(x.ID, r.ID, now)
		list = append(list, relay.Candidate{
			ID: x.ID, Contact: contact, Public: len(x.contacts) == 0, Far: len(link.Chain) > 0,
			Poor: book.Poor(x.ID, r.ID, now), Rate: rate,
			RTT: link.RTT + cmp.Or(beyond, link.RTT), // who has not said it is taken to be in the middle
		})
	}
	relay.Rank(list)
	for _, c := range list {
		if c.Poor && open > 0 {
			break // worse than the one there is
		}
		if asked < most && book.Ask(c.ID, r.ID, now) {
			asked++
			e.control.relay.wake = now
		}
	}
	return asked
}

// Via is what a relayed path leads over.
type Via struct {
	Relays   []keys.NodeID  // the nearest first
	Endpoint netip.AddrPort // of the nearest
}

// describeVia adds what is known of a relayed path. The control lock is held.
func (e *Engine) describeVia(s *Status, addr netip.AddrPort) {
	via := e.circuits.Load().byWay[addr]
	if via == nil {
		return
	}
	if s.Via == nil {
		s.Via = map[netip.AddrPort]Via{}
	}
	v := Via{}
	v.Relays, _ = chainOf(via, 0)
	for to := via.relay.route.Load(); to != nil && len(v.Relays) <= relay.MaxHops; to = to.via.relay.route.Load() {
		if v.Endpoint = to.addr; to.via == nil {
			break
		}
	}
	s.Via[addr] = v
}

// Carried is what this node carries for two others.
type Carried struct {
	Asker, Other keys.NodeID
	Bytes        uint64 // of datagrams, both ways
}

// Relaying lists what this node carries for others, and says how many bytes it
// has carried since it runs.
func (e *Engine) Relaying() (list []Carried, total uint64) {
	e.control.Lock()
	defer e.control.Unlock()
	c := &e.control.relay
	total = c.ended
	for _, k := range c.desk.Circuits() {
		carried := Carried{Asker: k.Asker, Other: k.Other}
		if f := c.flows[k]; f != nil {
			carried.Bytes = f.bytes.Load()
		}
		total += carried.Bytes
		list = append(list, carried)
	}
	return list, total
}

// Reached says when somebody last came to whose address this node had not sent
// anything: a sign that others can begin. Zero is never.
func (e *Engine) Reached() time.Time {
	e.control.Lock()
	defer e.control.Unlock()
	return e.control.relay.reached
}
