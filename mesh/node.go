package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/mesh/directory"
	"meshd/mesh/gossip"
	"meshd/mesh/join"
	"meshd/mesh/names"
	"meshd/mesh/record"
	"meshd/nat-traversal"
	"meshd/nat-traversal/portmap"
	"meshd/peer"
	"meshd/peer/hello"
	"meshd/peer/punch"
	"meshd/peer/udp"
)

// taskQueue bounds what waits for the control goroutine. What does not fit is
// dropped and counted: peers repeat, and reconcile repairs.
const taskQueue = 1024

// Control message kinds (PROTOCOL.md, 4.3).
const (
	kindGossip  = 1
	kindRecords = 2
	kindJoin    = 3
	kindPing    = 4
	kindGoodbye = 5
	kindPapers  = 10
	kindBeat    = 20
)

// Kinds of join message: between joiner and introducer, and between members.
const (
	joinDirect = 0
	joinCarry  = 1
	joinBack   = 2
)

// Node is a running node.
type Node struct {
	cfg      Config
	log      *slog.Logger
	store    *keys.Store
	identity *keys.Identity
	self     keys.NodeID // of identity
	conns    []udp.Conn
	engine   *peer.Engine
	streams  streams
	started  time.Time

	tasks    chan func()
	inbox    inbox
	chain    atomic.Pointer[[]byte]             // our certificate, for hellos
	banned   atomic.Pointer[[]*keys.Revocation] // those that count, for hellos
	asked    atomic.Pointer[[]netip.AddrPort]   // STUN servers: nobody else answers
	kick     chan struct{}                      // reconcile soon
	news     latest[struct{}]                   // remotes whose sessions have come or gone
	arrivals latest[arrival]                    // members that a hello has met
	ended    chan struct{}                      // closed when the control goroutine is gone
	dropped  atomic.Uint64                      // tasks that found no place
	founded  bool                               // by this process
	failed   bool                               // it ended before it was ready
	blank    bool                               // there was no state, and nobody has heard of this node yet
	ready    atomic.Bool
	leaving  atomic.Bool // for good: the state goes with the process
	pings    pinger
	eventMu  sync.Mutex       // events are told one at a time
	stun     []netip.AddrPort // of --stun, resolved
	mapper   *portmap.Mapper  // nil: routers are not asked

	around       surroundings
	linksChanged chan struct{} // for discovery
	nat64        struct {
		changed  chan struct{}
		prefixes atomic.Pointer[[]netip.Prefix] // found; only where IPv4 leads nowhere
	}
	stop context.CancelCauseFunc
	sw   atomic.Pointer[l2.Switch] // of the segment, for who is not the control goroutine

	sightings chan sighting // for routing
	rerouted  chan struct{} // look at routing

	state state // owned by the control goroutine
}

// state is what the control goroutine owns; others see it by tasks.
type state struct {
	membership *membership
	dir        *directory.Directory
	gossip     *gossip.Gossip
	desk       *join.Desk
	issues     *keys.IssueLog
	signer     *keys.Signer
	joining    *joining
	members    map[keys.NodeID]*member
	up         map[keys.NodeID]*member  // those with a session, as last looked at
	changed    map[keys.NodeID]struct{} // members to be looked at
	known      int                      // how many there were
	lines      map[netip.AddrPort]*line // streams that were opened here
	listeners  map[keys.NodeID]struct{} // members that take streams
	neighbours []keys.NodeID
	pending    map[keys.NodeID]*pendingJoiner
	segment    *segment
	self       endpoints
	elsewhere  elsewhere
	schedule   schedule
	renewWait  time.Duration                  // between questions for a new certificate
	lastGood   map[keys.NodeID]netip.AddrPort // from the cache: where it was reached
	refused    map[keys.NodeID]string         // chains of members whom the engine does not take, as last told
	sleep      traversal.Sleep
	alarms     map[directory.Alarm]time.Time
	contacts   []contact // who relays to us
	share      share
	multicast  multicast
	routing    routing
	lans       lans
}

