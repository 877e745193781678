package udp

import "golang.org/x/sys/windows"

// What bind and socket answer; syscall's own names are made up on Windows.
const (
	errInUse     = windows.WSAEADDRINUSE
	errNoFamily  = windows.WSAEAFNOSUPPORT
	errNoAddress = windows.WSAEADDRNOTAVAIL
)
