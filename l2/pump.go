package l2

import (
	"context"
	"fmt"
	"sync"
	"time"

	"meshd/l2/offload"
)

// readFrames is how many frames are taken from the device at once.
const readFrames = 128

// Run reads the device until ctx ends, then closes it. It returns nil on
// cancellation and an error when the device fails.
func (s *Switch) Run(ctx context.Context) error {
	dev := s.cfg.Device
	if dev == nil {
		s.runGroups(ctx)
		return nil
	}
	life, end := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { s.runGroups(life) })
	defer group.Wait()
	defer end()
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		dev.Close() // is what ends a Read
		close(closed)
	})
	err := s.pumps(dev)
	if !stop() {
		<-closed
		return nil
	}
	dev.Close()
	return fmt.Errorf("read device %q: %w", dev.Name(), err)
}

// pumps runs a pump for each queue until the first fails.
func (s *Switch) pumps(dev Device) error {
	if s.queues == 1 {
		return s.pump(dev, 0)
	}
	failed := make(chan error, s.queues)
	for n := range s.queues {
		go func() { failed <- s.pump(dev, n) }()
	}
	err := <-failed
	dev.Close() // ends the others
	for range s.queues - 1 {
		<-failed
	}
	return err
}

// pump takes frames from one queue until that fails.
func (s *Switch) pump(dev Device, queue int) error {
	p := &pump{sw: s, from: &s.local, index: queue}
	frames := make([]Frame, readFrames)
	read := dev.Read
	switch dev := dev.(type) {
	case Served:
		return dev.ServeQueue(queue, frames, p.batch)
	case Queued:
		read = func(frames []Frame) (int, error) { return dev.ReadQueue(queue, frames) }
	}
	for {
		n, err := read(frames)
		if err != nil {
			return err
		}
		p.batch(frames[:n])
	}
}

// maxQueues is how many queues of a device are used.
const maxQueues = 8

// queuesOf is how many pumps a device needs.
func queuesOf(dev Device) int {
	if queued, ok := dev.(Queued); ok {
		return max(1, min(queued.Queues(), maxQueues))
	}
	return 1
}

// pump takes frames from one of the device's queues, or from a plug, to the remotes
// and the other local origins. Its goroutine owns it.
type pump struct {
	sw      *Switch
	from    *origin
	index   int      // of the queue; plugs have the one after the last
	round   uint64   // number of the batch
	dirty   []Port   // sent to in this batch
	to      []target // of the frame in hand
	here    []Device // likewise, of the local origins
	cut     offload.Cutter
	one     [1]Frame // what deliver writes
	inner   bool     // what it sends is this node's own: the device gets it as well
	replays bool     // what it sends was here before
}

// target is where a frame goes.
type target struct {
	remote *RemotePort
	at     *attachment
}

// mark says that a port has been sent to in a round.
type mark struct {
	round uint64
	at    *attachment
}

func (p *pump) batch(frames []Frame) {
	p.round++
	v, now := p.sw.view.Load(), p.sw.now()
	for _, frame := range frames {
		if why := p.forward(v, frame, now); why != passed {
			if why != later {
				p.sw.fromDevice.drop(why)
			}
			continue
		}
		p.sw.fromDevice.forwarded(len(frame.Data))
	}
	for _, port := range p.dirty {
		port.Flush()
	}
	clear(p.dirty) // a port that is gone is not kept alive
	p.dirty = p.dirty[:0]
}

// forward sends a frame from the device where it belongs, or says why not. A
// super-frame is one frame to all that judges it.
func (p *pump) forward(v *view, f Frame, now time.Duration) reason {
	s := p.sw
	h, ok := ParseHeader(f.Data)
	if !ok {
		return malformed
	}
	if why := lawful(h, f.WireSize(), s.cfg.MTU); why != passed {
		if why == reservedMulticast {
			s.onLink(v, h, f.Data, p.from, now)
		}
		return why
	}
	if v.shut {
		return p.forwardShut(v, f)
	}
	if !v.own.mayUse(h.VLAN) {
		return vlanDenied
	}
	if why := s.admit(v, h, p.from, now); why != passed {
		if why == sourceMoved {
			s.sue(v, h, f.Data, p.from, now)
		}
		s.suspect(why, p.from)
		return why
	}
	var where *origin
	if !h.Dst.Multicast() {
		where = s.locate(v, h.VLAN, h.Dst, now)
	}
	switch {
	case where == nil:
		return p.flood(v, f, h, now)
	case where == p.from:
		if r := v.virtual(h.Dst); r != nil {
			if why := s.guard(v, &v.own, h, f.Data, p.from, now); why != passed {
				return why // it also shows what is asked of the router
			}
			return p.reflect(v, f, h, r)
		}
		return elsewhere // it is on the side it came from
	}
	if why := s.guard(v, &v.own, h, f.Data, p.from, now); why != passed {
		return why
	}
	if where.remote == nil {
		if where == &s.local {
			if why := v.toRouter(h, f.Data); why != passed {
				return why
			}
		}
		p.aimHere(v, where)
	} else if why := p.aim(where.remote, h.VLAN); why != passed {
		return why
	}
	if s.recent.some.Load() {
		s.ahead(v, p.to, &h, now)
	}
	return p.emit(f)
}

