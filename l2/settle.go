package l2

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Who has a station, by all that is announced of it.

// may says whether a remote may have a station, and which addresses. It needs where.mu.
func (s *Switch) may(v *view, r *RemotePort, b Binding) (at *attachment, ips []netip.Addr, ok bool) {
	at = r.at.Load()
	if at == nil || !at.mayUse(b.VLAN) || b.MAC.Multicast() || b.MAC == (MAC{}) || b.MAC == v.own.mac || b.MAC == v.own.mac.probe() {
		return at, nil, false
	}
	if v.owner.of(b.MAC) != nil && at.mac != b.MAC {
		return at, nil, false
	}
	for _, ip := range b.IPs {
		if ip = usable(ip); ip.IsValid() && v.addrs.of(ip) == nil && len(ips) < MaxBindingIPs {
			ips = append(ips, ip)
		}
	}
	return at, ips, true
}

// settle decides where a station is by all that is announced of it, after what r says
// has changed. It needs where.mu.
//
// Who has it keeps it for as long as he says so and can be reached: a higher number
// alone moves nothing, or a thief would only have to count. The holder gives it up
// when he is asked and it is silent (mobility.go), or when another forwards for his LAN
// (inherit).
func (s *Switch) settle(k station, r *RemotePort, now time.Duration) {
	w, v := s.where, s.view.Load()
	w.index(k, r)
	if owner := v.owner.of(k.mac()); owner != nil {
		if owner.remote.has(k.mac()) { // else another stands in for it
			s.settleAddresses(v, k, owner.remote, now)
		}
		return
	}
	here := s.hosts.find(k, now)
	if here.at != nil && here.at.remote == nil {
		s.settleOurs(v, k, here, now)
		return
	}
	holder, b := s.elect(v, k, here)
	if holder == nil {
		if here.at != nil && (here.bound || r != nil && here.at == &r.origin && w.gone(r, k)) {
			s.hosts.drop(k, here.at)
			s.heard.unbind(k, here.at)
		}
		return
	}
	s.keepTitle(k, here, holder)
	if here.at != nil && here.at != &holder.origin {
		if here.bound && !s.sameSegment(holder, b, here.at.remote, k) {
			w.moved(k, now)
		}
		s.heard.unbind(k, here.at)
	}
	if !s.hosts.bind(k, &holder.origin, b.Seq, now) {
		return
	}
	delete(w.heirs, k)
	delete(w.former, k)
	s.settleAddresses(v, k, holder, now)
}

// speaks says whether what a remote announces counts: not while another forwards for the
// LAN that both are on.
func (r *RemotePort) speaks() bool { return r.place.Load() == &r.origin }

// inherit has what r has announced behind who forwards for its LAN now, and nobody is
// asked: the stations have not moved, and r may be dead. It says by whom it is reached, but
// only who shares the LAN with it gets its stations. When r speaks for itself again, what it
// announces counts again. It needs mu.
func (s *Switch) inherit(r *RemotePort) {
	now, v, place := s.now(), s.view.Load(), r.place.Load()
	agreed := s.onOneLAN(v, &r.origin, place)
	w := s.where
	w.mu.Lock()
	defer w.mu.Unlock()
	defer s.poke()
	l := w.by[r]
	if l == nil {
		return
	}
	for k := range l.stations() {
		b, says := l.current(k)
		_, ips, ok := s.may(v, r, b)
		at := s.hosts.find(k, now).at
		if agreed && says && ok && v.owner.of(k.mac()) == nil {
			switch free := at == nil || at == &r.origin; {
			case place.remote == nil && (free || at.remote == nil):
				s.takeHome(v, k, b.Seq, ips, now)
			case place.remote != nil && free && !w.says(place.remote, k):
				s.heard.unbind(k, &r.origin)
				s.handOver(place.remote, b, now)
			}
		}
		if at != nil { // else it is forgotten, and learned again
			s.settle(k, r, now)
		}
	}
	s.retry(now)
}

// takeHome has a station on our LAN, with the addresses that another has announced. It needs where.mu.
func (s *Switch) takeHome(v *view, k station, seq uint32, ips []netip.Addr, now time.Duration) {
	delete(s.where.suits, subject{station: k})
	at := s.hosts.find(k, now).at
	if at == nil || at.remote != nil {
		if at != nil {
			s.heard.unbind(k, at)
		}
		if at = &s.local; !v.own.mayUse(k.vlan()) || !s.hosts.take(k, at, seq, now) {
			return
		}
	}
	for _, ip := range ips {
		s.heard.claim(k, at, ip, now, liveness{s, v, now})
	}
}

// formerly is who had a station that was forgotten, as long as he announces it and can be
// reached: no stranger gets it because a LAN has changed. It needs mu.
func (w *whereabouts) formerly(k station) *RemotePort {
	f := w.former[k]
	if f == nil || f.away.Load() || !f.speaks() {
		return nil
	}
	if !w.says(f, k) {
		delete(w.former, k)
		return nil
	}
	return f
}

