package mesh

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"meshd/keys"
	"meshd/mesh/directory"
	"meshd/mesh/record"
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
	// allEvery is how often every member is looked at, whether anything is new or
	// not.
	allEvery = time.Minute
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
			if n.state.sleep.Woke() {
				n.log.Info("this host has slept")
				n.hostChanged()
			}
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
	pause := tick
	if n.state.schedule.doubts.After(time.Now()) {
		pause = doubtTick
	}
	for _, due := range []time.Time{n.state.schedule.cache, n.state.schedule.streams} {
		if !due.IsZero() {
			pause = min(max(time.Until(due), joinTick), pause)
		}
	}
	return pause
}

// hostChanged acts on new addresses, routes or links of this host.
func (n *Node) hostChanged() {
	n.state.schedule.gather, n.state.schedule.presence = time.Time{}, time.Time{}
	n.state.segment.hostChanged(n)
	n.state.routing.hostChanged()
	n.engine.LocalChange()
	if n.mapper != nil {
		n.mapper.Poke()
	}
	for _, c := range []chan struct{}{n.linksChanged, n.nat64.changed} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// reconcile compares what should be with what is, and acts on the difference.
func (n *Node) reconcile(now time.Time) {
	n.advanceJoin(now)
	n.reconcileStreams(now)
	s := &n.state
	if s.dir == nil {
		return
	}
	news := len(s.changed) > 0
	for _, a := range n.arrivals.take() {
		n.met(a.result, a.at)
	}
	n.publish(now)
	n.publishGroups(now)
	n.reconcileMembers(now)
	n.lookAtStations(now)
	n.keepPapers(now)
	n.expirePending(now)
	n.keepNeighbours(now)
	n.askSTUN(now)
	n.catchUp(now)
	if !now.Before(s.schedule.sync) {
		s.schedule.sync = now.Add(syncEvery)
		n.compareSome()
	}
	if !now.Before(s.schedule.rates) {
		s.schedule.rates = now.Add(tick)
		n.measureRates(now)
		n.noteReached(now)
	}
	if !s.schedule.cache.IsZero() && !now.Before(s.schedule.cache) {
		n.saveCache()
	}
	n.lookAtRouting(now, news)
}

// reconcileMembers gives every member of the directory a remote and a port, and
// takes them from everybody else. It looks at those of whom there is news, and
// at all of them from time to time.
func (n *Node) reconcileMembers(now time.Time) {
	s := &n.state
	all := !now.Before(s.schedule.all)
	if all {
		s.schedule.all = now.Add(allEvery)
		n.noteChanges(s.dir.Advance(now))
		n.noteChanges(idsOf(s.dir.Members()))
		n.noteChanges(slices.Collect(maps.Keys(s.members)))
	}
	before := len(s.members)
	changed := s.changed
	s.changed = nil
	for id := range changed {
		n.reconcileMember(id, now)
	}
	if _, own := changed[n.self]; own {
		n.tellLife()
		n.keepOwn()
	}
	for id := range n.news.take() {
		if m := s.members[id]; m != nil {
			n.watchSession(id, m, now)
		}
	}
	if len(changed) > 0 {
		if ids := idsOf(s.dir.Members()); all || len(s.members) != before || len(ids) != s.known {
			s.known = len(ids)
			s.gossip.SetMembers(ids)
			s.schedule.neighbours = now
		}
	}
	for id := range changed { // now gossip knows them all
		if m := s.members[id]; m != nil && m.returned {
			m.returned = false
			s.gossip.Returned(id)
		}
	}
	n.reconcileSegment(len(changed) > 0)
	n.reconcileBridge(now)
	n.keepGuard(now)
	n.reconcileLAN(now, len(changed) > 0)
}

// noteChanges marks members to be looked at.
func (n *Node) noteChanges(ids []keys.NodeID) {
	if n.state.changed == nil {
		n.state.changed = make(map[keys.NodeID]struct{}, len(ids))
	}
	for _, id := range ids {
		n.state.changed[id] = struct{}{}
	}
}

// reconcileMember does it for one who is, or was, a member.
func (n *Node) reconcileMember(id keys.NodeID, now time.Time) {
	s := &n.state
	d, m := s.dir.Member(id), s.members[id]
	switch {
	case id == n.self:
		return
	case d == nil && m != nil:
		n.dropMember(id, m)
		fallthrough
	case d == nil:
		return
	case m == nil:
		m = &member{}
	}
	contacts, relays := relayTerms(d)
	changed := m.chain != string(d.Certificate.Raw) || !slices.Equal(m.contacts, contacts) || m.relays != relays
	if endpoints := n.endpointsOf(d); changed || !slices.Equal(m.endpoints, endpoints) {
		remote, err := n.engine.SetRemote(peer.Spec{
			Public:     d.Certificate.Public,
			Class:      peer.Member,
			Candidates: endpoints,
			Contacts:   contacts,
			Relays:     relays,
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
		m.contacts, m.relays = contacts, relays
		s.members[d.ID] = m
		delete(s.refused, d.ID)
	}
	if m.epoch != d.NodeVersion.Epoch { // it has started anew
		m.epoch, m.returned = d.NodeVersion.Epoch, true
		m.left = false
		s.schedule.neighbours = earlier(s.schedule.neighbours, now)
	}
	if hosts := mayHaveHosts(d); hosts != m.hosts {
		m.hosts, m.port = hosts, nil
	}
	if s.segment != nil && m.port == nil {
		m.port = s.segment.sw.Connect(d.ID.String(), lanes{m.remote}, n.allowFor(d))
		m.remote.Attach(m.port)
		m.groups = nil // a new port wants all
		n.tellStations(d.ID)
	}
	n.tellGroups(d, m)
	n.tellSpreading(d, m)
	n.noteListener(d)
	n.watchSession(d.ID, m, now)
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
func (n *Node) watchSession(id keys.NodeID, m *member, now time.Time) {
	s := &n.state
	st := m.remote.Status()
	before := m.up
	m.up, m.observed = st.Up, st.Observed
	if before && !m.up {
		m.lost = now
	}
	if !st.Up {
		delete(s.up, id)
		return
	}
	s.up[id] = m
	if m.left {
		s.gossip.Returned(id)
	}
	if m.left || !m.failed.IsZero() {
		m.left, m.failed = false, time.Time{}
		s.schedule.neighbours = earlier(s.schedule.neighbours, now)
	}
	if s.lastGood[id] != st.Endpoint && !way.IsVirtual(st.Endpoint.Addr()) {
		s.lastGood[id] = st.Endpoint
		s.schedule.cache = earlier(s.schedule.cache, now.Add(cacheEvery))
	}
	if !before { // what one of us missed, the other may know
		m.lan.version, m.fresh = -1, true
		n.compare(m.remote)
		n.greet(m)
	}
}

func (n *Node) dropMember(id keys.NodeID, m *member) {
	n.engine.Forget(id)
	if n.state.segment != nil {
		n.state.segment.sw.Disconnect(id.String())
	}
	n.state.dir.Forget(id)
	delete(n.state.listeners, id)
	delete(n.state.members, id)
	delete(n.state.up, id)
	delete(n.state.lastGood, id)
	m.port = nil
	m.groups = nil
}

// endpointsOf is where a member says that it may be reached, and where it was
// reached last.
func (n *Node) endpointsOf(d *directory.Member) []netip.AddrPort {
	var list []netip.AddrPort
	if d.Node != nil {
		for _, e := range d.Node.Endpoints {
			if e.Kind != record.KindTLS && traversal.UsableEndpoint(e.Addr) {
				list = append(list, e.Addr)
			}
		}
	}
	if last, ok := n.state.lastGood[d.ID]; ok && !slices.Contains(list, last) {
		list = append(list, last)
	}
	if prefixes := n.nat64.prefixes.Load(); prefixes != nil {
		list = synthesize(*prefixes, list)
	}
	return list
}

// catchUp asks members again whose records we know to be ahead of ours, and once those with whom a session has just begun:
// the answer of who had one with our last start may come under the key of that.
func (n *Node) catchUp(now time.Time) {
	if now.Before(n.state.schedule.catchUp) {
		return
	}
	n.state.schedule.catchUp = now.Add(tick)
	for id, m := range n.state.up {
		if m.fresh || n.state.dir.Behind(id, now) {
			n.compare(m.remote)
		}
		m.fresh = false
	}
}

// compareSome compares records with one neighbour. Not with others: what makes
// use of a session keeps it.
func (n *Node) compareSome() {
	var up []*member
	for _, id := range n.state.neighbours {
		if m := n.state.up[id]; m != nil {
			up = append(up, m)
		}
	}
	if len(up) > 0 {
		n.compare(up[rand.IntN(len(up))].remote)
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
		if m := n.state.members[id]; m != nil && m.up && len(list) < len(n.stun)+4 {
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
		delete(n.state.up, from.ID)
		if m.kept {
			m.kept = false
			from.Keep(false)
			n.state.schedule.neighbours = time.Now()
		}
		from.Rest()
		n.state.gossip.Left(from.ID)
	}
}

// goodbye tells everybody that we are leaving. It runs after the control
// goroutine has ended.
func (n *Node) goodbye() {
	n.leaveRouting(time.Now())
	n.engine.Leave()
	n.withdrawStations()
	for _, m := range n.state.members {
		if m.remote != nil && m.remote.Up() {
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
		tx, rx := m.remote.Carried()
		m.tx.update(now, tx)
		m.rx.update(now, rx)
	}
	n.measureShare(now)
}

// earlier returns the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
