package udptest

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"meshd/peer/udp"
)

const (
	maxPayload    = 65507   // of a UDP datagram over IPv4
	receiveBuffer = 4 << 20 // bytes
	maxMerged     = 64      // datagrams in one Packet, as with UDP_GRO
)

// conn is a socket on a Host.
type conn struct {
	h     *Host
	local netip.AddrPort
	both  bool // families

	mu     sync.Mutex
	queue  []arrival
	queued int // bytes
	closed bool
	wake   chan struct{} // holds a token when the queue or closed has changed

	buf []byte // of the last Receive
}

type arrival struct {
	from netip.AddrPort
	data []byte
}

func (c *conn) init(h *Host) {
	c.h = h
	c.wake = make(chan struct{}, 1)
}

// overlaps reports that two sockets would claim the same datagrams.
func (c *conn) overlaps(o *conn) bool {
	if c.local.Port() != o.local.Port() {
		return false
	}
	if c.both || o.both {
		return true
	}
	a, b := c.local.Addr(), o.local.Addr()
	return a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

// takes reports that a datagram to dst is for this socket.
func (c *conn) takes(dst netip.AddrPort) bool {
	if c.local.Port() != dst.Port() {
		return false
	}
	a := c.local.Addr()
	return c.both || a == dst.Addr() || a.IsUnspecified() && a.Is4() == dst.Addr().Is4()
}

// push queues d; false when the buffer is full or the socket closed.
func (c *conn) push(d *passage) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.queued+len(d.data) > receiveBuffer {
		return false
	}
	c.queue = append(c.queue, arrival{d.src, d.data})
	c.queued += len(d.data)
	c.signal()
	return true
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Receive implements udp.Conn.
func (c *conn) Receive(pkts []udp.Packet) (int, error) {
	if len(pkts) == 0 {
		return 0, nil
	}
	for {
		n, err := c.take(pkts)
		if n > 0 || err != nil {
			return n, err
		}
		<-c.wake
	}
}

// take fills pkts with what is queued. Runs of datagrams from one source become
// one packet, as UDP_GRO would do: equal sizes, but for a shorter last one.
func (c *conn) take(pkts []udp.Packet) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	// A copy that is exactly as large, so that a receiver that keeps Data, or
	// appends to it, meets the same trouble as with the real socket.
	poison(c.buf)
	c.buf = make([]byte, 0, c.queued)
	n := 0
	for n < len(pkts) && len(c.queue) > 0 {
		run := c.run()
		start := len(c.buf)
		for _, a := range c.queue[:run] {
			c.buf = append(c.buf, a.data...)
			c.queued -= len(a.data)
		}
		end := len(c.buf)
		pkts[n] = udp.Packet{Addr: c.queue[0].from, Data: c.buf[start:end:end]}
		if run > 1 {
			pkts[n].Seg = len(c.queue[0].data)
		}
		c.queue = c.queue[run:]
		n++
	}
	return n, nil
}

// run is the number of queued datagrams that make one packet.
func (c *conn) run() int {
	first, total := c.queue[0], 0
	for i, a := range c.queue {
		total += len(a.data)
		switch {
		case i == 0:
		case i == maxMerged, total > maxPayload, a.from != first.from, len(a.data) > len(first.data), len(a.data) == 0:
			return i
		}
		if len(a.data) < len(first.data) || len(a.data) == 0 {
			return i + 1
		}
	}
	return len(c.queue)
}

// poison makes the use of Data after the next Receive visible.
func poison(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}

// Send implements udp.Conn.
func (c *conn) Send(pkts []udp.Packet) error {
	var first error
	for _, p := range pkts {
		seg := p.Seg
		if seg <= 0 || seg > len(p.Data) {
			seg = len(p.Data)
		}
		for data := p.Data; ; {
			size := min(seg, len(data))
			if err := c.sendOne(p.Addr, data[:size]); err != nil && first == nil {
				first = err
			}
			if data = data[size:]; len(data) == 0 {
				break
			}
		}
	}
	c.h.n.pump()
	return first
}

func (c *conn) sendOne(to netip.AddrPort, data []byte) error {
	src, err := c.sendable(to, len(data))
	if err == net.ErrClosed {
		return err
	}
	if err != nil {
		return fmt.Errorf("send %d bytes to %s: %w", len(data), to, err)
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	c.h.send(newPassage(c.h, src, to, data))
	return nil
}

// sendable finds the address that a datagram leaves from, or the error that the
// kernel would answer.
func (c *conn) sendable(to netip.AddrPort, size int) (src netip.AddrPort, err error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return src, net.ErrClosed
	}
	a := to.Addr().Unmap()
	if !a.IsValid() || !c.both && a.Is4() != c.local.Addr().Is4() {
		return src, syscall.EAFNOSUPPORT
	}
	c.h.n.mu.Lock()
	defer c.h.n.mu.Unlock()
	from, ok := c.h.source(a)
	if l := c.local.Addr(); !l.IsUnspecified() {
		from, ok = l, slices.Contains(c.h.addrs, l)
	}
	switch {
	case !ok:
		return src, syscall.ENETUNREACH
	case size > maxPayload, ipSize(size, a) > c.h.up.mtu():
		return src, syscall.EMSGSIZE
	case to.Port() == 0:
		return src, syscall.EINVAL
	}
	return netip.AddrPortFrom(from, c.local.Port()), nil
}

// LocalAddr implements udp.Conn.
func (c *conn) LocalAddr() netip.AddrPort { return c.local }

// Close implements udp.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.signal()
	c.mu.Unlock()
	if was {
		return net.ErrClosed
	}
	c.h.n.mu.Lock()
	defer c.h.n.mu.Unlock()
	c.h.conns = slices.DeleteFunc(c.h.conns, func(x *conn) bool { return x == c })
	return nil
}
