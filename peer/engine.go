package peer

import (
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/keys"
	"meshd/nat-traversal"
	"meshd/peer/hello"
	"meshd/peer/punch"
	"meshd/peer/udp"
	"meshd/peer/way"
	"meshd/peer/wireguard"
)

const (
	probeQueue     = 512
	handshakeQueue = 1024
	strangerQueue  = 256
	// underLoadAt is an eighth of the handshake queue (WireGuard paper, 5.3;
	// DESIGN.md, decision 1): beyond it initiations must show a cookie.
	underLoadAt = handshakeQueue / 8
	// underLoadFor is how long that lasts after the queue was last that full.
	underLoadFor = time.Second
	// probesInARow may be handled before something else gets its turn, so that a
	// flood of pings starves neither handshakes nor deadlines.
	probesInARow = 16
	// frozenFor is how late the loop must be to take it that it was stopped
	// meanwhile, and that nothing is as it was.
	frozenFor = 3 * time.Second
	// tardyBy is how late it must be to take it that this node has too much to do: what it thinks of
	// others for as long as tardyFor after that may be its own doing.
	tardyBy  = 100 * time.Millisecond
	tardyFor = 30 * time.Second
	// maxMeetings bounds the hellos that are under way for members who do not
	// answer probes.
	maxMeetings = 256
)

// Observer is told what the engine cannot decide. It is called on the engine's
// and the sockets' goroutines and must neither block nor call the engine back
// while it is in the call, but for Remote.SendControl.
type Observer interface {
	// Met reports that a hello ended well: who is at that address.
	Met(result *hello.Result, at netip.AddrPort)
	// Control hands over a control message of an authenticated remote,
	// borrowed for the call.
	Control(from *Remote, msg []byte)
	// STUN hands over an answer to a STUN request that mesh sent, borrowed.
	STUN(from netip.AddrPort, msg []byte)
	// Changed reports that a remote's session or route came or went.
	Changed(r *Remote)
}

// Config is what an engine needs to run.
type Config struct {
	Identity *keys.Identity
	Conns    []udp.Conn             // at most one of each family
	Carriers map[way.Class]udp.Conn // what carries datagrams to virtual addresses, by their class
	OpenPort PortOpener             // nil: there are no ports but those of Conns
	Hello    hello.Config
	Observer Observer
	Logger   *slog.Logger

	Lanes          int  // of each Remote; 0: one
	WholeChecksums bool // neither leave checksums out nor take frames without; for comparisons
}

// Engine carries frames and control messages to and from other nodes.
type Engine struct {
	identity *keys.Identity
	conns    []udp.Conn
	carriers map[way.Class]udp.Conn
	observer Observer
	log      *slog.Logger
	features uint32 // that remotes are told
	lanes    int    // of each remote
	now      func() time.Time
	base     time.Time // stamps count from here, so that a step of the wall clock does not touch them
	excluded atomic.Pointer[overlay]
	ports    atomic.Pointer[map[netip.AddrPort]udp.Conn] // addresses that are reached by sockets of their own

	keys     atomic.Pointer[map[uint32]keyEntry] // by receiver index; replaced whole
	circuits atomic.Pointer[circuits]
	counts   Counts
	queued   atomic.Int64 // bytes of frames that wait for sessions, of all remotes
	flooding flooding

	probeQ, handshakeQ, strangerQ chan *datagram
	relayQ                        chan relayMessage

	kick      chan struct{} // there is something in attention
	attention struct {
		sync.Mutex
		remotes []*Remote
	}

	control control // what the engine's goroutine and the calls from above share
}

// control is the state behind the control path's lock. It is never taken on a
// frame's way.
type control struct {
	sync.Mutex
	local     *wireguard.Local
	byID      map[keys.NodeID]*Remote
	byKey     map[[32]byte]*Remote
	tags      tags
	deadlines deadlines
	responder *hello.Responder
	helloCfg  hello.Config
	tries     tries
	mappings  mappings
	self      punch.Local // what others are told when a direct path is sought
	meetings  map[[8]byte]*meeting
	meetAgain time.Time          // no meeting is due before; zero: none is
	indexes   map[uint32]*Remote // WireGuard indexes of handshakes and keys
	stun      *traversal.Responder
	relay     relaying
	tardy     time.Time // when the loop was last late
	loadUntil time.Time
	leaving   bool     // nobody is answered any more
	later     []func() // calls to the observer, made after the lock is given back
}

