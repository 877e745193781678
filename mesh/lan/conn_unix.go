//go:build darwin || freebsd

package lan

import "golang.org/x/sys/unix"

// share lets others of this host have the port as well.
func share(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// zone is a link as package udp writes it in an address on this system.
func zone(_ int, name string) string { return name }
