package l2test

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"meshd/l2"
)

// queueLen is deep enough that no test loses frames by it; like a TAP's, a full
// queue drops instead of blocking.
const queueLen = 8192

// Device is a network card without a host. What the host would send goes in by
// Inject; what it would receive comes out of Frames.
type Device struct {
	name   string
	in     chan []byte
	out    chan []byte
	lost   atomic.Uint64
	close  sync.Once
	closed chan struct{}
	read   [][]byte // what the last Read lent
}

var _ l2.Device = (*Device)(nil)

// NewDevice makes a device. It needs no cleaning up.
func NewDevice(name string) *Device {
	return &Device{
		name: name, closed: make(chan struct{}),
		in: make(chan []byte, queueLen), out: make(chan []byte, queueLen),
	}
}

// Inject sends a copy of frame, as the host would.
func (d *Device) Inject(frame []byte) { d.put(d.in, frame) }

// Frames yields what the host received. It is never closed.
func (d *Device) Frames() <-chan []byte { return d.out }

// Lost counts frames that found a queue full.
func (d *Device) Lost() uint64 { return d.lost.Load() }

func (d *Device) put(queue chan []byte, frame []byte) {
	select {
	case queue <- slices.Clone(frame):
	default:
		d.lost.Add(1)
	}
}

// Read is l2.Device.Read. What the Read before lent is overwritten, so that who
// keeps a borrowed frame is found out.
func (d *Device) Read(frames [][]byte) (int, error) {
	for _, frame := range d.read {
		for i := range frame {
			frame[i] = 0xdb
		}
	}
	d.read = d.read[:0]
	select {
	case <-d.closed: // wins over frames that wait
		return 0, os.ErrClosed
	default:
	}
	select {
	case <-d.closed:
		return 0, os.ErrClosed
	case frame := <-d.in:
		d.lend(frames, frame)
	}
	for len(d.read) < len(frames) {
		select {
		case frame := <-d.in:
			d.lend(frames, frame)
		default:
			return len(d.read), nil
		}
	}
	return len(d.read), nil
}

func (d *Device) lend(frames [][]byte, frame []byte) {
	frames[len(d.read)] = frame
	d.read = append(d.read, frame)
}

// Write is l2.Device.Write.
func (d *Device) Write(frames [][]byte) error {
	select {
	case <-d.closed:
		return os.ErrClosed
	default:
	}
	for _, frame := range frames {
		d.put(d.out, frame)
	}
	return nil
}

// Name is l2.Device.Name.
func (d *Device) Name() string { return d.name }

// Close is l2.Device.Close. It may be called more than once.
func (d *Device) Close() error {
	d.close.Do(func() { close(d.closed) })
	return nil
}
