package l2

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"meshd/l2/offload"
)

// Switch is a learning switch between a device and remote members.
type Switch struct {
	cfg     Config
	start   time.Time
	view    atomic.Pointer[view]
	hosts   *fdb
	heard   *neighbors
	local   origin
	batches sync.Pool // of *offload.Merger, for the device
	whole   sync.Pool // likewise for plugs, without offloads
	queues  int       // of the device
	stations

	everyone *RemotePort // nil: each remote is sent what is for all

	fromDevice, fromRemotes flow
	warned                  atomic.Int64 // when warn last did, as a time.Duration since the start

	plugMu     sync.Mutex // held while a plug sends: they have one lane
	plugRound  uint64     // of what went by it; guarded by plugMu
	inner      *pump      // of Inject; it has that lane too
	bumMu      sync.Mutex
	bum        bucket // of what the device and the plugs send
	groupBytes bucket // likewise, to groups that somebody listens to
	observed   bucket // likewise, of what Observe is called with

	groups groups
	echoes echoes

	mu      sync.Mutex             // serialises changes of what follows and of view
	remotes map[string]*RemotePort // by name
	own     rights
}

// rights is Allow, ready for use.
type rights struct {
	mac   MAC
	limit int
	vlans *vlanSet // nil: all

	duties duty
	addrs  []netip.Addr

	bridge  bool // it may claim hosts of others
	silent  bool // there may be hosts behind it that nobody has heard, or it speaks for others
	segment Segment
	lan     string
}

// stations are the parts of a switch that know who is where (whereabouts.go).
type stations struct {
	where     *whereabouts
	recent    *recents
	attention chan struct{}
	stamps    atomic.Uint32
	out       []func()      // to be done once where.mu is free; guarded by it
	asked     time.Duration // when silent hosts were last asked; likewise
	sought    sought
	given     atomic.Uint64 // answers for hosts elsewhere
}

type vlanSet [vidMask + 1]bool

func rightsOf(a Allow) rights {
	r := rights{mac: a.MAC, limit: a.MaxMACs, addrs: slices.Clone(a.Addresses)}
	if a.MAC != (MAC{}) {
		r.addrs = append(r.addrs, linkLocal(a.MAC))
	}
	r.bridge, r.silent, r.segment, r.lan = a.Bridge, a.Bridge || a.Hosts || a.Router, a.Segment, a.LAN
	if a.Router {
		r.duties |= dutyRouter
	}
	if a.DHCP {
		r.duties |= dutyDHCP
	}
	switch {
	case r.limit <= 0 && a.Bridge:
		r.limit = BridgeMaxMACs
	case r.limit <= 0:
		r.limit = DefaultMaxMACs
	}
	r.limit = min(r.limit, BridgeMaxMACs)
	if a.VLANs != nil {
		r.vlans = new(vlanSet)
		r.vlans[0] = true
		for _, vid := range a.VLANs {
			r.vlans[vid&vidMask] = true
		}
	}
	return r
}

// sharesLAN says whether two members have agreed that they are on one LAN.
func (r *rights) sharesLAN(o *rights) bool { return r.lan != "" && r.lan == o.lan }

func (r *rights) mayUse(vlan uint16) bool { return r.vlans == nil || r.vlans[vlan&vidMask] }

