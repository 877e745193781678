//go:build unix

package keys

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkOwner refuses another user's directory: who owns it can put other keys
// into it.
func checkOwner(dir string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("%s belongs to user %d and this is user %d; run as that user, or choose another directory with --state",
		dir, stat.Uid, os.Geteuid())
}
