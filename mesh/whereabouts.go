package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/mesh/api"
	"meshd/mesh/directory"
	"meshd/mesh/record"
	"meshd/mesh/stations"
	"meshd/peer"
)

// Who is where: the stations behind this node go into its records, those of others into
// the switch. The switch decides (package l2); this carries.

const (
	// kindStations is the control message of a notice (PROTOCOL.md, 14).
	kindStations = 17

	// What changes on our side is told at most once in this time, and the first change
	// after a pause this soon.
	stationsEvery = 500 * time.Millisecond
	stationsSoon  = 20 * time.Millisecond
	// awayAfter is how long a session may be tried for before what is behind its member
	// gives way to others.
	awayAfter = 3 * time.Second

	// doubtFor is how long it is watched, each doubtTick, whether a member in doubt answers; doubtCounts how long
	// its silence counts, and doubtEvery how often it is doubted at most.
	doubtFor    = 2 * time.Second
	doubtTick   = 50 * time.Millisecond
	doubtCounts = 15 * time.Second
	doubtEvery  = 10 * time.Second

	pagesOfMember = 8 // 32 stations with all their addresses
)

// Announce implements l2.Announcer.
func (l lanes) Announce(n l2.Notice) bool {
	if !l.Up() {
		return false
	}
	m := stations.Message{Notice: n}
	if n.To != "" {
		id, err := keys.ParseNodeID(n.To)
		if err != nil {
			return false
		}
		m.To = id
	}
	return sendControl(l.Remote, kindStations, stations.Append(nil, m))
}

// hearStations takes a notice in the goroutine that has received it, so that it holds for
// the frame behind it.
func (n *Node) hearStations(from *peer.Remote, body []byte) {
	sw := n.sw.Load()
	m, err := stations.Parse(body)
	if sw == nil || err != nil {
		return
	}
	if !m.To.IsZero() {
		m.Notice.To = m.To.String()
	}
	sw.Hear(from.ID.String(), m.Notice)
}

// keepStations does what is due about the stations until ctx ends.
func (s *segment) keepStations(ctx context.Context, n *Node) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due, last time.Time // when our records are to be made anew, zero: they need not; when they were
	due = time.Now()        // what an earlier start has said is over
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.sw.Changed():
			if due.IsZero() {
				due = later(time.Now().Add(stationsSoon), last.Add(stationsEvery))
			}
		case <-s.sw.Attention():
		case <-timer.C:
		}
		next := s.sw.Advance()
		now := time.Now()
		if !due.IsZero() && !now.Before(due) {
			last, due = now, time.Time{}
			if !n.post(n.publishStations) {
				due = now.Add(stationsEvery)
			}
		}
		if !due.IsZero() {
			next = min(next, due.Sub(now))
		}
		timer.Reset(next)
	}
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// publishStations signs the pages of our stations that have changed.
func (n *Node) publishStations() {
	s := &n.state
	if s.dir == nil || s.segment == nil {
		return
	}
	limit := pagesOfMember
	if d := s.dir.Member(n.self); d != nil && d.Certificate.Roles.Has("bridge") {
		limit = record.MaxPages
	}
	pages := stations.Divide(s.dir.OwnPages(), stations.Of(s.segment.sw.Local()), limit)
	raws, err := s.dir.SetStations(pages)
	if err != nil {
		n.log.Error("sign where our stations are", "err", err)
	}
	if len(raws) > 0 {
		n.push(nil, raws)
		s.schedule.cache = earlier(s.schedule.cache, time.Now().Add(cacheEvery))
	}
}

// withdrawStations says that nothing is behind us any more. The control goroutine has ended.
func (n *Node) withdrawStations() {
	s := &n.state
	if s.dir == nil || s.segment == nil || n.keepsTAP() {
		return
	}
	if raws, err := s.dir.SetStations(stations.Divide(s.dir.OwnPages(), nil, record.MaxPages)); err == nil && len(raws) > 0 {
		n.push(nil, raws)
		s.schedule.cache = time.Now()
	}
}

// stationsChanged tells the switch what records say of members' stations.
func (n *Node) stationsChanged(ids []keys.NodeID) {
	for _, id := range ids {
		if id != n.self {
			n.tellStations(id)
		} else if s := n.state.segment; s != nil { // another than ours has come back
			s.sw.Reconsider()
		}
	}
	if len(ids) > 0 {
		n.state.schedule.cache = earlier(n.state.schedule.cache, time.Now().Add(cacheEvery))
	}
}

