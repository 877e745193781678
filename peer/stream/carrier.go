package stream

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"meshd/peer/udp"
	"meshd/peer/way"
)

const (
	// maxLinks bounds all streams of a carrier.
	maxLinks = 1024
	// maxStrangers is how many streams may be open that nobody has vouched for,
	// perSource how many of one source.
	maxStrangers = 64
	perSource    = 16
	// patience is how long a stranger keeps its place in any case: a hello takes
	// two round trips.
	patience = time.Second
	// strangerFor is how long a stranger has to be vouched for, vouchedFor how
	// long that holds.
	strangerFor = 15 * time.Second
	vouchedFor  = 3 * time.Minute
)

// ErrNoStream says that there is no stream with an address (any more).
var ErrNoStream = errors.New("no such stream")

var errBusy = errors.New("too many streams")

// Carrier is all streams of one class. It implements udp.Conn: a stream is an
// address to send to.
type Carrier struct {
	class   way.Class
	log     *slog.Logger
	changed func()
	seed    maphash.Seed // of members' addresses, so that nobody makes a key for another's

	links   atomic.Pointer[map[netip.AddrPort]*link] // replaced whole
	dropped atomic.Uint64

	arrivals chan *input
	current  *input // what Receive has not handed out or not got back
	at       int    // in it

	mu     sync.Mutex // links, gate, lines and ending
	gate   gate
	lines  map[netip.AddrPort]*line
	nextID uint64
	ending bool
	closed chan struct{}
	tasks  sync.WaitGroup
}

// input is what one read from a stream brought.
type input struct {
	buf  []byte
	pkts []udp.Packet
	pool *sync.Pool
}

func (in *input) release() {
	clear(in.pkts)
	in.pkts = in.pkts[:0]
	in.pool.Put(in)
}

// Buffers without contents of their own, shared by all carriers. A stranger's is
// small: there may be many, and nothing of theirs is large.
var (
	largeBuffers, smallBuffers sync.Pool
)

// buffer returns one for a read.
func (c *Carrier) buffer(known bool) *input {
	pool, size := &smallBuffers, 2*(headerLen+maxDatagram)
	if known {
		pool, size = &largeBuffers, 64<<10
	}
	if in, ok := pool.Get().(*input); ok {
		return in
	}
	return &input{buf: make([]byte, size), pool: pool}
}

// NewCarrier makes a carrier without streams. changed is called when a stream
// has begun or ended; it must not block.
func NewCarrier(class way.Class, log *slog.Logger, changed func()) *Carrier {
	c := &Carrier{
		class:    class,
		log:      log,
		changed:  changed,
		seed:     maphash.MakeSeed(),
		arrivals: make(chan *input),
		gate:     gate{limit: maxStrangers, perSource: perSource, patience: patience},
		lines:    map[netip.AddrPort]*line{},
		closed:   make(chan struct{}),
	}
	c.links.Store(&map[netip.AddrPort]*link{})
	return c
}

