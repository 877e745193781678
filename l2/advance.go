package l2

import (
	"net/netip"
	"time"
)

// A station on our side that is silent is asked whether it is there when this much of
// Config.Age is over, and again; then it is forgotten, and others are told.
const (
	askAt     = 0.7
	askAgain  = 20 * time.Second
	ageingDue = 5 * time.Second // how often they are looked at
)

// Attention yields when Advance should be called before its time.
func (s *Switch) Attention() <-chan struct{} { return s.attention }

// poke asks for Advance.
func (s *Switch) poke() {
	select {
	case s.attention <- struct{}{}:
	default:
	}
}

// Advance does what is due about the stations: it asks hosts, answers and repeats
// claims, and forgets. It returns when it wants to be called again. One goroutine calls it.
func (s *Switch) Advance() time.Duration {
	now := s.now()
	s.recent.forget(now)
	w := s.where
	w.mu.Lock()
	s.conclude(now)
	s.pursue(now)
	s.expire(now)
	if now-w.aged >= ageingDue {
		w.aged = now
		s.age(now)
		w.tidy(now)
	}
	out, again := s.out, w.due(now)
	s.out = nil
	next := ageingDue
	if len(w.partly) > 0 || w.told() {
		next = advanceEvery
	}
	if len(w.trials) > 0 || len(w.again) > 0 {
		next = trialEvery / 2
	} else if len(w.suits) > 0 {
		next = claimEvery / 2
	}
	if w.retry {
		next = min(next, retryEvery)
	}
	w.mu.Unlock()
	for _, do := range out {
		do()
	}
	for _, r := range again {
		s.replay(r)
	}
	return next
}

// due takes the frames that are to be sent now. It needs mu.
func (d *disputes) due(now time.Duration) (list []replay) {
	var rest []replay
	for _, r := range d.again {
		if r.at <= now {
			list = append(list, r)
		} else {
			rest = append(rest, r)
		}
	}
	d.again = rest
	return list
}

// tidy drops what is old. It needs mu.
func (d *disputes) tidy(now time.Duration) {
	for k, list := range d.moves {
		if now-list[len(list)-1] >= flapTime {
			delete(d.moves, k)
		}
	}
	for key, at := range d.joined {
		if now-at >= loopHold {
			delete(d.joined, key)
		}
	}
	for key, at := range d.alarms {
		if now-at >= alarmFor {
			delete(d.alarms, key)
		}
	}
}

// age asks the stations on our side that have been silent, and forgets those that stay
// so. It needs where.mu.
func (s *Switch) age(now time.Duration) {
	type silent struct {
		k  station
		at *origin
	}
	var ask, gone []silent
	s.hosts.ours(now, func(k station, p sighting, age time.Duration) {
		switch {
		case age >= s.cfg.Age:
			gone = append(gone, silent{k, p.at})
		case float64(age) >= askAt*float64(s.cfg.Age):
			ask = append(ask, silent{k, p.at})
		}
	})
	for _, q := range gone {
		if s.hosts.dropSilent(q.k, q.at, now) {
			s.heard.unbind(q.k, q.at)
			s.tellGone(q.k, now)
		}
	}
	if now-s.asked < askAgain {
		return
	}
	s.asked = now
	for _, q := range ask {
		ips, _ := s.heard.of(q.k, q.at, now)
		for _, ip := range ips {
			s.question(q.k, q.at, ip)
		}
	}
}

// tellGone tells everybody that a station is no longer here. It needs where.mu.
func (s *Switch) tellGone(k station, now time.Duration) {
	s.sayAll(Notice{Step: StepGone, Bindings: []Binding{{VLAN: k.vlan(), MAC: k.mac()}}}, nil)
	s.settle(k, nil, now) // another may have announced it
}

// say has a notice sent once where.mu is free.
func (s *Switch) say(r *RemotePort, step Step, b Binding) {
	n := Notice{Step: step, Stamp: s.stamp(), Bindings: []Binding{b}}
	s.out = append(s.out, func() {
		if at := r.at.Load(); at != nil {
			at.announce(n)
		}
	})
	s.poke()
}

// sayAll has a notice sent to all remotes but one once where.mu is free.
func (s *Switch) sayAll(n Notice, but *RemotePort) {
	n.Stamp = s.stamp()
	s.out = append(s.out, func() {
		for _, r := range s.view.Load().ports {
			if at := r.at.Load(); at != nil && r != but {
				at.announce(n)
			}
		}
	})
	s.poke()
}

// ask asks on our side for what is tried. It needs where.mu.
func (s *Switch) ask(what subject, t *trial, now time.Duration) {
	if what.ip.IsValid() {
		s.question(t.holder, t.at, what.ip)
		return
	}
	ips, _ := s.heard.of(t.holder, t.at, now)
	for _, ip := range ips {
		s.question(t.holder, t.at, ip)
	}
}

// question has a host on our side asked whether it has an address. It needs where.mu.
func (s *Switch) question(k station, at *origin, ip netip.Addr) {
	s.put(at, askFor(k, s.view.Load().own.mac.probe(), ip))
}

// hail says on our side, in the VLAN of a station, that this member is there. It needs
// where.mu.
func (s *Switch) hail(what subject, at *origin) {
	if !what.ip.IsValid() {
		s.put(at, announcement(stationOf(what.station.vlan(), s.view.Load().own.mac.onLAN())))
	}
}

// put sends a frame to a local origin once where.mu is free.
func (s *Switch) put(at *origin, frame []byte) {
	dev := s.cfg.Device
	if at.plug != nil {
		dev = at.plug.dev
	}
	if dev == nil {
		return
	}
	s.out = append(s.out, func() { _ = dev.Write([]Frame{{Data: frame}}) }) // a host that does not take it does not answer
}

// replay sends a frame of a local origin once more.
func (s *Switch) replay(r replay) {
	p := &pump{sw: s, from: r.from, index: s.queues, replays: true}
	if r.echo {
		p.release(r)
		return
	}
	s.viaPlugs(p, []Frame{r.frame})
}

// forgetPlug drops the stations behind a plug that is gone, and tells everybody: a
// virtual machine that goes on elsewhere is not to be waited for.
func (s *Switch) forgetPlug(at *origin) {
	s.where.mu.Lock()
	defer s.where.mu.Unlock()
	now := s.now()
	var gone []station
	s.hosts.ours(now, func(k station, p sighting, _ time.Duration) {
		if p.at == at {
			gone = append(gone, k)
		}
	})
	s.heard.forget(func(_ station, o *origin) bool { return o == at })
	for _, k := range gone {
		if s.hosts.drop(k, at) {
			s.tellGone(k, now)
		}
	}
}
