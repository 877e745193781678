package keys

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockFile takes the lock for this process, or says held. It ends with the
// process at the latest. The locked byte lies far behind the text, which stays
// readable to others.
func lockFile(f *os.File) (held bool, err error) {
	err = windows.LockFileEx(windows.Handle(f.Fd()),
		windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{Offset: 1 << 20})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return true, nil
	}
	return false, err
}