// schedule says when the periodic things are due.
type schedule struct {
	gather  time.Time // look at the host's addresses
	sync    time.Time // compare records with a neighbour
	cache   time.Time // write the cache
	cached  time.Time // when that was done last
	rates   time.Time // measure rates
	rest    time.Time // reconcile no sooner, so that a flood of causes leaves time for tasks
	all     time.Time // look at every member
	streams time.Time // a stream may be missing then; zero: none is
	papers  time.Time // look at our own certificates

	presence time.Time // look at the host's addresses on the segment
	guard    time.Time // see whether what keeps the underlay out of a bridge is there
	away     time.Time // look who can be reached
	doubts   time.Time // until then it is of interest at once

	contacts time.Time // look whether those who relay to us are the right ones

	neighbours time.Time // choose them anew

	catchUp time.Time // ask those again who know more than we
}

// member is a member as this node deals with it.
type member struct {
	remote     *peer.Remote
	port       *l2.RemotePort
	chain      string           // of the certificate that the remote was set from
	endpoints  []netip.AddrPort // likewise
	contacts   []keys.NodeID    // likewise, from its record
	doubted    time.Time        // when it was last asked for a sign of life
	relays     bool             // likewise
	hourOffset int32            // from its hello
	epoch      uint32           // of its record, as last looked at
	returned   bool             // it has started anew
	fresh      bool             // a session has begun, and records are to be compared once more
	observed   netip.AddrPort   // how it sees us
	up         bool             // there was a session when last looked at
	lost       time.Time        // when there last ceased to be one
	left       bool             // it said goodbye
	kept       bool             // it is a neighbour
	keptSince  time.Time        // when there was a session last, or since when it is tried for
	failed     time.Time        // when another became a neighbour in its place
	tx, rx     rate
	groups     *record.Groups // what it listens to, as last told to the switch
	hosts      bool           // there may be some behind it that nobody has heard; as the port was made
	stations   bool           // it has announced some
	away       bool           // as last told to the switch
	lan        lanSent        // of what we say of our LAN
}

// endpoints is how this node may be reached.
type endpoints struct {
	gathered   []traversal.Candidate
	advertised []netip.AddrPort
	stun       *traversal.Client
	list       []traversal.Candidate // as last published
	told       punch.Local           // as last told to the engine
}

// segment is the Ethernet side.
type segment struct {
	device l2.Device
	sw     *l2.Switch
	names  *names.Server
	mac    l2.MAC
	around detour // nil: none
	inside error  // why there is none although there should be

	bridged bool // the TAP is in a bridge

	roles     string                  // ours, as last told to the switch
	addresses []netip.Prefix          // as last set
	named     map[string][]netip.Addr // as last told to names

	lan      *lanSide // nil: without --bridge
	bridging bridging

	outlets
}

var (
	// errDown is the cause of an end that was asked for.
	errDown = errors.New("asked to end")
	// errEnding says that a call came while the node was ending.
	errEnding = errors.New("the node is ending")
)

// do runs f on the control goroutine and waits for it. With an error f has not
// run and never will, so that what it writes to is the caller's again.
func (n *Node) do(ctx context.Context, f func()) error {
	var claimed atomic.Bool // by the control goroutine, or by a caller who gives up
	done := make(chan struct{})
	task := func() {
		if claimed.CompareAndSwap(false, true) {
			f()
			close(done)
		}
	}
	select {
	case n.tasks <- task:
	case <-n.ended:
		return firstOf(ctx.Err(), errEnding)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-n.ended:
	case <-ctx.Done():
	}
	if !claimed.CompareAndSwap(false, true) {
		<-done
		return nil
	}
	return firstOf(ctx.Err(), errEnding)
}

// post hands f to the control goroutine if there is room. It never blocks.
func (n *Node) post(f func()) bool {
	select {
	case n.tasks <- f:
		return true
	default:
		n.dropped.Add(1)
		n.wake()
		return false
	}
}

// wake asks for a reconcile.
func (n *Node) wake() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// Met implements peer.Observer.
func (n *Node) Met(result *hello.Result, at netip.AddrPort) {
	if result.Certificate != nil { // it knows that we have met, and does not say hello again
		n.arrivals.put(result.Remote.ID(), arrival{result, at})
		n.wake()
		return
	}
	n.postStranger(func() { n.met(result, at) })
}

// Changed implements peer.Observer.
func (n *Node) Changed(r *peer.Remote) {
	n.news.put(r.ID, struct{}{})
	n.wake()
}

// latest collects what the control goroutine has to look at, the last of each remote: unlike a
// task it always finds room.
type latest[T any] struct {
	mu sync.Mutex
	of map[keys.NodeID]T
}

