//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Echo answers TCP connections at an address of the host with what it receives, until the lab's end.
type Echo struct {
	listener net.Listener
	group    sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]bool
}

// Echo begins to answer. Port 0 lets the kernel choose.
func (h *Host) Echo(at netip.AddrPort) (*Echo, error) {
	e := &Echo{conns: make(map[net.Conn]bool)}
	err := h.Do(func() (err error) {
		e.listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp", at.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: answer on %s: %w", h.name, err)
	}
	e.group.Go(e.accept)
	h.lab.mu.Lock()
	h.lab.own(e)
	h.lab.mu.Unlock()
	return e, nil
}

// Addr is where it listens.
func (e *Echo) Addr() netip.AddrPort { return netip.MustParseAddrPort(e.listener.Addr().String()) }

// Close ends all connections.
func (e *Echo) Close() error {
	err := e.listener.Close()
	e.mu.Lock()
	for c := range e.conns {
		_ = c.Close()
	}
	e.conns = nil
	e.mu.Unlock()
	e.group.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (e *Echo) accept() {
	for {
		c, err := e.listener.Accept()
		if err != nil {
			return
		}
		e.mu.Lock()
		if e.conns == nil {
			_ = c.Close()
		} else {
			e.conns[c] = true
			e.group.Go(func() {
				_, _ = io.Copy(c, c) // ends when either side does
				_ = c.Close()
			})
		}
		e.mu.Unlock()
	}
}

// Stream is one TCP connection that is kept in use, to see whether it survives.
type Stream struct {
	conn  net.Conn
	opts  StreamOptions
	group sync.WaitGroup
	stop  chan struct{}
	once  sync.Once

	mu   sync.Mutex
	sent uint64
	back uint64
	err  error
	more chan struct{} // closed, and made anew, with each answer and the end
}

// StreamOptions say how much a Stream sends. The zero value is a number 50 times a second.
type StreamOptions struct {
	Interval time.Duration // 20 ms if 0
	Size     int           // bytes in each block; at least 8
}

// Stream connects to an [Echo] and keeps the connection in use until Close.
func (h *Host) Stream(ctx context.Context, to netip.AddrPort, opts ...StreamOptions) (*Stream, error) {
	s := &Stream{stop: make(chan struct{}), more: make(chan struct{})}
	for _, o := range opts {
		s.opts = o
	}
	if s.opts.Interval == 0 {
		s.opts.Interval = 20 * time.Millisecond
	}
	s.opts.Size = max(s.opts.Size, 8)
	err := h.Do(func() (err error) {
		// One address and no name: the dialer does not need goroutines, which would be outside.
		s.conn, err = new(net.Dialer).DialContext(ctx, "tcp", to.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: connect from %s: %w", h.name, err)
	}
	s.group.Go(s.write)
	s.group.Go(s.read)
	h.lab.mu.Lock()
	h.lab.own(s)
	h.lab.mu.Unlock()
	return s, nil
}

// Close ends the connection.
func (s *Stream) Close() error {
	var err error
	s.once.Do(func() {
		close(s.stop)
		err = s.conn.Close()
	})
	s.group.Wait()
	return err
}

// Alive waits until something has crossed the connection there and back that was sent after the call.
func (s *Stream) Alive(ctx context.Context) error {
	s.mu.Lock()
	want := s.sent + 1
	s.mu.Unlock()
	for {
		s.mu.Lock()
		back, err, more := s.back, s.err, s.more
		s.mu.Unlock()
		switch {
		case err != nil:
			return fmt.Errorf("lab: the connection has ended: %w", err)
		case back >= want:
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("lab: nothing comes back on the connection: %w", ctx.Err())
		}
	}
}

// Retransmissions is how many segments this side has sent again so far.
func (s *Stream) Retransmissions() (int, error) { return retransmissions(s.conn) }

func retransmissions(conn net.Conn) (int, error) {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("lab: ask for retransmissions: %w", err)
	}
	var info *unix.TCPInfo
	var asked error
	err = raw.Control(func(fd uintptr) { info, asked = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, asked); err != nil {
		return 0, fmt.Errorf("lab: ask for retransmissions: %w", err)
	}
	return int(info.Total_retrans), nil
}

func (s *Stream) write() {
	tick := time.NewTicker(s.opts.Interval)
	defer tick.Stop()
	block := make([]byte, s.opts.Size)
	for {
		s.mu.Lock()
		s.sent++
		binary.BigEndian.PutUint64(block, s.sent)
		s.mu.Unlock()
		if _, err := s.conn.Write(block); err != nil {
			s.end(err)
			return
		}
		select {
		case <-tick.C:
		case <-s.stop:
			return
		}
	}
}

func (s *Stream) read() {
	block := make([]byte, s.opts.Size)
	for want := uint64(1); ; want++ {
		if _, err := io.ReadFull(s.conn, block); err != nil {
			s.end(err)
			return
		}
		if got := binary.BigEndian.Uint64(block); got != want {
			s.end(fmt.Errorf("number %d came back in place of %d", got, want))
			return
		}
		s.mu.Lock()
		s.back = want
		s.signal()
		s.mu.Unlock()
	}
}

func (s *Stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		s.signal()
	}
}

func (s *Stream) signal() {
	close(s.more)
	s.more = make(chan struct{})
}