// NewSwitch makes a switch without remotes.
func NewSwitch(cfg Config) *Switch {
	cfg.MTU = orDefault(cfg.MTU, DefaultMTU)
	cfg.Age = orDefault(cfg.Age, DefaultAge)
	cfg.StormRate = orDefault(cfg.StormRate, DefaultStormRate)
	cfg.StormBurst = orDefault(cfg.StormBurst, DefaultStormBurst)
	cfg.GroupRate = orDefault(cfg.GroupRate, DefaultGroupRate)
	cfg.SpreadAbove = orDefault(cfg.SpreadAbove, DefaultSpreadAbove)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Switch{
		cfg:     cfg,
		start:   cfg.Now(),
		queues:  queuesOf(cfg.Device),
		hosts:   newFDB(cfg.Age),
		heard:   newNeighbors(),
		remotes: make(map[string]*RemotePort),
	}
	s.bum, s.groupBytes, s.observed = s.bucket(), s.byteBucket(), observeBucket()
	s.groups.init(cfg.MAC, 0)
	s.everyone = s.newEveryone(cfg.Everyone)
	s.where, s.recent, s.attention = newWhereabouts(), newRecents(), make(chan struct{}, 1)
	s.hosts.local, s.heard.local = s.recent.add, s.recent.add
	s.hosts.ghost = func(mac MAC) bool { return s.view.Load().owner.of(mac.onLAN()) != nil } // it is a member's voice on the LAN, not a host there
	offloads := offload.None
	if cfg.Device != nil {
		offloads = cfg.Device.Offloads()
	}
	s.batches.New = func() any { return &offload.Merger{Features: offloads} }
	s.whole.New = func() any { return &offload.Merger{Features: offload.None} }
	s.echoes.init()
	s.local.share = new(share)
	s.SetOwn(Allow{MAC: cfg.MAC, Bridge: cfg.Bridge, MaxMACs: cfg.MaxMACs})
	return s
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// now is the time since the switch's start, by Config.Now.
func (s *Switch) now() time.Duration { return s.cfg.Now().Sub(s.start) }

// takeBUM asks whether the device may send another BUM frame.
func (s *Switch) takeBUM(now time.Duration) bool {
	s.bumMu.Lock()
	defer s.bumMu.Unlock()
	return s.bum.take(now)
}

// byteBucket holds what groups bring in 400 ms: a picture of a film comes in one piece.
func (s *Switch) byteBucket() bucket {
	return bucket{rate: int64(s.cfg.GroupRate), burst: max(int64(s.cfg.GroupRate)*2/5, offload.MaxSuper)}
}

func (s *Switch) bucket() bucket {
	return bucket{rate: int64(s.cfg.StormRate), burst: int64(s.cfg.StormBurst)}
}

// SetOwn replaces this node's own address and rights.
func (s *Switch) SetOwn(own Allow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.own.mac
	s.own = rightsOf(own)
	s.own.duties |= dutySpeakToRouters
	s.local.limit.Store(int32(s.own.limit))
	var ports []*RemotePort
	if v := s.view.Load(); v != nil {
		ports = v.ports
	}
	s.publish(ports)
	if s.own.mac != old {
		s.forgetMAC(s.own.mac)
		s.hosts.reserve(s.own.mac.probe())
	}
}

// Connect adds the port to a remote, or replaces the port and the rights of a
// remote that is there already; what was learned stays. name is opaque.
//
// The switch may call p until the batch in hand when Connect or Disconnect
// replaces it has ended: p must bear that.
func (s *Switch) Connect(name string, p Port, allow Allow) *RemotePort {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.remotes[name]
	if r == nil {
		r = &RemotePort{sw: s, name: name, bum: s.bucket(), groupBytes: s.byteBucket(), observed: observeBucket(), sent: make([]mark, s.queues+1)}
		r.remote, r.share = r, new(share)
		r.place.Store(&r.origin)
		r.seen.Store(int64(s.now()))
		s.remotes[name] = r
	}
	a := &attachment{lanes: lanesOf(p, s.queues), rights: rightsOf(allow)}
	a.copied, _ = p.(Copied)
	old := r.at.Swap(a)
	r.limit.Store(int32(a.limit))
	switch {
	case old == nil:
		s.add(r)
		s.groups.enter()
	case old.mac != a.mac || !slices.Equal(old.addrs, a.addrs):
		s.publish(s.view.Load().ports)
	}
	if old == nil || old.mac != a.mac {
		s.forgetMAC(a.mac)
	}
	if holder := s.view.Load().owner.of(a.mac); a.mac != (MAC{}) && holder != r.place.Load() {
		s.cfg.Logger.Warn("a member's address is already in use by another and is not accepted from it", "mac", a.mac, "port", name)
	}
	return r
}

// Disconnect removes a remote and forgets the stations behind it.
func (s *Switch) Disconnect(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.remotes[name]
	if r == nil {
		return
	}
	delete(s.remotes, name)
	s.leaves(&r.origin)
	r.at.Store(nil)
	s.groups.leave(r)
	s.remove(r)
	r.settle()
	s.forgetRemote(r)
	s.view.Load().routers.leave(&r.origin)
	behind := func(_ station, at *origin) bool { return at == &r.origin }
	s.hosts.forget(behind)
	s.heard.forget(behind)
}

// forgetMAC makes room for a member's own address, which is never learned.
func (s *Switch) forgetMAC(mac MAC) {
	of := func(k station, _ *origin) bool { return k.mac() == mac }
	s.hosts.forget(of)
	s.heard.forget(of)
}

// locate returns where a station is, or nil when it is not known.
func (s *Switch) locate(v *view, vlan uint16, mac MAC, now time.Duration) *origin {
	if mac == v.own.mac {
		return &s.local
	}
	if r := v.virtual(mac); r != nil {
		return r.at.Load()
	}
	if o := v.owner.of(mac); o != nil {
		return o
	}
	return s.hosts.lookup(stationOf(vlan, mac), now)
}

// admit checks that the source of a frame may come from o, and learns it.
func (s *Switch) admit(v *view, h Header, o *origin, now time.Duration) reason {
	if h.Src == v.own.mac {
		return refuse(o != &s.local)
	}
	if r := v.virtual(h.Src); r != nil {
		why := s.admitRouter(v, r, o)
		if at := r.at.Load(); why != passed && at != nil {
			at.contest(o, now)
		}
		return why
	}
	if holder := v.owner.of(h.Src); holder != nil {
		if holder != o {
			holder.contest(o, now)
		}
		return refuse(holder != o)
	}
	return s.hosts.learn(stationOf(h.VLAN, h.Src), o, now)
}

func refuse(stolen bool) reason {
	if stolen {
		return sourceMAC
	}
	return passed
}
