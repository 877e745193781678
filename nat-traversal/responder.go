package traversal

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// What a Responder answers: to one source a round of a Client with all its
// repetitions, and overall so little that nobody wants it as a reflector.
const (
	sourceRate  = 2   // answers a second to one IPv4 address or IPv6 /64
	sourceBurst = 10  // more at once
	totalRate   = 200 // answers a second in all
	totalBurst  = 200
	sources     = 1024 // buckets

	recentAnswers = 64 // of which it is known for recentFor whom they went to
	recentFor     = 10 * time.Second
)

// Responder answers STUN requests at a limited rate. It may be used by several
// goroutines.
//
// Sources share a fixed number of buckets by a keyed hash, so that spoofed ones
// make nothing grow; those that fall together share a rate.
type Responder struct {
	seed maphash.Seed

	mu      sync.Mutex
	total   bucket
	sources [sources]bucket
	recent  [recentAnswers]exchange // the last answers, as a ring
	next    int
}

// exchange is a request that was answered.
type exchange struct {
	txid TxID
	from netip.AddrPort
	at   time.Time
}

// NewResponder makes one with full buckets.
func NewResponder() *Responder { return &Responder{seed: maphash.MakeSeed()} }

// Answer is the function Answer within the limits.
func (r *Responder) Answer(now time.Time, req []byte, from netip.AddrPort) (answer []byte, ok bool) {
	answer, ok = Answer(req, from)
	if !ok || !r.allow(now, from.Addr()) {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recent[r.next] = exchange{TxID(req[8:20]), from, now}
	r.next = (r.next + 1) % recentAnswers
	return answer, true
}

// Answered reports whether a request with this id was answered within the last 10
// seconds, to that address: who knows the id is who asked.
func (r *Responder) Answered(now time.Time, txid TxID, to netip.AddrPort) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.recent {
		if e.txid == txid && e.from == to && !e.at.IsZero() && now.Sub(e.at) < recentFor {
			return true
		}
	}
	return false
}

func (r *Responder) allow(now time.Time, from netip.Addr) bool {
	i := maphash.Comparable(r.seed, network(from)) % sources
	r.mu.Lock()
	defer r.mu.Unlock()
	// The source first: one that asks too much takes nothing from the others.
	return r.sources[i].take(now, sourceRate, sourceBurst) && r.total.take(now, totalRate, totalBurst)
}

// network is what one owner can be taken to have: an IPv4 address, an IPv6 /64.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // an invalid address is its own source
	return p
}

// bucket is a token bucket. The zero value is full.
type bucket struct {
	used float64 // tokens taken and not yet grown again
	at   time.Time
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	if d := now.Sub(b.at); d > 0 {
		b.used = max(0, b.used-d.Seconds()*rate)
		b.at = now
	}
	if b.used+1 > burst {
		return false
	}
	b.used++
	return true
}
