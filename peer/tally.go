package peer

import (
	"net/netip"
	"sync/atomic"
)

// How much comes from where: what a pong tells a remote, so that it sees what is
// lost of its data on the way.

// maxArrivals bounds the addresses of one remote that are counted for.
const maxArrivals = 8

// arrivals counts the transport messages of a remote from one address. What is
// linked never changes, so that nobody has to wait to read it.
type arrivals struct {
	from netip.AddrPort
	n    atomic.Uint32
	next *arrivals
}

func (a *arrivals) find(from netip.AddrPort) *arrivals {
	for ; a != nil; a = a.next {
		if a.from == from {
			return a
		}
	}
	return nil
}

// receivedFrom is how many transport messages have come from an address.
func (r *Remote) receivedFrom(from netip.AddrPort) uint32 {
	if a := r.arrivals.Load().find(from); a != nil {
		return a.n.Load()
	}
	return 0
}

// count adds to the messages from an address. Of addresses that come and go the
// counts begin anew.
func (r *Remote) count(from netip.AddrPort, n uint32) {
	for {
		list := r.arrivals.Load()
		if a := list.find(from); a != nil {
			a.n.Add(n)
			return
		}
		length := 0
		for a := list; a != nil; a = a.next {
			length++
		}
		next := &arrivals{from: from, next: list}
		if length >= maxArrivals {
			next.next = nil
		}
		next.n.Store(n)
		if r.arrivals.CompareAndSwap(list, next) {
			return
		}
	}
}

// tally counts messages of one remote from one address until either changes.
type tally struct {
	remote *Remote
	from   netip.AddrPort
	n      uint32
	bytes  uint64 // of frames in them
}

func (t *tally) add(r *Remote, from netip.AddrPort) {
	if r != t.remote || from != t.from {
		t.flush()
		t.remote, t.from = r, from
	}
	t.n++
}

func (t *tally) flush() {
	if t.n > 0 {
		t.remote.count(t.from, t.n)
		t.remote.rxBytes.Add(t.bytes)
		t.n, t.bytes = 0, 0
	}
}
