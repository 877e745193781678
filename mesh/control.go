package mesh

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/mesh/directory"
	"meshd/nat-traversal"
	"meshd/peer"
	"meshd/peer/way"
)

const (
	// tick is how often the control loop looks at everything without a cause.
	tick = time.Second
	// joinTick is the same while a join is under way.
	joinTick = 20 * time.Millisecond
	// restFactor bounds the share of the time that looking at everything takes.
	restFactor = 4
	// offlineAfter is how long a session may be tried for before its member
	// counts as offline.
	offlineAfter = 10 * time.Second
)

// control is the goroutine that owns all control state.
func (n *Node) control(ctx context.Context) error {
	defer close(n.ended)
	changes := n.cfg.Host.Watch(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		reconcile := true
		select {
		case <-ctx.Done():
			return nil
		case f := <-n.tasks:
			f()
			reconcile = false
		case <-n.kick:
			if wait := time.Until(n.state.schedule.rest); wait > 0 {
				timer.Reset(wait)
				reconcile = false
			}
		case _, ok := <-changes:
			if !ok {
				changes = nil
				continue
			}
			n.hostChanged()
		case <-timer.C:
		}
		if reconcile {
			began := time.Now()
			n.reconcile(began)
			n.state.schedule.rest = began.Add(restFactor * time.Since(began))
			timer.Reset(n.pause())
		}
	}
}

// pause is how long the control goroutine may rest when nothing happens.
func (n *Node) pause() time.Duration {
	if n.state.joining != nil {
		return joinTick
	}
	if due := n.state.schedule.cache; !due.IsZero() {
		return min(max(time.Until(due), joinTick), tick)
	}
	return tick
}

// hostChanged acts on new addresses, routes or links of this host.
func (n *Node) hostChanged() {
	n.state.schedule.gather = time.Time{}
	n.state.segment.hostChanged(n)
	n.engine.LocalChange()
	if n.mapper != nil {
		n.mapper.Poke()
	}
	select {
	case n.linksChanged <- struct{}{}:
	default:
	}
}

// reconcile compares what should be with what is, and acts on the difference.
func (n *Node) reconcile(now time.Time) {
	n.advanceJoin(now)
	s := &n.state
	if s.dir == nil {
		return
	}
	s.dir.Advance(now)
	n.publish(now)
	n.reconcileMembers(now)
	n.expirePending(now)
	n.keepNeighbours()
	n.askSTUN(now)
	n.catchUp(now)
	if !now.Before(s.schedule.sync) {
		s.schedule.sync = now.Add(syncEvery)
		n.compareSome()
	}
	if !now.Before(s.schedule.rates) {
		s.schedule.rates = now.Add(tick)
		n.measureRates(now)
	}
	if !s.schedule.cache.IsZero() && !now.Before(s.schedule.cache) {
		n.saveCache()
	}
}

// reconcileMembers gives every member of the directory a remote and a port, and
// takes them from everybody else.
func (n *Node) reconcileMembers(now time.Time) {
	s := &n.state
	self := n.self
	ids := make([]keys.NodeID, 0, len(s.members)+1)
	for _, d := range s.dir.Members() {
		ids = append(ids, d.ID)
		if d.ID != self {
			n.reconcileMember(d, now)
		}
	}
	for id, m := range s.members {
		if !slices.Contains(ids, id) {
			n.dropMember(id, m)
		}
	}
	s.neighbours = neighbours(self, ids)
	s.gossip.SetMembers(ids)
	n.reconcileSegment()
}

func (n *Node) reconcileMember(d *directory.Member, now time.Time) {
	s := &n.state
	m := s.members[d.ID]
	if m == nil {
		m = &member{}
	}
	if endpoints := n.endpointsOf(d); m.chain != string(d.Certificate.Raw) || !slices.Equal(m.endpoints, endpoints) {
		remote, err := n.engine.SetRemote(peer.Spec{
			Public:     d.Certificate.Public,
			Class:      peer.Member,
			Candidates: endpoints,
			HourOffset: m.hourOffset,
		})
		if err != nil {
			n.noteRefused(d, err)
			return
		}
		if m.chain != string(d.Certificate.Raw) {
			m.port = nil // what it may do has changed, or its keys have
		}
		m.remote, m.chain, m.endpoints = remote, string(d.Certificate.Raw), endpoints
		s.members[d.ID] = m
		delete(s.refused, d.ID)
	}
	if s.segment != nil && m.port == nil {
		m.port = s.segment.sw.Connect(d.ID.String(), m.remote, allowFor(d))
		m.remote.Attach(m.port)
	}
	n.watchSession(d, m, now)
}

