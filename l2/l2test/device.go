package l2test

import (
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"meshd/l2"
	"meshd/l2/offload"
	"meshd/l2/snoop"
)

// queueLen is deep enough that no test loses frames by it; like a TAP's, a full
// queue drops instead of blocking.
const queueLen = 8192

// Device is a network card without a host. What the host would send goes in by
// Inject; what it would receive comes out of Frames.
type Device struct {
	name   string
	in     chan l2.Frame
	out    chan []byte
	asked  chan []byte
	lost   atomic.Uint64
	close  sync.Once
	closed chan struct{}
	read   []l2.Frame // what the last Read lent
}

var _ l2.Device = (*Device)(nil)

// NewDevice makes a device. It needs no cleaning up.
func NewDevice(name string) *Device {
	return &Device{
		name: name, closed: make(chan struct{}),
		in: make(chan l2.Frame, queueLen), out: make(chan []byte, queueLen), asked: make(chan []byte, queueLen),
	}
}

// Inject sends a copy of frame, as the host would.
func (d *Device) Inject(frame []byte) { d.InjectSuper(l2.Frame{Data: frame}) }

// InjectSuper sends a copy of a frame that has something left to complete.
func (d *Device) InjectSuper(frame l2.Frame) {
	frame.Data = slices.Clone(frame.Data)
	select {
	case d.in <- frame:
	default:
		d.lost.Add(1)
	}
}

// Frames yields what the host received. It is never closed.
func (d *Device) Frames() <-chan []byte { return d.out }

// Asked yields what the switch itself says to hosts about multicast: IGMP and MLD, which
// do not come from members. It need not be read.
func (d *Device) Asked() <-chan []byte { return d.asked }

// Lost counts frames that found a queue full.
func (d *Device) Lost() uint64 { return d.lost.Load() }

func (d *Device) put(frame []byte) {
	var m snoop.Message
	if h, ok := l2.ParseHeader(frame); ok && snoop.Parse(&m, h.EtherType, frame[h.Payload:]) == snoop.Control {
		select {
		case d.asked <- slices.Clone(frame):
		default:
		}
		return
	}
	select {
	case d.out <- slices.Clone(frame):
	default:
		d.lost.Add(1)
	}
}

// Read is l2.Device.Read. What the Read before lent is overwritten, so that who
// keeps a borrowed frame is found out.
func (d *Device) Read(frames []l2.Frame) (int, error) {
	for _, frame := range d.read {
		for i := range frame.Data {
			frame.Data[i] = 0xdb
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

func (d *Device) lend(frames []l2.Frame, frame l2.Frame) {
	frames[len(d.read)] = frame
	d.read = append(d.read, frame)
}

// Write is l2.Device.Write. Super-frames are cut as the host's kernel would.
func (d *Device) Write(frames []l2.Frame) error {
	select {
	case <-d.closed:
		return os.ErrClosed
	default:
	}
	for _, frame := range frames {
		frame.Data = slices.Clone(frame.Data) // borrowed, and the Cutter writes
		var cut offload.Cutter
		if !cut.Begin(frame, 0) {
			return errors.New("write: the header does not fit the frame")
		}
		for whole, more := cut.Next(); more; whole, more = cut.Next() {
			d.put(whole)
		}
	}
	return nil
}

// Offloads is l2.Device.Offloads: all of them.
func (d *Device) Offloads() offload.Features { return offload.All }

// Name is l2.Device.Name.
func (d *Device) Name() string { return d.name }

// Close is l2.Device.Close. It may be called more than once.
func (d *Device) Close() error {
	d.close.Do(func() { close(d.closed) })
	return nil
}
