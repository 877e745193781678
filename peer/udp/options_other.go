//go:build !linux && !windows && !darwin && !freebsd

package udp

import (
	"errors"
	"syscall"
)

// forbidFragments is left out where there is no portable option for it: large
// datagrams are then fragmented by IP.
func forbidFragments(uintptr, bool) error { return nil }

func tooLarge(err error) bool { return errors.Is(err, syscall.EMSGSIZE) }
