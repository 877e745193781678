package l2

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// heardFor is how long a notice goes before the records of its sender: they have
	// come by then.
	heardFor = 10 * time.Second
	// A remote's notices in a second, and at once.
	noticeRate, noticeBurst = 100, 300
)

// whereabouts are the announcements of the remotes, and what is disputed. What comes
// of them is in the forwarding database and the table of neighbours, where frames find
// it. mu is taken before the locks of those, and nothing is sent while it is held.
type whereabouts struct {
	mu         sync.Mutex
	by         map[*RemotePort]*ledger
	announcers map[station][]*RemotePort
	partly     map[station]struct{}    // announced addresses that another station holds still
	titles     map[station]*RemotePort // who had it before another took it in his absence
	disputes
}

// ledger is what one remote has announced.
type ledger struct {
	said map[station]Binding // its records
	told map[station]notion  // its notices, which are newer
	rate bucket
}

// notion is what a notice said of a station.
type notion struct {
	Binding
	gone  bool
	stamp uint64
	until time.Duration
}

func newWhereabouts() *whereabouts {
	return &whereabouts{
		by: make(map[*RemotePort]*ledger), announcers: make(map[station][]*RemotePort),
		partly: make(map[station]struct{}), titles: make(map[station]*RemotePort), disputes: newDisputes(),
	}
}

// of returns a remote's ledger. It needs mu.
func (w *whereabouts) of(r *RemotePort) *ledger {
	l := w.by[r]
	if l == nil {
		l = &ledger{
			said: make(map[station]Binding), told: make(map[station]notion),
			rate: bucket{rate: noticeRate, burst: noticeBurst},
		}
		w.by[r] = l
	}
	return l
}

// current is what a remote says of a station now.
func (l *ledger) current(k station) (Binding, bool) {
	if n, ok := l.told[k]; ok {
		return n.Binding, !n.gone
	}
	b, ok := l.said[k]
	return b, ok
}

// gone says whether a notice of r has taken a station away. It needs mu.
func (w *whereabouts) gone(r *RemotePort, k station) bool {
	l := w.by[r]
	return l != nil && l.told[k].gone
}

// index keeps announcers in step with the ledger of r. It needs mu.
func (w *whereabouts) index(k station, r *RemotePort) {
	l := w.by[r]
	has := false
	if l != nil {
		_, has = l.current(k)
	}
	list := w.announcers[k]
	i := slices.Index(list, r)
	switch {
	case has && i < 0:
		w.announcers[k] = append(list, r)
	case !has && i >= 0:
		if list = slices.Delete(list, i, i+1); len(list) == 0 {
			delete(w.announcers, k)
			return
		}
		w.announcers[k] = list
	}
}

// SetBindings replaces what a remote's records say of the stations behind it.
func (s *Switch) SetBindings(name string, list []Binding) {
	s.mu.Lock()
	r := s.remotes[name]
	s.mu.Unlock()
	if r == nil {
		return
	}
	now := s.now()
	s.where.mu.Lock()
	defer s.where.mu.Unlock()
	defer s.poke()
	l := s.where.of(r)
	before := l.said
	l.said = make(map[station]Binding, len(list))
	for _, b := range list[:min(len(list), BridgeMaxMACs+neighborMore)] {
		l.said[b.station()] = b
	}
	for k := range before {
		if _, still := l.said[k]; !still {
			s.settle(k, r, now)
		}
	}
	for k, b := range l.said {
		if old, known := before[k]; !known || !old.equal(&b) {
			// News of a station that is there still come after what a notice said.
			if n, told := l.told[k]; told && !n.gone && b.Seq >= n.Seq {
				delete(l.told, k)
			}
			s.settle(k, r, now)
		}
	}
	s.retry(now)
}

func (b *Binding) equal(o *Binding) bool {
	return b.VLAN == o.VLAN && b.MAC == o.MAC && b.Seq == o.Seq && b.Segment == o.Segment && b.Router == o.Router && slices.Equal(b.IPs, o.IPs)
}

// SetAway says whether a remote is out of reach: what it has announced then gives way
// to what others announce.
func (s *Switch) SetAway(name string, away bool) {
	s.mu.Lock()
	r := s.remotes[name]
	s.mu.Unlock()
	if r == nil || r.away.Swap(away) == away {
		return
	}
	now := s.now()
	s.where.mu.Lock()
	defer s.where.mu.Unlock()
	if l := s.where.by[r]; l != nil {
		for k := range l.said {
			s.settle(k, r, now)
		}
		s.retry(now)
	}
}

// Hear takes a notice of a remote. It may be called on a frame's way, so that what the
// notice says holds for the frame behind it.
func (s *Switch) Hear(name string, n Notice) {
	s.mu.Lock()
	r, to := s.remotes[name], s.remotes[n.To]
	s.mu.Unlock()
	if r == nil || len(n.Bindings) == 0 {
		return
	}
	now := s.now()
	s.where.mu.Lock()
	defer s.where.mu.Unlock()
	l := s.where.of(r)
	if !l.rate.take(now) {
		return
	}
	defer s.poke()
	switch n.Step {
	case StepHere, StepGone:
		s.hearWhere(r, to, n, now)
	case StepClaim, StepClaimAddress:
		for i := range n.Bindings {
			s.claimed(r, n.Step == StepClaimAddress, n.Bindings[i], now)
		}
	case StepYield, StepYieldAddress, StepKeep, StepKeepAddress:
		for i := range n.Bindings {
			s.answered(r, n.Step, n.Bindings[i], now)
		}
	}
}

