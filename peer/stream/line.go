package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"meshd/peer/way"
)

const (
	// dialTimeout is how long one attempt may take: ssh may ask somebody.
	dialTimeout = 90 * time.Second
	// again is the pause before a stream that worked is dialled again, settled how
	// long it must have worked for that.
	again   = 250 * time.Millisecond
	settled = 5 * time.Second
	// firstPause, doubled and more up to lastPause, is the pause after attempts that fail: whoever named
	// the address may want others to call it, so that these are few.
	firstPause = 2 * time.Second
	lastPause  = time.Minute
)

// Dial opens a byte stream. It may ask somebody, or wait; ctx ends it.
type Dial func(ctx context.Context) (io.ReadWriteCloser, error)

// line is a stream that this node keeps open.
type line struct {
	key    string
	addr   netip.AddrPort
	dial   Dial
	cancel context.CancelFunc
	redial chan struct{}

	// Behind the carrier's lock.
	tried   int           // attempts that have ended
	err     error         // of the last one, nil when it succeeded
	outcome chan struct{} // closed and replaced with each
}

// Open keeps a stream open: it is dialled now, and again whenever it ends, until
// Hang. The address stays the same. A line with the same key is not opened twice.
func (c *Carrier) Open(key string, dial Dial) netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lines {
		if l.key == key {
			return l.addr
		}
	}
	c.nextID++
	ctx, cancel := context.WithCancel(context.Background())
	l := &line{
		key: key, addr: way.Virtual(c.class, c.nextID), dial: dial, cancel: cancel,
		redial: make(chan struct{}, 1), outcome: make(chan struct{}),
	}
	if c.ending {
		cancel()
		return l.addr
	}
	c.lines[l.addr] = l
	c.tasks.Go(func() { c.keep(ctx, l) })
	return l.addr
}

// Hang ends a line.
func (c *Carrier) Hang(addr netip.AddrPort) {
	c.mu.Lock()
	l := c.lines[addr]
	delete(c.lines, addr)
	c.mu.Unlock()
	if l != nil {
		l.cancel()
	}
}

// Redial gives up the stream of a line and dials anew at once.
func (c *Carrier) Redial(addr netip.AddrPort) {
	c.mu.Lock()
	l := c.lines[addr]
	c.mu.Unlock()
	if l == nil {
		return
	}
	select {
	case l.redial <- struct{}{}:
	default:
	}
	if up := (*c.links.Load())[addr]; up != nil {
		up.close(errors.New("dialled anew"))
	}
}

// Lines lists the addresses of all lines.
func (c *Carrier) Lines() []netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]netip.AddrPort, 0, len(c.lines))
	for addr := range c.lines {
		list = append(list, addr)
	}
	return list
}

// Await waits until a line is up. An attempt that has failed is an error.
func (c *Carrier) Await(ctx context.Context, addr netip.AddrPort) error {
	for first := true; ; first = false {
		c.mu.Lock()
		l := c.lines[addr]
		if l == nil {
			c.mu.Unlock()
			return ErrNoStream
		}
		tried, err, outcome := l.tried, l.err, l.outcome
		c.mu.Unlock()
		if c.Up(addr) {
			return nil
		}
		if err != nil && (!first || tried > 0) {
			return err
		}
		select {
		case <-outcome:
		case <-c.closed:
			return net.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keep is a line's goroutine.
func (c *Carrier) keep(ctx context.Context, l *line) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		up, err := c.call(ctx, l)
		switch {
		case up && time.Since(began) >= settled:
			pause = firstPause
			if !l.wait(ctx, again) {
				return
			}
		default:
			if err != nil && ctx.Err() == nil {
				c.log.Debug("stream failed", "to", l.key, "err", err)
			}
			if !l.wait(ctx, pause) {
				return
			}
			pause = min(3*pause, lastPause)
		}
	}
}

// wait pauses before the next attempt, unless that is asked for.
func (l *line) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.redial:
	case <-ctx.Done():
		return false
	}
	return true
}

// call dials once and carries until the stream ends. up says that it was there.
func (c *Carrier) call(ctx context.Context, l *line) (up bool, err error) {
	attempt, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := l.dial(attempt)
	cancel()
	if err != nil {
		c.note(l, nil, err)
		return false, err
	}
	k := c.newLink(conn, describe(conn))
	k.addr = l.addr
	k.known.Store(true)
	if ctx.Err() != nil || !c.note(l, k, nil) {
		_ = conn.Close()
		return false, net.ErrClosed
	}
	stop := context.AfterFunc(ctx, func() { k.close(net.ErrClosed) })
	defer stop()
	c.log.Debug("stream opened", "to", l.key, "addr", l.addr.String())
	c.changed()
	err = k.run()
	c.remove(k)
	c.changed()
	return true, err
}

// note publishes the outcome of an attempt; false when the carrier is ending.
func (c *Carrier) note(l *line, k *link, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return false
	}
	if k != nil {
		c.put(k)
	}
	l.tried++
	l.err = err
	close(l.outcome)
	l.outcome = make(chan struct{})
	return true
}

// describe is what a stream leads to, for people.
func describe(conn io.ReadWriteCloser) string {
	switch c := conn.(type) {
	case interface{ Describe() string }:
		return c.Describe()
	case net.Conn:
		return c.RemoteAddr().String()
	}
	return ""
}