// flood sends a BUM frame where it is wanted.
func (p *pump) flood(v *view, f Frame, h Header, now time.Duration) reason {
	s := p.sw
	if h.Dst == v.own.mac.probe() {
		s.hearAnswer(v, h, f.Data, p.from, now)
		return elsewhere
	}
	g := s.groupOf(h, f.Data)
	if !s.takeFlood(g, len(f.Data), now) {
		return storm
	}
	if why := s.guard(v, &v.own, h, f.Data, p.from, now); why != passed {
		return why
	}
	g = s.overhearGroups(v, h, f.Data, g, now)
	if p.aimBUM(v, h, f.Data, g, now) {
		return passed
	}
	if g.reach != toAll && !g.control && len(p.to)+len(p.here) == 0 {
		return noListener
	}
	if p.mayRound(v, f, h, now) {
		p.drop()
		return later
	}
	if p.spread(h.VLAN) && g.known && !s.takeBUM(now) {
		p.drop() // a group with many listeners is limited like a broadcast
		return storm
	}
	if s.recent.some.Load() {
		s.ahead(v, p.to, &h, now)
	}
	return p.emit(f)
}

// aimHere adds a local origin to where the frame in hand goes, or all when where is nil.
func (p *pump) aimHere(v *view, where *origin) {
	if len(v.plugs) == 0 && !p.inner {
		return
	}
	wanted := func(o *origin) bool { return (o != p.from || p.inner) && (where == nil || where == o) }
	if dev := p.sw.cfg.Device; dev != nil && wanted(&p.sw.local) {
		p.here = append(p.here, dev)
	}
	for _, plug := range v.plugs {
		if wanted(&plug.origin) {
			p.here = append(p.here, plug.dev)
		}
	}
}

// lane is the port of a target that this pump sends to.
func (p *pump) lane(at *attachment) Port {
	if p.index < len(at.lanes) {
		return at.lanes[p.index]
	}
	return at.lanes[0]
}

// aim adds r to where the frame in hand goes.
func (p *pump) aim(r *RemotePort, vlan uint16) reason {
	at := r.at.Load()
	if at == nil {
		return disconnected
	}
	if r.beside.Load() {
		return blocked
	}
	if !at.mayUse(vlan) {
		return vlanDenied
	}
	p.to = append(p.to, target{r, at})
	if m := (mark{p.round, at}); r.sent[p.index] != m {
		r.sent[p.index] = m
		p.dirty = append(p.dirty, p.lane(at))
	}
	return passed
}

// emit sends a frame to all that were aimed at, cut to what the smallest of their
// paths takes.
func (p *pump) emit(f Frame) reason {
	limit := 0
	for _, t := range p.to {
		if n := p.lane(t.at).MaxFrame(); n > 0 && (limit == 0 || n < limit) {
			limit = n
		}
	}
	why := passed
	if !p.cut.Begin(f, limit) {
		why = malformed
	}
	frames, size := uint64(0), uint64(0)
	for frame, more := p.cut.Next(); more; frame, more = p.cut.Next() {
		csumStart := p.cut.CsumStart()
		for _, t := range p.to {
			port := p.lane(t.at)
			if port.Send(frame, csumStart) {
				continue
			}
			frame, csumStart = p.cut.Complete(), 0 // for those that follow, too
			port.Send(frame, 0)
		}
		if len(p.here) > 0 {
			if csumStart != 0 {
				frame = p.cut.Complete()
			}
			p.deliver(frame)
		}
		frames++
		size += uint64(len(frame))
	}
	for _, t := range p.to {
		t.remote.txFrames.Add(frames)
		t.remote.txBytes.Add(size)
	}
	p.drop()
	return why
}

// deliver hands a whole frame to the local origins that were aimed at.
func (p *pump) deliver(frame []byte) {
	p.one[0] = Frame{Data: frame}
	for _, dev := range p.here {
		if err := dev.Write(p.one[:]); err != nil {
			p.sw.fromDevice.drop(device)
		}
	}
}