// New makes an engine. It does nothing until Run.
func New(cfg Config) (*Engine, error) {
	e := &Engine{
		identity:   cfg.Identity,
		conns:      cfg.Conns,
		carriers:   map[way.Class]udp.Conn{},
		observer:   cfg.Observer,
		log:        cfg.Logger,
		now:        time.Now,
		probeQ:     make(chan *datagram, probeQueue),
		handshakeQ: make(chan *datagram, handshakeQueue),
		strangerQ:  make(chan *datagram, strangerQueue),
		relayQ:     make(chan relayMessage, relayQueue),
		kick:       make(chan struct{}, 1),
	}
	e.lanes = max(1, cfg.Lanes)
	if !cfg.WholeChecksums {
		e.features = featurePartial
	}
	now := e.now()
	e.base = now.Add(-time.Hour)
	e.excluded.Store(&overlay{})
	responder, err := hello.NewResponder(cfg.Hello, now)
	if err != nil {
		return nil, fmt.Errorf("prepare hello: %w", err)
	}
	maps.Copy(e.carriers, cfg.Carriers)
	e.carriers[way.Relayed] = relayConn{e}
	e.keys.Store(&map[uint32]keyEntry{})
	e.flooding.init(cfg.Identity.ID())
	e.ports.Store(&map[netip.AddrPort]udp.Conn{})
	e.circuits.Store(&circuits{})
	e.control = control{
		local:     wireguard.NewLocal(cfg.Identity.WireGuard, now),
		byID:      map[keys.NodeID]*Remote{},
		byKey:     map[[32]byte]*Remote{},
		responder: responder,
		helloCfg:  cfg.Hello,
		meetings:  map[[8]byte]*meeting{},
		indexes:   map[uint32]*Remote{},
		stun:      traversal.NewResponder(),
		relay:     e.newRelaying(),
		tries:     tries{open: cfg.OpenPort},
		mappings:  mappings{since: now},
	}
	return e, nil
}

// Run carries datagrams until ctx ends. It closes the sockets.
func (e *Engine) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	conns := slices.Clone(e.conns)
	for _, conn := range e.conns {
		group.Go(func() error { return e.receive(ctx, conn, way.Direct) })
	}
	for class, conn := range e.carriers {
		if class == way.Relayed { // what comes on circuits comes by the others
			continue
		}
		conns = append(conns, conn)
		group.Go(func() error { return e.receive(ctx, conn, class) })
	}
	group.Go(func() error { return errors.Join(e.loop(ctx, group.Go), e.closePorts()) })
	group.Go(func() error { return e.repairFloods(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		var errs []error
		for _, conn := range conns {
			errs = append(errs, conn.Close())
		}
		return errors.Join(errs...)
	})
	err := group.Wait()
	e.forgetAll()
	return err
}

// loop is the goroutine that owns every deadline.
func (e *Engine) loop(ctx context.Context, start func(func() error)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := e.now()
	for probes := 0; ; {
		if probes < probesInARow { // what keeps existing sessions alive goes first
			select {
			case d := <-e.probeQ:
				e.locked(func(now time.Time) { e.handleProbe(d, now) })
				probes++
				continue
			default:
			}
		}
		probes = 0
		select {
		case <-ctx.Done():
			return nil
		case d := <-e.probeQ:
			e.locked(func(now time.Time) { e.handleProbe(d, now) })
		case d := <-e.handshakeQ:
			e.locked(func(now time.Time) { e.handleHandshake(d, now) })
		case d := <-e.strangerQ:
			e.locked(func(now time.Time) { e.handleStranger(d, now) })
		case m := <-e.relayQ:
			e.locked(func(now time.Time) { e.handleRelay(&m, now) })
		case <-e.kick:
			e.locked(func(time.Time) {})
		case <-timer.C:
			e.locked(func(now time.Time) {
				late := now.Sub(due)
				if late > frozenFor { // this process was stopped, or its host
					e.doubtPaths(now)
				}
				if late > tardyBy {
					e.control.tardy = now
				}
			})
		}
		e.startPorts(ctx, start)
		wait := e.untilNext()
		due = e.now().Add(wait)
		timer.Reset(wait)
	}
}

// wasTardy reports whether this node has had too much to do just now.
func (e *Engine) wasTardy(now time.Time) bool {
	return !e.control.tardy.IsZero() && now.Sub(e.control.tardy) < tardyFor
}

// stamp is a time as nanoseconds on the monotonic clock, for atomics; never 0.
func (e *Engine) stamp(t time.Time) int64 { return int64(t.Sub(e.base)) }

// at is the inverse of stamp.
func (e *Engine) at(stamp int64) time.Time { return e.base.Add(time.Duration(stamp)) }

// overlay says which addresses are the mesh's own.
type overlay struct {
	prefixes []netip.Prefix
	members  map[netip.Addr]bool // in them; nil: all
}

// Exclude names the prefixes of the overlay: nothing is sent to an address in
// them and nothing taken from one, so that the mesh is never its own underlay.
func (e *Engine) Exclude(prefixes []netip.Prefix) {
	e.excluded.Store(&overlay{prefixes: slices.Clone(prefixes)})
}

// ExcludeMembers is Exclude where this host's packets go around the overlay anyhow
// (Options.Mark of package udp): only the members' own addresses in the prefixes are
// left out. Its other addresses may be those of the hosts' uplinks as well.
func (e *Engine) ExcludeMembers(prefixes []netip.Prefix, members []netip.Addr) {
	o := &overlay{slices.Clone(prefixes), make(map[netip.Addr]bool, len(members))}
	for _, a := range members {
		o.members[a] = true
	}
	e.excluded.Store(o)
}

