package stream

import (
	"errors"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"meshd/peer/udp"
)

const (
	// writeBatch is how much is written at once: what has been written cannot be
	// displaced any more.
	writeBatch = 32 << 10
	// keepaliveEvery is how often a quiet stream says that it is there, silentFor
	// after which silence it counts as dead.
	keepaliveEvery = 15 * time.Second
	silentFor      = 50 * time.Second
	// writeTimeout is how long one write may be stuck.
	writeTimeout = 15 * time.Second
	// strangerBytes is what a stranger may send in a second: some tens of hellos.
	strangerBytes = 64 << 10
)

// link is one stream while it lasts.
type link struct {
	addr    netip.AddrPort // virtual
	name    string         // of the other end, for people
	conn    io.ReadWriteCloser
	carrier *Carrier

	mu    sync.Mutex
	queue queue
	kick  chan struct{} // there is something in the queue

	closing atomic.Bool
	closed  chan struct{}
	why     error // valid when closed is

	known atomic.Bool // the other end belongs here
	entry uint64      // at the carrier's gate; 0: none
	life  *time.Timer // ends it unless it is vouched for; nil: it needs nobody to
}

// deadliner is what a stream has whose reads and writes can end in time.
type deadliner interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// errVouch says that nobody vouched for a stream.
var errVouch = errors.New("nobody vouched for it")

// push queues the datagrams of one packet. It never blocks.
func (l *link) push(p *udp.Packet, now time.Time) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for data := p.Data; len(data) > 0; {
		n := len(data)
		if p.Seg > 0 && p.Seg < n {
			n = p.Seg
		}
		if n > maxDatagram {
			err = syscall.EMSGSIZE
		} else {
			l.queue.push(data[:n], now)
		}
		data = data[n:]
	}
	l.carrier.dropped.Add(l.queue.lost())
	return err
}

// take replaces buf by what waits, as much as fits.
func (l *link) take(buf []byte, now time.Time) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	buf = l.queue.take(buf[:0], now)
	l.carrier.dropped.Add(l.queue.lost())
	return buf
}

// wake tells the writer.
func (l *link) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// close ends the stream; the first reason stays.
func (l *link) close(why error) {
	if l.closing.Swap(true) {
		return
	}
	l.why = why
	close(l.closed)
	_ = l.conn.Close() // which may wait for ssh to end
}

// run carries until the stream ends, and says why it did.
func (l *link) run() error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.close(l.write())
	}()
	l.close(l.read())
	<-done
	<-l.closed
	return l.why
}

// write is the writer: everything that waits goes in one piece.
func (l *link) write() error {
	buf := make([]byte, 0, writeBatch)
	quiet := time.NewTimer(keepaliveEvery)
	defer quiet.Stop()
	limit, _ := l.conn.(deadliner)
	for {
		if buf = l.take(buf, time.Now()); len(buf) == 0 {
			select {
			case <-l.kick:
				continue
			case <-l.closed:
				return nil
			case <-quiet.C:
				buf = appendFrame(buf, nil)
			}
		}
		if limit != nil {
			_ = limit.SetWriteDeadline(time.Now().Add(writeTimeout)) // without one the reader notices
		}
		if _, err := l.conn.Write(buf); err != nil {
			return err
		}
		quiet.Reset(keepaliveEvery)
	}
}

// read is the reader: it hands on whole datagrams, and reads on when they have
// been taken.
func (l *link) read() error {
	limit, _ := l.conn.(deadliner)
	pace := rate.NewLimiter(strangerBytes, strangerBytes)
	var left []byte // the beginning of a frame
	for {
		in := l.carrier.buffer(l.known.Load())
		n := copy(in.buf, left)
		if limit != nil {
			_ = limit.SetReadDeadline(time.Now().Add(silentFor))
		}
		got, err := l.conn.Read(in.buf[n:])
		if got == 0 && err != nil {
			in.release()
			return err
		}
		rest := in.buf[:n+got]
		for {
			datagram, after, ok, err := nextFrame(rest)
			if err != nil {
				in.release()
				return err
			}
			if !ok {
				break
			}
			if rest = after; len(datagram) > 0 {
				in.pkts = append(in.pkts, udp.Packet{Addr: l.addr, Data: datagram})
			}
		}
		left = append(left[:0], rest...)
		if !l.known.Load() && !l.rest(pace.ReserveN(time.Now(), min(got, strangerBytes)).Delay()) {
			in.release()
			return nil
		}
		if !l.carrier.deliver(in, l) {
			return nil
		}
	}
}

// rest waits, unless the stream ends.
func (l *link) rest(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.closed:
		return false
	}
}
