package dhcp4

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"
)

const (
	// maxLeases bounds the table, however large the subnet is.
	maxLeases = 4096
	// maxKey bounds a client's name for itself.
	maxKey = 64
	// maxOfMAC bounds what one station has, under whatever names: leases that are not over, and
	// addresses that it says are somebody's. (Systems that start one another on one machine
	// have names of their own.)
	maxOfMAC = 3
	// heldFor is how long an offer waits to be taken, shunnedFor how long an address
	// that somebody else has is left alone.
	heldFor    = time.Minute
	shunnedFor = 10 * time.Minute
)

// Lease says that a client has an address. Until it is over, and while there is room,
// nobody else gets it.
type Lease struct {
	Key   string // the client's identifier, or its MAC
	IP    netip.Addr
	Until time.Time
	Taken bool // else it was only offered
	MAC   MAC  // of the station that asked for it
}

// table is who has which address.
type table struct {
	first, last netip.Addr // of the subnet, without network, router and broadcast
	byKey       map[string]*Lease
	byIP        map[netip.Addr]*Lease
	shunned     map[netip.Addr]shunned
}

// shunned is an address that is somebody's who has no lease.
type shunned struct {
	until time.Time
	by    MAC // whoever has said so; zero: it was heard
}

func newTable(subnet netip.Prefix, leases []Lease) *table {
	t := &table{byKey: map[string]*Lease{}, byIP: map[netip.Addr]*Lease{}, shunned: map[netip.Addr]shunned{}}
	base := binary.BigEndian.Uint32(subnet.Masked().Addr().AsSlice())
	size := uint32(1) << (32 - subnet.Bits())
	t.first, t.last = addr(base+2), addr(base+size-2) // the first is the router's
	for _, l := range leases {
		if t.holds(l.IP) && l.Key != "" && len(l.Key) <= maxKey && t.byIP[l.IP] == nil && t.byKey[l.Key] == nil && len(t.byKey) < maxLeases {
			t.put(l)
		}
	}
	return t
}

func addr(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func number(ip netip.Addr) uint32 {
	b := ip.As4()
	return binary.BigEndian.Uint32(b[:])
}

// holds reports whether an address is one that may be handed out.
func (t *table) holds(ip netip.Addr) bool {
	return ip.Is4() && !ip.Less(t.first) && !t.last.Less(ip)
}

func (t *table) put(l Lease) {
	t.drop(l.Key)
	if old := t.byIP[l.IP]; old != nil {
		t.drop(old.Key)
	}
	t.byKey[l.Key], t.byIP[l.IP] = &l, &l
}

func (t *table) drop(key string) {
	if l := t.byKey[key]; l != nil {
		delete(t.byKey, key)
		delete(t.byIP, l.IP)
	}
}

// of is a client's lease, which may be over: it gets the same address again.
func (t *table) of(key string) *Lease { return t.byKey[key] }

func (t *table) free(ip netip.Addr, key string, now time.Time) bool {
	if s, bad := t.shunned[ip]; bad {
		if now.Before(s.until) {
			return false
		}
		delete(t.shunned, ip)
	}
	l := t.byIP[ip]
	return l == nil || l.Key == key || !now.Before(l.Until)
}

// shun leaves an address alone for a while, since by says so.
func (t *table) shun(ip netip.Addr, by MAC, now time.Time) {
	if l := t.byIP[ip]; l != nil {
		t.drop(l.Key)
	}
	if len(t.shunned) < maxLeases && t.holds(ip) {
		t.shunned[ip] = shunned{now.Add(shunnedFor), by}
	}
}

// admit reports whether a station may have another lease, and takes its oldest from it if
// it has as many as it may.
func (t *table) admit(mac MAC, key string, now time.Time) bool {
	if l := t.of(key); l != nil && l.MAC == mac && now.Before(l.Until) {
		return true
	}
	n := 0
	var oldest *Lease
	for _, l := range t.byKey {
		if l.MAC != mac || !now.Before(l.Until) {
			continue
		}
		n++
		if oldest == nil || l.Until.Before(oldest.Until) {
			oldest = l
		}
	}
	for _, s := range t.shunned {
		if s.by == mac && now.Before(s.until) {
			n++
		}
	}
	switch {
	case n < maxOfMAC:
		return true
	case n > maxOfMAC || oldest == nil:
		return false
	}
	t.drop(oldest.Key)
	return true
}

// choose finds an address for a client: its own, the one it wants, else one that
// follows from its key, so that it is the same when the table was lost; or one whose
// lease is over longest. It is invalid when there is none.
func (t *table) choose(key string, wanted netip.Addr, now time.Time) netip.Addr {
	if l := t.of(key); l != nil && t.free(l.IP, key, now) {
		return l.IP
	}
	if len(t.byKey) >= maxLeases && t.of(key) == nil && !t.evict(now) {
		return netip.Addr{}
	}
	if t.holds(wanted) && t.free(wanted, key, now) {
		return wanted
	}
	size := number(t.last) - number(t.first) + 1
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	start := h.Sum32() % size
	over := netip.Addr{}
	for i := range min(size, 2*maxLeases) { // leases and shunned ones are fewer
		ip := addr(number(t.first) + (start+i)%size)
		if !t.free(ip, key, now) {
			continue
		}
		l := t.byIP[ip]
		if l == nil {
			return ip
		}
		if !over.IsValid() || l.Until.Before(t.byIP[over].Until) {
			over = ip
		}
	}
	return over
}

// evict makes room by forgetting the lease that is over longest.
func (t *table) evict(now time.Time) bool {
	var oldest *Lease
	for _, l := range t.byKey {
		if !now.Before(l.Until) && (oldest == nil || l.Until.Before(oldest.Until)) {
			oldest = l
		}
	}
	if oldest == nil {
		return false
	}
	t.drop(oldest.Key)
	return true
}

// leases lists those that were taken, by address.
func (t *table) leases() []Lease {
	list := make([]Lease, 0, len(t.byIP))
	for _, l := range t.byIP {
		if l.Taken {
			list = append(list, *l)
		}
	}
	slices.SortFunc(list, func(a, b Lease) int { return cmp.Or(a.IP.Compare(b.IP), cmp.Compare(a.Key, b.Key)) })
	return list
}
