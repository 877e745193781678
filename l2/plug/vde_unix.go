//go:build unix

package plug

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// requestTime is how long a client has to say what it wants.
const requestTime = 5 * time.Second

// vdeListener is a VDE switch's socket directory.
type vdeListener struct {
	dir     string
	made    bool
	control *net.UnixListener
	cables  chan *Cable
	count   atomic.Uint64
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	work    sync.WaitGroup
}

func listenVDE(ctx context.Context, dir string) (Listener, error) {
	made, err := socketDir(dir)
	if err != nil {
		return nil, err
	}
	control, err := listenUnix(ctx, ctlPath(dir))
	if err != nil {
		if made {
			err = errors.Join(err, os.Remove(dir))
		}
		return nil, err
	}
	l := &vdeListener{dir: dir, made: made, control: control, cables: make(chan *Cable)}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	l.work.Go(l.serve)
	return l, nil
}

// serve takes control connections. Each is a cable, or nothing.
func (l *vdeListener) serve() {
	for {
		conn, err := acceptFrom(l.control)
		if err != nil {
			return // closed
		}
		l.work.Go(func() {
			c, err := l.connect(conn)
			if err != nil {
				conn.Close() // the client says why it was not let in
				return
			}
			select {
			case l.cables <- c:
			case <-l.ctx.Done():
				c.Close()
			}
		})
	}
}

// connect does what the client on a control connection asks for.
func (l *vdeListener) connect(conn *net.UnixConn) (*Cable, error) {
	stop := context.AfterFunc(l.ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SetReadDeadline(time.Now().Add(requestTime)); err != nil {
		return nil, err
	}
	request := make([]byte, requestLen+maxDescribe)
	n, err := conn.Read(request) // one write of the client, which nothing splits
	if err != nil {
		return nil, err
	}
	client, err := parseRequest(request[:n])
	if err != nil {
		return nil, err
	}
	number := l.count.Add(1)
	own := filepath.Join(l.dir, fmt.Sprintf("%03d.%d", number, os.Getpid()))
	// Being connected, it takes nothing from others, whoever may open its directory.
	data, err := net.DialUnix("unixgram", &net.UnixAddr{Net: "unixgram", Name: own}, &net.UnixAddr{Net: "unixgram", Name: client})
	if err != nil {
		return nil, err
	}
	end := func() error { return errors.Join(data.Close(), os.Remove(own), conn.Close()) }
	d, err := newDgram(data, end)
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err == nil {
		_, err = conn.Write(appendSockaddr(nil, own))
	}
	if err != nil {
		return nil, errors.Join(err, end())
	}
	c := newCable(fmt.Sprintf("vde:%s#%d", l.dir, number), d)
	go func() { // ends with the control connection, which the cable's Close ends
		var b [64]byte
		for {
			if _, err := conn.Read(b[:]); err != nil {
				_ = data.SetReadDeadline(time.Unix(1, 0)) // the cable's Read returns
				return
			}
		}
	}()
	return c, nil
}

// Accept implements Listener.
func (l *vdeListener) Accept() (*Cable, error) {
	select {
	case c := <-l.cables:
		return c, nil
	case <-l.ctx.Done():
		return nil, fmt.Errorf("plug vde:%s: %w", l.dir, net.ErrClosed)
	}
}

// Close implements Listener.
func (l *vdeListener) Close() error {
	l.cancel()
	err := l.control.Close()
	l.work.Wait()
	if l.made {
		_ = os.Remove(l.dir) // cables that are still plugged in have sockets there
	}
	return err
}