// fresh says whether what a remote says of a station came by a notice. It needs mu.
func (w *whereabouts) fresh(r *RemotePort, k station) bool {
	_, told := w.by[r].told[k]
	return told
}

// mates says whether two shared a LAN until just now, each part of which may have any of
// its stations. It needs mu.
func (w *whereabouts) mates(a, b *RemotePort) bool {
	x, y := w.by[a], w.by[b]
	return x.lan != "" && x.lan == y.lan
}

// keepTitle remembers from whom a station goes to another because he is away. It needs
// where.mu.
func (s *Switch) keepTitle(k station, here sighting, holder *RemotePort) {
	w := s.where
	switch t := w.titles[k]; {
	case t == holder:
		delete(w.titles, k)
	case t == nil && here.bound && here.at != &holder.origin && here.at.remote.away.Load() &&
		slices.Contains(w.announcers[k], here.at.remote):
		w.titles[k] = here.at.remote
	}
}

// titled returns who gets a station back: he is there again, has asked it, and says
// with a higher number that it is behind him. It needs where.mu.
func (s *Switch) titled(k station, here sighting) (*RemotePort, Binding) {
	t := s.where.titles[k]
	if t == nil {
		return nil, Binding{}
	}
	l := s.where.by[t]
	if l == nil {
		delete(s.where.titles, k)
		return nil, Binding{}
	}
	b, says := l.current(k)
	switch {
	case !says:
		delete(s.where.titles, k)
	case !t.away.Load() && t.speaks() && b.Seq > here.seq:
		return t, b
	}
	return nil, Binding{}
}

// settleAddresses gives a station the addresses that its member announces. It needs where.mu.
func (s *Switch) settleAddresses(v *view, k station, r *RemotePort, now time.Duration) {
	delete(s.where.partly, k)
	var b Binding
	if l := s.where.by[r]; l != nil {
		b, _ = l.current(k)
	}
	b.VLAN, b.MAC = k.vlan(), k.mac()
	_, ips, _ := s.may(v, r, b)
	if !s.heard.bind(k, &r.origin, ips, b.Router, now, liveness{s, v, now}) {
		s.where.partly[k] = struct{}{}
		s.settleOurAddresses(k, r, ips, now)
	}
}

// retrySoon is retry after notices: there may be thousands of stations, and whoever likes
// brings it about. It needs where.mu.
func (s *Switch) retrySoon(now time.Duration) {
	w := s.where
	if w.retry = len(w.partly) > 0; w.retry && now-w.retried >= retryEvery {
		s.retry(now)
	}
}

// retry gives stations the addresses that others held before. It needs where.mu.
func (s *Switch) retry(now time.Duration) {
	w, v := s.where, s.view.Load()
	w.retry, w.retried = false, now
	for _, k := range slices.Collect(maps.Keys(s.where.partly)) {
		var r *RemotePort
		if owner := v.owner.of(k.mac()); owner == nil {
			if p := s.hosts.find(k, now); p.at != nil {
				r = p.at.remote
			}
		} else if owner.remote.has(k.mac()) {
			r = owner.remote
		}
		if r == nil {
			delete(s.where.partly, k)
			continue
		}
		s.settleAddresses(v, k, r, now)
	}
}

// elect chooses who has a station that is not on our side. It needs where.mu.
func (s *Switch) elect(v *view, k station, here sighting) (best *RemotePort, binding Binding) {
	if t, b := s.titled(k, here); t != nil {
		if _, _, ok := s.may(v, t, b); ok {
			return t, b
		}
	}
	h, handed := s.where.heirs[k]
	f := s.where.formerly(k)
	for _, r := range s.where.announcers[k] {
		b, _ := s.where.by[r].current(k)
		if _, _, ok := s.may(v, r, b); !ok || !r.speaks() || handed && h.to != r || f != nil && f != r && !s.where.mates(f, r) {
			continue
		}
		if best == nil || s.where.prefer(r, b, best, binding, here, k) {
			best, binding = r, b
		}
	}
	return best, binding
}

// prefer says whether a goes before b. It needs mu.
func (w *whereabouts) prefer(a *RemotePort, ab Binding, b *RemotePort, bb Binding, here sighting, k station) bool {
	if x, y := a.away.Load(), b.away.Load(); x != y {
		return y
	}
	holds := func(r *RemotePort) bool { return here.bound && here.at == &r.origin }
	if holds(a) || holds(b) {
		return holds(a)
	}
	if x, y := w.fresh(a, k), w.fresh(b, k); x != y && w.mates(a, b) {
		return x
	}
	if ab.Seq != bb.Seq {
		return ab.Seq > bb.Seq
	}
	return a.name < b.name
}

// sameSegment says whether two remotes share the LAN that the station is on.
func (s *Switch) sameSegment(a *RemotePort, ab Binding, b *RemotePort, k station) bool {
	x, y := a.at.Load(), b.at.Load()
	if x == nil || y == nil || ab.Segment != x.segment || !x.sharesLAN(&y.rights) {
		return false
	}
	l := s.where.by[b]
	if l == nil {
		return false
	}
	bb, said := l.current(k)
	return !said || bb.Segment == ab.Segment
}
