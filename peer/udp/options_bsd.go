//go:build darwin || freebsd

package udp

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidFragments sets DF: peer's own probes measure the path.
func forbidFragments(fd uintptr, v6 bool) error {
	level, option := unix.IPPROTO_IP, unix.IP_DONTFRAG
	if v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG
	}
	if err := unix.SetsockoptInt(int(fd), level, option, 1); err != nil {
		return fmt.Errorf("forbid fragments: %w", err)
	}
	return nil
}

func tooLarge(err error) bool { return errors.Is(err, unix.EMSGSIZE) }
