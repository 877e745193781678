//go:build unix

package main

import (
	"os"
	"syscall"
)

// ofAnother reports whether a folder belongs to another user: that of the unit, when root asks.
func ofAnother(dir string) bool {
	fi, err := os.Stat(dir)
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) != os.Geteuid()
}
