package udp

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	txMessages = 64 // per system call

	maxSegments = 64             // UDP_MAX_SEGMENTS of kernels before 6.9
	maxGroup4   = 65535 - 20 - 8 // bytes of UDP payload in the largest IPv4 packet
	maxGroup6   = 65535 - 40 - 8 // as for IPv4, without counting on the kernel to leave the header out

	sendPatience = 10 * time.Millisecond // how long one call of Send waits for room, in all
	gsoPauseLen  = 4096                  // datagrams sent singly before groups are tried again
	icmpRetries  = 3                     // an ICMP error that is pending fails one call and is gone
)

// sender is what one call of Send needs. It is used by one goroutine at a time.
type sender struct {
	s     *Socket
	msgs  [txMessages]unix.Mmsghdr
	iovs  [txMessages]unix.Iovec
	names [txMessages]sockaddr
	ctrl  [txMessages]cmsg
	items [txMessages]item
	n     int // messages in use

	run   func(fd uintptr) // tx.transmit, made once: a method value allocates
	until time.Time        // when patience ends; zero: it has not begun
	err   error            // the first
}

// item is what a message carries, for when it has to be sent in another way.
type item struct {
	addr netip.AddrPort
	data []byte
	seg  int // 0: a single datagram
}

func newSender(s *Socket) *sender {
	tx := &sender{s: s}
	for i := range tx.msgs {
		h := &tx.msgs[i].Hdr
		h.Name = (*byte)(unsafe.Pointer(&tx.names[i]))
		h.Iov = &tx.iovs[i]
		h.SetIovlen(1)
	}
	tx.run = tx.transmit
	return tx
}

// Send implements Conn.
func (s *Socket) Send(pkts []Packet) error {
	tx := s.senders.Get().(*sender)
	for i := range pkts {
		tx.addPacket(&pkts[i])
	}
	tx.flush()
	err := tx.err
	tx.err, tx.until = nil, time.Time{}
	s.senders.Put(tx)
	return err
}

// addPacket cuts p into groups that the kernel takes, or into datagrams.
func (tx *sender) addPacket(p *Packet) {
	if p.Seg <= 0 || p.Seg >= len(p.Data) {
		tx.add(item{p.Addr, p.Data, 0})
		return
	}
	size := tx.groupSize(p.Seg)
	for data := p.Data; len(data) > 0; {
		if !tx.s.useGSO() {
			size = p.Seg
		}
		n := min(size, len(data))
		it := item{p.Addr, data[:n], p.Seg}
		if n <= p.Seg {
			it.seg = 0
		}
		tx.add(it)
		data = data[n:]
	}
}

// groupSize is the largest multiple of seg that one message may carry.
func (tx *sender) groupSize(seg int) int {
	limit := maxGroup4
	if tx.s.v6 {
		limit = maxGroup6
	}
	return max(1, min(maxSegments, limit/seg)) * seg
}

// useGSO is asked once for every message that is about to be made.
func (s *Socket) useGSO() bool {
	if !s.status.GSO {
		return false
	}
	if s.gsoPause.Load() == 0 {
		return true
	}
	return s.gsoPause.Add(-1) < 0 && s.endPause()
}

// endPause repairs the counter when several senders have counted down at once.
func (s *Socket) endPause() bool {
	s.gsoPause.Store(0)
	return true
}

// add queues one message and sends the queue when it is full.
func (tx *sender) add(it item) {
	i := tx.n
	h := &tx.msgs[i].Hdr
	namelen, err := putSockaddr(&tx.names[i], it.addr, tx.s.v6)
	if err != nil {
		tx.fail(it, err)
		return
	}
	h.Namelen = namelen
	tx.iovs[i].Base = unsafe.SliceData(it.data)
	tx.iovs[i].SetLen(len(it.data))
	h.Control = nil
	h.SetControllen(0)
	if it.seg > 0 {
		h.Control = (*byte)(unsafe.Pointer(&tx.ctrl[i]))
		h.SetControllen(tx.ctrl[i].setSegment(it.seg))
	}
	tx.items[i] = it
	if tx.n++; tx.n == txMessages {
		tx.flush()
	}
}

