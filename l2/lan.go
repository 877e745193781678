package l2

import (
	"sync/atomic"
	"time"

	"meshd/l2/lanport"
)

// What a switch does for a member that bridges a physical LAN (package lanport).

// LANSide hears what concerns the LAN behind the device. Its methods are called on the
// way of frames: they must not wait, and frames are borrowed.
type LANSide interface {
	// Heard is given the frames that came in to the members on a LAN.
	Heard(frame []byte)
	// Suspect says that a frame came in whose source belongs on the overlay.
	Suspect()
}

// lanGroup is where members on a LAN speak to each other: a group address of our own
// making, which switches flood and no host listens to. Such frames never cross the
// overlay.
var lanGroup = MAC{0x03, 'm', 'e', 's', 'h', 'd'}

// EtherTypeLAN is that of statements: the second of the two for local experiments
// (IEEE 802, 9.2.3).
const EtherTypeLAN = 0x88b6

// onLAN is the source of what a member says on its LAN, and the other way round.
func (m MAC) onLAN() MAC {
	m[0] ^= 0x04
	return m
}

// LANFrame wraps a statement in a frame from a source of its own: the node's MAC is the
// bridge's, and bridges warn of frames that come in from themselves.
func LANFrame(b []byte, own MAC, statement []byte) []byte {
	own = own.onLAN()
	b = append(append(append(b, lanGroup[:]...), own[:]...), EtherTypeLAN>>8, EtherTypeLAN&0xff)
	return append(b, statement...)
}

// LANPayload is what a frame to the members on a LAN carries, nil if it is no statement:
// those begin with another byte than 0.
func LANPayload(frame []byte) []byte {
	h, ok := ParseHeader(frame)
	if !ok || h.EtherType != EtherTypeLAN || h.Dst != lanGroup || len(frame) == h.Payload || frame[h.Payload] == 0 || len(frame) > headerLen+lanport.MaxLen+64+tagLen {
		return nil
	}
	return frame[h.Payload:]
}

// Say sends a frame out of the device, towards the LAN alone.
func (s *Switch) Say(frame []byte) error {
	if s.cfg.Device == nil {
		return nil
	}
	return s.cfg.Device.Write([]Frame{{Data: frame}})
}

// onLink hands on what members on the LAN say.
func (s *Switch) onLink(v *view, h Header, frame []byte, from *origin, now time.Duration) {
	if h.Dst != lanGroup {
		return
	}
	if at := v.owner.of(h.Src.onLAN()); at != nil && at.remote.has(h.Src.onLAN()) {
		s.where.joins(at.remote, h.VLAN, now)
	}
	if s.cfg.LAN != nil && from == &s.local {
		s.cfg.LAN.Heard(frame)
	}
}

// suspect says that a frame from the device was refused for its source.
func (s *Switch) suspect(why reason, from *origin) {
	if s.cfg.LAN != nil && from == &s.local && (why == sourceMAC || why == sourceMoved) {
		s.cfg.LAN.Suspect()
	}
}

// Shut closes the way between this host, device and plugs, and all remotes, or opens it.
// What was learned from the device is forgotten: behind a shut port another speaks for
// the LAN.
func (s *Switch) Shut(shut bool) {
	s.mu.Lock()
	v := *s.view.Load()
	if v.shut == shut {
		s.mu.Unlock()
		return
	}
	v.shut = shut
	s.view.Store(&v)
	if shut {
		s.relearn(&s.local)
	}
	s.mu.Unlock()
}

// Forwards tells the LAN that we forward for it: its switches hear what is behind us now,
// its hosts are asked for their groups, since nothing of what was said there has been heard.
func (s *Switch) Forwards() {
	s.announce(s.view.Load())
	s.AskGroups()
}

// maxAnnounced bounds the frames of one announcement.
const maxAnnounced = 4096

// announce tells the switches of the LAN that the stations of the overlay are behind this
// port now: frames for them would go to another for as long as they remember.
func (s *Switch) announce(v *view) {
	if s.cfg.LAN == nil || s.cfg.Device == nil {
		return
	}
	var frames []Frame
	add := func(k station) {
		if len(frames) < maxAnnounced {
			frames = append(frames, Frame{Data: announcement(k)})
		}
	}
	for mac, at := range v.owner.all() {
		if at.remote != nil {
			add(stationOf(0, mac))
		}
	}
	s.hosts.each(s.now(), func(k station, at *origin, _ bool, _ time.Duration) {
		if at.remote != nil && !at.remote.beside.Load() {
			add(k)
		}
	})
	for len(frames) > 0 {
		n := min(len(frames), readFrames)
		if s.cfg.Device.Write(frames[:n]) != nil {
			return // it is down: there is nobody to tell
		}
		frames = frames[n:]
	}
}

// announcement is a frame of a station that says nothing but where that is.
func announcement(k station) []byte {
	mac := k.mac()
	b := append(append(make([]byte, 0, minFrame), lanGroup[:]...), mac[:]...)
	if vlan := k.vlan(); vlan != 0 {
		b = append(b, etherTypeVLAN>>8, etherTypeVLAN&0xff, byte(vlan>>8), byte(vlan))
	}
	b = append(b, EtherTypeLAN>>8, EtherTypeLAN&0xff)
	return b[:minFrame]
}