// Receive implements udp.Conn.
func (c *Carrier) Receive(pkts []udp.Packet) (int, error) {
	if c.current != nil && c.at == len(c.current.pkts) {
		c.current.release()
		c.current = nil
	}
	if c.current == nil {
		select {
		case c.current = <-c.arrivals:
			c.at = 0
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	n := copy(pkts, c.current.pkts[c.at:])
	c.at += n
	return n, nil
}

// deliver hands what was read to Receive; false when the stream has ended.
func (c *Carrier) deliver(in *input, l *link) bool {
	if len(in.pkts) == 0 {
		in.release()
		return true
	}
	select {
	case c.arrivals <- in:
		return true
	case <-l.closed:
	case <-c.closed:
	}
	in.release()
	return false
}

// Send implements udp.Conn.
func (c *Carrier) Send(pkts []udp.Packet) error {
	var failed error
	links := *c.links.Load()
	now := time.Now()
	var last *link
	for i := range pkts {
		p := &pkts[i]
		l := links[p.Addr]
		if l == nil {
			failed = ErrNoStream
			continue
		}
		if last != nil && last != l {
			last.wake()
		}
		last = l
		if err := l.push(p, now); err != nil && failed == nil {
			failed = err
		}
	}
	if last != nil {
		last.wake()
	}
	return failed
}

// LocalAddr implements udp.Conn: no stream has this address.
func (c *Carrier) LocalAddr() netip.AddrPort { return way.Virtual(c.class, 0) }

// Close ends all streams and waits for what carried them.
func (c *Carrier) Close() error {
	c.mu.Lock()
	if !c.ending {
		c.ending = true
		close(c.closed)
	}
	for _, l := range c.lines {
		l.cancel()
	}
	links := *c.links.Load()
	c.mu.Unlock()
	for _, l := range links {
		l.close(net.ErrClosed)
	}
	c.tasks.Wait()
	return nil
}

// Caller is who has opened a stream to this node.
type Caller struct {
	Name   string     // for people
	Source netip.Addr // where it comes from; invalid: not from an address
	Key    []byte     // of a member that has proved itself by its certificate; nil: a stranger
}

// Accept carries a stream that somebody else has opened, until it ends. It closes
// conn. A stranger has some seconds to be vouched for.
func (c *Carrier) Accept(conn io.ReadWriteCloser, from Caller) error {
	l := c.newLink(conn, from.Name)
	l.known.Store(from.Key != nil)
	life := strangerFor
	if from.Key != nil {
		life = vouchedFor
	}
	l.life = time.AfterFunc(life, func() { l.close(errVouch) })
	defer l.life.Stop()
	if err := c.enter(l, from); err != nil {
		l.close(err)
		return err
	}
	defer c.tasks.Done()
	c.log.Debug("stream accepted", "from", from.Name, "addr", l.addr.String(), "member", from.Key != nil)
	c.changed()
	err := l.run()
	c.remove(l)
	c.log.Debug("stream ended", "from", from.Name, "err", err)
	c.changed()
	return err
}

func (c *Carrier) newLink(conn io.ReadWriteCloser, name string) *link {
	return &link{name: name, conn: conn, carrier: c, kick: make(chan struct{}, 1), closed: make(chan struct{})}
}

// enter gives an accepted stream its place and its address. A member's address is
// always the same, so that it finds the paths of its last stream, which ends.
func (c *Carrier) enter(l *link, from Caller) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	links := *c.links.Load()
	if c.ending {
		return net.ErrClosed
	}
	if from.Key != nil {
		l.addr = way.Virtual(c.class, memberIDs|maphash.Bytes(c.seed, from.Key)&(memberIDs-1))
		if old := links[l.addr]; old != nil {
			go old.close(errors.New("the member has opened another"))
		}
	} else {
		for l.addr = (netip.AddrPort{}); !l.addr.IsValid() || links[l.addr] != nil; {
			l.addr = way.Virtual(c.class, strangerIDs|rand.Uint64N(strangerIDs))
		}
		id, evicted, ok := c.gate.enter(way.Source(from.Source), time.Now())
		if !ok {
			return errBusy
		}
		l.entry = id
		for _, other := range links {
			if evicted != 0 && other.entry == evicted {
				go other.close(errBusy)
			}
		}
	}
	if len(links) >= maxLinks {
		c.gate.leave(l.entry)
		return errBusy
	}
	c.put(l)
	c.tasks.Add(1)
	return nil
}

// Ids of virtual addresses: lines count from 1, strangers' have bit 46, members' bit 47.
const (
	strangerIDs = 1 << 46
	memberIDs   = 1 << 47
)

// put publishes a stream. c.mu is held.
func (c *Carrier) put(l *link) {
	links := maps.Clone(*c.links.Load())
	links[l.addr] = l
	c.links.Store(&links)
}

// remove forgets a stream that has ended.
func (c *Carrier) remove(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate.leave(l.entry)
	if links := *c.links.Load(); links[l.addr] == l {
		links = maps.Clone(links)
		delete(links, l.addr)
		c.links.Store(&links)
	}
}

// Vouch says that the other end of an accepted stream belongs here: something end
// to end has come that way. It holds for some minutes.
func (c *Carrier) Vouch(addr netip.AddrPort) {
	l := (*c.links.Load())[addr]
	if l == nil || l.life == nil {
		return
	}
	l.life.Reset(vouchedFor)
	if l.known.Swap(true) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate.leave(l.entry)
}

// Name describes the other end of a stream, empty when there is none.
func (c *Carrier) Name(addr netip.AddrPort) string {
	if l := (*c.links.Load())[addr]; l != nil {
		return l.name
	}
	return ""
}

// Up reports whether there is a stream with an address.
func (c *Carrier) Up(addr netip.AddrPort) bool { return (*c.links.Load())[addr] != nil }

// Len is how many streams there are.
func (c *Carrier) Len() int { return len(*c.links.Load()) }

// Dropped is how many datagrams found no place in a queue or grew too old in it.
func (c *Carrier) Dropped() uint64 { return c.dropped.Load() }

// String describes the carrier for logs.
func (c *Carrier) String() string { return fmt.Sprintf("streams over %v", c.class) }
