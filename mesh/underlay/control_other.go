//go:build !linux

package underlay

import "syscall"

// Control has nothing to do here: sockets have no mark.
func Control(uint32) func(network, address string, c syscall.RawConn) error { return nil }
