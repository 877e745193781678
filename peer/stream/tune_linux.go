package stream

import (
	"net"

	"golang.org/x/sys/unix"
)

const (
	// notSent bounds what the kernel holds that it has not sent: what waits there
	// waits before everything urgent.
	notSent = 64 << 10
	// unanswered is how long sent data may lack an acknowledgement, in ms.
	unanswered = 15_000
)

// tune sets a TCP connection up for datagrams. What the system refuses is left out.
func tune(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetNoDelay(true)
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, unanswered)
	})
}
