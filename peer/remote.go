package peer

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"meshd/keys"
	"meshd/peer/fragment"
	"meshd/peer/path"
	"meshd/peer/probe"
	"meshd/peer/punch"
	"meshd/peer/wireguard"
)

// Class says what a remote may do.
type Class uint32

const (
	// Pending remotes have proved their own key only: join messages pass and
	// nothing else.
	Pending Class = iota
	// Member remotes have shown a valid certificate.
	Member
)

const (
	// idleAfter is how long a session is wanted after its last use: less than its keys last
	// (3 min), so that what is said when a session begins does not have it renewed for ever.
	idleAfter = 3*time.Minute - 10*time.Second
	// tryFor is how long one is tried for because of a control message that found
	// none: those are repeated, and most of who does not answer is away.
	tryFor = 20 * time.Second
	// A kept session gets new keys before the old ones end, whether they were used
	// or not, by the side with the lower key; by the other if that does not.
	keepRekey, keepRekeyOther = 120 * time.Second, 150 * time.Second
	// helloAfter is how long probes stay unanswered before a hello asks whether
	// the other side knows us at all.
	helloAfter = 700 * time.Millisecond
	// helloEvery is the pause between such hellos, doubled up to helloAtMost.
	helloEvery  = 2 * time.Second
	helloAtMost = 30 * time.Second
)

// FrameSink is where frames of one remote go: a port of the switch.
type FrameSink interface {
	// Receive takes one decrypted frame, borrowed for the call. A csumStart other
	// than 0 is as the remote says (PROTOCOL.md, 4.1): nothing has looked at it.
	Receive(frame []byte, csumStart int)
	// Flush ends a batch.
	Flush()
}

// Spec is what mesh knows of a remote.
type Spec struct {
	keys.Public
	Class      Class
	Candidates []netip.AddrPort // where it may be reached, from its records
	Contacts   []keys.NodeID    // who reaches it when others do not, likewise
	Relays     bool             // it carries for others, likewise
	HourOffset int32            // from a hello, where there was one; for clocks that are wrong
}

// Remote is another node as this one reaches it. Its fields are grouped by
// owner; each group would be a struct of its own if it were not for the two
// cache lines that a frame touches.
type Remote struct {
	ID     keys.NodeID
	Public keys.Public
	engine *Engine

	// Read on a frame's way.
	class     atomic.Uint32
	session   *wireguard.Session // only SendKey without the control lock
	route     atomic.Pointer[route]
	sink      atomic.Pointer[FrameSink]
	lastUsed  atomic.Int64 // Engine.stamp, 0: never; frames and control messages, both ways
	lastTried atomic.Int64 // likewise: control messages that found no session
	carried   atomic.Int64 // likewise of frames alone
	attended  atomic.Bool
	kept      atomic.Bool // a session is wanted whether it is used or not

	tickSession atomic.Bool // a mark on a key asked for Session.Tick

	first     Lane
	more      []Lane
	nextFrame atomic.Uint32 // number of what crosses in pieces

	waiting waitQueue // for a session

	// Pieces of large frames: pieceMu, since both sockets may bring them.
	pieceMu sync.Mutex
	pieces  fragment.Reassembler

	// Data from an address that is not the route's.
	strange   atomic.Pointer[netip.AddrPort]
	strangeAt atomic.Int64

	arrivals atomic.Pointer[arrivals]

	calls  calls
	relied atomic.Bool  // others reach us through it
	copies atomic.Bool  // it gets its copy of what is for all from whoever has it
	away   atomic.Bool  // it is thought not to be there
	clock  atomic.Int64 // its time at the engine's base in ns of unix time, as it said last; 0: it has not

	txBytes, rxBytes, drops atomic.Uint64

	remoteControl
}

