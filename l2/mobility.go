package l2

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// How a station, or an IP address, moves between members (docs/adr/0014):
//
//	claimant                         holder                        others
//	   |  a frame of the station        |                             |
//	   |--- claim, number n+1 --------->|  asks its side for the      |
//	   |                                |  station at 0, 100, 200 ms  |
//	   |                                |-- gone, to: claimant ------>|
//	   |<-- yield ----------------------|  after 300 ms of silence    |
//	   |--- here, number n+1 ---------------------------------------->|
//	   |    the frame                   |                             |
//	   |<-- keep -----------------------|  or at once when it answers: an alarm
//
// Both also say on their own sides that they are there: where the holder hears the
// claimant, the two sides are one LAN, and the station has not moved. Not every station has an
// address that it can be asked for.
const (
	trialFor   = 300 * time.Millisecond
	trialEvery = 100 * time.Millisecond // between questions
	claimEvery = 400 * time.Millisecond // between repetitions of a claim
	claimTries = 3
	claimPause = 5 * time.Second // after a claim has failed
	keepFor    = 5 * time.Second // a holder that has kept a station says so again without asking it

	// A station that has moved flapMoves times within flapTime stays where it is for as
	// long (RFC 7432, 15.1).
	flapMoves = 5
	flapTime  = 180 * time.Second

	maxDisputes = 256 // of each kind
	maxKept     = 256 // bytes of the frame that waits for the end of a claim
	alarmFor    = 10 * time.Minute

	advanceEvery = time.Second
)

// subject is what is disputed: a station, or an IP address in its VLAN.
type subject struct {
	station station    // of an address: no MAC
	ip      netip.Addr // zero: the station
}

func addressIn(vlan uint16, ip netip.Addr) subject { return subject{stationOf(vlan, MAC{}), ip} }

// trial is the holder's side of a claim: it asks on its own side.
type trial struct {
	by     *RemotePort
	claim  Binding
	holder station
	at     *origin
	asked  bool // by a claim; otherwise by a record that says the same
	stays  bool // silence changes nothing: who claims it may not
	began  time.Duration
	next   time.Duration
}

// disputes are the claims that are under way, and what remains of former ones.
type disputes struct {
	trials     map[subject]*trial
	suits      map[subject]*suit
	kept       map[refusal]time.Duration
	moves      map[station][]time.Duration
	alarms     map[alarmKey]time.Duration
	joined     map[joint]time.Duration
	lastJoined atomic.Int64 // when the last of them was
	again      []replay
	aged       time.Duration
}

// refusal is who was told to leave what alone.
type refusal struct {
	what subject
	by   *RemotePort
}

// joint is where our side and that of a remote are one LAN.
type joint struct {
	with *RemotePort
	vlan uint16
}

type alarmKey struct {
	kind AlarmKind
	what subject
	mac  MAC
	port string
}

// replay is a frame to be sent once more.
type replay struct {
	from  *origin
	frame Frame
	at    time.Duration
	echo  bool // it may have come round
}

func newDisputes() disputes {
	return disputes{
		trials: make(map[subject]*trial), suits: make(map[subject]*suit), kept: make(map[refusal]time.Duration),
		moves: make(map[station][]time.Duration), alarms: make(map[alarmKey]time.Duration), joined: make(map[joint]time.Duration),
	}
}

// moved counts a move between members.
func (d *disputes) moved(k station, now time.Duration) {
	list := slices.DeleteFunc(d.moves[k], func(at time.Duration) bool { return now-at >= flapTime })
	if len(d.moves) < maxDisputes || list != nil {
		d.moves[k] = append(list, now)
	}
}

// flaps says whether a station has moved too often to move again.
func (d *disputes) flaps(k station, now time.Duration) bool {
	list := d.moves[k]
	return len(list) >= flapMoves && now-list[len(list)-flapMoves] < flapTime
}

func (d *disputes) alarm(kind AlarmKind, what subject, mac MAC, port string, now time.Duration) {
	key := alarmKey{kind, what, mac, port}
	if _, known := d.alarms[key]; known || len(d.alarms) < maxDisputes {
		d.alarms[key] = now
	}
}

