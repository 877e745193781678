package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"meshd/l2"
	"meshd/l2/plug"
	"meshd/mesh/api"
)

// listenPlugs makes the sockets of --plug.
func (s *segment) listenPlugs(specs []plug.Spec) error {
	for _, spec := range specs {
		l, err := plug.Listen(context.Background(), spec)
		if err != nil {
			return fmt.Errorf("%w", err)
		}
		s.plugs = append(s.plugs, l)
	}
	return nil
}

// servePlugs carries what is plugged in until ctx ends.
func (s *segment) servePlugs(ctx context.Context, group *errgroup.Group, n *Node) {
	for _, l := range s.plugs {
		stop := context.AfterFunc(ctx, func() { l.Close() })
		group.Go(func() error {
			defer stop()
			for {
				c, err := l.Accept()
				if errors.Is(err, net.ErrClosed) {
					return nil
				}
				if err != nil {
					n.log.Warn("take what is plugged in", "err", err)
					return nil
				}
				group.Go(func() error { s.carry(ctx, n, c); return nil })
			}
		})
	}
}

// carry serves one cable.
func (s *segment) carry(ctx context.Context, n *Node, c *plug.Cable) {
	n.log.Info("plugged in", "plug", c.Name())
	err := s.sw.Plug(ctx, c)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	n.log.Info("unplugged", "plug", c.Name(), "dropped", c.Dropped(), "err", err)
}

var _ api.Plugger = service{}

// Plug implements api.Plugger.
func (s service) Plug(conn io.ReadWriteCloser) error {
	var seg *segment
	if err := s.n.do(context.Background(), func() { seg = s.n.state.segment }); err != nil {
		conn.Close()
		return err
	}
	if seg == nil {
		conn.Close()
		return errors.New("the segment is not there yet")
	}
	c := plug.Pipe(fmt.Sprintf("stdio#%d", seg.pipes.Add(1)), conn, conn, conn.Close)
	seg.carry(seg.life, s.n, c)
	return nil
}

// outlets are where things are plugged into a segment.
type outlets struct {
	plugs []plug.Listener
	pipes atomic.Uint64   // that `meshd plug` has brought
	life  context.Context // of the segment: those end with it
}

var _ l2.Device = (*plug.Cable)(nil)