// forwardShut is forward in a shut switch: from device to plugs and back, without learning, since what
// comes from the LAN may have been on the overlay.
func (p *pump) forwardShut(v *view, f Frame) reason {
	if len(v.plugs) == 0 {
		return blocked
	}
	p.aimHere(v, nil)
	return p.emit(f)
}

// Beside says which remotes are on the LAN behind the device: nothing passes between
// them and us over the overlay.
func (s *Switch) Beside(names map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, r := range s.remotes {
		if r.beside.Swap(names[name]) != names[name] {
			s.echoes.met.Store(int64(max(s.now(), 1)))
			s.relearn(&r.origin)
		}
	}
}

// Here stands for this node in StandIn and MoveStations.
const Here = "."

// StandIn says by whose port a remote's own addresses are reached and used: by another
// remote's, when that forwards for the LAN that both are on; by our device (Here); or by
// its own, which it begins with. The stations that it has announced go along.
func (s *Switch) StandIn(of, by string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.remotes[of]
	if r == nil {
		return
	}
	place := s.placeOf(by)
	if place == nil || by == of {
		place = &r.origin
	}
	if r.place.Swap(place) == place {
		return
	}
	s.publish(s.view.Load().ports)
	if at := r.at.Load(); at != nil {
		s.forgetMAC(at.mac)
	}
	s.inherit(r)
}

// placeOf is the origin of that name, or nil. It needs mu.
func (s *Switch) placeOf(name string) *origin {
	if name == Here {
		return &s.local
	}
	if r := s.remotes[name]; r != nil {
		return &r.origin
	}
	return nil
}

// MoveStations says that the stations behind a remote are behind another now; behind
// Here, or nobody that is known, they are forgotten, and learned again.
func (s *Switch) MoveStations(from, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, place := s.placeOf(from), s.placeOf(to)
	if old == nil || old == place {
		return
	}
	if place != nil && place != &s.local && s.onOneLAN(s.view.Load(), old, place) {
		s.hosts.move(old, place)
	}
	s.relearn(old)
}

// onOneLAN says whether two places are on one LAN, as those who are there have agreed.
func (s *Switch) onOneLAN(v *view, a, b *origin) bool {
	of := func(o *origin) *rights {
		if o.remote == nil {
			return &v.own
		}
		if at := o.remote.at.Load(); at != nil {
			return &at.rights
		}
		return &rights{}
	}
	return a != b && of(a).sharesLAN(of(b))
}

// relearn forgets what is behind an origin, to be learned again: a part of its LAN may be
// another now. What has not been heard after relearnFor is where records say; a remote's
// stations stay out of the hands of strangers to its LAN meanwhile. It needs mu.
func (s *Switch) relearn(o *origin) {
	now, w := s.now(), s.where
	w.mu.Lock()
	defer w.mu.Unlock()
	if o.remote != nil {
		w.doubt(o.remote)
		w.resettle(o.remote, now)
	} else {
		for r := range w.by {
			w.resettle(r, now)
		}
	}
	s.hosts.forget(func(k station, at *origin) bool {
		if at == o && o.remote != nil {
			w.former[k] = o.remote
		}
		return at == o
	})
	s.heard.forget(func(_ station, at *origin) bool { return at == o })
}

// leaves has those who stood in by a remote that is gone stand for themselves. It needs mu.
func (s *Switch) leaves(gone *origin) {
	for _, r := range s.remotes {
		if r.place.CompareAndSwap(gone, &r.origin) {
			s.inherit(r)
		}
	}
}

// loopHold is how long BUM frames of a station do not come in from the overlay after it
// was heard on this host's own side, too.
const loopHold = time.Second

// contest notes that a station of a remote was heard on this host's own side: that, and
// the remote's, are one LAN, whoever knows of it, and a frame that went out there would
// come round. It is what ends a loop that statements cannot, since none are sent.
func (f *fdb) contest(e *entry, by *origin, now time.Duration) {
	if by.remote == nil && e.at.remote != nil {
		e.contested.Store(int64(max(now, 1)))
		f.contested.Store(int64(max(now, 1)))
	}
}

// contest is the same for a frame of a member, or of a virtual router, that came from by
// and belongs to o: members know their own frames in no other way, for they may come from
// their own sides at any time.
func (o *origin) contest(by *origin, now time.Duration) {
	if by.remote == nil && o.remote != nil {
		o.remote.contested.Store(int64(max(now, 1)))
	}
}

// briefHold is in place of loopHold where statements are made: the port shuts in a moment,
// when a cable has joined two forwarders.
const briefHold = 200 * time.Millisecond

// loops is that of a member's own frame. It needs mu.
func (r *RemotePort) loops(v *view, src MAC) bool {
	hold := loopHold
	if r.sw.cfg.LAN != nil {
		hold = briefHold
	}
	at := time.Duration(r.contested.Load())
	return at != 0 && r.now-at < hold && (v.owner.of(src) != nil || v.virtual(src) != nil)
}

// loops reports whether a BUM frame of a station would come round.
func (f *fdb) loops(k station, now time.Duration) bool {
	fresh := func(at *atomic.Int64) bool {
		t := time.Duration(at.Load())
		return t != 0 && now-t < loopHold
	}
	if !fresh(&f.contested) {
		return false
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	e := f.hosts[k]
	return e != nil && fresh(&e.contested)
}

// move makes the stations of one origin another's.
func (f *fdb) move(from, to *origin) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.hosts {
		if e.at == from {
			e.at, e.bound = to, false // until that announces it
			from.stations--
			to.stations++
		}
	}
}
