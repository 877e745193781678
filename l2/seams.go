package l2

// Device moves Ethernet frames between the switch and the host: a TAP, or the
// in-memory twin of one (l2test). Frames carry no FCS.
//
// One goroutine calls Read; any number may call Write.
type Device interface {
	// Read blocks until at least one frame is there and fills frames from the
	// front. The frames are valid, and may be written to, until the next Read.
	// It returns os.ErrClosed after Close.
	Read(frames [][]byte) (n int, err error)

	// Write hands frames to the host. The frames are borrowed for the call.
	Write(frames [][]byte) error

	// Name is the interface's name, such as "mesh0".
	Name() string

	Close() error
}

// Port is where frames leave the switch towards one remote member. The session
// of a member satisfies it by shape.
type Port interface {
	// Send queues one Ethernet frame, valid for the call only.
	Send(frame []byte)

	// Flush hands on what Send has queued. The switch calls it once at the end
	// of each batch, on each port that it sent to.
	Flush()
}
