package udp

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// SetSockopt and Sockopt are for tests that need an option we do not offer.
func (s *Socket) SetSockopt(level, option, value int) error {
	return control(s.raw, func(fd int) error { return unix.SetsockoptInt(fd, level, option, value) })
}

func (s *Socket) Sockopt(level, option int) (value int, err error) {
	err = control(s.raw, func(fd int) error {
		value, err = unix.GetsockoptInt(fd, level, option)
		return err
	})
	return value, err
}

// Fail has f asked before each system call that moves messages; what it returns is
// the call's error. It is set before the socket is used.
func (s *Socket) Fail(f func(call uintptr) syscall.Errno) { s.fault = f }