// remoteControl is the part of a Remote behind the engine's control lock.
type remoteControl struct {
	pair       *probe.Pair
	hourOffset int32 // the remote's hour minus ours, from its hello
	paths      *path.Table
	punch      *punch.Machine
	learnt     time.Time // what mayLearn has given out, as the time at which that is used up
	wake       time.Time // when advance is called next
	wgWake     time.Time // the session's own deadline
	heapIndex  int
	observed   netip.AddrPort // how the remote sees us
	asked      [12]byte       // transaction of the ping that checks a wish for a session
	askAt      time.Time      // the earliest time for another
	answered   answered
	rekeyAt    time.Time // the earliest time to rekey again because the remote has lost its keys
	wantSince  time.Time // zero: no session is wanted
	helloAt    time.Time // when the next hello may go
	helloWait  time.Duration
	contacts   []keys.NodeID // Spec's
	relays     bool
	seekAt     time.Time // when to ask for circuits next
	seekWait   time.Duration
	seekLeft   int // how many may be asked until then
	moving     handover
	onCircuits bool             // it is on either side of one
	upBefore   []netip.AddrPort // addresses that were up when last looked at
	everUp     bool
	port       netip.AddrPort // that is reached by a socket of its own; invalid: none
	portAt     time.Time      // since when
	up         bool           // as last reported to the observer
	at         netip.AddrPort // likewise
	closed     bool
}

// answered is the last initiation that was answered: the first packet under its
// key shows that the answer has arrived where it was sent.
type answered struct {
	key *wireguard.Keypair
	to  netip.AddrPort
}

// SetRemote makes a remote known, or updates what is known of it.
func (e *Engine) SetRemote(spec Spec) (*Remote, error) {
	var err error
	var r *Remote
	e.call(func(now time.Time) {
		r, err = e.setRemote(spec, now)
	})
	return r, err
}

func (e *Engine) setRemote(spec Spec, now time.Time) (*Remote, error) {
	c := &e.control
	r := c.byID[spec.ID()]
	if r == nil || r.Public != spec.Public { // other keys are another remote
		if err := e.claim(spec, now); err != nil {
			return nil, err
		}
		next, err := e.newRemote(spec.Public)
		if err != nil {
			return nil, err
		}
		if r != nil {
			e.forget(r, now)
		}
		r = next
		c.byID[r.ID] = r
		c.byKey[spec.WireGuard] = r
		r.hourOffset = spec.HourOffset
		c.tags.add(r)
		c.relay.dirty = true // circuits to it may be there already
	}
	if spec.HourOffset != r.hourOffset {
		r.hourOffset, c.tags.again = spec.HourOffset, time.Time{}
	}
	r.class.Store(uint32(spec.Class))
	r.contacts, r.relays = slices.Clone(spec.Contacts), spec.Relays
	r.paths.SetCandidates(e.reachable(spec.Candidates), now)
	r.punch.Changed(now)
	c.schedule(r, now)
	return r, nil
}

// ErrKeyTaken says that the remote claims a key of another's. A joiner's hello
// proves its Ed25519 key alone, and the WireGuard key of a member is no secret:
// who names it must not get between that member and us.
var ErrKeyTaken = errors.New("another node has this WireGuard key")

// claim makes sure that a new remote's WireGuard key is its own. Who holds a
// certificate goes before who has only said hello.
func (e *Engine) claim(spec Spec, now time.Time) error {
	if own := e.identity.Public(); spec.ID() == own.ID() || spec.WireGuard == own.WireGuard {
		return ErrKeyTaken
	}
	other := e.control.byKey[spec.WireGuard]
	switch {
	case other == nil || other.ID == spec.ID():
		return nil
	case other.Class() == Member || spec.Class != Member:
		return ErrKeyTaken
	}
	e.forget(other, now)
	return nil
}

func (e *Engine) newRemote(public keys.Public) (*Remote, error) {
	pair, err := probe.NewPair(e.identity, public)
	if err != nil {
		return nil, err
	}
	if !wireguard.ValidKey(public.WireGuard) {
		return nil, wireguard.ErrKey
	}
	r := &Remote{
		ID:      public.ID(),
		Public:  public,
		engine:  e,
		waiting: waitQueue{total: &e.queued},
		remoteControl: remoteControl{
			pair:      pair,
			paths:     path.New(path.Config{}),
			punch:     newPunch(),
			heapIndex: -1,
		},
	}
	r.punch.SetLocal(e.control.self, time.Time{})
	r.first.remote, r.more = r, make([]Lane, e.lanes-1)
	for i := range r.more {
		r.more[i].remote = r
	}
	r.session = wireguard.NewSession(e.control.local, public.WireGuard, wireguard.Options{
		Member:   true,
		NewIndex: func() uint32 { return e.newIndex(r) },
	})
	return r, nil
}

// Forget drops a remote with all that is known of it.
func (e *Engine) Forget(id keys.NodeID) {
	e.call(func(now time.Time) {
		if r := e.control.byID[id]; r != nil {
			e.forget(r, now)
		}
	})
}

