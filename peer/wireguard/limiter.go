package wireguard

import (
	"net/netip"
	"time"
)

// Rates of the reference implementations: 20 handshakes a second for each
// source, 5 at once. maxBuckets bounds the memory; to fill it under load takes
// that many sources that answer cookies.
const (
	limitEvery = time.Second / 20
	limitBurst = 5 * limitEvery
	maxBuckets = 8192
)

// limiter is a token bucket for each IPv4 address and IPv6 /64 (paper, 5.3).
// wireguard-go's ratelimiter has a goroutine and a clock of its own, counts
// full IPv6 addresses and is not bounded.
type limiter struct {
	buckets map[netip.Addr]bucket
	swept   time.Time
}

type bucket struct {
	tokens time.Duration // limitEvery pays for one handshake
	at     time.Time
}

// source is what shares a bucket with addr.
func source(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		p, err := addr.Prefix(64)
		if err == nil {
			return p.Addr()
		}
	}
	return addr
}

func (l *limiter) allow(addr netip.Addr, now time.Time) bool {
	l.sweep(now)
	addr = source(addr)
	b, ok := l.buckets[addr]
	if !ok {
		if len(l.buckets) >= maxBuckets {
			return false
		}
		b = bucket{limitBurst, now}
	}
	b.tokens = min(b.tokens+max(now.Sub(b.at), 0), limitBurst)
	b.at = now
	allowed := b.tokens >= limitEvery
	if allowed {
		b.tokens -= limitEvery
	}
	l.buckets[addr] = b
	return allowed
}

// sweep forgets, once a second, the buckets that are full again.
func (l *limiter) sweep(now time.Time) {
	if age := now.Sub(l.swept); age >= 0 && age < time.Second {
		return
	}
	l.swept = now
	for addr, b := range l.buckets {
		if age := now.Sub(b.at); age < 0 || b.tokens+age >= limitBurst {
			delete(l.buckets, addr)
		}
	}
}
