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
}

// NewResponder makes one with full buckets.
func NewResponder() *Responder { return &Responder{seed: maphash.MakeSeed()} }

// Answer is the function Answer within the limits.
func (r *Responder) Answer(now time.Time, req []byte, from netip.AddrPort) (answer []byte, ok bool) {
	answer, ok = Answer(req, from)
	if !ok || !r.allow(now, from.Addr()) {
		return nil, false
	}
	return answer, true
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