// flush sends what is queued and forgets it, so that no caller's memory is kept.
func (tx *sender) flush() {
	if tx.n == 0 {
		return
	}
	// Control and not Write: Write lets one goroutine in at a time.
	if err := tx.s.raw.Control(tx.run); err != nil && tx.err == nil {
		tx.err = net.ErrClosed
	}
	for i := range tx.n {
		tx.iovs[i].Base = nil
		tx.items[i] = item{}
	}
	tx.n = 0
}

// transmit gets every queued message sent or given up.
func (tx *sender) transmit(fd uintptr) {
	retries := 0
	for i := 0; i < tx.n; {
		sent, errno := tx.send(fd, i)
		if errno == 0 {
			i += sent
			retries = 0
			continue
		}
		if tx.again(fd, errno, &retries) {
			continue
		}
		tx.giveUp(fd, tx.items[i], errno)
		i++
		retries = 0
	}
}

// send makes one system call for the messages from i on. As the kernel reports
// no error once it has sent a message, an error is that of message i.
//
// The call is raw (here and wherever it cannot block): the runtime takes the processor
// from who stays in an ordinary one for 20 µs, as a send of 64 KB does, and its
// monitor then wakes every 20 µs for ever, which was a tenth of all CPU time.
func (tx *sender) send(fd uintptr, i int) (int, syscall.Errno) {
	if tx.s.noBatch.Load() {
		if errno := tx.s.failed(unix.SYS_SENDMSG); errno != 0 {
			return 0, errno
		}
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&tx.msgs[i].Hdr)), unix.MSG_DONTWAIT)
		return 1, errno
	}
	if errno := tx.s.failed(unix.SYS_SENDMMSG); errno != 0 {
		return 0, errno
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&tx.msgs[i])), uintptr(tx.n-i), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// again decides whether the same call is to be repeated, and waits before it
// where that helps.
func (tx *sender) again(fd uintptr, errno syscall.Errno, retries *int) bool {
	switch errno {
	case unix.EINTR:
		return true
	case unix.ENOSYS:
		return tx.s.noBatch.CompareAndSwap(false, true)
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		return tx.waitForRoom(fd, errno)
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENOPROTOOPT, unix.EPROTO:
		*retries++
		return *retries < icmpRetries
	}
	return false
}

// waitForRoom returns false when this call of Send has waited long enough. It
// polls by itself: the runtime's poller has one deadline for all senders.
func (tx *sender) waitForRoom(fd uintptr, errno syscall.Errno) bool {
	now := time.Now()
	if tx.until.IsZero() {
		tx.until = now.Add(sendPatience)
	}
	left := tx.until.Sub(now)
	if left <= 0 {
		return false
	}
	if errno != unix.EAGAIN {
		time.Sleep(min(left, time.Millisecond/2)) // the device's shortage: poll would say writable
		return true
	}
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	_, _ = unix.Poll(fds[:], int(left/time.Millisecond)+1) // on an error or a signal the clock decides
	return true
}

// giveUp handles a message that the kernel has refused. A group may have been
// refused for its form, or for one datagram in it: the datagrams are sent singly.
func (tx *sender) giveUp(fd uintptr, it item, errno syscall.Errno) {
	if it.seg == 0 || !mayBeGroup(errno) {
		tx.fail(it, errno)
		return
	}
	singles := tx.s.senders.Get().(*sender)
	singles.until = tx.until
	for data := it.data; len(data) > 0; {
		n := min(it.seg, len(data))
		singles.add(item{it.addr, data[:n], 0})
		data = data[n:]
	}
	singles.flush()
	if singles.err == nil {
		tx.s.gsoPause.Store(gsoPauseLen) // each passed alone: it was the group
	} else if tx.err == nil {
		tx.err = singles.err
	}
	tx.until = singles.until
	singles.err, singles.until = nil, time.Time{}
	tx.s.senders.Put(singles)
}

// mayBeGroup reports the errors of UDP_SEGMENT: EIO without checksum offload or
// with IPsec, EINVAL or EMSGSIZE (by kernel) for a segment beyond the MTU, and
// those of an unknown option.
func mayBeGroup(errno syscall.Errno) bool {
	switch errno {
	case unix.EINVAL, unix.EIO, unix.EMSGSIZE, unix.ENOPROTOOPT, unix.EOPNOTSUPP:
		return true
	}
	return false
}

func (tx *sender) fail(it item, err error) {
	if tx.err == nil {
		tx.err = fmt.Errorf("send %d bytes to %s: %w", len(it.data), it.addr, err)
	}
}
