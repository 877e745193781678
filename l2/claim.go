package l2

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// The claimant's side of a move (mobility.go).

// suit is the claimant's side.
type suit struct {
	against *RemotePort
	origin  *origin
	station station
	seq     uint32
	frame   []byte // that brought it about, to be sent again
	tries   int
	unsent  atomic.Int32 // of these
	next    time.Duration
	until   time.Duration // no new claim before; 0: it is under way
}

// sue claims a station that another member has, after a frame of it has come from our
// side.
func (s *Switch) sue(v *view, h Header, frame []byte, o *origin, now time.Duration) {
	k := stationOf(h.VLAN, h.Src)
	has := s.hosts.find(k, now)
	if !v.own.bridge || has.at == nil || has.at.remote == nil {
		return
	}
	s.bring(subject{station: k}, &suit{against: has.at.remote, origin: o, station: k, seq: has.seq + 1}, frame, now)
}

// sueAddress claims an address that a station elsewhere has for one on our side.
func (s *Switch) sueAddress(v *view, k station, ip netip.Addr, frame []byte, o *origin, now time.Duration) {
	has := s.heard.holder(k.vlan(), ip, now)
	if o.remote != nil || has.at == nil || has.at.remote == nil || v.addrs.of(ip) != nil {
		return
	}
	s.bring(addressIn(k.vlan(), ip), &suit{against: has.at.remote, origin: o, station: k}, frame, now)
}

// bring begins a claim, unless there is one.
func (s *Switch) bring(what subject, u *suit, frame []byte, now time.Duration) {
	if len(frame) <= maxKept {
		u.frame = slices.Clone(frame)
	}
	w := s.where
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.suits[what]; old != nil && (old.until == 0 || now < old.until && !old.against.away.Load()) {
		if u.frame != nil {
			old.frame = u.frame
		}
		return
	} else if len(w.suits) >= maxDisputes {
		return
	}
	u.next = now
	w.suits[what] = u
	s.poke()
}

// pursue repeats the claims that wait for an answer. It needs where.mu.
func (s *Switch) pursue(now time.Duration) {
	for what, u := range s.where.suits {
		switch {
		case u.until != 0 && now >= u.until:
			delete(s.where.suits, what)
		case u.until == 0 && u.against.away.Load():
			s.win(what, u, now)
		case u.until != 0 || now < u.next:
		case u.tries >= claimTries && int(u.unsent.Load()) >= u.tries: // nobody is there to be asked
			s.win(what, u, now)
		case u.tries >= claimTries:
			u.until = now + claimPause
		default:
			u.tries++
			u.next = now + claimEvery
			b := Binding{VLAN: u.station.vlan(), MAC: u.station.mac(), Seq: u.seq}
			step := StepClaim
			if what.ip.IsValid() {
				step, b.IPs = StepClaimAddress, []netip.Addr{what.ip}
			}
			s.hail(what, u.origin)
			s.claim(u, Notice{Step: step, Stamp: s.stamp(), Bindings: []Binding{b}})
		}
	}
}

// claim sends a claim once where.mu is free. It needs where.mu.
func (s *Switch) claim(u *suit, n Notice) {
	s.out = append(s.out, func() {
		if at := u.against.at.Load(); at == nil || !at.announce(n) {
			u.unsent.Add(1)
		}
	})
}

// answered takes the answer to a claim of ours. It needs where.mu.
func (s *Switch) answered(r *RemotePort, step Step, b Binding, now time.Duration) {
	what := subject{station: b.station()}
	if step == StepYieldAddress || step == StepKeepAddress {
		if len(b.IPs) != 1 {
			return
		}
		what = addressIn(b.VLAN, b.IPs[0])
	}
	u := s.where.suits[what]
	if u == nil || u.against != r || u.until != 0 || u.tries == 0 {
		return
	}
	if step == StepKeep || step == StepKeepAddress {
		u.until = now + claimPause
		s.dispute(AlarmElsewhere, what, u.station.mac(), r, now)
		return
	}
	s.win(what, u, now)
}

// win puts what was claimed on our side. It needs where.mu.
func (s *Switch) win(what subject, u *suit, now time.Duration) {
	w, v := s.where, s.view.Load()
	delete(w.suits, what)
	if what.ip.IsValid() {
		if has := s.heard.holder(u.station.vlan(), what.ip, now); has.at != nil && has.at.remote == u.against {
			s.heard.let(has.station, has.at, what.ip)
		}
		s.heard.claim(u.station, u.origin, what.ip, now, liveness{s, v, now})
	} else {
		ips, _ := s.heard.of(u.station, &u.against.origin, now)
		s.heard.unbind(u.station, &u.against.origin)
		if !s.hosts.take(u.station, u.origin, u.seq, now) {
			return
		}
		for _, ip := range ips {
			s.heard.claim(u.station, u.origin, ip, now, liveness{s, v, now})
		}
		if at := u.against.at.Load(); at == nil || !at.sharesLAN(&v.own) {
			w.moved(u.station, now)
		}
	}
	if b, ok := s.describe(v, u.station, now); ok {
		s.sayAll(Notice{Step: StepHere, Bindings: []Binding{b}}, nil)
	}
	if u.frame == nil {
		return
	}
	w.again = append(w.again, replay{from: u.origin, frame: Frame{Data: u.frame}, at: now})
	if what.ip.IsValid() { // hosts must hear of it: what the former holder has told others may come late
		w.again = append(w.again, replay{from: u.origin, frame: Frame{Data: u.frame}, at: now + time.Second})
	}
}
