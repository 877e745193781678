//go:build unix

package keys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes the lock for this process, or says held. It ends with the
// process at the latest.
func lockFile(f *os.File) (held bool, err error) {
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