func (e *Engine) forget(r *Remote, now time.Time) {
	c := &e.control
	r.closed = true
	r.class.Store(uint32(Pending))
	r.sink.Store(nil)
	r.route.Store(nil)
	r.act(r.session.Expire(now), netip.AddrPort{}, now)
	r.waiting.clear()
	r.closePort()
	r.leaveFloods()
	if c.tries.try != nil && c.tries.try.remote == r {
		e.closeTry()
	}
	c.tags.remove(r)
	r.moving = handover{}
	c.schedule(r, time.Time{})
	delete(c.byID, r.ID)
	delete(c.byKey, r.Public.WireGuard)
	c.relay.desk.Forget(r.ID)
	c.relay.book.Forget(r.ID)
	c.relay.dirty = true
}

func (e *Engine) forgetAll() {
	e.locked(func(now time.Time) {
		for _, r := range e.control.byID {
			e.forget(r, now)
		}
		e.control.later = nil
	})
}

// Remote returns a remote by id, nil if it is not known.
func (e *Engine) Remote(id keys.NodeID) *Remote {
	e.control.Lock()
	defer e.control.Unlock()
	return e.control.byID[id]
}

// Attach sets where frames of the remote go; nil drops them.
func (r *Remote) Attach(sink FrameSink) {
	if sink == nil {
		r.sink.Store(nil)
		return
	}
	r.sink.Store(&sink)
}

// Up says whether there is a session and a path, without taking a lock.
func (r *Remote) Up() bool { return r.session.SendKey() != nil && r.route.Load() != nil }

// Class says what the remote may do.
func (r *Remote) Class() Class { return Class(r.class.Load()) }

// Want asks for a session, as a waiting frame does.
func (r *Remote) Want() {
	r.lastUsed.Store(r.engine.stamp(r.engine.now()))
	r.engine.attend(r)
}

// Doubt asks the remote for a sign of life, since it may have died: Mute says soon
// whether there was none. Without a session one is begun.
func (r *Remote) Doubt() {
	r.engine.call(func(now time.Time) {
		if !r.closed {
			r.lastTried.Store(r.engine.stamp(now))
			r.feedPaths(now) // what was heard before says nothing now
			r.paths.Doubt()
			r.advance(now)
		}
	})
}

// Mute says that the remote has been silent for about a second although it was asked.
func (r *Remote) Mute() bool {
	r.engine.control.Lock()
	defer r.engine.control.Unlock()
	return r.paths.Mute(r.engine.now())
}

// Keep says whether a session is wanted whether it is used or not.
func (r *Remote) Keep(on bool) {
	if r.kept.Swap(on) != on {
		r.engine.attend(r)
	}
}

// LocalChange says that this host's addresses or routes changed, or that it has
// slept: every path is in doubt and probed at once.
func (e *Engine) LocalChange() {
	e.call(func(now time.Time) {
		e.doubtPaths(now)
		e.forgetMappings(now)
	})
}

func (e *Engine) doubtPaths(now time.Time) {
	for _, r := range e.control.byID {
		r.paths.LocalChange(now)
		r.punch.Changed(now)
		e.control.schedule(r, now)
	}
}

// Hold adds a way to the remote that this node holds open, such as a stream: a
// virtual address of a carrier. It is used where nothing better answers, until
// Release.
func (r *Remote) Hold(virtual netip.AddrPort) {
	r.engine.call(func(now time.Time) {
		if !r.closed && r.engine.connFor(virtual.Addr()) != nil {
			r.paths.Hold(virtual, r.session.SendKey() == nil, now)
			r.advance(now)
		}
	})
}

// Release takes such a way away again.
func (r *Remote) Release(virtual netip.AddrPort) {
	r.engine.call(func(now time.Time) {
		if !r.closed {
			r.paths.Release(virtual, now)
			r.advance(now)
		}
	})
}

// Leave has the engine answer nobody any more: whoever has been told goodbye must
// not find the node alive for the moment until it has ended.
func (e *Engine) Leave() { e.call(func(time.Time) { e.control.leaving = true }) }

// Rest ends the session with a remote that said goodbye; the next use makes a new one.
func (r *Remote) Rest() {
	r.engine.call(func(now time.Time) {
		r.lastUsed.Store(0)
		r.lastTried.Store(0)
		r.act(r.session.Expire(now), netip.AddrPort{}, now)
		r.advance(now)
	})
}