// noteRefused tells once of a member whose keys the engine does not take.
func (n *Node) noteRefused(d *directory.Member, err error) {
	s := &n.state
	if s.refused[d.ID] == string(d.Certificate.Raw) {
		return
	}
	n.log.Warn("member cannot be reached", "member", d.Display, "err", err)
	if s.refused == nil {
		s.refused = map[keys.NodeID]string{}
	}
	s.refused[d.ID] = string(d.Certificate.Raw)
}

// watchSession acts when the session with a member has come or gone.
func (n *Node) watchSession(d *directory.Member, m *member, now time.Time) {
	st := m.remote.Status()
	switch {
	case st.Up:
		m.trying, m.left = time.Time{}, false
		if n.state.lastGood[d.ID] != st.Endpoint && !way.IsVirtual(st.Endpoint.Addr()) {
			n.state.lastGood[d.ID] = st.Endpoint
			n.state.schedule.cache = earlier(n.state.schedule.cache, now.Add(cacheEvery))
		}
	case st.Wanted && m.trying.IsZero():
		m.trying = now
	case !st.Wanted:
		m.trying = time.Time{}
	}
	if st.Up && !m.up { // what one of us missed, the other may know
		n.compare(m.remote)
	}
	m.up = st.Up
}

func (n *Node) dropMember(id keys.NodeID, m *member) {
	n.engine.Forget(id)
	if n.state.segment != nil {
		n.state.segment.sw.Disconnect(id.String())
	}
	n.state.dir.Forget(id)
	delete(n.state.members, id)
	delete(n.state.lastGood, id)
	m.port = nil
}

// endpointsOf is where a member says that it may be reached, and where it was
// reached last.
func (n *Node) endpointsOf(d *directory.Member) []netip.AddrPort {
	var list []netip.AddrPort
	if d.Node != nil {
		for _, e := range d.Node.Endpoints {
			if traversal.UsableEndpoint(e.Addr) {
				list = append(list, e.Addr)
			}
		}
	}
	if last, ok := n.state.lastGood[d.ID]; ok && !slices.Contains(list, last) {
		list = append(list, last)
	}
	return list
}

// allowFor is what the switch lets a member do, by its certificate.
func allowFor(d *directory.Member) l2.Allow {
	roles := d.Certificate.Roles
	return l2.Allow{MAC: macOf(d.ID), Bridge: roles.Has("bridge"), VLANs: allowedVLANs(roles)}
}

// allowedVLANs lists the tags that roles allow, nil for all.
func allowedVLANs(roles keys.Roles) []uint16 {
	const all = 4094 // IEEE 802.1Q: 1 to 4094
	list := make([]uint16, 0, all)
	for id := uint16(1); id <= all; id++ {
		if roles.AllowsVLAN(id) {
			list = append(list, id)
		}
	}
	if len(list) == all {
		return nil
	}
	return list
}

// reconcileSegment keeps addresses and names.
func (n *Node) reconcileSegment() {
	s := n.state.segment
	if s == nil {
		return
	}
	prefixes := n.prefixes()
	if own := ownAddresses(n.self, prefixes); !slices.Equal(own, s.addresses) {
		n.engine.Exclude(prefixes)
		if err := s.setAddresses(own); err != nil {
			n.log.Warn("set addresses", "err", err)
			return
		}
		s.addresses = own
		s.hostChanged(n)
	}
	if d := n.state.dir.Member(n.self); d != nil && d.Certificate.Roles.String() != s.roles {
		s.roles = d.Certificate.Roles.String()
		s.sw.SetOwn(allowFor(d))
	}
	if s.names == nil {
		return
	}
	table := map[string][]netip.Addr{}
	for _, d := range n.state.dir.Members() {
		table[d.Display] = addrsOf(ownAddresses(d.ID, prefixes))
	}
	if !sameNames(table, s.named) {
		s.names.SetNames(table)
		s.named = table
	}
}

