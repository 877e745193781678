package lan

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// share lets others of this host have the port as well: each gets what is sent to the group.
func share(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
}

// zone is a link as package udp writes it in an address on this system.
func zone(link int, _ string) string { return strconv.Itoa(link) }
