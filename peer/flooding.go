package peer

import (
	"context"
	"crypto/ed25519"
	"sync"
	"sync/atomic"
	"time"

	"meshd/keys"
	"meshd/peer/flood"
	"meshd/peer/inner"
	"meshd/peer/way"
)

// How a frame for many goes in a large mesh: by copies that members pass on (package
// flood). What is for many is rare, and limited for each origin, so that one lock and a
// signature are no burden on a frame's way.

// controlFlood is the kind of control message that says which copies are here or wanted.
const controlFlood = 21

// flooding is flood's machine with what it needs around it.
type flooding struct {
	network atomic.Pointer[keys.NetworkID] // nil: nothing is spread yet
	changed chan struct{}                  // there may be something due
	buffers sync.Pool                      // of *[]byte, for what is signed and sent

	mu      sync.Mutex
	machine *flood.Machine
	warned  map[keys.NodeID]time.Time // of whom it was told that they forge copies
}

func (f *flooding) init(self keys.NodeID) {
	f.changed = make(chan struct{}, 1)
	f.machine = flood.New(self, nil)
	f.warned = map[keys.NodeID]time.Time{}
	f.buffers.New = func() any { return new([]byte) }
}

// do runs a step of the machine.
func (f *flooding) do(step func(m *flood.Machine)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	step(f.machine)
}

// wake has what is due done.
func (f *flooding) wake() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// child is a remote as flood's machine sees it.
type child struct{ *Remote }

// Node implements flood.Member.
func (c child) Node() keys.NodeID { return c.ID }

// Reach implements flood.Member.
func (c child) Reach() flood.Reach {
	switch to := c.route.Load(); {
	case to == nil || c.session.SendKey() == nil:
		return flood.NoSession
	case way.IsVirtual(to.addr.Addr()):
		return flood.Relayed
	}
	return flood.Direct
}

// Neighbour implements flood.Member.
func (c child) Neighbour() bool { return c.kept.Load() }

// Away implements flood.Member.
func (c child) Away() bool { return c.away.Load() }

// Selective is a FrameSink that knows which frames for many its remote wants. Without, it
// wants all of them.
type Selective interface {
	FrameSink
	// Wants looks at a frame, whose origin may be any remote. It must not block.
	Wants(frame []byte) bool
}

// Wants implements flood.Member. A remote that nobody listens to yet may be one that is not
// to see it: if it is, it hears of the frame.
func (c child) Wants(frame []byte) bool {
	sink := c.sink.Load()
	if sink == nil {
		return false
	}
	to, selective := (*sink).(Selective)
	return !selective || to.Wants(frame)
}

// StartFlooding says of which network this node's copies are and in which of its lives
// it is. It may be called again.
func (e *Engine) StartFlooding(network keys.NetworkID, epoch uint32) {
	e.flooding.do(func(m *flood.Machine) { m.SetEpoch(epoch) })
	e.flooding.network.Store(&network)
}

// FloodStats are what became of copies.
func (e *Engine) FloodStats() (st flood.Stats) {
	e.flooding.do(func(m *flood.Machine) { st = m.Stats() })
	return st
}

// TakeCopies says that a member gets its copy of a frame for all from whoever has it
// (or not), and in which of its lives it is.
func (r *Remote) TakeCopies(on bool, epoch uint32) {
	r.engine.control.Lock() // so that a remote that is forgotten stays so
	defer r.engine.control.Unlock()
	if !on || r.closed {
		r.leaveFloods()
		return
	}
	r.engine.flooding.do(func(m *flood.Machine) {
		m.Join(child{r})
		m.Started(r.ID, epoch)
	})
	r.copies.Store(true)
}

// leaveFloods needs the control lock.
func (r *Remote) leaveFloods() {
	if r.copies.Swap(false) {
		r.engine.flooding.do(func(m *flood.Machine) { m.Leave(r.ID) })
	}
}

// TakesCopies says whether what goes to Everyone goes to this remote too.
func (r *Remote) TakesCopies() bool { return r.copies.Load() }

// SetAway says that a member is thought not to be there. It is a hint: others pass copies
// on rather than this one.
func (r *Remote) SetAway(away bool) { r.away.Store(away) }

// Everyone is where frames go that are for all remotes that take copies. It is shaped as
// a port to one.
type Everyone struct{ engine *Engine }

// Everyone returns it.
func (e *Engine) Everyone() Everyone { return Everyone{e} }

// MaxFrame says that it is not known what is best.
func (Everyone) MaxFrame() int { return 0 }

// Flush does nothing: a copy goes at once.
func (Everyone) Flush() {}

// Send signs one frame and sends it on its way. Its checksums must be complete.
func (all Everyone) Send(frame []byte, csumStart int) bool {
	if csumStart != 0 {
		return false
	}
	e := all.engine
	network := e.flooding.network.Load()
	if network == nil {
		return true
	}
	var c flood.Copy
	e.flooding.do(func(m *flood.Machine) { c.Name = m.Next() })
	c.Frame = frame
	buf := e.flooding.buffers.Get().(*[]byte)
	defer e.flooding.buffers.Put(buf)
	*buf = c.AppendSigned((*buf)[:0], *network)
	c.Signature = [ed25519.SignatureSize]byte(ed25519.Sign(e.identity.Sign, *buf))
	*buf = c.Append((*buf)[:0])
	now := e.now()
	var sends []flood.Send
	e.flooding.do(func(m *flood.Machine) { sends = m.Begin(c.Name, *buf, now) })
	e.sendCopies(sends, *buf)
	e.flooding.wake()
	return true
}