// inside reports whether an address belongs to the overlay.
func (e *Engine) inside(a netip.Addr) bool {
	o := e.excluded.Load()
	for _, p := range o.prefixes {
		if p.Contains(a) {
			return o.members == nil || o.members[a]
		}
	}
	return false
}

// locked runs f and everything that is due under the control lock, and after
// it the calls to the observer that came of it.
func (e *Engine) locked(f func(now time.Time)) {
	c := &e.control
	c.Lock()
	now := e.now()
	f(now)
	e.updateTags(now)
	for _, r := range e.takeAttention() {
		r.advance(now)
	}
	for len(c.deadlines) > 0 && !c.deadlines[0].wake.After(now) {
		c.deadlines[0].advance(now)
	}
	e.advanceMeetings(now)
	e.advanceRelays(now)
	e.divideShares(now)
	later := c.later
	c.later = nil
	c.Unlock()
	for _, call := range later {
		call()
	}
}

// call is locked for the methods that others call: the engine's goroutine then
// computes its next deadline anew.
func (e *Engine) call(f func(now time.Time)) {
	e.locked(f)
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

func (e *Engine) takeAttention() []*Remote {
	e.attention.Lock()
	defer e.attention.Unlock()
	rs := e.attention.remotes
	e.attention.remotes = nil
	for _, r := range rs {
		r.attended.Store(false)
	}
	return rs
}

// attend asks the engine's goroutine to look at a remote soon. It is called on
// a frame's way.
func (e *Engine) attend(r *Remote) {
	if r.attended.Swap(true) {
		return
	}
	e.attention.Lock()
	e.attention.remotes = append(e.attention.remotes, r)
	e.attention.Unlock()
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

// untilNext is how long the engine may sleep.
func (e *Engine) untilNext() time.Duration {
	c := &e.control
	c.Lock()
	defer c.Unlock()
	now := e.now()
	next := c.tags.again.Sub(now)
	if len(c.deadlines) > 0 {
		next = min(next, c.deadlines[0].wake.Sub(now))
	}
	if at := earliest(c.meetAgain, c.relay.wake, c.relay.share.at); !at.IsZero() {
		next = min(next, at.Sub(now))
	}
	if c.relay.dirty {
		next = 0
	}
	return max(next, 0)
}

// send transmits one datagram of the control path. Losses are repaired by the
// machines' own repeats.
func (e *Engine) send(to netip.AddrPort, b []byte) { _ = e.trySend(to, b) }

// trySend is send for those who care whether there is a way out of this host.
func (e *Engine) trySend(to netip.AddrPort, b []byte) error {
	if conn := e.connTo(to); conn != nil {
		return conn.Send([]udp.Packet{{Addr: to, Data: b}})
	}
	return nil
}

// connFor returns the socket of an address's family, or the carrier of a virtual
// address; nil if there is none.
func (e *Engine) connFor(a netip.Addr) udp.Conn {
	if way.IsVirtual(a) {
		return e.carriers[way.ClassOf(netip.AddrPortFrom(a, 0))]
	}
	for _, c := range e.conns {
		if c.LocalAddr().Addr().Is4() == a.Is4() {
			return c
		}
	}
	return nil
}

// Send transmits one datagram of mesh's own, such as a STUN request.
func (e *Engine) Send(to netip.AddrPort, b []byte) { e.send(to, b) }

// deadlines is a heap of the remotes that wait for a time.
type deadlines []*Remote

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].wake.Before(d[j].wake) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].heapIndex, d[j].heapIndex = i, j
}

// Push implements heap.Interface.
func (d *deadlines) Push(x any) {
	r := x.(*Remote)
	r.heapIndex = len(*d)
	*d = append(*d, r)
}

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	old := *d
	r := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	r.heapIndex = -1
	return r
}

// schedule sets when advance is called next; zero is never.
func (c *control) schedule(r *Remote, wake time.Time) {
	r.wake = wake
	switch {
	case wake.IsZero() && r.heapIndex >= 0:
		heap.Remove(&c.deadlines, r.heapIndex)
	case wake.IsZero():
	case r.heapIndex >= 0:
		heap.Fix(&c.deadlines, r.heapIndex)
	default:
		heap.Push(&c.deadlines, r)
	}
}

// newIndex returns a receiver index that no handshake or key has, and gives it
// to a remote.
func (e *Engine) newIndex(r *Remote) uint32 {
	for {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		index := binary.LittleEndian.Uint32(b[:])
		if _, taken := e.control.indexes[index]; !taken {
			e.control.indexes[index] = r
			return index
		}
	}
}

// setKeys replaces the table of receiver indexes.
func (e *Engine) setKeys(r *Remote, added []*wireguard.Keypair, removed []uint32) {
	if len(added) == 0 && len(removed) == 0 {
		return
	}
	table := maps.Clone(*e.keys.Load())
	for _, index := range removed {
		delete(table, index)
		delete(e.control.indexes, index)
	}
	for _, key := range added {
		table[key.LocalIndex()] = keyEntry{key, r}
	}
	e.keys.Store(&table)
}
