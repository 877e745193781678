package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/keys"
)

// MaxPacket bounds a packet in either direction, so that it fits a control datagram of 1,100 bytes with its kind.
const MaxPacket = 1099

// Link carries packets to members, inside their sessions.
type Link interface {
	// SendControl sends a packet of at most MaxPacket bytes, which is borrowed for the call. It must not block, nor call back
	// into Gossip: a packet that cannot be sent now is lost, and the error is only counted. It may be called from several
	// goroutines at once.
	SendControl(to keys.NodeID, packet []byte) error
}

// Config is what New needs.
type Config struct {
	// Self is this node.
	Self keys.NodeID
	// Network labels packets, so that two networks never mix.
	Network keys.NetworkID
	// Link carries packets.
	Link Link
	// Logger receives memberlist's log lines at debug level, rate limited. Nil discards them.
	Logger *slog.Logger
}

// Gossip is a memberlist behind a guard. All methods may be called from any goroutine; none blocks but Run and Leave.
type Gossip struct {
	config    Config
	transport *transport
	wake      chan struct{} // the members have changed
	changed   chan struct{}
	reachable atomic.Pointer[func(keys.NodeID) bool]

	// mu guards the table and the counters. memberlist is never called with it held, since memberlist calls events with
	// a lock of its own held.
	mu    sync.Mutex
	table *table
	drops map[string]uint64
	list  *memberlist.Memberlist // while Run runs
}

// New returns a Gossip that does nothing until Run. Members may be set before.
func New(c Config) (*Gossip, error) {
	if c.Self.IsZero() || c.Link == nil {
		return nil, errors.New("start gossip: want a node id and a link")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gossip{
		config:  c,
		wake:    make(chan struct{}, 1),
		changed: make(chan struct{}, 1),
		table:   newTable(c.Self),
		drops:   make(map[string]uint64),
	}
	g.transport = newTransport(g)
	return g, nil
}

// Receive takes a packet from the member at the other end of the session it came in. The packet is borrowed.
func (g *Gossip) Receive(from keys.NodeID, packet []byte) {
	admitted := g.admit(from, packet, time.Now())
	if admitted == nil {
		return
	}
	select {
	case g.transport.packets <- g.incoming(from, admitted):
	default:
		g.count(dropFull)
	}
}

func (g *Gossip) incoming(from keys.NodeID, packet []byte) *memberlist.Packet {
	return &memberlist.Packet{Buf: packet, From: address(from.String()), Timestamp: time.Now()}
}

// admit is the guard's boundary: a fault in it costs a packet and not the daemon.
func (g *Gossip) admit(from keys.NodeID, packet []byte, now time.Time) (admitted []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() {
		if fault := recover(); fault != nil {
			g.drops[dropPanic]++
			g.config.Logger.Error("gossip guard failed", "from", from, "fault", fmt.Sprint(fault))
			admitted = nil
		}
	}()
	guard := guard{g.config.Network, g.table, g.isReachable, func(reason string) { g.drops[reason]++ }}
	admitted = guard.admit(from, packet, now)
	g.noteChange(g.table.peers[from.String()], now)
	return admitted
}

// send carries a packet that memberlist has written.
func (g *Gossip) send(name string, packet []byte, now time.Time) {
	g.mu.Lock()
	to := g.table.peers[name]
	if to == nil || to == g.table.self {
		g.drops["to-stranger"]++
		g.mu.Unlock()
		return
	}
	out, pings := filter{g.table, g.isReachable}.pass(to, packet, now)
	g.mu.Unlock()
	for _, o := range out {
		g.transmit(o.to.id, o.packet)
	}
	for i := range pings {
		g.answer(to.id, &pings[i])
	}
}

// answer tells memberlist that a member is well whom others watch.
func (g *Gossip) answer(from keys.NodeID, ping *message) {
	ack := message{kind: kindAck, seq: ping.seq}
	select {
	case g.transport.packets <- g.incoming(from, ack.append(nil)):
	default:
		g.count(dropFull)
	}
}

func (g *Gossip) transmit(to keys.NodeID, packet []byte) {
	packet = append(appendLabel(make([]byte, 0, labelSize+len(packet)), g.config.Network), packet...)
	if err := g.config.Link.SendControl(to, packet); err != nil {
		g.count("send-failed")
	}
}

func (g *Gossip) count(reason string) {
	g.mu.Lock()
	g.drops[reason]++
	g.mu.Unlock()
}

// SetMembers says who is a member now. Self may be among them.
func (g *Gossip) SetMembers(ids []keys.NodeID) {
	g.mu.Lock()
	g.table.setMembers(ids)
	g.noteChanges(time.Now())
	g.mu.Unlock()
	signal(g.wake)
}

// SetNeighbours says which members we talk to and watch, besides those who ask us something. Without it we talk to everybody.
func (g *Gossip) SetNeighbours(ids []keys.NodeID) {
	g.mu.Lock()
	g.table.setNeighbours(ids)
	g.mu.Unlock()
}

// Left says that a member has told us that it is leaving now, and passes that on.
func (g *Gossip) Left(id keys.NodeID) {
	g.mu.Lock()
	if p := g.table.peers[id.String()]; p != nil && p != g.table.self {
		p.left = time.Now()
		g.table.leaving = append(g.table.leaving, p)
		g.noteChange(p, p.left)
	}
	g.mu.Unlock()
	signal(g.wake)
}

// Returned says that a member is here again: it has made a new session, or says that it has started anew. It may have
// forgotten who lives, and one or the other of us tells it.
func (g *Gossip) Returned(id keys.NodeID) {
	g.mu.Lock()
	if p := g.table.peers[id.String()]; p != nil && p != g.table.self {
		p.left = time.Time{}
		g.table.greet(p)
		g.noteChange(p, time.Now())
	}
	g.mu.Unlock()
	signal(g.wake)
}

// GivenUp says whether the members have agreed that one is dead. It is a hint.
func (g *Gossip) GivenUp(id keys.NodeID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.table.peers[id.String()]
	return p != nil && g.givenUp(p, time.Now())
}

// AllGivenUp are those of whom GivenUp says so: most of the time nobody, and then it makes nothing.
func (g *Gossip) AllGivenUp() (ids map[keys.NodeID]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for _, p := range g.table.peers {
		if !g.givenUp(p, now) {
			continue
		}
		if ids == nil {
			ids = map[keys.NodeID]bool{}
		}
		ids[p.id] = true
	}
	return ids
}

// givenUp needs mu.
func (g *Gossip) givenUp(p *peer, now time.Time) bool {
	return p.joined && !p.up && !p.alive(g.isReachable(p.id), now)
}

// Reachable sets the function that says whether a member is known to be reachable by better evidence, such as a live
// session: it counts as alive, whatever memberlist thinks, and its death is not passed on. The function is called often, from
// several goroutines and with a lock held: it must be quick and must not call back.
func (g *Gossip) Reachable(f func(keys.NodeID) bool) { g.reachable.Store(&f) }

func (g *Gossip) isReachable(id keys.NodeID) bool {
	f := g.reachable.Load()
	return f != nil && *f != nil && (*f)(id)
}

// Alive says whether a member is thought to be alive. It is a hint: true only where somebody has evidence, and never a reason
// to remove anything where false.
func (g *Gossip) Alive(id keys.NodeID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.table.peers[id.String()]
	return p != nil && (p == g.table.self || p.alive(g.isReachable(id), time.Now()))
}

// Changed yields after hints have changed.
func (g *Gossip) Changed() <-chan struct{} { return g.changed }

// Drops returns how many packets and messages were dropped, by reason.
func (g *Gossip) Drops() map[string]uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.drops)
}

