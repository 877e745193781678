package peer

import (
	"net/netip"
	"sync/atomic"
	"time"

	"meshd/keys"
	"meshd/nat-traversal"
	"meshd/peer/path"
)

// Counts are the datagrams that went nowhere, by reason.
type Counts struct {
	Unknown           atomic.Uint64 // of no kind that we speak
	Malformed         atomic.Uint64
	NoKey             atomic.Uint64 // transport data for an index that we do not have
	Unopened          atomic.Uint64 // forged, replayed or too old
	FromOverlay       atomic.Uint64 // the underlay went through the overlay, or the source is no real address
	UnknownProbe      atomic.Uint64 // of a node that we do not know
	ProbesDropped     atomic.Uint64 // the queue was full
	HandshakesDropped atomic.Uint64
	HandshakesRefused atomic.Uint64
	StrangersDropped  atomic.Uint64
	RelayRefused      atomic.Uint64 // on no circuit of ours, or from another address
	RelayDropped      atomic.Uint64 // beyond a share, or the other end is away
}

// Counts returns the engine's drop counters.
func (e *Engine) Counts() *Counts { return &e.counts }

// Status is a snapshot of one remote.
type Status struct {
	ID            keys.NodeID
	Class         Class
	Up            bool           // there is a session and a path
	Wanted        bool           // something uses it, or waits for it
	WantedSince   time.Time      // likewise, since when; zero: not
	Endpoint      netip.AddrPort // of the path in use, invalid without one
	Failing       bool           // it has fallen silent, and there is no other
	RTT           time.Duration
	PathMTU       int // bytes of IP packet
	Observed      netip.AddrPort
	Paths         []path.PathState
	Via           map[netip.AddrPort]Via // of those among the paths that are relayed
	NAT           traversal.Mapping      // in front of the remote, as it said when a direct path was sought
	TxBytes       uint64                 // of Ethernet frames
	RxBytes       uint64
	Dropped       uint64 // frames that could not be sent or taken
	QueueDropped  uint64 // frames that waited for a session: for too long, or too many of them
	LastHeard     time.Time
	LastHandshake time.Time
}

// Status returns a snapshot of the remote.
func (r *Remote) Status() Status {
	r.engine.control.Lock()
	defer r.engine.control.Unlock()
	s := Status{
		ID:            r.ID,
		Class:         r.Class(),
		Up:            r.Up(),
		Wanted:        !r.wantSince.IsZero(),
		WantedSince:   r.wantSince,
		Observed:      r.observed,
		Failing:       r.paths.Failing(r.engine.now()),
		Paths:         r.paths.Snapshot(),
		NAT:           r.punch.RemoteNAT(),
		TxBytes:       r.txBytes.Load(),
		RxBytes:       r.rxBytes.Load(),
		Dropped:       r.drops.Load(),
		QueueDropped:  r.waiting.dropped.Load(),
		LastHandshake: r.session.Stats().LastHandshake,
	}
	for _, p := range s.Paths {
		r.engine.describeVia(&s, p.Addr)
	}
	to := r.route.Load()
	if to == nil {
		return s
	}
	s.Endpoint = to.addr
	if t := to.heard.Load(); t != 0 {
		s.LastHeard = r.engine.at(t)
	}
	for _, p := range s.Paths {
		if p.LastHeard.After(s.LastHeard) {
			s.LastHeard = p.LastHeard
		}
		if p.Addr == to.addr {
			s.RTT, s.PathMTU = p.RTT, p.MTU
		}
	}
	return s
}

// WantedSince is Status.WantedSince, for who asks often.
func (r *Remote) WantedSince() time.Time {
	r.engine.control.Lock()
	defer r.engine.control.Unlock()
	return r.wantSince
}

// Carried is how many bytes of frames have gone to the remote and come from it.
func (r *Remote) Carried() (tx, rx uint64) { return r.txBytes.Load(), r.rxBytes.Load() }

// Remotes returns all that the engine knows, in no order.
func (e *Engine) Remotes() []*Remote {
	e.control.Lock()
	defer e.control.Unlock()
	rs := make([]*Remote, 0, len(e.control.byID))
	for _, r := range e.control.byID {
		rs = append(rs, r)
	}
	return rs
}
