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
	never        = -2 * neighborAge
	announced    = time.Duration(1) << 60 // when an address was heard that its member has announced: it does not age
	neighborMore = 32                     // entries an origin may have beyond its stations: its own address in several VLANs
)

// neighbors remembers which IP addresses stations say they have. People read it
// (Hosts), and the guards hold others to it.
type neighbors struct {
	local  func(station) // told when what is known of a station on our side changes; must not call n
	mu     sync.Mutex
	hosts  map[station]*neighbor
	claims map[claim]station // who has an address
	swept  time.Duration
}

// claim is an address in a VLAN.
type claim struct {
	vlan uint16
	ip   netip.Addr
}

type neighbor struct {
	at   *origin
	ips  [neighborIPs]netip.Addr
	seen [neighborIPs]time.Duration

	router bool // it advertises itself as one
}

func newNeighbors() *neighbors {
	return &neighbors{local: func(station) {}, hosts: make(map[station]*neighbor), claims: make(map[claim]station), swept: -sweepEvery}
}

// claim remembers that station k, behind o, has address ip. It reports false, and
// changes nothing, when a station behind another origin has it and is alive.
func (n *neighbors) claim(k station, o *origin, ip netip.Addr, now time.Duration, those liveness) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if holder, held := n.claims[claim{k.vlan(), ip}]; held && holder != k {
		other := n.hosts[holder]
		if other.at != o && other.keeps(holder, ip, now, those) {
			return false
		}
		n.release(holder, other, other.slot(ip))
	}
	h := n.hosts[k]
	if h == nil || h.at != o {
		if h = n.place(k, o, now); h == nil {
			return true
		}
	}
	slot := h.slot(ip)
	if h.ips[slot] != ip {
		n.release(k, h, slot)
		n.claims[claim{k.vlan(), ip}] = k
		if o.remote == nil {
			defer n.local(k)
		}
	}
	h.ips[slot], h.seen[slot] = ip, max(now, h.seen[slot])
	return true
}

// keeps says whether station k, which h is of, does not lose an address to another.
func (h *neighbor) keeps(k station, ip netip.Addr, now time.Duration, those liveness) bool {
	if !h.holds(ip, now) || h.at.remote != nil && h.at.remote.away.Load() {
		return false
	}
	return h.seen[h.slot(ip)] == announced || those.alive(k, h.at)
}

// holds says whether a station has an address by what was heard lately, or announced.
func (h *neighbor) holds(ip netip.Addr, now time.Duration) bool {
	return fresh(now)(h.seen[h.slot(ip)])
}

// slot is where an address is, or where it may take the place of the oldest.
func (h *neighbor) slot(ip netip.Addr) (slot int) {
	for i, known := range h.ips {
		if known == ip {
			return i
		}
		if h.seen[i] < h.seen[slot] {
			slot = i
		}
	}
	return slot
}

// release empties a slot of station k.
func (n *neighbors) release(k station, h *neighbor, slot int) {
	if ip := h.ips[slot]; ip.IsValid() {
		delete(n.claims, claim{k.vlan(), ip})
		if h.at.remote == nil {
			n.local(k)
		}
	}
	h.ips[slot] = netip.Addr{}
	h.seen[slot] = never
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
		n.remove(k, old)
	}
	if o.neighbors >= limit || len(n.hosts) >= maxStations {
		return nil
	}
	h := &neighbor{at: o}
	for i := range h.seen {
		h.seen[i] = never
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
			n.remove(k, h)
		}
	}
}

func (n *neighbors) remove(k station, h *neighbor) {
	for slot := range h.ips {
		n.release(k, h, slot)
	}
	h.at.neighbors--
	delete(n.hosts, k)
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
