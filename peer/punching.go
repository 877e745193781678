package peer

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"meshd/peer/inner"
	"meshd/peer/punch"
	"meshd/peer/way"
)

// How two nodes that talk through others find a direct path (package punch). The
// engine carries its messages and its probes.

const (
	// controlCall is the control kind of its messages (PROTOCOL.md, 4.3).
	controlCall = 8
	// maxCalls is how many of them wait for the engine's goroutine, for each remote.
	maxCalls = 4
)

// calls are messages that wait for the engine's goroutine.
type calls struct {
	mu   sync.Mutex
	list [][]byte
}

func (c *calls) put(msg []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) < maxCalls { // the remote repeats
		c.list = append(c.list, append([]byte(nil), msg...))
	}
}

func (c *calls) take() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.list
	c.list = nil
	return list
}

// SetLocal says where this node may be reached, for those with whom it seeks a
// direct path.
func (e *Engine) SetLocal(l punch.Local) {
	e.call(func(now time.Time) {
		if e.control.self.Equal(l) {
			return
		}
		e.control.self = l
		for _, r := range e.control.byID {
			r.punch.SetLocal(l, now)
			e.control.schedule(r, now)
		}
	})
}

func newPunch() *punch.Machine { return punch.New(punch.Config{Rand: rand.Uint32}) }

// seekDirect lets the machine that seeks a direct path act.
func (r *Remote) seekDirect(wanted bool, now time.Time) (wake time.Time) {
	tries := &r.engine.control.tries
	r.punch.Busy(tries.busy(r, now))
	for _, msg := range r.calls.take() {
		if err := r.punch.Receive(msg, r.paths.RTT(), now); err != nil {
			r.engine.counts.Malformed.Add(1)
		}
	}
	to := r.route.Load()
	r.punch.Seek(wanted && to != nil && way.ClassOf(to.addr) != way.Direct && r.session.SendKey() != nil && r.Class() == Member, now)
	out, wake := r.punch.Tick(now)
	if r.punch.Trying() {
		tries.take(r, now)
	}
	if len(out.Probe) > 0 {
		r.engine.log.Debug("direct path sought", "peer", r.ID.String(), "at", out.Probe)
	}
	for _, msg := range out.Send {
		r.whisper(append([]byte{controlCall}, msg...))
	}
	if out.Open.IsValid() {
		r.openPorts(out.Open, now)
	}
	if t := tries.try; out.Close && t != nil && t.remote == r {
		r.engine.closeTry()
	}
	r.sprayPorts(out.Spray, now)
	r.dropPort(wanted, now)
	r.paths.Call(r.engine.reachable(out.Probe), now)
	return wake
}

// whisper sends a control message that does not count as use of the session.
func (r *Remote) whisper(msg []byte) {
	if r.transmit(inner.Header{Kind: inner.KindControl}, msg) {
		r.Flush()
	}
}

// called takes a message of the remote's, on a socket's goroutine.
func (r *Remote) called(msg []byte) {
	if r.Class() != Member {
		r.drops.Add(1)
		return
	}
	r.calls.put(msg)
	r.engine.attend(r)
}

// reachable leaves out addresses of a family that this node has no socket for,
// those of the overlay, and virtual ones, which mean nothing from others.
func (e *Engine) reachable(addrs []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		if !way.IsVirtual(a.Addr()) && e.connFor(a.Addr()) != nil && !e.inside(a.Addr()) {
			out = append(out, a)
		}
	}
	return out
}
