package main

import "unsafe"

// wipeInvites overwrites invites among the arguments in place, so that they are not in the process list any more.
// The Go runtime's os.Args are not copies: the strings lie in the block that the kernel shows as /proc/PID/cmdline.
// That breaks the rule that strings never change, so whoever needs an argument must have cloned it before. args must
// be part of os.Args.
func wipeInvites(args []string) {
	for _, a := range args {
		at := inviteAt(a)
		if at < 0 {
			continue
		}
		b := unsafe.Slice(unsafe.StringData(a), len(a))
		for i := at; i < len(b); i++ {
			b[i] = '*'
		}
	}
}
