package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// forwardCommand is the first argument of this program when it is to forward datagrams between two addresses: what a relay
// costs at least, with the same batches and offloads (recvmmsg, UDP_GRO, sendmmsg, UDP_SEGMENT) and nothing looked at.
const forwardCommand = "forward-datagrams"

const (
	// meshdPort is where meshd listens.
	meshdPort    = 51830
	forwardBatch = 8
	forwardRoom  = 64 << 10
	controlRoom  = 64
)

// forward passes datagrams between two addresses, which take each other for this host.
func forward(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("forward: two addresses are needed")
	}
	var fds [2]int
	for i, text := range args {
		to, err := netip.ParseAddrPort(text)
		if err != nil {
			return fmt.Errorf("forward: %w", err)
		}
		if fds[i], err = forwardSocket(to); err != nil {
			return fmt.Errorf("forward to %v: %w", to, err)
		}
	}
	group, _ := errgroup.WithContext(ctx)
	for i := range fds {
		group.Go(func() error { return pass(fds[i], fds[1-i]) })
	}
	return group.Wait()
}

// forwardSocket is connected to an end, from the interface that leads there and the port that it listens on.
func forwardSocket(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	remote := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	local := &unix.SockaddrInet4{Port: meshdPort, Addr: to.Addr().Next().As4()} // the other end of the cable
	return fd, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, udpBuffer),
		unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1),
		unix.Bind(fd, local),
		unix.Connect(fd, remote),
	)
}

// lane is the messages of one direction.
type lane struct {
	messages [forwardBatch]message
	vectors  [forwardBatch]unix.Iovec
	buffers  [forwardBatch][forwardRoom]byte
	control  [forwardBatch][controlRoom]byte
}

// pass reads from one socket and writes to the other until there is an error that does not go away.
func pass(from, to int) error {
	l := new(lane)
	for {
		l.reset()
		n, err := exchange(unix.SYS_RECVMMSG, from, l.messages[:], unix.MSG_WAITFORONE)
		if err != nil {
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNREFUSED) {
				continue
			}
			return err
		}
		for i := range n {
			l.turn(i)
		}
		for sent := 0; sent < n; {
			done, err := exchange(unix.SYS_SENDMMSG, to, l.messages[sent:n], 0)
			if err != nil {
				done = 1 // lost
			}
			sent += done
		}
	}
}

// reset makes room for what is received.
func (l *lane) reset() {
	for i := range l.messages {
		l.vectors[i].Base = &l.buffers[i][0]
		l.vectors[i].SetLen(forwardRoom)
		h := &l.messages[i].header
		h.Iov, h.Control = &l.vectors[i], &l.control[i][0]
		h.SetIovlen(1)
		h.SetControllen(controlRoom)
	}
}

// turn makes a message that was received one to be sent: UDP_GRO told the size of the datagrams in it, UDP_SEGMENT takes it.
func (l *lane) turn(i int) {
	m := &l.messages[i]
	l.vectors[i].SetLen(int(m.length))
	size := 0
	if m.header.Controllen >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&l.control[i][0]))
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO {
			size = int(*(*int32)(unsafe.Pointer(&l.control[i][unix.CmsgLen(0)])))
		}
	}
	if size == 0 || size >= int(m.length) {
		m.header.Control = nil
		m.header.SetControllen(0)
		return
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&l.control[i][0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	*(*uint16)(unsafe.Pointer(&l.control[i][unix.CmsgLen(0)])) = uint16(size)
	m.header.SetControllen(unix.CmsgSpace(2))
}

// exchange sends or receives messages.
func exchange(call uintptr, fd int, messages []message, flags int) (int, error) {
	done, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(done), nil
}
