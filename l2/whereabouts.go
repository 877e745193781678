package l2

import (
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
	// Likewise of claims, each of which has hosts on our side asked.
	claimRate, claimBurst = 20, 128
	// seekEvery is how often the stations of one remote are asked for at most.
	seekEvery = 30 * time.Second
	// heirFor is how long what a holder has handed over is kept for who is to have it.
	heirFor = 2 * time.Second
	// relearnFor is how long stations that were forgotten are learned again before the
	// records say where they are: by then those of others have come.
	relearnFor = time.Second
	// retryEvery is how often notices have all addresses tried that others hold still.
	retryEvery = 250 * time.Millisecond
)

// whereabouts are the announcements of the remotes, and what is disputed. What comes
// of them is in the forwarding database and the table of neighbours, where frames find
// it. mu is taken before the locks of those, and nothing is sent while it is held.
type whereabouts struct {
	mu         sync.Mutex
	by         map[*RemotePort]*ledger
	announcers map[station][]*RemotePort
	partly     map[station]struct{}    // announced addresses that another station holds still
	retried    time.Duration           // when these were last tried
	retry      bool                    // they are to be tried again
	titles     map[station]*RemotePort // who had it before another took it in his absence
	heirs      map[station]heir
	former     map[station]*RemotePort // who had it before it was forgotten, and announces it still
	disputes
}

// heir is to whom the former holder of a station, which nobody holds now, has handed it
// over. It is his when he says so himself: else whoever likes could fill his share.
type heir struct {
	to    *RemotePort
	until time.Duration
}

func newWhereabouts() *whereabouts {
	return &whereabouts{
		by: make(map[*RemotePort]*ledger), announcers: make(map[station][]*RemotePort),
		partly: make(map[station]struct{}), titles: make(map[station]*RemotePort), heirs: make(map[station]heir), former: make(map[station]*RemotePort), disputes: newDisputes(),
	}
}

// told reports whether notices hold that the records do not know yet. It needs mu.
func (w *whereabouts) told() bool {
	for _, l := range w.by {
		if len(l.told) > 0 {
			return true
		}
	}
	return false
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
	if r.at.Load() == nil { // forgetRemote has been there: nobody would forget this
		return
	}
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
	l := s.where.by[r]
	if l == nil {
		return
	}
	defer s.poke()
	for k := range l.stations() {
		s.settle(k, r, now)
	}
	s.retry(now)
	if away {
		s.seek(r, l, now)
	}
}

// seek asks on our side for the stations of a remote that is out of reach, if it forwarded for
// our LAN: they may be here, and silent. It needs where.mu.
func (s *Switch) seek(r *RemotePort, l *ledger, now time.Duration) {
	at, v := r.at.Load(), s.view.Load()
	if at == nil || v.shut || v.own.segment == (Segment{}) || at.segment != v.own.segment || l.sought != 0 && now-l.sought < seekEvery {
		return
	}
	l.sought = max(now, 1)
	left := maxDisputes
	for k := range l.stations() {
		if s.hosts.find(k, now).at != &r.origin || !v.own.mayUse(k.vlan()) {
			continue
		}
		ips, _ := s.heard.of(k, &r.origin, now)
		for _, ip := range ips {
			if left--; left < 0 {
				return
			}
			s.question(k, &s.local, ip)
		}
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
	if r.at.Load() == nil { // as above
		return
	}
	l := s.where.of(r)
	if !l.rate.take(now) {
		return
	}
	defer s.poke()
	switch n.Step {
	case StepHere, StepGone:
		s.hearWhere(r, to, n, now)
	case StepClaim, StepClaimAddress:
		if l.claims.take(now) { // one at a time: each has an answer of its own
			s.claimed(r, n.Step == StepClaimAddress, n.Bindings[0], now)
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
			s.where.bequeath(k, to, now)
		}
		s.settle(k, r, now)
	}
	s.retrySoon(now)
}

// bequeath keeps a station from others until to says that he has it. It needs mu.
func (w *whereabouts) bequeath(k station, to *RemotePort, now time.Duration) {
	if len(w.heirs) < maxDisputes {
		w.heirs[k] = heir{to, now + heirFor}
	}
}

// handOver has a station, which nobody holds now, behind a remote that has claimed it, or
// forwards for its LAN, whoever else would like to have it. It needs where.mu.
func (s *Switch) handOver(to *RemotePort, b Binding, now time.Duration) {
	if _, _, ok := s.may(s.view.Load(), to, b); ok && s.note(to, b, false, 0, now) { // until it says so itself
		s.hosts.bind(b.station(), &to.origin, b.Seq, now)
		s.settle(b.station(), to, now)
	}
}

// forgetRemote drops what a remote has announced.
func (s *Switch) forgetRemote(r *RemotePort) {
	now := s.now()
	s.where.mu.Lock()
	defer s.where.mu.Unlock()
	s.where.forget(r)
	for k, f := range s.where.former {
		if f == r {
			delete(s.where.former, k)
		}
	}
	for k, h := range s.where.heirs {
		if h.to == r {
			delete(s.where.heirs, k)
			s.settle(k, nil, now)
		}
	}
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
	for k := range l.stations() {
		s.settle(k, r, now)
	}
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
		if l.anew != 0 && now >= l.anew {
			l.anew, l.lan = 0, ""
			for k := range l.stations() {
				if at := s.hosts.lookup(k, now); at == nil || at == &r.origin {
					s.settle(k, r, now)
				}
			}
		}
	}
	for k, h := range s.where.heirs {
		if now >= h.until {
			delete(s.where.heirs, k)
			s.settle(k, nil, now)
		}
	}
	s.retrySoon(now)
}
