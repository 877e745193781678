package udp

import (
	"errors"
	"fmt"

	"golang.org/x/sys/windows"
)

// Of ws2ipdef.h.
const (
	ipDontFragment = 14 // IP_DONTFRAGMENT
	ipv6DontFrag   = 14 // IPV6_DONTFRAG
)

// forbidFragments sets DF: peer's own probes measure the path.
func forbidFragments(fd uintptr, v6 bool) error {
	level, option := windows.IPPROTO_IP, ipDontFragment
	if v6 {
		level, option = windows.IPPROTO_IPV6, ipv6DontFrag
	}
	if err := windows.SetsockoptInt(windows.Handle(fd), level, option, 1); err != nil {
		return fmt.Errorf("forbid fragments: %w", err)
	}
	return nil
}

func tooLarge(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }
