package l2

import (
	"context"
	"fmt"
	"slices"

	"meshd/l2/offload"
)

// plugPort is a cable of this host besides its TAP: where a virtual machine is
// plugged in. To remotes all local origins are one member.
type plugPort struct {
	origin
	dev Device
}

// Plug carries frames for a further device of this host, one without offloads, until
// that fails, as it does when it is unplugged, or ctx ends. It closes the device and
// forgets the stations behind it. The device must not wait in Write.
func (s *Switch) Plug(ctx context.Context, dev Device) error {
	if dev.Offloads() != offload.None {
		return fmt.Errorf("plug in %s: its offloads are not understood here", dev.Name())
	}
	port := &plugPort{dev: dev}
	port.plug, port.share = port, s.local.share
	s.mu.Lock()
	v := *s.view.Load()
	v.plugs = append(slices.Clip(v.plugs), port)
	s.view.Store(&v)
	s.mu.Unlock()
	s.AskGroups()

	stop := context.AfterFunc(ctx, func() { dev.Close() })
	err := s.pumpPlug(port)
	ended := !stop()
	s.unplug(port)
	dev.Close()
	if ended {
		return nil
	}
	return err
}

// Plugs is how many devices are plugged in.
func (s *Switch) Plugs() int { return len(s.view.Load().plugs) }

func (s *Switch) pumpPlug(port *plugPort) error {
	p := &pump{sw: s, from: &port.origin, index: s.queues}
	frames := make([]Frame, readFrames)
	for {
		n, err := port.dev.Read(frames)
		if err != nil {
			return err
		}
		s.viaPlugs(p, frames[:n])
	}
}

func (s *Switch) unplug(port *plugPort) {
	s.mu.Lock()
	v := *s.view.Load()
	v.plugs = slices.DeleteFunc(slices.Clone(v.plugs), func(p *plugPort) bool { return p == port })
	s.view.Store(&v)
	s.mu.Unlock()
	s.forgetPlug(&port.origin)
}

// viaPlugs sends frames by the lane that plugs share. Rounds are counted together,
// since the marks of what has to be flushed are those of the lane.
func (s *Switch) viaPlugs(p *pump, frames []Frame) {
	s.plugMu.Lock()
	defer s.plugMu.Unlock()
	p.round = s.plugRound
	p.batch(frames)
	s.plugRound = p.round
}

// toPlugs hands a frame from a remote to the plug it is for, or to all when to is
// nil. A checksum that was left out is completed.
func (s *Switch) toPlugs(v *view, to *origin, frame []byte, csumStart int) {
	if len(v.plugs) == 0 || to == &s.local {
		return
	}
	q := s.whole.Get().(*offload.Merger)
	if q.Add(frame, csumStart) {
		frames := q.Frames()
		for _, p := range v.plugs {
			if to == nil || to == &p.origin {
				_ = p.dev.Write(frames) // what a plug does not take it counts itself
			}
		}
	}
	q.Reset()
	s.whole.Put(q)
}