// leaveTimeout is how long Leave waits for memberlist to spread the word.
const leaveTimeout = time.Second

// Leave says goodbye: to those who are alive at once, and through gossip. Run still has to be ended.
func (g *Gossip) Leave() {
	now := time.Now()
	g.mu.Lock()
	list, self := g.list, g.table.self
	if list == nil || !self.left.IsZero() {
		g.mu.Unlock()
		return
	}
	self.left = now
	var to []keys.NodeID
	for _, p := range g.table.peers {
		if p != self && p.alive(g.isReachable(p.id), now) && len(to) < maxGoodbyes {
			to = append(to, p.id)
		}
	}
	m := message{kind: kindDead, incarnation: self.incarnation, node: self.name, from: self.name}
	g.mu.Unlock()
	for _, id := range to {
		g.transmit(id, m.append(nil))
	}
	if err := list.Leave(leaveTimeout); err != nil {
		g.config.Logger.Debug("say goodbye", "error", err)
	}
}

const maxGoodbyes = 64

// noteChange signals when the hint of one member has changed. mu is held.
func (g *Gossip) noteChange(p *peer, now time.Time) {
	if p != nil && p.changes(g.isReachable(p.id), now) {
		signal(g.changed)
	}
}

// noteChanges signals when any hint has changed. mu is held.
func (g *Gossip) noteChanges(now time.Time) {
	if g.table.changes(now, g.isReachable) {
		signal(g.changed)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ownPing marks the numbers of pings that are ours and not memberlist's, which counts from 0.
const ownPing = 1 << 31

// ping asks a member that memberlist has given up. Nobody waits for the answer's number: that it comes is enough.
func (g *Gossip) ping(to *peer) {
	self := g.table.self
	m := message{
		kind: kindPing, seq: rand.Uint32() | ownPing, node: to.name,
		source: source{self.addr[:], port, self.name},
	}
	g.send(to.name, m.append(nil), time.Now())
}