// hearWhere takes a notice of what is behind r, or no longer is but behind to. It needs where.mu.
func (s *Switch) hearWhere(r, to *RemotePort, n Notice, now time.Duration) {
	for _, b := range n.Bindings {
		k := b.station()
		had := s.hosts.find(k, now).at == &r.origin
		if !s.note(r, b, n.Step == StepGone, n.Stamp, now) {
			continue
		}
		s.where.index(k, r)
		if to != nil && to != r && had && n.Step == StepGone && s.hosts.drop(k, &r.origin) {
			s.heard.unbind(k, &r.origin)
			s.where.moved(k, now)
			s.handOver(to, b, now)
		}
		s.settle(k, r, now)
	}
	s.retry(now)
}

// handOver has a station, which nobody holds now, where the former holder says that it
// is, whoever else would like to have it. It needs where.mu.
func (s *Switch) handOver(to *RemotePort, b Binding, now time.Duration) {
	if _, _, ok := s.may(s.view.Load(), to, b); ok && s.note(to, b, false, 0, now) { // until it says so itself
		s.hosts.bind(b.station(), &to.origin, b.Seq, now)
		s.settle(b.station(), to, now)
	}
}

// note writes what a notice says into the ledger of r. It reports false when that is
// old, or more than r may bring. It needs where.mu.
func (s *Switch) note(r *RemotePort, b Binding, gone bool, stamp uint64, now time.Duration) bool {
	l, k := s.where.of(r), b.station()
	old, known := l.told[k]
	if known && stamp != 0 && old.stamp >= stamp {
		return false
	}
	if !known && len(l.told) >= int(r.limit.Load())+neighborMore {
		return false
	}
	l.told[k] = notion{b, gone, max(stamp, old.stamp), now + heardFor}
	return true
}

// may says whether a remote may have a station, and which addresses. It needs where.mu.
func (s *Switch) may(v *view, r *RemotePort, b Binding) (at *attachment, ips []netip.Addr, ok bool) {
	at = r.at.Load()
	if at == nil || !at.mayUse(b.VLAN) || b.MAC.Multicast() || b.MAC == (MAC{}) || b.MAC == v.own.mac || b.MAC == v.own.mac.probe() {
		return at, nil, false
	}
	if owner := v.owner.of(b.MAC); owner != nil && owner != r {
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
// when he is asked and it is silent (mobility.go). Within one segment a higher number
// is enough.
func (s *Switch) settle(k station, r *RemotePort, now time.Duration) {
	w, v := s.where, s.view.Load()
	w.index(k, r)
	if owner := v.owner.of(k.mac()); owner != nil {
		s.settleAddresses(v, k, owner, now)
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
	s.settleAddresses(v, k, holder, now)
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
	case !t.away.Load() && b.Seq > here.seq:
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

// retry gives stations the addresses that others held before. It needs where.mu.
func (s *Switch) retry(now time.Duration) {
	v := s.view.Load()
	for k := range s.where.partly {
		r := v.owner.of(k.mac())
		if r == nil {
			if p := s.hosts.find(k, now); p.at != nil {
				r = p.at.remote
			}
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
	for _, r := range s.where.announcers[k] {
		b, _ := s.where.by[r].current(k)
		if _, _, ok := s.may(v, r, b); !ok {
			continue
		}
		if best == nil || s.prefer(r, b, best, binding, here, k) {
			best, binding = r, b
		}
	}
	return best, binding
}

// prefer says whether a goes before b. It needs where.mu.
func (s *Switch) prefer(a *RemotePort, ab Binding, b *RemotePort, bb Binding, here sighting, k station) bool {
	if x, y := a.away.Load(), b.away.Load(); x != y {
		return y
	}
	holds := func(r *RemotePort) bool { return here.bound && here.at == &r.origin }
	if (holds(a) || holds(b)) && !s.sameSegment(a, ab, b, k) {
		return holds(a)
	}
	if ab.Seq != bb.Seq {
		return ab.Seq > bb.Seq
	}
	return a.name < b.name
}

// sameSegment says whether two remotes speak for one LAN that the station is on.
func (s *Switch) sameSegment(a *RemotePort, ab Binding, b *RemotePort, k station) bool {
	x, y := a.at.Load(), b.at.Load()
	if x == nil || y == nil || ab.Segment == (Segment{}) || ab.Segment != x.segment || x.segment != y.segment {
		return false
	}
	l := s.where.by[b]
	if l == nil {
		return false
	}
	bb, said := l.current(k)
	return !said || bb.Segment == ab.Segment
}

// forgetRemote drops what a remote has announced.
func (s *Switch) forgetRemote(r *RemotePort) {
	now := s.now()
	s.where.mu.Lock()
	defer s.where.mu.Unlock()
	s.where.forget(r)
	l := s.where.by[r]
	if l == nil {
		return
	}
	delete(s.where.by, r)
	for k, t := range s.where.titles {
		if t == r {
			delete(s.where.titles, k)
		}
	}
	for _, m := range []map[station]struct{}{keysOf(l.said), keysOf(l.told)} {
		for k := range m {
			s.settle(k, r, now)
		}
	}
}

func keysOf[V any](m map[station]V) map[station]struct{} {
	out := make(map[station]struct{}, len(m))
	for k := range m {
		out[k] = struct{}{}
	}
	return out
}

// expire lets the records speak again where notices have had their time. It needs where.mu.
func (s *Switch) expire(now time.Duration) {
	for r, l := range s.where.by {
		for k, n := range l.told {
			if now >= n.until {
				delete(l.told, k)
				s.settle(k, r, now)
			}
		}
	}
	s.retry(now)
}
