//go:build unix

package plug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// free removes a socket that nobody listens at any more.
func free(ctx context.Context, network, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s: there is a file that is no socket", path)
	}
	if conn, err := new(net.Dialer).DialContext(ctx, network, path); err == nil {
		conn.Close()
		return fmt.Errorf("%s: %w", path, syscall.EADDRINUSE)
	}
	return os.Remove(path)
}

// private makes a socket that its owner alone may connect to, from its first moment.
// It narrows the umask of the whole process for the length of the bind.
func private[L any](listen func() (L, error)) (L, error) {
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	return listen()
}

// streamListener is where QEMU's -netdev stream plugs in.
type streamListener struct {
	name  string
	l     *net.UnixListener
	count atomic.Uint64
}

func listenStream(ctx context.Context, path string) (Listener, error) {
	l, err := listenUnix(ctx, path)
	if err != nil {
		return nil, err
	}
	return &streamListener{name: "stream:" + path, l: l}, nil
}

func listenUnix(ctx context.Context, path string) (*net.UnixListener, error) {
	if err := free(ctx, "unix", path); err != nil {
		return nil, err
	}
	return private(func() (*net.UnixListener, error) {
		return net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	})
}

// acceptPause is how long an Accept that fails rests.
const acceptPause = 50 * time.Millisecond

// acceptFrom returns the next connection, or an error when l is closed. Other failures
// pass: a process has no descriptors left for a while.
func acceptFrom(l interface {
	AcceptUnix() (*net.UnixConn, error)
},
) (*net.UnixConn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		time.Sleep(acceptPause)
	}
}

// Accept implements Listener.
func (l *streamListener) Accept() (*Cable, error) {
	conn, err := acceptFrom(l.l)
	if err != nil {
		return nil, fmt.Errorf("plug %s: %w", l.name, err)
	}
	name := fmt.Sprintf("%s#%d", l.name, l.count.Add(1))
	return newCable(name, newStream(framingQEMU, conn, conn, conn.Close)), nil
}

// Close implements Listener.
func (l *streamListener) Close() error { return l.l.Close() }

// dgram is a transport over Unix datagrams, a frame each.
type dgram struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	to   func() *net.UnixAddr // nil: the socket is connected
	from func(*net.UnixAddr)  // told of each sender; nil: nobody wants to know
	buf  []byte
	end  func() error
}

func newDgram(conn *net.UnixConn, end func() error) (*dgram, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &dgram{conn: conn, raw: raw, buf: make([]byte, maxFrame+1), end: end}, nil
}

func (d *dgram) read(frames [][]byte) (int, error) {
	for {
		n, addr, err := d.conn.ReadFromUnix(d.buf)
		if errors.Is(err, os.ErrDeadlineExceeded) { // the end of the control connection has set one
			err = io.EOF
		}
		if err != nil {
			return 0, err
		}
		if d.from != nil {
			d.from(addr)
		}
		if n > 0 && n <= maxFrame {
			frames[0] = d.buf[:n]
			return 1, nil
		}
	}
}

// write tries once: a full queue at the other end drops the frame.
func (d *dgram) write(frame []byte) (sent bool) {
	var to syscall.Sockaddr
	if d.to != nil {
		addr := d.to()
		if addr == nil || addr.Name == "" {
			return false
		}
		to = &syscall.SockaddrUnix{Name: addr.Name}
	}
	err := d.raw.Write(func(fd uintptr) bool {
		if to != nil {
			sent = syscall.Sendto(int(fd), frame, 0, to) == nil
			return true
		}
		_, err := syscall.Write(int(fd), frame)
		sent = err == nil
		return true
	})
	return err == nil && sent
}

func (d *dgram) close() error { return d.end() }

// dgramListener is the one cable of QEMU's -netdev dgram: there is nobody to accept,
// and who sends is the other end.
type dgramListener struct {
	cables chan *Cable
	closed chan struct{}
	conn   *net.UnixConn
	done   atomic.Bool
}

func listenDgram(ctx context.Context, path string) (Listener, error) {
	if err := free(ctx, "unixgram", path); err != nil {
		return nil, err
	}
	conn, err := private(func() (*net.UnixConn, error) {
		return net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	})
	if err != nil {
		return nil, err
	}
	l := &dgramListener{cables: make(chan *Cable, 1), closed: make(chan struct{}), conn: conn}
	d, err := newDgram(conn, func() error { return errors.Join(conn.Close(), os.Remove(path)) })
	if err != nil {
		return nil, errors.Join(err, conn.Close(), os.Remove(path))
	}
	var other atomic.Pointer[net.UnixAddr]
	d.to = other.Load
	d.from = func(addr *net.UnixAddr) {
		if addr != nil && addr.Name != "" {
			if known := other.Load(); known == nil || known.Name != addr.Name {
				other.Store(addr)
			}
		}
	}
	l.cables <- newCable("dgram:"+path, d)
	return l, nil
}

// Accept implements Listener.
func (l *dgramListener) Accept() (*Cable, error) {
	select {
	case c := <-l.cables:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements Listener. The cable is the socket, and removes it when it is closed.
func (l *dgramListener) Close() error {
	if l.done.Swap(true) {
		return nil
	}
	close(l.closed)
	select {
	case c := <-l.cables: // nobody took it
		return c.Close()
	default:
		return nil
	}
}

// socketDir makes VDE's directory. It tells whether it was made here.
func socketDir(path string) (made bool, err error) {
	err = os.Mkdir(path, 0o700)
	if err == nil {
		return true, nil
	}
	if info, err2 := os.Stat(path); err2 == nil && info.IsDir() {
		return false, nil
	}
	return false, err
}

func ctlPath(dir string) string { return filepath.Join(dir, "ctl") }
