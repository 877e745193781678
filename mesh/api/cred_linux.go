package api

import (
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxPeerGroups bounds the supplementary groups that are looked at (NGROUPS_MAX is 65536).
const maxPeerGroups = 65536

// peerCredential asks the kernel who connected: the ids are those at the time of connect.
func peerCredential(c *net.UnixConn) (credential, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return credential{}, err
	}
	var cred credential
	var opErr error
	err = raw.Control(func(fd uintptr) {
		var u *unix.Ucred
		if u, opErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); opErr != nil {
			return
		}
		cred = credential{uid: int(u.Uid), groups: append(peerGroups(fd), int(u.Gid)), known: true}
	})
	if err != nil {
		return credential{}, err
	}
	return cred, opErr
}

// peerGroups is SO_PEERGROUPS, the supplementary groups; none where the kernel is too old (before 4.13).
func peerGroups(fd uintptr) []int {
	for n := 64; n <= maxPeerGroups; n *= 32 {
		buf := make([]uint32, n)
		size := uint32(4 * n)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		if errno == unix.ERANGE {
			continue
		}
		if errno != 0 || int(size/4) > n {
			return nil
		}
		groups := make([]int, 0, size/4+1)
		for _, g := range buf[:size/4] {
			groups = append(groups, int(g))
		}
		return groups
	}
	return nil
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
