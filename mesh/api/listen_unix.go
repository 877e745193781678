//go:build unix

package api

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

const (
	errAddrInUse   = syscall.EADDRINUSE
	errConnRefused = syscall.ECONNREFUSED
	errConnReset   = syscall.ECONNRESET
	errBrokenPipe  = syscall.EPIPE
	// ignoresModes: file modes mean what they say here.
	ignoresModes = false
)

// narrowUmask makes what is created from now on 0660 at most, and returns how to undo it.
func narrowUmask() (restore func()) {
	old := syscall.Umask(0o117)
	return func() { syscall.Umask(old) }
}

// giveToGroup lets the group meshd in, and through the folder if that is meshd's own. Only root can do so, and only
// where the group exists; else nobody but the owner gets in, which is safe.
func giveToGroup(path string) {
	if os.Geteuid() != 0 {
		return
	}
	g, err := user.LookupGroup(socketGroup)
	if err != nil {
		return
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return
	}
	_ = os.Chown(path, -1, gid)
}