// forget drops what concerns a remote that is gone.
func (d *disputes) forget(r *RemotePort) {
	for what, t := range d.trials {
		if t.by == r {
			delete(d.trials, what)
		}
	}
	for what, u := range d.suits {
		if u.against == r {
			delete(d.suits, what)
		}
	}
	for key := range d.kept {
		if key.by == r {
			delete(d.kept, key)
		}
	}
	for key := range d.joined {
		if key.with == r {
			delete(d.joined, key)
		}
	}
}

// joins notes that a remote's voice was heard on our side.
func (w *whereabouts) joins(r *RemotePort, vlan uint16, now time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.joined) >= maxDisputes {
		clear(w.joined)
	}
	w.joined[joint{r, vlan}] = now
	w.lastJoined.Store(int64(max(now, 1)))
}

// loop says whether our side and that of r are one LAN in a VLAN: a station that is heard
// on both has not moved.
func (d *disputes) loop(r *RemotePort, vlan uint16, now time.Duration) bool {
	at, heard := d.joined[joint{r, vlan}]
	return heard && now-at < loopHold
}

// dispute raises an alarm about a claim, or about the loop that has brought it about, unless
// statements on the LAN, which are untagged, will end that. It needs where.mu.
func (s *Switch) dispute(kind AlarmKind, what subject, mac MAC, with *RemotePort, now time.Duration) {
	if vlan := what.station.vlan(); !what.ip.IsValid() && s.where.loop(with, vlan, now) {
		if s.cfg.LAN != nil && vlan == 0 {
			return
		}
		kind, what, mac = AlarmLoop, subject{station: stationOf(vlan, MAC{})}, MAC{}
	}
	s.where.alarm(kind, what, mac, with.name, now)
}

// Alarms are those of the last minutes, in order.
func (s *Switch) Alarms() []Alarm {
	now := s.now()
	s.where.mu.Lock()
	defer s.where.mu.Unlock()
	var list []Alarm
	for key, at := range s.where.alarms {
		if now-at < alarmFor {
			list = append(list, Alarm{
				Kind: key.kind, VLAN: key.what.station.vlan(), MAC: key.mac, IP: key.what.ip, Port: key.port, Age: now - at,
			})
		}
	}
	slices.SortFunc(list, func(a, b Alarm) int { return slices.Compare(a.MAC[:], b.MAC[:]) })
	return list
}

// claimed takes a claim of r to a station on our side, or to the first address of its
// binding. It needs where.mu.
func (s *Switch) claimed(r *RemotePort, address bool, b Binding, now time.Duration) {
	v := s.view.Load()
	if _, _, ok := s.may(v, r, b); !ok {
		return
	}
	if address {
		s.claimedAddress(v, r, b, now)
		return
	}
	here := s.hosts.find(b.station(), now)
	if here.at == nil || here.at.remote != nil {
		s.say(r, StepYield, b) // it is not here: nobody of us stands in the way
		return
	}
	s.try(subject{station: b.station()}, b.station(), here.at, r, b, true, now)
}

func (s *Switch) claimedAddress(v *view, r *RemotePort, b Binding, now time.Duration) {
	if len(b.IPs) == 0 || v.addrs.of(b.IPs[0]) != nil { // a member's own: it never moves
		return
	}
	b.IPs = b.IPs[:1]
	has := s.heard.holder(b.VLAN, b.IPs[0], now)
	if has.at == nil || has.at.remote != nil {
		s.say(r, StepYieldAddress, b)
		return
	}
	s.try(addressIn(b.VLAN, b.IPs[0]), has.station, has.at, r, b, true, now)
}

// settleOurs looks at what others announce of a station on our side. It needs where.mu.
func (s *Switch) settleOurs(v *view, k station, here sighting, now time.Duration) {
	for _, r := range slices.Clone(s.where.announcers[k]) {
		b, _ := s.where.by[r].current(k)
		at, _, ok := s.may(v, r, b)
		if !ok || r.away.Load() || !r.speaks() || b.Seq < here.seq {
			continue
		}
		if b.Segment == at.segment && at.sharesLAN(&v.own) {
			continue // both hear it, until one of them stops forwarding
		}
		s.try(subject{station: k}, k, here.at, r, b, false, now)
	}
}

// settleOurAddresses looks at what others announce of addresses that hosts on our side
// have. It needs where.mu.
func (s *Switch) settleOurAddresses(k station, r *RemotePort, ips []netip.Addr, now time.Duration) {
	for _, ip := range ips {
		has := s.heard.holder(k.vlan(), ip, now)
		if has.at != nil && has.at.remote == nil && !r.away.Load() {
			b := Binding{VLAN: k.vlan(), MAC: k.mac(), IPs: []netip.Addr{ip}}
			s.try(addressIn(k.vlan(), ip), has.station, has.at, r, b, false, now)
		}
	}
}