func (l *latest[T]) put(id keys.NodeID, v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[keys.NodeID]T{}
	}
	l.of[id] = v
}

func (l *latest[T]) take() map[keys.NodeID]T {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.of
	l.of = nil
	return of
}

// arrival is a member that a hello has met, and where.
type arrival struct {
	result *hello.Result
	at     netip.AddrPort
}

// STUN implements peer.Observer.
func (n *Node) STUN(from netip.AddrPort, msg []byte) {
	if servers := n.asked.Load(); servers == nil || !slices.Contains(*servers, from) {
		return
	}
	n.postStranger(func() {
		if n.state.self.stun.Handle(time.Now(), from, msg) {
			n.wake()
		}
	})
}

// Control implements peer.Observer. Pings are answered on the spot; the rest
// is copied for the control goroutine. A pending remote passes join messages
// and nothing else.
func (n *Node) Control(from *peer.Remote, msg []byte) {
	if len(msg) == 0 || (from.Class() != peer.Member && msg[0] != kindJoin) {
		return
	}
	if msg[0] == kindPing {
		n.pings.receive(from, msg)
		return
	}
	if msg[0] == kindStations {
		n.hearStations(from, msg[1:])
		return
	}
	done, ok := n.inbox.take(from.ID, from.Class())
	if !ok {
		n.dropped.Add(1)
		return
	}
	kind, body := msg[0], append([]byte(nil), msg[1:]...)
	if !n.post(func() { done(); n.handleControl(from, kind, body) }) {
		done()
	}
}

func (n *Node) handleControl(from *peer.Remote, kind byte, body []byte) {
	if from.Class() != peer.Member && kind != kindJoin {
		return // it is a member no longer
	}
	switch kind {
	case kindGossip:
		if n.state.gossip != nil {
			n.state.gossip.Receive(from.ID, body)
		}
	case kindRecords:
		n.handleRecords(from, body)
	case kindJoin:
		n.handleJoin(from, body)
	case kindElsewhere:
		n.handleElsewhere(from, body)
	case kindLAN:
		n.handleLAN(body)
	case kindGoodbye:
		n.handleGoodbye(from)
	case kindPapers:
		n.handlePapers(from, body)
	case kindBeat:
		n.handleBeat(from, body)
	}
}

// sendControl sends a control message of a kind.
func sendControl(to *peer.Remote, kind byte, body ...[]byte) bool {
	msg := []byte{kind}
	for _, b := range body {
		msg = append(msg, b...)
	}
	return to.SendControl(msg)
}

// hello is what this node shows and accepts when it meets somebody.
func (n *Node) hello() hello.Config {
	m := n.state.membership
	if m == nil {
		return hello.Config{Identity: n.identity}
	}
	trust := m.trust()
	return hello.Config{Identity: n.identity, Trust: &trust, Chain: *n.chain.Load(), Verify: n.verify(trust)}
}

// verify makes the judgement on a certificate chain. A member whose certificate
// has expired stays while no signer can be seen (DESIGN.md, decision 5). One whose
// time has not begun shows that a clock is wrong, here, there or at the signer's,
// which is no reason to keep anybody out.
func (n *Node) verify(trust keys.Trust) func(chain []byte, now time.Time) (*keys.Certificate, error) {
	return func(chain []byte, now time.Time) (*keys.Certificate, error) {
		cert, err := trust.Verify(chain, now)
		if cert != nil && n.isBanned(cert) {
			return nil, fmt.Errorf("verify certificate: %w", keys.ErrRevoked)
		}
		if cert != nil && (errors.Is(err, keys.ErrExpired) || errors.Is(err, keys.ErrNotYetValid)) {
			return cert, nil
		}
		return cert, err
	}
}

// isBanned reports whether a revocation that counts covers a certificate.
func (n *Node) isBanned(c *keys.Certificate) bool {
	list := n.banned.Load()
	return list != nil && slices.ContainsFunc(*list, func(r *keys.Revocation) bool { return r.Covers(c) })
}

// event reports progress.
func (n *Node) event(kind EventKind, text string, words ...string) {
	n.eventMu.Lock()
	defer n.eventMu.Unlock()
	if n.cfg.Progress != nil {
		n.cfg.Progress(Event{Kind: kind, Text: text, Words: words})
	}
}
