package mesh

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/l2/lanport"
)

// Members that bridge one LAN are reached by the one of them that forwards. What each
// says of it (lanport.Statement) is signed, so that the forwarder may pass it on, and
// nobody speaks for a member that has not agreed (docs/adr/0016).

// kindLAN is the control message that carries a statement (PROTOCOL.md, section 17).
const kindLAN = 19

const (
	// lanAgain is how soon a new statement is repeated to a member, doubling to lanEvery:
	// the way to it may have been the LAN that has just been split.
	lanAgain = 300 * time.Millisecond
	lanEvery = 30 * time.Second
	// unfitAfter is how long nobody beyond the LAN may be reached before another shall
	// forward.
	unfitAfter = 2 * time.Second
)

// lans is what members say of the LANs that they bridge.
type lans struct {
	said    map[keys.NodeID]*lanSaid
	own     lanport.Segment // of our own LAN, as the switch was told
	version int             // of our own LAN's statements, as last looked at
	reached time.Time       // when somebody beyond our LAN last was

	met   map[pair]time.Time          // when two who shared a LAN last said so
	names map[keys.NodeID]keys.NodeID // of the LANs that are shared, as the switch was told
	told  lanTold                     // of our own, likewise

	doubtful bool // somebody is to be asked for a sign of life who was asked just now
}

// lanTold is what the switch was told of a member's LAN.
type lanTold struct {
	segment lanport.Segment
	name    keys.NodeID // zero: nobody shares it
}

// lanSaid is a member's last statement.
type lanSaid struct {
	lanport.Statement
	told  lanTold
	since time.Time   // it says this of its port
	by    keys.NodeID // by whom the member is reached
	rival keys.NodeID // who forwards for the LAN as well, last time; zero: nobody
}

// lanSent is how far a member knows what we say.
type lanSent struct {
	version int
	next    time.Time
	pause   time.Duration // before next
}

// bridgeKey is the key of a member that may bridge, nil for others.
func (n *Node) bridgeKey(id lanport.ID) ed25519.PublicKey {
	d := n.state.dir.Member(keys.NodeID(id))
	if d == nil || !d.Certificate.Roles.Has("bridge") {
		return nil
	}
	return d.Certificate.Public.Sign[:]
}

// handleLAN takes a statement, the sender's own or one that it passes on.
func (n *Node) handleLAN(body []byte) {
	if n.state.dir == nil || n.state.segment == nil {
		return
	}
	s, _, ok := verifyStatement(body, n.state.membership.trust().NetworkID(), n.bridgeKey)
	if !ok || keys.NodeID(s.From) == n.self {
		return
	}
	if l := n.state.segment.lan; l != nil {
		l.hearOverlay(s)
	}
	if now := time.Now(); n.noteStatement(s, now) {
		n.applyStandIns(now)
	}
}

// noteStatement reports whether a statement is new and says something new.
func (n *Node) noteStatement(s lanport.Statement, now time.Time) bool {
	t := &n.state.lans
	if t.said == nil {
		t.said = map[keys.NodeID]*lanSaid{}
	}
	id := keys.NodeID(s.From)
	old := t.said[id]
	if old == nil {
		t.said[id] = &lanSaid{Statement: s, since: now, by: id}
		return true
	}
	if s.Counter <= old.Counter {
		return false
	}
	news := !old.Same(&s)
	if old.State != s.State || old.Segment != s.Segment {
		old.since = now
	}
	before := t.shared(now)
	t.parts(old, now)
	left := old.Segment != s.Segment || slices.ContainsFunc(old.Heard, func(id lanport.ID) bool { return !s.Hears(id) })
	old.Statement = s
	if left {
		n.learnAnew(id, before, t.shared(now))
	}
	return news
}

