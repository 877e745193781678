//go:build !linux

package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Socket is the Conn of this system: Go's own UDP socket, one datagram for each
// system call.
type Socket struct {
	conn   *net.UDPConn
	local  netip.AddrPort
	v6     bool
	status Status
	buf    []byte // belongs to the one goroutine that calls Receive
}

const maxDatagram = 1 << 16

func listen(addr netip.AddrPort, opts Options) (*Socket, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errno
		}
		return nil, fmt.Errorf("listen %s %s: %w", network, addr, err)
	}
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	s := &Socket{
		conn:  conn,
		local: netip.AddrPortFrom(local.Addr().Unmap(), local.Port()),
		v6:    addr.Addr().Is6(),
		buf:   make([]byte, maxDatagram),
	}
	if err := s.setUp(opts); err != nil {
		_ = conn.Close() // never used
		return nil, fmt.Errorf("listen %s %s: %w", network, addr, err)
	}
	return s, nil
}

func (s *Socket) setUp(opts Options) error {
	if opts.Mark != 0 {
		s.status.MarkErr = fmt.Errorf("mark socket %#x: %w", opts.Mark, errors.ErrUnsupported)
	}
	size := opts.bufferBytes()
	s.status.RcvBuf = growBuffer(size, s.conn.SetReadBuffer)
	s.status.SndBuf = growBuffer(size, s.conn.SetWriteBuffer)
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	if err := raw.Control(func(fd uintptr) { optErr = forbidFragments(fd, s.v6) }); err != nil {
		return err
	}
	return optErr
}

// growBuffer asks for less and less, since these systems refuse what is beyond
// their limit instead of granting the limit. It returns 0 when it got nothing.
func growBuffer(size int, set func(int) error) int {
	for ; size >= 64<<10; size /= 2 {
		if set(size) == nil {
			return size
		}
	}
	return 0
}

// Receive implements Conn.
func (s *Socket) Receive(pkts []Packet) (int, error) {
	if len(pkts) == 0 {
		return 0, nil
	}
	for failures := 0; ; failures++ {
		n, from, err := s.conn.ReadFromUDPAddrPort(s.buf)
		switch {
		case err == nil:
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			pkts[0] = Packet{Addr: from, Data: s.buf[:n:n]}
			return 1, nil
		case errors.Is(err, net.ErrClosed):
			return 0, net.ErrClosed
		case failures >= 1000:
			return 0, fmt.Errorf("receive on %s: %w", s.local, err)
		}
	}
}

// Send implements Conn.
func (s *Socket) Send(pkts []Packet) error {
	var first error
	for i := range pkts {
		p := &pkts[i]
		seg := p.Seg
		if seg <= 0 || seg > len(p.Data) {
			seg = len(p.Data)
		}
		for data := p.Data; ; {
			n := min(seg, len(data))
			if err := s.sendOne(p.Addr, data[:n]); err != nil && first == nil {
				first = err
			}
			if data = data[n:]; len(data) == 0 {
				break
			}
		}
	}
	return first
}

func (s *Socket) sendOne(to netip.AddrPort, b []byte) error {
	a := to.Addr().Unmap()
	if !a.IsValid() || a.Is6() != s.v6 {
		return fmt.Errorf("send %d bytes to %s: %w", len(b), to, syscall.EAFNOSUPPORT)
	}
	_, err := s.conn.WriteToUDPAddrPort(b, netip.AddrPortFrom(a, to.Port()))
	switch {
	case err == nil, isICMP(err):
		return nil
	case errors.Is(err, net.ErrClosed):
		return net.ErrClosed
	case tooLarge(err):
		return fmt.Errorf("send %d bytes to %s: %w", len(b), to, syscall.EMSGSIZE)
	}
	return fmt.Errorf("send %d bytes to %s: %w", len(b), to, err)
}

func isICMP(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

// LocalAddr implements Conn.
func (s *Socket) LocalAddr() netip.AddrPort { return s.local }

// Status says what the socket has of what it asked for.
func (s *Socket) Status() Status { return s.status }

// Buffers is the size in bytes of the socket's receive and send buffers.
func (s *Socket) Buffers() (rcv, snd int) { return s.status.RcvBuf, s.status.SndBuf }

// Close implements Conn.
func (s *Socket) Close() error {
	if err := s.conn.Close(); err != nil {
		return net.ErrClosed // nothing else makes closing a UDP socket fail
	}
	return nil
}