func sameNames(a, b map[string][]netip.Addr) bool {
	if len(a) != len(b) {
		return false
	}
	for name, addrs := range a {
		if !slices.Equal(addrs, b[name]) {
			return false
		}
	}
	return true
}

// keepNeighbours keeps a session with each neighbour. One that does not answer
// is tried again from time to time, and so is one at random: memberships that
// were apart for long find each other again.
func (n *Node) keepNeighbours() {
	s := &n.state
	for _, id := range s.neighbours {
		if m := s.members[id]; m != nil && !m.left {
			m.remote.Want()
		}
	}
}

// catchUp asks members again whose records we know to be ahead of ours.
func (n *Node) catchUp(now time.Time) {
	if now.Before(n.state.schedule.catchUp) {
		return
	}
	n.state.schedule.catchUp = now.Add(tick)
	for id, m := range n.state.members {
		if m.up && n.state.dir.Behind(id, now) {
			n.compare(m.remote)
		}
	}
}

// compareSome compares records with one member that can be reached, and tries
// one that cannot.
func (n *Node) compareSome() {
	var up, down []*member
	for _, m := range n.state.members {
		if m.up {
			up = append(up, m)
		} else {
			down = append(down, m)
		}
	}
	if len(up) > 0 {
		n.compare(up[rand.IntN(len(up))].remote)
	}
	if len(down) > 0 {
		down[rand.IntN(len(down))].remote.Want()
	}
}

// askSTUN sends the STUN requests that are due, to the servers of --stun and to
// members.
func (n *Node) askSTUN(now time.Time) {
	s := &n.state
	servers := n.stunServers()
	n.asked.Store(&servers)
	s.self.stun.SetServers(now, servers)
	queries, _ := s.self.stun.Poll(now)
	for _, q := range queries {
		n.engine.Send(q.To, q.Data)
	}
}

// stunServers are those of the configuration and up to four members' addresses.
func (n *Node) stunServers() []netip.AddrPort {
	list := slices.Clone(n.stun)
	for _, id := range n.state.neighbours {
		if m := n.state.members[id]; m != nil && m.up && len(list) < 4 {
			if at := m.remote.Status().Endpoint; at.IsValid() && !way.IsVirtual(at.Addr()) {
				list = append(list, at)
			}
		}
	}
	return list
}

// handleGoodbye takes a member at its word that it is leaving now.
func (n *Node) handleGoodbye(from *peer.Remote) {
	if m := n.state.members[from.ID]; m != nil && m.remote == from {
		m.left, m.up = true, false
		from.Rest()
	}
}

// goodbye tells everybody that we are leaving. It runs after the control
// goroutine has ended.
func (n *Node) goodbye() {
	for _, m := range n.state.members {
		if m.remote != nil && m.remote.Status().Up {
			sendControl(m.remote, kindGoodbye)
		}
	}
	if n.state.dir != nil && !n.state.schedule.cache.IsZero() {
		n.saveCache()
	}
}

// rate is how fast a counter grows.
type rate struct {
	last uint64
	at   time.Time
	bps  uint64
}

func (r *rate) update(now time.Time, bytes uint64) {
	if d := now.Sub(r.at).Seconds(); !r.at.IsZero() && d > 0 {
		r.bps = uint64(float64(bytes-r.last) * 8 / d)
	}
	r.last, r.at = bytes, now
}

func (n *Node) measureRates(now time.Time) {
	for _, m := range n.state.members {
		st := m.remote.Status()
		m.tx.update(now, st.TxBytes)
		m.rx.update(now, st.RxBytes)
	}
}

// prefixes are the network's.
func (n *Node) prefixes() []netip.Prefix {
	_, prefixes, _ := n.state.dir.Network()
	return prefixes
}

// earlier returns the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