// learnAnew forgets the stations behind a member and all who share a LAN with it, or did: a
// part may have been split off, and nobody knows yet with whom of the stations.
func (n *Node) learnAnew(of keys.NodeID, lans ...map[keys.NodeID]keys.NodeID) {
	for id := range n.state.lans.said {
		beside := func(names map[keys.NodeID]keys.NodeID) bool {
			lan, shares := names[of]
			return shares && names[id] == lan
		}
		if id != of && !slices.ContainsFunc(lans, beside) {
			continue
		}
		name := id.String()
		if id == n.self {
			name = l2.Here
		}
		n.state.segment.sw.MoveStations(name, "")
	}
}

// standIn is by whom a member is reached: by itself, unless another forwards for the
// LAN that both are on, to which it has agreed by naming it, or by hearing it there
// before it fell silent.
func (t *lans) standIn(id keys.NodeID) keys.NodeID {
	own := t.said[id]
	best, at := id, own
	if !carries(own) {
		at = nil
	}
	for other, s := range t.said {
		if other == id || !carries(s) || s.Segment != own.Segment || own.Forwarder != s.From && !own.Hears(s.From) {
			continue
		}
		if at == nil || outlived(s, at) {
			best, at = other, s
		}
	}
	return best
}

func carries(s *lanSaid) bool { return s.State == lanport.Forwarding || s.State == lanport.Alone }

// outlived reports whether a forwards in b's place: it has not heard it any more where b
// heard it, or began later.
func outlived(a, b *lanSaid) bool {
	if a.Hears(b.From) != b.Hears(a.From) {
		return b.Hears(a.From)
	}
	return a.since.After(b.since)
}

// applyStandIns tells the switch. It is level-triggered.
func (n *Node) applyStandIns(now time.Time) {
	t, sw := &n.state.lans, n.state.segment.sw
	t.names = t.shared(now)
	n.tellLANs()
	n.doubtRivals(now)
	for id, s := range t.said {
		if id == n.self {
			continue
		}
		by := t.standIn(id)
		name := by.String()
		if by == n.self {
			name = l2.Here
		}
		sw.StandIn(id.String(), name)
		if s.by != by {
			n.log.Info("a member is reached by another on its LAN", "member", id.String(), "by", by.String())
			s.by = by
			if by != id {
				sw.MoveStations(id.String(), name)
			}
		}
	}
}

// doubtRivals asks members for a sign of life who say that they forward for a LAN, as another
// does with whom they have not agreed: one of them may be dead.
func (n *Node) doubtRivals(now time.Time) {
	n.state.lans.doubtful = false
	for id, s := range n.state.lans.said {
		rival := n.state.lans.rival(s)
		if rival == s.rival {
			continue
		}
		m := n.state.members[id]
		switch {
		case rival.IsZero() || id == n.self:
		case m == nil || now.Sub(m.doubted) < doubtEvery:
			n.state.lans.doubtful = true
			continue
		default:
			m.doubted = now
			m.remote.Doubt()
			n.state.schedule.doubts, n.state.schedule.away = now.Add(doubtFor), time.Time{}
			n.wake()
		}
		s.rival = rival
	}
}

// rival is the lowest of the others who say that they forward for a member's LAN and do not
// share it with him; zero if he does not forward or there is none.
func (t *lans) rival(s *lanSaid) (lowest keys.NodeID) {
	for id, other := range t.said {
		if other != s && carries(s) && carries(other) && s.Segment == other.Segment && !mutual(s, other) &&
			(lowest.IsZero() || bytes.Compare(id[:], lowest[:]) < 0) {
			lowest = id
		}
	}
	return lowest
}

// tellLANs tells the switch who is on which LAN, which is to be known before anybody
// stands in for another there.
func (n *Node) tellLANs() {
	t, sw := &n.state.lans, n.state.segment.sw
	if own, d := (lanTold{t.own, t.names[n.self]}), n.state.dir.Member(n.self); own != t.told && d != nil {
		t.told = own
		sw.SetOwn(n.allowFor(d))
	}
	for id, s := range t.said {
		is := lanTold{s.Segment, t.names[id]}
		if m, d := n.state.members[id], n.state.dir.Member(id); s.told != is && m != nil && m.port != nil && d != nil {
			s.told = is
			m.port = sw.Connect(id.String(), lanes{m.remote}, n.allowFor(d))
		}
	}
}

