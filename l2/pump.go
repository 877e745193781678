package l2

import (
	"context"
	"fmt"
	"time"
)

// readFrames is how many frames are taken from the device at once.
const readFrames = 128

// Run reads the device until ctx ends, then closes it. It returns nil on
// cancellation and an error when the device fails.
func (s *Switch) Run(ctx context.Context) error {
	dev := s.cfg.Device
	if dev == nil {
		<-ctx.Done()
		return nil
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		dev.Close() // is what ends a Read
		close(closed)
	})
	err := s.pump(dev)
	if !stop() {
		<-closed
		return nil
	}
	dev.Close()
	return fmt.Errorf("read device %q: %w", dev.Name(), err)
}

func (s *Switch) pump(dev Device) error {
	p := &pump{sw: s, bum: s.bucket()}
	frames := make([][]byte, readFrames)
	for {
		n, err := dev.Read(frames)
		if err != nil {
			return err
		}
		p.batch(frames[:n])
	}
}

// pump takes frames from the device to the remotes. Its goroutine owns it.
type pump struct {
	sw    *Switch
	bum   bucket
	round uint64 // number of the batch
	dirty []Port // sent to in this batch
}

// mark says that a port has been sent to in a round.
type mark struct {
	round uint64
	at    *attachment
}

func (p *pump) batch(frames [][]byte) {
	p.round++
	v, now := p.sw.view.Load(), p.sw.now()
	for _, frame := range frames {
		if why := p.forward(v, frame, now); why != passed {
			p.sw.fromDevice.drop(why)
			continue
		}
		p.sw.fromDevice.forwarded(len(frame))
	}
	for _, port := range p.dirty {
		port.Flush()
	}
	clear(p.dirty) // a port that is gone is not kept alive
	p.dirty = p.dirty[:0]
}

// forward sends a frame from the device where it belongs, or says why not.
func (p *pump) forward(v *view, frame []byte, now time.Duration) reason {
	s := p.sw
	h, ok := ParseHeader(frame)
	if !ok {
		return malformed
	}
	if why := lawful(h, len(frame), s.cfg.MTU); why != passed {
		return why
	}
	if !v.own.mayUse(h.VLAN) {
		return vlanDenied
	}
	if why := s.admit(v, h, &s.local, now); why != passed {
		return why
	}
	var where *origin
	if !h.Dst.Multicast() {
		where = s.locate(v, h.VLAN, h.Dst, now)
	}
	switch {
	case where == nil:
		if !p.bum.take(now) {
			return storm
		}
		s.note(h, frame, &s.local, now)
		for _, r := range v.ports {
			p.send(r, h.VLAN, frame)
		}
		return passed
	case where.remote == nil:
		return elsewhere // it is on the side it came from
	}
	s.note(h, frame, &s.local, now)
	return p.send(where.remote, h.VLAN, frame)
}

func (p *pump) send(r *RemotePort, vlan uint16, frame []byte) reason {
	at := r.at.Load()
	if at == nil {
		return disconnected
	}
	if !at.mayUse(vlan) {
		return vlanDenied
	}
	at.port.Send(frame)
	r.txFrames.Add(1)
	r.txBytes.Add(uint64(len(frame)))
	if m := (mark{p.round, at}); r.sent != m {
		r.sent = m
		p.dirty = append(p.dirty, at.port)
	}
	return passed
}
