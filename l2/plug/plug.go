package plug

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"meshd/l2/offload"
)

const (
	// maxFrame is the largest frame that a cable carries: MTU 9000, tags and some more.
	maxFrame = 9216
	// readBatch is how many frames a Read takes at most.
	readBatch = 64
)

// Spec is what a plug is made of.
type Spec struct {
	Kind string // "vde", "stream" or "dgram"
	Path string // of the socket, or of VDE's directory
}

// ParseSpec reads what stands behind --plug.
func ParseSpec(text string) (Spec, error) {
	kind, path, ok := strings.Cut(text, ":")
	switch {
	case !ok || path == "":
	case kind == "vde" || kind == "stream" || kind == "dgram":
		return Spec{kind, path}, nil
	}
	return Spec{}, fmt.Errorf("plug %q: want vde:DIR, stream:PATH or dgram:PATH", text)
}

// String is the inverse of ParseSpec.
func (s Spec) String() string { return s.Kind + ":" + s.Path }

// ErrUnsupported says that this system has no Unix sockets of that kind.
var ErrUnsupported = errors.New("not supported on this system")

// Listener is a socket that cables are plugged into.
type Listener interface {
	// Accept returns the next cable, or net.ErrClosed after Close.
	Accept() (*Cable, error)
	// Close removes the socket. Cables that are plugged in stay.
	Close() error
}

// Listen makes the socket of a spec, for the user who runs this alone. A socket that
// nobody listens at any more is replaced; a file of another kind is an error.
func Listen(ctx context.Context, s Spec) (Listener, error) {
	var l Listener
	var err error
	switch s.Kind {
	case "vde":
		l, err = listenVDE(ctx, s.Path)
	case "stream":
		l, err = listenStream(ctx, s.Path)
	case "dgram":
		l, err = listenDgram(ctx, s.Path)
	default:
		err = fmt.Errorf("unknown kind %q", s.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("plug %s: %w", s, err)
	}
	return l, nil
}

// transport is a cable's connection.
type transport interface {
	// read fills frames from the front with at least one frame, valid until the
	// next call.
	read(frames [][]byte) (int, error)
	// write sends a frame or drops it, without waiting.
	write(frame []byte) (sent bool)
	close() error
}

// Cable is one program that is plugged in. It satisfies l2.Device.
type Cable struct {
	name    string
	t       transport
	frames  [readBatch][]byte
	once    sync.Once
	closed  atomic.Bool
	err     error
	dropped atomic.Uint64
}

func newCable(name string, t transport) *Cable { return &Cable{name: name, t: t} }

// Read implements l2.Device. It returns io.EOF when the other end has been unplugged.
func (c *Cable) Read(frames []offload.Frame) (int, error) {
	n, err := c.t.read(c.frames[:min(len(frames), readBatch)])
	if err != nil {
		if c.closed.Load() {
			return 0, os.ErrClosed
		}
		return 0, fmt.Errorf("read from plug %s: %w", c.name, err)
	}
	for i := range n {
		frames[i] = offload.Frame{Data: c.frames[i]}
	}
	return n, nil
}

// Write implements l2.Device. It never waits.
func (c *Cable) Write(frames []offload.Frame) error {
	for _, f := range frames {
		if !c.t.write(f.Data) {
			c.dropped.Add(1)
		}
	}
	return nil
}

// Dropped counts frames that the other end did not take.
func (c *Cable) Dropped() uint64 { return c.dropped.Load() }

// Offloads implements l2.Device: there are none.
func (c *Cable) Offloads() offload.Features { return offload.None }

// Name says where the cable is plugged in and which it is, as in "stream:/run/vm.sock#3".
func (c *Cable) Name() string { return c.name }

// Close unplugs.
func (c *Cable) Close() error {
	c.once.Do(func() {
		c.closed.Store(true)
		c.err = c.t.close()
	})
	return c.err
}
