//go:build linux || darwin || freebsd || openbsd

package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/ipc"
)

// serveUAPI offers WireGuard's userspace API on its usual socket. One that is
// occupied or cannot be made is a warning: nothing else depends on it.
func (n *Node) serveUAPI(ctx context.Context, group *errgroup.Group) {
	if n.cfg.NoTAP || n.cfg.NoUAPI {
		return
	}
	file, err := ipc.UAPIOpen(n.cfg.TAP)
	if err != nil {
		n.event(Warning, fmt.Sprintf("`wg show` will not see this node: %v", err))
		return
	}
	listener, err := ipc.UAPIListen(n.cfg.TAP, file)
	if err != nil {
		n.event(Warning, fmt.Sprintf("`wg show` will not see this node: %v", err))
		_ = file.Close()
		return
	}
	group.Go(func() error {
		<-ctx.Done()
		return errors.Join(listener.Close(), file.Close())
	})
	group.Go(func() error {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			if err != nil {
				n.log.Warn("userspace API socket", "err", err)
				return nil
			}
			group.Go(func() error {
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				defer stop()
				n.engine.ServeUAPI(conn)
				return nil
			})
		}
	})
}

// removeUAPI removes the socket that a killed node has left. One that answers
// belongs to somebody else and stays.
func removeUAPI(name string) error {
	file, err := ipc.UAPIOpen(name) // takes the place of a dead one only
	if err != nil {
		return nil
	}
	// Not by ipc.UAPIListen: what it starts to watch the socket races with its own end.
	listener, err := net.FileListener(file)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if u, ok := listener.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(true)
	}
	return errors.Join(listener.Close(), file.Close())
}
