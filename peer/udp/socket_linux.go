package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Socket is the Conn of this system.
//
// The descriptor belongs to the runtime's poller: Receive parks there, so that
// Close wakes it. The messages are moved by recvmmsg and sendmmsg on arrays
// that are made once, so that nothing is allocated per packet.
type Socket struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	local   netip.AddrPort
	v6      bool
	status  Status // as it was when the socket was opened
	rx      *receiver
	senders sync.Pool // of *sender

	// gsoPause counts down the datagrams that are still to be sent singly,
	// because the kernel or a device has refused a group.
	gsoPause atomic.Int32
	noBatch  atomic.Bool // the system lacks sendmmsg or recvmmsg

	fault func(call uintptr) syscall.Errno // nil but in tests: fails system calls before they are made
}

// failed asks fault.
func (s *Socket) failed(call uintptr) syscall.Errno {
	if s.fault == nil {
		return 0
	}
	return s.fault(call)
}

func listen(addr netip.AddrPort, opts Options) (*Socket, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6" // Go sets IPV6_V6ONLY for it
	}
	var markErr error
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		if opts.shared {
			if err := share(rc); err != nil {
				return err
			}
		}
		return control(rc, func(fd int) error {
			markErr = setMark(fd, opts.Mark)
			return forbidFragments(fd, addr.Addr().Is6())
		})
	}}
	pc, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, listenError(network, addr, err)
	}
	s := &Socket{conn: pc.(*net.UDPConn), v6: addr.Addr().Is6()}
	if err := s.setUp(opts); err != nil {
		_ = pc.Close() // never used
		return nil, fmt.Errorf("listen %s %s: %w", network, addr, err)
	}
	s.status.MarkErr = markErr
	return s, nil
}

// listenError keeps of Go's error what an operator can use.
func listenError(network string, addr netip.AddrPort, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	if errno == errInUse {
		if who := portOwner(addr); who != "" {
			return fmt.Errorf("listen %s %s: %w by %s", network, addr, err, who)
		}
	}
	return fmt.Errorf("listen %s %s: %w", network, addr, err)
}

func (s *Socket) setUp(opts Options) error {
	local := s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	s.local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	s.raw = raw
	s.noBatch.Store(opts.NoBatch)
	s.senders.New = func() any { return newSender(s) }
	err = control(raw, func(fd int) error {
		// Go allows broadcasts on every socket. An address that somebody else
		// named must not become one.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 0); err != nil {
			return fmt.Errorf("forbid broadcasts: %w", err)
		}
		force := [2]int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE}
		if opts.NoForce {
			force = [2]int{unix.SO_RCVBUF, unix.SO_SNDBUF}
		}
		s.status.RcvBuf = growBuffer(fd, unix.SO_RCVBUF, force[0], opts.bufferBytes())
		s.status.SndBuf = growBuffer(fd, unix.SO_SNDBUF, force[1], opts.bufferBytes())
		s.status.GRO = !opts.NoGRO && !opts.Spare && unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
		s.status.GSO = !opts.NoGSO && hasGSO(fd)
		return nil
	})
	s.rx = newReceiver(s, opts.Spare)
	return err
}

// control runs f on the descriptor and returns whichever error there is.
func control(rc syscall.RawConn, f func(fd int) error) error {
	var err error
	if cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// setMark needs CAP_NET_ADMIN (or CAP_NET_RAW since Linux 5.17).
func setMark(fd int, mark uint32) error {
	if mark == 0 {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		return fmt.Errorf("mark socket %#x: %w", mark, err)
	}
	return nil
}

// forbidFragments sets DF and has the kernel ignore what ICMP says about the
// path's MTU: peer's own probes measure it, and ICMP can be forged.
func forbidFragments(fd int, v6 bool) error {
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if v6 {
		level, option, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
	}
	if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
		return fmt.Errorf("forbid fragments: %w", err)
	}
	return nil
}

// growBuffer asks for size bytes, beyond the system's limit if we may, and
// returns what was granted. The kernel doubles the number for its own overhead.
func growBuffer(fd, option, force, size int) int {
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	if err != nil || got/2 >= size {
		return got / 2
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, size) // what was got is read below
	}
	got, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	return got / 2
}

// hasGSO asks for the option before any use: a kernel older than 4.18 ignores
// the control message and would send a group as one datagram.
func hasGSO(fd int) bool {
	_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	return err == nil
}

// LocalAddr implements Conn.
func (s *Socket) LocalAddr() netip.AddrPort { return s.local }

// Status says what the socket has of what it asked for.
func (s *Socket) Status() Status {
	st := s.status
	st.GSO = st.GSO && s.gsoPause.Load() == 0
	st.Batch = !s.noBatch.Load()
	return st
}

// Buffers is the size in bytes of the socket's receive and send buffers.
func (s *Socket) Buffers() (rcv, snd int) { return s.status.RcvBuf, s.status.SndBuf }

// Close implements Conn.
func (s *Socket) Close() error {
	if err := s.conn.Close(); err != nil {
		return net.ErrClosed // nothing else makes closing a UDP socket fail
	}
	return nil
}
