package l2

import (
	"context"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"meshd/l2/snoop"
)

const (
	groupsPace = 10 * time.Millisecond // at most so often the table is looked at

	// hostEvery is how often the host itself is asked, what it says holding for two minutes; hostSoonest how often at most.
	hostEvery   = 30 * time.Second
	hostSoonest = 200 * time.Millisecond
)

// groups is what a switch knows of who listens to which multicast groups (package snoop).
type groups struct {
	mu      sync.Mutex
	table   *snoop.Table  // of this side; guarded by mu
	heard   snoop.Message // used again; guarded by mu
	told    *snoop.Set    // what GroupsChanged was last called for; guarded by mu
	cleared time.Duration // when tagged was; guarded by mu

	hostAsked time.Duration // when the host was last asked; guarded by mu

	here   atomic.Pointer[hereGroups]
	tagged [(vidMask + 1) / 64]atomic.Uint64 // VLANs that frames of this side were seen in
	wake   chan struct{}

	audience
}

// hereGroups is what hosts of this side listen to. It is immutable.
type hereGroups struct {
	set  *snoop.Set
	keys map[station]struct{}
}

func (g *groups) init(own MAC, now time.Duration) {
	g.table = snoop.NewTable(snoop.ProxyMAC(own), now)
	g.wake = make(chan struct{}, 1)
	g.listeners = map[snoop.Group]int{}
	g.away.Store(&awayGroups{})
	g.refresh()
}

// refresh needs mu, or nobody else to know g.
func (g *groups) refresh() {
	set := g.table.Set()
	if old := g.here.Load(); old == nil || old.set != set {
		g.here.Store(&hereGroups{set, groupKeys(set.Groups)})
	}
}

func groupKeys(list []snoop.Group) map[station]struct{} {
	keys := make(map[station]struct{}, len(list))
	for _, g := range list {
		keys[stationOf(g.VLAN, snoop.MAC(g.Addr))] = struct{}{}
	}
	return keys
}

// poke has the table looked at soon.
func (g *groups) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// reach is how far a flooded frame goes.
type reach uint8

const (
	toAll       reach = iota
	toListeners       // and to remotes that want everything
	toNobody          // elsewhere
)

// group is what matters of a flooded frame's destination.
type group struct {
	reach   reach
	known   bool // somebody is known to listen: it is limited by bytes
	control bool // IGMP or MLD, which has been heard
	key     station
}

// snooped reports whether a frame goes only to where somebody listens: IP to a group that
// is not for everybody, at the group's own MAC, behind one tag at most. What may be a
// report is not, so that it is limited like broadcasts.
func snooped(h Header, frame []byte) bool {
	if h.Payload > headerLen+tagLen {
		return false
	}
	p := frame[h.Payload:]
	switch {
	case h.EtherType == etherTypeIPv4 && len(p) >= 20:
		return p[9] != protoIGMP && groupOfIPv4(h.Dst, [4]byte(p[16:20]))
	case h.EtherType == etherTypeIPv6 && len(p) >= 40:
		return p[6] != nextHopByHop && groupOfIPv6(h.Dst, [16]byte(p[24:40]))
	}
	return false
}

// groupOf looks at the destination of a frame of this side that is about to be flooded.
func (s *Switch) groupOf(h Header, frame []byte) group {
	if !h.Dst.Multicast() || !snooped(h, frame) {
		return group{}
	}
	g := group{reach: toListeners, key: stationOf(h.VLAN, h.Dst)}
	away := s.groups.away.Load()
	_, g.known = away.keys[g.key]
	g.known = g.known || away.routers
	if !g.known && !away.strays && h.VLAN == 0 { // VLANs that a remote does not snoop are not counted
		g.reach = toNobody
	}
	return g
}

// reaches reports whether a frame goes to r.
func (g group) reaches(r *RemotePort) bool {
	switch g.reach {
	case toAll:
		return true
	case toNobody:
		return false
	}
	l := r.listens.Load()
	if l == nil {
		return true
	}
	if _, ok := l.keys[g.key]; ok {
		return true
	}
	return !slices.Contains(l.set.VLANs, g.key.vlan())
}

// takeFlood asks whether this side may send another frame to many.
func (s *Switch) takeFlood(g group, size int, now time.Duration) bool {
	switch {
	case g.known:
		s.bumMu.Lock()
		defer s.bumMu.Unlock()
		return s.groupBytes.takeN(now, int64(size))
	case g.reach == toNobody:
		return true // it loads nobody
	}
	return s.takeBUM(now)
}

// takeFlood is the same for what comes from r. It needs mu.
func (r *RemotePort) takeFlood(h Header, frame []byte) bool {
	if h.Dst.Multicast() && snooped(h, frame) {
		here := r.sw.groups.here.Load()
		if _, known := here.keys[stationOf(h.VLAN, h.Dst)]; known || here.set.Router {
			return r.groupBytes.takeN(r.now, int64(len(frame)))
		}
	}
	return r.bum.take(r.now)
}

