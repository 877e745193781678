//go:build !unix

package api

import "syscall"

// Winsock's numbers; package syscall on Windows has invented ones of these names.
const (
	errAddrInUse   = syscall.Errno(10048)
	errConnRefused = syscall.Errno(10061)
	errConnReset   = syscall.Errno(10054)
	errBrokenPipe  = syscall.Errno(109)
	// ignoresModes: the folder's access list decides, which the user's profile keeps to its owner.
	ignoresModes = true
)

func narrowUmask() (restore func()) { return func() {} }

func giveToGroup(string) {}
