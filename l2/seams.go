package l2

import (
	"net/netip"

	"meshd/l2/offload"
)

// Frame is a frame between switch and host: whole, or a super-frame with what the
// other side is to complete.
type Frame = offload.Frame

// Device moves Ethernet frames between the switch and the host: a TAP, or the
// in-memory twin of one (l2test). Frames carry no FCS.
//
// One goroutine calls Read; any number may call Write.
type Device interface {
	// Read blocks until at least one frame is there and fills frames from the
	// front. The frames are valid, and may be written to, until the next Read.
	// It returns os.ErrClosed after Close.
	Read(frames []Frame) (n int, err error)

	// Write hands frames to the host: super-frames only of the kinds in Offloads.
	// The frames are borrowed for the call.
	Write(frames []Frame) error

	// Offloads says which super-frames the device takes. Read may return such too.
	// It does not change.
	Offloads() offload.Features

	// Name is the interface's name, such as "mesh0".
	Name() string

	Close() error
}

// Queued is a Device with several queues, which as many goroutines read side by side.
// The frames of a flow come by one queue.
type Queued interface {
	Device
	Queues() int // at most maxQueues count
	ReadQueue(queue int, frames []Frame) (n int, err error)
}

// Served is a Queued that hands over what it reads, from within its wait for more: one system call less each time that there
// is no more.
type Served interface {
	Queued
	// ServeQueue calls handle with what it has read into frames, which is valid until handle returns, until it fails or the
	// device is closed.
	ServeQueue(queue int, frames []Frame, handle func([]Frame)) error
}

// GroupLister is a Device that knows by itself which multicast groups programs of its host have joined. A host whose firewall
// lets no queries in is silent when it is asked.
type GroupLister interface {
	HostGroups() ([]netip.Addr, error)
}

// Laned is a Port that several goroutines send to side by side: each by a lane of its
// own, so that they need not wait for each other. Send and Flush are those of Lane(0).
type Laned interface {
	Port
	Lane(n int) Port
}

// Port is where frames leave the switch towards one remote member. The session
// of a member satisfies it by shape.
type Port interface {
	// Send queues one Ethernet frame, valid for the call only. With a csumStart
	// other than 0 it may refuse: the frame then comes again with its checksum
	// completed. (offload.Cutter says what csumStart is.)
	Send(frame []byte, csumStart int) bool

	// MaxFrame is the largest frame that crosses in one piece for now; 0: unknown.
	// TCP segments are cut to it. Larger frames may be sent, at a price.
	MaxFrame() int

	// Flush hands on what Send has queued. The switch calls it once at the end
	// of each batch, on each port that it sent to.
	Flush()
}
