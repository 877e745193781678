package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// socketGroup may read where it exists.
	socketGroup = "meshd"
	// maxSocketPath is what sun_path holds on the systems we build for (104 on the BSDs, 108 on Linux).
	maxSocketPath = 103
	// staleDialTimeout is how long a socket's owner has to accept before it counts as alive anyway.
	staleDialTimeout = 2 * time.Second
)

// Listen opens the control socket: mode 0660 from its first moment, in a folder that others may not enter (made if it
// is missing). The socket of a dead daemon is replaced; a live one is an error. Closing the listener removes it.
//
// It narrows the umask of the whole process for the length of the bind; call it before files are made elsewhere.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, listenError(path, fmt.Errorf("the path has more than %d bytes", maxSocketPath), "give a shorter one with --socket")
	}
	if err := makeSocketDir(filepath.Dir(path)); err != nil {
		return nil, listenError(path, err, "give another place with --socket")
	}
	l, err := listenUnix(path)
	if errors.Is(err, errAddrInUse) {
		if err := removeStale(path); err != nil {
			return nil, err
		}
		l, err = listenUnix(path)
	}
	if err != nil {
		return nil, listenError(path, err, "give another place with --socket")
	}
	giveToGroup(path)
	return l, nil
}

// listenUnix binds under a narrow umask, so that the socket is never open to others, not even for a moment.
func listenUnix(path string) (net.Listener, error) {
	restore := narrowUmask()
	defer restore()
	return net.Listen("unix", path)
}

// makeSocketDir makes the folder 0700 where it is missing. One that exists is the user's business, except that nobody
// else may be able to replace what is in it.
func makeSocketDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	if fi.Mode().Perm()&0o002 != 0 && fi.Mode()&fs.ModeSticky == 0 && !ignoresModes {
		return fmt.Errorf("everyone may write to %s", dir)
	}
	return nil
}

// removeStale removes a socket that nobody listens at. Whatever else is there stays.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return listenError(path, err, "")
	}
	if fi.Mode()&fs.ModeSocket == 0 && !ignoresModes {
		return listenError(path, errors.New("something that is not a socket is in its place"), "remove it, or give another place with --socket")
	}
	ctx, cancel := context.WithTimeout(context.Background(), staleDialTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, errConnRefused) {
		return listenError(path, errors.New("another meshd answers there"), "end it with meshd down, or give this one its own --state")
	}
	return os.Remove(path)
}

// listenError says that the control socket could not be opened.
func listenError(path string, err error, remedy string) error {
	why := err
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		why = e
	}
	return &Error{Code: CodeFailed, What: fmt.Sprintf("open control socket %q", path), Why: why.Error(), Remedy: remedy, Err: err}
}
