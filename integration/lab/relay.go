//go:build linux

package lab

import (
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

const (
	vnetHeader  = 10         // bytes of struct virtio_net_hdr, which carries checksum and segmentation offload across
	maxFrame    = 1<<16 + 64 // a super-frame with its headers
	smallFrame  = 2048
	relayBuffer = 4 << 20 // socket buffer
	relayQueue  = 1 << 16 // frames under way in one direction; more are lost
)

// relay carries frames between two interfaces and treats them as a Link says. It is a process' worth of goroutines, so
// that no kernel feature is needed for it.
//
//	a: AF_PACKET -> read -> shaper -> flow (heap by time) -> write -> AF_PACKET :b      and the same from b to a
type relay struct {
	conns [2]*socket.Conn
	flows [2]*flow
	group sync.WaitGroup
	once  sync.Once
}

func newRelay(a, b end, link Link) (*relay, error) {
	ca, err := openPacket(a)
	if err != nil {
		return nil, err
	}
	cb, err := openPacket(b)
	if err != nil {
		return nil, errors.Join(err, ca.Close())
	}
	r := &relay{conns: [2]*socket.Conn{ca, cb}}
	seed := uint64(a.index)<<32 | uint64(b.index) // the same in every run that builds the same
	r.flows[0] = newFlow(link, seed)
	r.flows[1] = newFlow(link, ^seed)
	for i, f := range r.flows {
		from, to := r.conns[i], r.conns[1-i]
		r.group.Go(func() { f.read(from) })
		r.group.Go(func() { f.write(to) })
	}
	return r, nil
}

// set changes the link for frames that have not been admitted yet.
func (r *relay) set(link Link) {
	for _, f := range r.flows {
		f.mu.Lock()
		f.shaper.link = link
		f.mu.Unlock()
	}
}

func (r *relay) link() Link {
	r.flows[0].mu.Lock()
	defer r.flows[0].mu.Unlock()
	return r.flows[0].shaper.link
}

// Close ends the relay and waits for its goroutines. Frames under way are lost.
func (r *relay) Close() error {
	var err error
	r.once.Do(func() {
		err = errors.Join(r.conns[0].Close(), r.conns[1].Close())
		for _, f := range r.flows {
			f.close()
		}
		r.group.Wait()
	})
	return err
}

// openPacket opens a socket for all frames that arrive at an interface, each with its virtio_net_hdr.
func openPacket(e end) (*socket.Conn, error) {
	c, err := socket.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0, "packet", &socket.Config{NetNS: e.ns.fd})
	if err != nil {
		return nil, fmt.Errorf("open packet socket in %q: %w", e.ns.name, err)
	}
	options := []struct{ level, name, value int }{
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
	}
	for _, o := range options {
		if err := c.SetsockoptInt(o.level, o.name, o.value); err != nil {
			return nil, errors.Join(fmt.Errorf("set option %d of packet socket: %w", o.name, err), c.Close())
		}
	}
	// As large as the system allows: the limit is lower for those who are not root.
	_ = c.SetReadBuffer(relayBuffer)
	_ = c.SetWriteBuffer(relayBuffer)
	if err := c.Bind(&unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: e.index}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind packet socket to %s: %w", e.name, err), c.Close())
	}
	return c, nil
}

// networkOrder is htons.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// flow is one direction of a relay.
type flow struct {
	mu     sync.Mutex
	shaper *shaper
	queue  frameHeap
	order  uint64 // of arrival, for frames due at the same time
	closed bool
	wake   chan struct{} // capacity 1: the head of the queue has changed
	pool   sync.Pool     // of *[smallFrame]byte
}

func newFlow(link Link, seed uint64) *flow {
	return &flow{
		shaper: newShaper(link, seed),
		wake:   make(chan struct{}, 1),
		pool:   sync.Pool{New: func() any { return new([smallFrame]byte) }},
	}
}

// read admits frames until the socket is closed.
func (f *flow) read(from *socket.Conn) {
	buf := make([]byte, maxFrame)
	for {
		n, _, err := from.Recvfrom(context.Background(), buf, 0)
		if err != nil {
			if errors.Is(err, unix.ENETDOWN) {
				continue // reported once each time that the interface goes down
			}
			return
		}
		if n > vnetHeader {
			f.put(time.Now(), buf[:n])
		}
	}
}

// put admits a frame, which it copies.
func (f *flow) put(now time.Time, frame []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	due, copies := f.shaper.admit(now, len(frame)-vnetHeader)
	for range copies {
		if len(f.queue) >= relayQueue {
			return
		}
		item := queued{due: due, order: f.order}
		f.order++
		if len(frame) <= smallFrame {
			item.small = f.pool.Get().(*[smallFrame]byte)
			item.data = append(item.small[:0], frame...)
		} else {
			item.data = append([]byte(nil), frame...)
		}
		heap.Push(&f.queue, item)
		if f.queue[0].order == item.order {
			f.notify()
		}
	}
}

func (f *flow) notify() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.notify()
}

// write sends frames when they are due, until the flow is closed.
func (f *flow) write(to *socket.Conn) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		item, wait, ok := f.take(time.Now())
		switch {
		case !ok:
			return
		case item.data != nil:
			// What cannot be sent is lost, as on a cable that is unplugged or a queue that is full.
			_, _ = to.Write(item.data)
			if item.small != nil {
				f.pool.Put(item.small)
			}
			continue
		case wait == 0:
			<-f.wake
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-f.wake:
		}
	}
}

// take returns the next frame that is due, or how long the next one takes (0: there is none).
func (f *flow) take(now time.Time) (item queued, wait time.Duration, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return queued{}, 0, false
	}
	if len(f.queue) == 0 {
		return queued{}, 0, true
	}
	if wait := f.queue[0].due.Sub(now); wait > 0 {
		return queued{}, wait, true
	}
	return heap.Pop(&f.queue).(queued), 0, true
}

// queued is a frame under way, with its virtio_net_hdr.
type queued struct {
	due   time.Time
	order uint64
	data  []byte
	small *[smallFrame]byte // what data lies in, if it came from the pool
}

// frameHeap is a heap (container/heap) of frames by the time when they are due.
type frameHeap []queued

func (h frameHeap) Len() int { return len(h) }
func (h frameHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].order < h[j].order
	}
	return h[i].due.Before(h[j].due)
}
func (h frameHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is heap.Interface's.
func (h *frameHeap) Push(x any) { *h = append(*h, x.(queued)) }

// Pop is heap.Interface's.
func (h *frameHeap) Pop() any {
	old := *h
	item := old[len(old)-1]
	old[len(old)-1] = queued{}
	*h = old[:len(old)-1]
	return item
}
