package underlay

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Control marks sockets as they are made, for net.Dialer and net.ListenConfig.
// Who may not do so goes without, as with the UDP sockets.
func Control(mark uint32) func(network, address string, c syscall.RawConn) error {
	if mark == 0 {
		return nil
	}
	return func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) })
	}
}
