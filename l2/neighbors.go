package l2

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	neighborIPs  = 8         // kept for each station, the last ones heard
	neighborAge  = time.Hour // hosts ask for each other rarely while all is well
	neighborMore = 32        // entries an origin may have beyond its stations: its own address in several VLANs
)

// neighbors remembers which IP addresses stations say they have. It is for people
// to read (Hosts) and decides nothing.
type neighbors struct {
	mu    sync.Mutex
	hosts map[station]*neighbor
	swept time.Duration
}

type neighbor struct {
	at   *origin
	ips  [neighborIPs]netip.Addr
	seen [neighborIPs]time.Duration
}

func newNeighbors() *neighbors {
	return &neighbors{hosts: make(map[station]*neighbor), swept: -sweepEvery}
}

// note remembers that station k, behind o, has address ip.
func (n *neighbors) note(k station, o *origin, ip netip.Addr, now time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[k]
	if h == nil || h.at != o {
		if h = n.place(k, o, now); h == nil {
			return
		}
	}
	slot := 0
	for i, known := range h.ips {
		if known == ip {
			slot = i
			break
		}
		if h.seen[i] < h.seen[slot] {
			slot = i
		}
	}
	h.ips[slot], h.seen[slot] = ip, now
}

// place makes the entry of a station that is new or has moved, or returns nil when
// o or the table has enough.
func (n *neighbors) place(k station, o *origin, now time.Duration) *neighbor {
	limit := int(o.limit.Load()) + neighborMore
	if (o.neighbors >= limit || len(n.hosts) >= maxStations) && now-n.swept >= sweepEvery {
		n.swept = now
		n.forgetLocked(func(_ station, h *neighbor) bool { return !slices.ContainsFunc(h.seen[:], fresh(now)) })
	}
	if old := n.hosts[k]; old != nil {
		old.at.neighbors--
		delete(n.hosts, k)
	}
	if o.neighbors >= limit || len(n.hosts) >= maxStations {
		return nil
	}
	h := &neighbor{at: o}
	for i := range h.seen {
		h.seen[i] = now - 2*neighborAge // never
	}
	n.hosts[k] = h
	o.neighbors++
	return h
}

func fresh(now time.Duration) func(time.Duration) bool {
	return func(seen time.Duration) bool { return now-seen < neighborAge }
}

// forget removes every station for which gone holds.
func (n *neighbors) forget(gone func(station, *origin) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetLocked(func(k station, h *neighbor) bool { return gone(k, h.at) })
}

func (n *neighbors) forgetLocked(gone func(station, *neighbor) bool) {
	for k, h := range n.hosts {
		if gone(k, h) {
			h.at.neighbors--
			delete(n.hosts, k)
		}
	}
}

// each calls yield for every station with the addresses heard lately, in order.
// yield must not call n.
func (n *neighbors) each(now time.Duration, yield func(k station, at *origin, ips []netip.Addr)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, h := range n.hosts {
		var ips []netip.Addr
		for i, ip := range h.ips {
			if ip.IsValid() && fresh(now)(h.seen[i]) {
				ips = append(ips, ip)
			}
		}
		if len(ips) > 0 {
			slices.SortFunc(ips, netip.Addr.Compare)
			yield(k, h.at, ips)
		}
	}
}