// reconcileLAN tells members what is said on our LAN, and our LAN who may speak there.
func (n *Node) reconcileLAN(now time.Time, members bool) {
	s := n.state.segment
	if s == nil {
		return
	}
	if n.state.lans.tidy(now) || n.state.lans.doubtful {
		n.applyStandIns(now)
	}
	if members {
		for id := range n.state.lans.said {
			if id != n.self && n.bridgeKey(lanport.ID(id)) == nil {
				delete(n.state.lans.said, id)
				s.sw.StandIn(id.String(), id.String())
			}
		}
		n.applyStandIns(now)
	}
	if s.lan == nil {
		return
	}
	if members || s.lan.members.Load() == nil {
		may := map[lanport.ID]ed25519.PublicKey{}
		for _, d := range n.state.dir.Members() {
			if id := lanport.ID(d.ID); d.ID != n.self && n.bridgeKey(id) != nil {
				may[id] = n.bridgeKey(id)
			}
		}
		s.lan.members.Store(&may)
	}
	list, version, port := s.lan.snapshot()
	if port.segment != n.state.lans.own {
		n.state.lans.own = port.segment
		n.tellLANs()
	}
	if version != n.state.lans.version {
		n.state.lans.version = version
		news := false
		for _, st := range list {
			news = n.noteStatement(st.Statement, now) || news
		}
		if news {
			n.applyStandIns(now)
		}
	}
	if port.state != lanport.Forwarding && len(list) > 0 {
		list = list[len(list)-1:] // who forwards speaks for the others
	}
	for _, m := range n.state.up {
		n.spread(m, list, version, now)
	}
	s.lan.set(s.bridging.link(), n.reachesBeyond(port, now))
}

// spread sends what a member does not know yet, and repeats it.
func (n *Node) spread(m *member, list []signedStatement, version int, now time.Time) {
	switch {
	case m.lan.version != version:
		m.lan = lanSent{version, now.Add(lanAgain), lanAgain}
	case now.Before(m.lan.next):
		return
	default:
		m.lan.pause = min(2*m.lan.pause, lanEvery)
		m.lan.next = now.Add(m.lan.pause)
	}
	for _, st := range list {
		sendControl(m.remote, kindLAN, st.raw)
	}
}

// reachesBeyond reports whether members are reached that are not on our LAN.
func (n *Node) reachesBeyond(port lanPort, now time.Time) bool {
	for id := range n.state.up {
		if !slices.Contains(port.beside, lanport.ID(id)) {
			n.state.lans.reached = now
			return true
		}
	}
	return now.Sub(n.state.lans.reached) < unfitAfter
}

// segmentOf is what a member calls the LAN that it bridges, whoever else is there.
func (n *Node) segmentOf(id keys.NodeID) l2.Segment {
	if id == n.self {
		return l2.Segment(n.state.lans.own)
	}
	if s := n.state.lans.said[id]; s != nil {
		return l2.Segment(s.Segment)
	}
	return l2.Segment{}
}

// lanOf names the LAN that a member shares with others, "" if it does not: a station may move
// from one of them to another without being asked.
func (n *Node) lanOf(id keys.NodeID) string {
	if lowest, shares := n.state.lans.names[id]; shares {
		return lowest.String()
	}
	return ""
}

// lanSegment names the LAN that this node bridges, as long as members there share it: its
// bindings are all its members'. Zero: it bridges none.
func (s *segment) lanSegment() lanport.Segment {
	if s == nil || s.lan == nil {
		return lanport.Segment{}
	}
	_, _, port := s.lan.snapshot()
	return port.segment
}
