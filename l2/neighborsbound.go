package l2

import (
	"net/netip"
	"slices"
	"time"
)

// What announcements do to the table of neighbours, and what is read from it.

// bind gives station k, behind o, exactly these addresses by announcement. It reports
// whether it has got all of them: one that another station holds stays there.
func (n *neighbors) bind(k station, o *origin, ips []netip.Addr, router bool, now time.Duration, those liveness) (all bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[k]
	if h == nil || h.at != o {
		if len(ips) == 0 && !router {
			return true
		}
		if h = n.place(k, o, now); h == nil {
			return false
		}
	}
	h.router = router
	for slot, ip := range h.ips {
		if h.seen[slot] == announced && !slices.Contains(ips, ip) {
			n.release(k, h, slot)
		}
	}
	all = true
	for _, ip := range ips {
		all = n.announce(k, h, ip, now, those) && all
	}
	return all
}

// announce gives a station one address by announcement. It needs mu.
func (n *neighbors) announce(k station, h *neighbor, ip netip.Addr, now time.Duration, those liveness) bool {
	if holder, held := n.claims[claim{k.vlan(), ip}]; held && holder != k {
		other := n.hosts[holder]
		if other.at != h.at && other.keeps(holder, ip, now, those) {
			return false
		}
		n.release(holder, other, other.slot(ip))
	}
	slot := h.slot(ip)
	if h.ips[slot] != ip {
		n.release(k, h, slot)
		n.claims[claim{k.vlan(), ip}] = k
	}
	h.ips[slot], h.seen[slot] = ip, announced
	return true
}

// unbind forgets what was announced of a station behind o.
func (n *neighbors) unbind(k station, o *origin) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[k]; h != nil && h.at == o {
		n.remove(k, h)
	}
}

// possession is an address that somebody has.
type possession struct {
	station station
	at      *origin // nil: nobody has it
	router  bool
	seen    time.Duration
}

// holder returns who has an address.
func (n *neighbors) holder(vlan uint16, ip netip.Addr, now time.Duration) possession {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, held := n.claims[claim{vlan, ip}]
	if !held {
		return possession{}
	}
	h := n.hosts[k]
	if !h.holds(ip, now) {
		return possession{}
	}
	return possession{k, h.at, h.router, h.seen[h.slot(ip)]}
}

// let releases an address of a station behind o.
func (n *neighbors) let(k station, o *origin, ip netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[k]
	if h == nil || h.at != o {
		return
	}
	if slot := h.slot(ip); h.ips[slot] == ip {
		n.release(k, h, slot)
	}
}

// of returns the addresses that a station behind o has, in order, and whether it routes.
func (n *neighbors) of(k station, o *origin, now time.Duration) (ips []netip.Addr, router bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[k]
	if h == nil || h.at != o {
		return nil, false
	}
	for i, ip := range h.ips {
		if ip.IsValid() && fresh(now)(h.seen[i]) {
			ips = append(ips, ip)
		}
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	return ips, h.router
}

// routes notes that a station, which has an entry, advertises itself as a router.
func (n *neighbors) routes(k station, o *origin, now time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[k]
	if h == nil || h.at != o {
		if h = n.place(k, o, now); h == nil {
			return
		}
	}
	if !h.router {
		h.router = true
		if o.remote == nil {
			n.local(k)
		}
	}
}

// under are the entries of a MAC, one for each VLAN that it has spoken in.
func (n *neighbors) under(mac MAC) (list []station) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, h := range n.hosts {
		if k.mac() == mac && h.at.remote == nil {
			list = append(list, k)
		}
	}
	return list
}
