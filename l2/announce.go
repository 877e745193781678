package l2

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// recentFor is how long what is new on our side is told ahead of frames: by then
// gossip has brought it to everybody.
const recentFor = 10 * time.Second

// maxRecent bounds what is told ahead of frames; the rest travels by gossip alone.
const maxRecent = 1024

// recents are the stations on our side of which something has changed lately. Before a
// frame of one goes to a remote, the remote is told where the station is. Nothing else
// on a frame's way looks at it while nothing changes.
type recents struct {
	some atomic.Bool

	mu   sync.Mutex
	list map[station]*recent
	news chan struct{} // holds one while somebody has to look
}

type recent struct {
	until time.Duration // zero: from the next look on
	told  map[*RemotePort]struct{}
}

func newRecents() *recents {
	return &recents{list: make(map[station]*recent), news: make(chan struct{}, 1)}
}

// signal says that something has changed.
func (r *recents) signal() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// add notes a change.
func (r *recents) add(k station) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signal()
	if r.list[k] == nil && len(r.list) >= maxRecent {
		return
	}
	r.list[k] = &recent{told: make(map[*RemotePort]struct{})}
	r.some.Store(true)
}

// tell returns those of targets that have to be told of k, and counts them as told.
func (r *recents) tell(k station, targets []target) (untold []target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.list[k]
	if e == nil {
		return nil
	}
	for _, t := range targets {
		if _, takes := t.at.lanes[0].(Announcer); !takes {
			continue
		}
		if _, told := e.told[t.remote]; !told {
			e.told[t.remote] = struct{}{}
			untold = append(untold, t)
		}
	}
	return untold
}

// missed takes back what tell has counted.
func (r *recents) missed(k station, remote *RemotePort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.list[k]; e != nil {
		delete(e.told, remote)
	}
}

// all are the stations that a remote has not been told of.
func (r *recents) all(remote *RemotePort) (list []station) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, e := range r.list {
		if _, told := e.told[remote]; !told {
			e.told[remote] = struct{}{}
			list = append(list, k)
		}
	}
	slices.Sort(list)
	return list
}

// forget drops what has been recent for long enough.
func (r *recents) forget(now time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, e := range r.list {
		switch {
		case e.until == 0:
			e.until = now + recentFor
		case now >= e.until:
			delete(r.list, k)
		}
	}
	r.some.Store(len(r.list) > 0)
}

// Changed yields when what Local returns may have changed.
func (s *Switch) Changed() <-chan struct{} { return s.recent.news }

// Reconsider has Changed yield, since others know something else than Local returns.
func (s *Switch) Reconsider() { s.recent.signal() }

// Local returns the stations on our side, and what IP addresses this node's own one
// has besides those of Allow, in order of VLAN and MAC.
func (s *Switch) Local() []Binding {
	now, v := s.now(), s.view.Load()
	var list []Binding
	s.hosts.ours(now, func(k station, p sighting, age time.Duration) {
		if age < s.cfg.Age {
			list = append(list, Binding{VLAN: k.vlan(), MAC: k.mac(), Seq: p.seq, Segment: v.own.segment})
		}
	})
	for i := range list {
		b := &list[i]
		b.IPs, b.Router = s.hasLocally(v, b.station(), now)
	}
	for _, k := range s.heard.under(v.own.mac) {
		if ips, router := s.hasLocally(v, k, now); len(ips) > 0 || router {
			list = append(list, Binding{VLAN: k.vlan(), MAC: k.mac(), Router: router, IPs: ips})
		}
	}
	slices.SortFunc(list, func(a, b Binding) int { return compareStations(a.station(), b.station()) })
	return list
}

func compareStations(a, b station) int {
	if a.vlan() != b.vlan() {
		return int(a.vlan()) - int(b.vlan())
	}
	am, bm := a.mac(), b.mac()
	return slices.Compare(am[:], bm[:])
}

// hasLocally are the addresses of a station on our side, without those that our
// certificate gives us.
func (s *Switch) hasLocally(v *view, k station, now time.Duration) ([]netip.Addr, bool) {
	at := &s.local
	if k.mac() != v.own.mac {
		at = s.hosts.find(k, now).at
	}
	if at == nil || at.remote != nil {
		return nil, false
	}
	ips, router := s.heard.of(k, at, now)
	return slices.DeleteFunc(ips, func(ip netip.Addr) bool { return v.addrs.of(ip) != nil }), router
}

// describe is the binding of a station on our side; false: it is not there.
func (s *Switch) describe(v *view, k station, now time.Duration) (Binding, bool) {
	b := Binding{VLAN: k.vlan(), MAC: k.mac(), Segment: v.own.segment}
	if b.MAC == v.own.mac {
		b.Segment = Segment{}
	} else {
		p := s.hosts.find(k, now)
		if p.at == nil || p.at.remote != nil {
			return b, false
		}
		b.Seq = p.seq
	}
	b.IPs, b.Router = s.hasLocally(v, k, now)
	return b, true
}

// ahead tells the remotes that the frame in hand goes to where its source is, unless
// they have been told.
func (s *Switch) ahead(v *view, targets []target, h *Header, now time.Duration) {
	k := stationOf(h.VLAN, h.Src)
	untold := s.recent.tell(k, targets)
	if len(untold) == 0 {
		return
	}
	b, ok := s.describe(v, k, now)
	if !ok {
		return
	}
	n := Notice{Step: StepHere, Stamp: s.stamp(), Bindings: []Binding{b}}
	for _, t := range untold {
		if !t.at.announce(n) {
			s.recent.missed(k, t.remote)
		}
	}
}

// MaxInNotice is how many bindings go in one notice, so that it fits a datagram of 1,100
// bytes whatever they have.
const MaxInNotice = 6

// Greet tells a remote with which a session has begun what is new on our side.
func (s *Switch) Greet(name string) {
	s.mu.Lock()
	r := s.remotes[name]
	s.mu.Unlock()
	if r == nil {
		return
	}
	at := r.at.Load()
	if at == nil {
		return
	}
	now, v := s.now(), s.view.Load()
	var list []Binding
	for _, k := range s.recent.all(r) {
		if b, ok := s.describe(v, k, now); ok {
			list = append(list, b)
		}
	}
	for part := range slices.Chunk(list, MaxInNotice) {
		at.announce(Notice{Step: StepHere, Stamp: s.stamp(), Bindings: part})
	}
}

// announce gives a notice to whom the port leads to.
func (a *attachment) announce(n Notice) bool {
	to, ok := a.lanes[0].(Announcer)
	return ok && to.Announce(n)
}

// stamp numbers notices: those of a later start are above, as long as Config.Epoch grows.
func (s *Switch) stamp() uint64 { return uint64(s.cfg.Epoch)<<32 | uint64(s.stamps.Add(1)) }

// SetAddresses says which IP addresses this node's own interface has besides those of
// Allow: a host that never speaks first is found by them.
func (s *Switch) SetAddresses(ips []netip.Addr) {
	now, v := s.now(), s.view.Load()
	k := stationOf(0, v.own.mac)
	before, _ := s.heard.of(k, &s.local, now)
	for _, ip := range before {
		if !slices.Contains(ips, ip) {
			s.heard.let(k, &s.local, ip)
		}
	}
	for _, ip := range ips[:min(len(ips), MaxBindingIPs)] {
		if ip = usable(ip); ip.IsValid() && v.addrs.of(ip) == nil {
			if !s.heard.claim(k, &s.local, ip, now, liveness{s, v, now}) {
				s.sueAddress(v, k, ip, nil, &s.local, now)
			}
		}
	}
}
