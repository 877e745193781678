package udp

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// more gives the first socket of a port company (SO_REUSEPORT). The first is bound
// without the option, so that a port that another program has is refused as ever.
func more(first *Socket, opts Options) (*Socket, error) {
	err := control(first.raw, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return nil, fmt.Errorf("share port %d: %w", first.local.Port(), err)
	}
	opts.shared = true
	return listen(netip.AddrPortFrom(first.local.Addr(), first.local.Port()), opts)
}

// share is what a further socket needs before it is bound.
func share(rc syscall.RawConn) error {
	return control(rc, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
}
