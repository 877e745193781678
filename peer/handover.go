package peer

import (
	"time"
)

// A move from one healthy path to another must not have frames overtake those that
// are still on their way over the longer one: a TCP sender would take that for
// loss. So a last ping follows them, and what comes after waits until its answer
// shows that they have arrived. (To wait only for as long as the old path seems to be
// longer was tried: where the relay has a queue, that is too short, and a hundred
// segments are sent again.)

const (
	// handoverAtMost is how long frames wait for that at most.
	handoverAtMost = 300 * time.Millisecond
	// handoverSpare is what the answer may take beyond three round trips of late.
	handoverSpare = 30 * time.Millisecond
	// handoverRecent is how long ago frames have gone over the old path for any to
	// be on their way.
	handoverRecent = time.Second
)

// handover is one that is under way.
type handover struct {
	marker [12]byte // transaction of the last ping on the old path
	route  *route   // whose frames wait; nil: none do
	until  time.Time
}

// handOver begins the move to a route that was made to take the place of another.
// It is called before that is published.
func (r *Remote) handOver(from, to *route, now time.Time) {
	r.moving = handover{}
	sent := from.sent.Load()
	if sent == 0 || now.Sub(r.engine.at(sent)) > handoverRecent || !r.paths.Delivers(from.addr, now) {
		return
	}
	p, rtt, ok := r.paths.Mark(from.addr, now)
	if !ok {
		return
	}
	to.held.Store(true)
	r.moving = handover{marker: p.Transaction, route: to, until: now.Add(min(3*rtt+handoverSpare, handoverAtMost))}
	r.route.Store(to)
	r.flushRoute(from)
	r.ping(p, now)
}

// flushRoute sends what is sealed for a route and not sent yet.
func (r *Remote) flushRoute(to *route) {
	for n := range len(r.more) + 1 {
		l := r.Lane(n)
		l.mu.Lock()
		if l.tx != nil && l.tx.route == to {
			l.tx.flush()
		}
		l.mu.Unlock()
	}
}

// handedOver ends a move when its time is over, and lets the frames go that waited.
func (r *Remote) handedOver(now time.Time) {
	if r.moving.route != nil && !now.Before(r.moving.until) {
		r.moving.route.held.Store(false)
		r.moving = handover{}
	}
}

// arrived ends a move when the answer to its last ping has come.
func (r *Remote) arrived(transaction [12]byte, now time.Time) {
	if r.moving.route != nil && transaction == r.moving.marker {
		r.moving.until = now
	}
}
