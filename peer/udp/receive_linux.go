package udp

import (
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	rxMessages = 8       // per system call; more gain nothing (measured)
	rxSize     = 1 << 16 // of each buffer: the largest group that UDP_GRO makes
	spareSize  = 1 << 11 // of the only buffer of a spare socket
)

// receiver is what Receive needs from one call to the next. It belongs to the
// one goroutine that calls Receive.
type receiver struct {
	s     *Socket
	msgs  [rxMessages]unix.Mmsghdr
	iovs  [rxMessages]unix.Iovec
	names [rxMessages]sockaddr
	ctrl  [rxMessages]cmsg
	buf   []byte
	size  int // of each message's part of buf
	zones map[uint32]string
	read  func(fd uintptr) bool // rx.tryRead, made once: a method value allocates

	want, got int           // messages asked for and received by tryRead
	errno     syscall.Errno // of tryRead
	failures  int           // of it in a row
}

func newReceiver(s *Socket, spare bool) *receiver {
	messages, size := rxMessages, rxSize
	if spare {
		messages, size = 1, spareSize
	}
	rx := &receiver{s: s, buf: make([]byte, messages*size), size: size, zones: make(map[uint32]string)}
	for i := range messages {
		rx.iovs[i].Base = &rx.buf[i*size]
		rx.iovs[i].SetLen(size)
		h := &rx.msgs[i].Hdr
		h.Name = (*byte)(unsafe.Pointer(&rx.names[i]))
		h.Iov = &rx.iovs[i]
		h.SetIovlen(1)
		h.Control = (*byte)(unsafe.Pointer(&rx.ctrl[i]))
	}
	rx.read = rx.tryRead
	return rx
}

// Receive implements Conn.
func (s *Socket) Receive(pkts []Packet) (int, error) {
	if len(pkts) == 0 {
		return 0, nil
	}
	rx := s.rx
	for {
		rx.want = min(len(pkts), len(rx.buf)/rx.size)
		if err := s.raw.Read(rx.read); err != nil {
			return 0, net.ErrClosed // the poller knows no other reason
		}
		if n, err := rx.taken(pkts); n > 0 || err != nil {
			return n, err
		}
	}
}

// Serve implements Server. Where a call has brought fewer messages than it asked for there are no more, and what comes later
// wakes the poller: it stays with that. When there may be more it asks the poller anew, which tells whether the socket is
// closed.
func (s *Socket) Serve(pkts []Packet, handle func([]Packet)) error {
	if len(pkts) == 0 {
		return nil
	}
	rx := s.rx
	rx.want = min(len(pkts), len(rx.buf)/rx.size)
	var failed error
	poll := func(fd uintptr) bool {
		if !rx.tryRead(fd) {
			return false
		}
		var n int
		if n, failed = rx.taken(pkts); n > 0 {
			handle(pkts[:n])
		}
		return rx.errno != 0 || rx.got == rx.want || s.noBatch.Load()
	}
	for failed == nil {
		if s.raw.Read(poll) != nil {
			return net.ErrClosed
		}
	}
	return failed
}

// taken is what tryRead has brought: nothing, when that was an error that the socket survives.
func (rx *receiver) taken(pkts []Packet) (int, error) {
	switch {
	case rx.errno == 0:
		rx.failures = 0
		return rx.collect(pkts), nil
	case fatal(rx.errno):
		return 0, rx.errno
	}
	// A pending ICMP error is gone once it was read. What stays (no memory) must not become a busy loop.
	if rx.failures++; rx.failures > 10 {
		time.Sleep(time.Millisecond)
	}
	return 0, nil
}

// fatal reports the errors that no later call can survive. All others are ICMP
// errors, pending or for somebody else's packet, or a shortage that passes.
func fatal(errno syscall.Errno) bool {
	switch errno {
	case unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.EINVAL:
		return true
	}
	return false
}

// tryRead is called by the poller when the socket may be readable; false sends
// it back to wait.
func (rx *receiver) tryRead(fd uintptr) bool {
	for {
		rx.got, rx.errno = rx.recv(fd)
		switch {
		case rx.errno == unix.EINTR:
		case rx.errno == unix.EAGAIN:
			return false
		case rx.errno == unix.ENOSYS && !rx.s.noBatch.Load():
			rx.s.noBatch.Store(true)
		default:
			return true
		}
	}
}

func (rx *receiver) recv(fd uintptr) (int, syscall.Errno) {
	if rx.s.noBatch.Load() {
		if errno := rx.s.failed(unix.SYS_RECVMSG); errno != 0 {
			return 0, errno
		}
		rx.reset(0)
		h := &rx.msgs[0]
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&h.Hdr)), unix.MSG_DONTWAIT)
		h.Len = uint32(n)
		return 1, errno
	}
	if errno := rx.s.failed(unix.SYS_RECVMMSG); errno != 0 {
		return 0, errno
	}
	for i := range rx.want {
		rx.reset(i)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&rx.msgs[0])), uintptr(rx.want), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// reset undoes what the kernel has written into message i.
func (rx *receiver) reset(i int) {
	h := &rx.msgs[i].Hdr
	h.Namelen = uint32(unsafe.Sizeof(rx.names[i]))
	h.SetControllen(int(unsafe.Sizeof(rx.ctrl[i])))
	h.Flags = 0
}

// collect turns the messages received into packets.
func (rx *receiver) collect(pkts []Packet) int {
	n := 0
	for i := range rx.got {
		m := &rx.msgs[i]
		from, ok := getSockaddr(&rx.names[i], rx.zones)
		if !ok || m.Hdr.Flags&unix.MSG_TRUNC != 0 || int(m.Len) > rx.size {
			continue
		}
		start, end := i*rx.size, i*rx.size+int(m.Len)
		pkts[n] = Packet{Addr: from, Data: rx.buf[start:end:end], Seg: rx.ctrl[i].segment(int(m.Hdr.Controllen))}
		n++
	}
	return n
}