// try begins to ask our side, or refuses at once. It needs where.mu.
func (s *Switch) try(what subject, holder station, at *origin, r *RemotePort, b Binding, asked bool, now time.Duration) {
	w := s.where
	if w.trials[what] != nil {
		return
	}
	to := r.at.Load()
	kept, answered := w.kept[refusal{what, r}]
	switch {
	case to == nil:
		return
	case !what.ip.IsValid() && !to.bridge && asked:
		// Hosts of others are for those to bring who may bridge.
	case !what.ip.IsValid() && w.flaps(holder, now):
		w.alarm(AlarmFlaps, what, holder.mac(), r.name, now)
	case answered && now-kept < keepFor, len(w.trials) >= maxDisputes:
		if !asked {
			return
		}
	default:
		w.trials[what] = &trial{
			by: r, claim: b, holder: holder, at: at, asked: asked, stays: !what.ip.IsValid() && !to.bridge, began: now, next: now,
		}
		s.hail(what, at)
		return
	}
	if !what.ip.IsValid() {
		w.alarm(AlarmClaimed, what, holder.mac(), r.name, now)
	}
	if asked {
		s.say(r, keepStep(what), b)
	}
}

func keepStep(what subject) Step {
	if what.ip.IsValid() {
		return StepKeepAddress
	}
	return StepKeep
}

// answers says whether what is tried has shown itself since. It needs where.mu.
func (s *Switch) answers(what subject, t *trial, now time.Duration) bool {
	if what.ip.IsValid() {
		has := s.heard.holder(what.station.vlan(), what.ip, now)
		return has.station == t.holder && has.at == t.at && has.seen > t.began
	}
	here := s.hosts.find(t.holder, now)
	return here.at != nil && here.at.remote == nil && (here.seen > t.began || s.where.loop(t.by, t.holder.vlan(), now))
}

// conclude ends the trials that are over and asks again in the others. It needs where.mu.
func (s *Switch) conclude(now time.Duration) {
	w := s.where
	for what, t := range w.trials {
		switch {
		case s.answers(what, t, now):
			delete(w.trials, what)
			w.keep(s, what, t, now)
		case now-t.began >= trialFor:
			delete(w.trials, what)
			if !t.stays {
				s.giveUp(what, t, now)
			}
		case now >= t.next:
			t.next = now + trialEvery
			s.ask(what, t, now)
		}
	}
	for key, at := range w.kept {
		if now-at >= keepFor {
			delete(w.kept, key)
		}
	}
}

// keep refuses a claim to what is here. It needs where.mu.
func (w *whereabouts) keep(s *Switch, what subject, t *trial, now time.Duration) {
	if len(w.kept) < maxDisputes {
		w.kept[refusal{what, t.by}] = now
	}
	s.dispute(AlarmClaimed, what, t.holder.mac(), t.by, now)
	if t.asked {
		s.say(t.by, keepStep(what), t.claim)
		return
	}
	if !what.ip.IsValid() && !w.flaps(t.holder, now) {
		w.moved(t.holder, now) // both say that they have it: that counts as a move
		s.hosts.raise(t.holder, t.claim.Seq+1)
	}
}

// giveUp lets the claimant have what has not answered. It needs where.mu.
func (s *Switch) giveUp(what subject, t *trial, now time.Duration) {
	w, v := s.where, s.view.Load()
	if what.ip.IsValid() {
		s.heard.let(t.holder, t.at, what.ip)
		if b, ok := s.describe(v, t.holder, now); ok {
			s.sayAll(Notice{Step: StepHere, Bindings: []Binding{b}}, nil)
		}
		s.say(t.by, StepYieldAddress, t.claim)
		return
	}
	if !s.hosts.drop(t.holder, t.at) {
		return
	}
	t.claim.IPs, t.claim.Router = s.heard.of(t.holder, t.at, now)
	s.heard.unbind(t.holder, t.at)
	w.moved(t.holder, now)
	s.handOver(t.by, t.claim, now)
	s.sayAll(Notice{Step: StepGone, To: t.by.name, Bindings: []Binding{t.claim}}, t.by)
	s.say(t.by, StepYield, t.claim)
}
