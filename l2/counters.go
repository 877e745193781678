package l2

import "sync/atomic"

// reason is why a frame was dropped; passed means that it was not.
type reason uint8

const (
	passed reason = iota
	malformed
	oversize
	reservedMulticast
	sourceMulticast
	sourceZero
	sourceMAC
	sourceMoved
	sourceLimit
	vlanDenied
	storm
	elsewhere
	disconnected
	device
	hidden
	linkProtocol
	spoofed
	routerDenied
	dhcpDenied
	addressTaken
	noListener
	groupControl
	blocked
	looped
	reasons // how many there are

	later = reasons + 1 // it waits; not counted
)

func (r reason) String() string {
	return [reasons]string{
		"passed",
		DropMalformed, DropOversize, DropReservedMulticast, DropSourceMulticast, DropSourceZero,
		DropSourceMAC, DropSourceMoved, DropSourceLimit, DropVLAN, DropStorm,
		DropElsewhere, DropDisconnected, DropDevice,
		DropHidden, DropLinkProtocol, DropSpoofed, DropRouter, DropDHCP, DropAddress,
		DropNoListener, DropGroupControl, DropBlocked, DropLoop,
	}[r]
}

// flow counts what came one way.
type flow struct {
	frames, bytes atomic.Uint64
	dropped       [reasons]atomic.Uint64
}

func (f *flow) forwarded(size int) {
	f.frames.Add(1)
	f.bytes.Add(uint64(size))
}

func (f *flow) drop(why reason) { f.dropped[why].Add(1) }

func (f *flow) read() Flow {
	out := Flow{Frames: f.frames.Load(), Bytes: f.bytes.Load(), Dropped: make(map[string]uint64, reasons)}
	for why := passed + 1; why < reasons; why++ {
		out.Dropped[why.String()] = f.dropped[why].Load()
	}
	return out
}

// Counters returns the totals since the start.
func (s *Switch) Counters() Counters {
	return Counters{FromDevice: s.fromDevice.read(), FromRemotes: s.fromRemotes.read()}
}