// sendCopies sends a copy to each with the part that it is to pass it on to. It writes to
// body.
func (e *Engine) sendCopies(sends []flood.Send, body []byte) {
	for _, s := range sends {
		flood.SetPart(body, s.Part)
		s.To.(child).sendCopy(body)
	}
}

// sendCopy sends one copy, or keeps it for a second at most while a session is made.
func (r *Remote) sendCopy(body []byte) {
	if Class(r.class.Load()) != Member {
		r.drops.Add(1)
		return
	}
	r.lastUsed.Store(r.engine.stamp(r.engine.now())) // a control message's way: nobody waits for an answer
	if r.waiting.length.Load() > 0 || !r.transmit(inner.Header{Kind: inner.KindCopy}, body) {
		r.wait(inner.KindCopy, body)
		return
	}
	r.txBytes.Add(uint64(len(body) - flood.HeaderLen))
	r.Flush()
}

// copiedPart takes a piece of a copy that was too large for the path.
func (rx *receiver) copiedPart(r *Remote, body []byte) {
	if Class(r.class.Load()) != Member {
		r.drops.Add(1)
		return
	}
	r.pieceMu.Lock()
	defer r.pieceMu.Unlock()
	if copied, ok := r.pieces.Add(body, rx.now); ok {
		rx.copied(r, copied)
	}
}

// copied takes a copy that a remote has passed on: to its origin's sink, as if it had come
// from there, and to those whom this node is to pass it on to.
func (rx *receiver) copied(r *Remote, body []byte) {
	e := rx.engine
	network := e.flooding.network.Load()
	if Class(r.class.Load()) != Member || network == nil {
		r.drops.Add(1)
		return
	}
	c, err := flood.Parse(body)
	if err != nil {
		e.counts.Malformed.Add(1)
		return
	}
	note(&r.lastUsed, rx.stamp)
	rx.tally.bytes += uint64(len(c.Frame))
	origin := e.judgeCopy(r, &c, rx.now)
	if origin == nil {
		return
	}
	if !e.signedBy(origin, &c, *network) {
		e.forged(r, rx.now)
		return
	}
	var sends []flood.Send
	var v flood.Verdict
	e.flooding.do(func(m *flood.Machine) { sends, v = m.Accept(r.ID, &c, body, rx.now) })
	if v != flood.Fresh {
		return
	}
	e.sendCopies(sends, body)
	e.flooding.wake()
	rx.deliver(origin, c.Frame)
}

// judgeCopy returns the origin of a copy that is worth a look at its signature, else nil.
func (e *Engine) judgeCopy(from *Remote, c *flood.Copy, now time.Time) (origin *Remote) {
	e.flooding.do(func(m *flood.Machine) {
		if m.Judge(from.ID, c, now) == flood.Verify {
			origin = m.Member(c.Origin).(child).Remote
		}
	})
	return origin
}

// signedBy says whether a copy is what its origin has signed.
func (e *Engine) signedBy(origin *Remote, c *flood.Copy, network keys.NetworkID) bool {
	buf := e.flooding.buffers.Get().(*[]byte)
	defer e.flooding.buffers.Put(buf)
	*buf = c.AppendSigned((*buf)[:0], network)
	return ed25519.Verify(origin.Public.Sign[:], *buf, c.Signature[:])
}

// forgedEvery is how often it is told that a member forges copies.
const forgedEvery = 10 * time.Minute

// forged takes note of a copy that its origin has not signed: who brought it made it so.
func (e *Engine) forged(from *Remote, now time.Time) {
	warn := false
	e.flooding.do(func(m *flood.Machine) {
		m.Reject(from.ID, now)
		if last, told := e.flooding.warned[from.ID]; !told || now.Sub(last) > forgedEvery {
			e.flooding.warned[from.ID], warn = now, true
		}
	})
	if warn {
		e.log.Warn("a member has passed on a broadcast that its origin did not sign", "member", from.ID.String())
	}
}

// deliver hands a frame to the sink of its origin, which no session needs to lead to.
func (rx *receiver) deliver(origin *Remote, frame []byte) {
	sink := origin.sink.Load()
	if sink == nil || Class(origin.class.Load()) != Member {
		origin.drops.Add(1)
		return
	}
	(*sink).Receive(frame, 0)
	for _, s := range rx.sinks {
		if s == *sink {
			return
		}
	}
	rx.sinks = append(rx.sinks, *sink)
}

// heardOfCopies takes a message about copies that are there or wanted.
func (e *Engine) heardOfCopies(from *Remote, body []byte, now time.Time) {
	msg, err := flood.ParseMessage(body)
	if Class(from.class.Load()) != Member || err != nil {
		e.counts.Malformed.Add(1)
		return
	}
	var answers []flood.Answer
	e.flooding.do(func(m *flood.Machine) { answers = m.Hear(from.ID, msg, now) })
	for _, a := range answers {
		a.To.(child).sendCopy(a.Body)
	}
	e.flooding.wake()
}

// repairFloods is the goroutine that tells neighbours what is here and asks for what is
// missing, until ctx ends.
func (e *Engine) repairFloods(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.flooding.changed:
		case <-timer.C:
		}
		var tells []flood.Tell
		var next time.Time
		e.flooding.do(func(m *flood.Machine) { tells, next = m.Tick(e.now()) })
		for _, t := range tells {
			for left := t.Message; len(left.Names) > 0; {
				var msg []byte
				msg, left.Names = left.Append([]byte{controlFlood})
				t.To.(child).SendControl(msg)
			}
		}
		if next.IsZero() {
			next = e.now().Add(time.Hour)
		}
		timer.Reset(max(next.Sub(e.now()), time.Millisecond))
	}
}
