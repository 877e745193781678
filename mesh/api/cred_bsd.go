//go:build darwin || freebsd

package api

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// solLocal is SOL_LOCAL, the level of LOCAL_PEERCRED.
const solLocal = 0

// peerCredential asks the kernel who connected: the ids are those at the time of connect.
func peerCredential(c *net.UnixConn) (credential, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return credential{}, err
	}
	var cred credential
	var opErr error
	err = raw.Control(func(fd uintptr) {
		var x *unix.Xucred
		if x, opErr = unix.GetsockoptXucred(int(fd), solLocal, unix.LOCAL_PEERCRED); opErr != nil {
			return
		}
		cred = credential{uid: int(x.Uid), known: true}
		for _, g := range x.Groups[:min(int(x.Ngroups), len(x.Groups))] {
			cred.groups = append(cred.groups, int(g))
		}
	})
	if err != nil {
		return credential{}, err
	}
	return cred, opErr
}

// socketGID is the group that owns the socket, or -1.
func socketGID(path string) int {
	fi, err := os.Stat(path)
	if err != nil {
		return -1
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(st.Gid)
}