// tellStations tells the switch where a member's stations are, if it has a port.
func (n *Node) tellStations(id keys.NodeID) {
	s := &n.state
	m := s.members[id]
	if s.segment == nil || m == nil || m.port == nil {
		return
	}
	list := stations.Bindings(s.dir.Stations(id))
	m.stations = len(list) > 0
	s.segment.sw.SetBindings(id.String(), list)
}

// greet tells a member with whom a session has begun what is new on our side.
func (n *Node) greet(m *member) {
	if s := n.state.segment; s != nil && m.port != nil {
		s.sw.Greet(m.remote.ID.String())
	}
}

// mayHaveHosts says whether there may be hosts behind a member that nobody has heard.
func mayHaveHosts(d *directory.Member) bool {
	return d.Node == nil || d.Node.Capabilities&record.CapHosts != 0
}

// hostsCapability is what our record says of it.
func (n *Node) hostsCapability() record.Capabilities {
	s := n.state.segment
	if n.cfg.Gateway || s != nil && (len(s.outlets.plugs) > 0 || s.sw.Plugs() > 0 || s.bridged) {
		return record.CapHosts
	}
	return 0
}

// lookAtStations takes account of who can be reached, and of this host's addresses.
func (n *Node) lookAtStations(now time.Time) {
	s := &n.state
	if s.segment == nil {
		return
	}
	if now.Before(s.schedule.away) {
		return
	}
	s.schedule.away = now.Add(tick)
	if now.Before(s.schedule.doubts) {
		s.schedule.away = now.Add(doubtTick)
	}
	givenUp := s.gossip.AllGivenUp()
	for id, m := range s.members {
		if away := m.isAway(givenUp[id], now); m.port != nil && away != m.away {
			m.away = away
			s.segment.sw.SetAway(id.String(), away)
		}
	}
	if now.Before(s.schedule.presence) {
		return
	}
	s.schedule.presence = now.Add(allEvery)
	if host, ok := s.segment.device.(interface {
		Presence() (addrs []netip.Addr, bridged bool)
	}); ok {
		var addrs []netip.Addr
		addrs, s.segment.bridged = host.Presence()
		s.segment.sw.SetAddresses(addrs)
	}
}

// isAway says whether what a member has announced is of no use for now. That others
// have given it up is a hint, and may be wrong: questions for its hosts are flooded then,
// and answered by themselves.
func (m *member) isAway(givenUp bool, now time.Time) bool {
	switch {
	case m.up:
		return m.stations && now.Sub(m.doubted) < doubtCounts && m.remote.Mute()
	case m.left || givenUp:
		return true
	case !m.stations:
		return false
	}
	since := m.remote.WantedSince()
	return !since.IsZero() && now.Sub(since) >= awayAfter && !m.remote.Up()
}

// stationHealth tells of disputes about stations.
func (n *Node) stationHealth() (list []api.Health) {
	if n.state.segment == nil {
		return nil
	}
	for _, a := range n.state.segment.sw.Alarms() {
		what, who := a.MAC.String(), a.Port
		if id, err := keys.ParseNodeID(a.Port); err == nil {
			who = n.nameOf(id)
		}
		if a.IP.IsValid() {
			what = fmt.Sprintf("%v of %v", a.IP, a.MAC)
		}
		h := api.Health{Code: string(a.Kind), Severity: api.SeverityWarning}
		switch a.Kind {
		case l2.AlarmClaimed:
			h.Text = fmt.Sprintf("member %s claims %s, which is behind this node and answers here", who, what)
			h.Remedy = "if no second host has this address by mistake, ask who runs " + who
		case l2.AlarmElsewhere:
			h.Text = fmt.Sprintf("frames from %s were heard here, but it answers behind member %s, which keeps it", what, who)
			h.Remedy = "give one of the two hosts another address"
		case l2.AlarmLoop:
			h.Text = fmt.Sprintf("the network behind this node and the one behind member %s are joined: frames would go round, and some are dropped", who)
			h.Remedy = "take out one of the two ways, or let both members run with --bridge, so that one of them forwards"
		case l2.AlarmFlaps:
			h.Text = fmt.Sprintf("%s moves to and fro between this node and member %s and stays where it is for 3 minutes", what, who)
			h.Remedy = "look for a second host with this address, or a loop between the two networks"
		}
		list = append(list, h)
	}
	return list
}
