//go:build !windows

package udp

import "syscall"

// What bind and socket answer.
const (
	errInUse     = syscall.EADDRINUSE
	errNoFamily  = syscall.EAFNOSUPPORT
	errNoAddress = syscall.EADDRNOTAVAIL
)