// overhearGroups reads what hosts and multicast routers of this side say to each other, which
// stays here: others are told by Groups. It returns g, or what has become of it.
func (s *Switch) overhearGroups(v *view, h Header, frame []byte, g group, now time.Duration) group {
	if !h.Dst.Multicast() || h.Payload > headerLen+tagLen {
		return g
	}
	if h.VLAN != 0 {
		s.groups.saw(h.VLAN)
	}
	if !mayBeControl(h, frame) {
		return g
	}
	t := &s.groups
	t.mu.Lock()
	verdict := snoop.Parse(&t.heard, h.EtherType, frame[h.Payload:])
	if verdict == snoop.Control || verdict == snoop.Hello {
		ally := v.owner.of(snoop.ProxyMAC(h.Src)) != nil
		t.table.Receive(h.VLAN, h.Src, ally, &t.heard, now)
		t.refresh()
	}
	t.mu.Unlock()
	t.poke()
	if verdict == snoop.Control || verdict == snoop.Broken {
		return group{reach: toNobody, control: true}
	}
	return g
}

// mayBeControl sorts out what certainly is no IGMP, MLD or PIM.
func mayBeControl(h Header, frame []byte) bool {
	const protoPIM = 103
	p := frame[h.Payload:]
	switch {
	case h.EtherType == etherTypeIPv4 && len(p) >= 20:
		return p[9] == protoIGMP || p[9] == protoPIM
	case h.EtherType == etherTypeIPv6 && len(p) >= 40:
		return p[6] == nextHopByHop || p[6] == protoICMPv6 || p[6] == protoPIM
	}
	return false
}

// saw notes a VLAN of this side.
func (g *groups) saw(vlan uint16) {
	word, bit := &g.tagged[vlan/64], uint64(1)<<(vlan%64)
	if word.Load()&bit == 0 {
		word.Or(bit)
		g.poke()
	}
}

// runGroups does what is due until ctx ends.
func (s *Switch) runGroups(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.groups.wake:
		case <-timer.C:
		}
		now := s.now()
		s.askHost(now)
		if next := s.advanceGroups(now); next < math.MaxInt64 {
			timer.Reset(next - now)
		}
		select { // hosts that say much do not keep us busy
		case <-ctx.Done():
			return
		case <-time.After(groupsPace):
		}
	}
}

// askHost hears from the host itself what its programs have joined, where it can: now and then, and while somebody has left.
func (s *Switch) askHost(now time.Duration) {
	host, ok := s.cfg.Device.(GroupLister)
	if !ok {
		return
	}
	g := &s.groups
	g.mu.Lock()
	due := g.hostAsked == 0 || now-g.hostAsked >= hostEvery || g.table.Leaving() && now-g.hostAsked >= hostSoonest
	if due {
		g.hostAsked = max(now, 1)
	}
	g.mu.Unlock()
	if !due {
		return
	}
	groups, err := host.HostGroups()
	if err != nil {
		return // it is asked by queries, too
	}
	g.mu.Lock()
	g.table.Listens(groups, now)
	g.mu.Unlock()
}

// advanceGroups sends on this side what is due and returns when to call it again.
func (s *Switch) advanceGroups(now time.Duration) time.Duration {
	g := &s.groups
	g.mu.Lock()
	g.tags(now)
	g.table.SetRemote(g.away.Load().ordered)
	frames, next := g.table.Advance(now)
	g.refresh()
	set := g.here.Load().set
	changed := g.told == nil || !g.told.Equal(set)
	g.told = set
	g.mu.Unlock()
	v := s.view.Load()
	for _, frame := range frames {
		s.toLocal(v, frame)
	}
	if changed && s.cfg.GroupsChanged != nil {
		s.cfg.GroupsChanged()
	}
	return next
}

// tags tells the table of VLANs that were seen, and once a minute begins to look anew. It needs mu.
func (g *groups) tags(now time.Duration) {
	clearing := now-g.cleared >= time.Minute
	if clearing {
		g.cleared = now
	}
	for i := range g.tagged {
		word := g.tagged[i].Load()
		if clearing {
			g.tagged[i].And(^word)
		}
		for bit := range uint16(64) {
			if word&(1<<bit) != 0 {
				g.table.Saw(uint16(i)*64+bit, now)
			}
		}
	}
}

// toLocal hands a frame of our own to the host and to what is plugged in. What does not take it is asked again later.
func (s *Switch) toLocal(v *view, frame []byte) {
	one := []Frame{{Data: frame}}
	if s.cfg.Device != nil {
		_ = s.cfg.Device.Write(one)
	}
	for _, p := range v.plugs {
		_ = p.dev.Write(one)
	}
}

// Groups is which multicast groups are wanted here. It does not change; a change makes another one,
// and is told by Config.GroupsChanged.
func (s *Switch) Groups() *snoop.Set { return s.groups.here.Load().set }

// AskGroups has the hosts of this side asked again what they listen to: there may be others now.
func (s *Switch) AskGroups() {
	s.groups.mu.Lock()
	s.groups.table.Ask(s.now())
	s.groups.mu.Unlock()
	s.groups.poke()
}

// groupOfIPv4 and groupOfIPv6 report whether dst is the MAC of a group that is snooped.
func groupOfIPv4(dst MAC, ip [4]byte) bool {
	group := netip.AddrFrom4(ip)
	return group.IsMulticast() && snoop.MAC(group) == dst && !snoop.Flooded(group)
}

func groupOfIPv6(dst MAC, ip [16]byte) bool {
	group := netip.AddrFrom16(ip)
	return group.IsMulticast() && snoop.MAC(group) == dst && !snoop.Flooded(group)
}
