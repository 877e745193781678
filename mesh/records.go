package mesh

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"meshd/keys"
	"meshd/mesh/directory"
	"meshd/mesh/record"
	"meshd/nat-traversal"
	"meshd/peer"
	"meshd/peer/punch"
)

// errNoSession says that a packet could not go now.
var errNoSession = errors.New("no session")

// gossipLink carries memberlist's packets inside sessions.
type gossipLink struct{ node *Node }

// SendControl implements gossip.Link.
func (l gossipLink) SendControl(to keys.NodeID, packet []byte) error {
	if r := l.node.engine.Remote(to); r != nil && sendControl(r, kindGossip, packet) {
		return nil
	}
	return errNoSession
}

// cache is what a node knows of others, so that it finds them again when every
// entry point is dead.
type cache struct {
	Records  [][]byte          `cbor:"1,keyasint"`
	LastGood map[string]string `cbor:"2,keyasint"` // id: where it was reached
}

// seedDirectory fills the directory with what is known at the start.
func (n *Node) seedDirectory(m *membership, now time.Time) error {
	s := &n.state
	s.lastGood = map[keys.NodeID]netip.AddrPort{}
	own, err := record.FromCertificate(m.Chain)
	if err != nil {
		return fmt.Errorf("read membership: %w", err)
	}
	raws := [][]byte{own}
	if len(m.Network) > 0 {
		raws = append(raws, m.Network)
	}
	s.dir.Load(raws, now)
	if s.dir.Member(n.self) == nil {
		return errors.New("read membership: our own certificate is not valid for our network")
	}
	raw, err := n.store.Load(stateCache)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var c cache
	if err == nil {
		err = cbor.Unmarshal(raw, &c)
	}
	if err != nil { // losing it is allowed
		n.event(Warning, fmt.Sprintf("the cache of members cannot be read and is made anew: %v", err))
		return nil
	}
	s.dir.Load(c.Records, now)
	for text, addr := range c.LastGood {
		id, err := keys.ParseNodeID(text)
		at, err2 := netip.ParseAddrPort(addr)
		if err == nil && err2 == nil {
			s.lastGood[id] = at
		}
	}
	return nil
}

// saveCache writes what is known, if it changed.
func (n *Node) saveCache() {
	s := &n.state
	s.schedule.cache, s.schedule.cached = time.Time{}, time.Now()
	c := cache{Records: s.dir.Snapshot(), LastGood: map[string]string{}}
	for id, at := range s.lastGood {
		c.LastGood[id.String()] = at.String()
	}
	raw, err := cbor.Marshal(c)
	if err == nil {
		err = n.store.Save(stateCache, raw)
	}
	if err != nil {
		n.log.Warn("write the cache of members", "err", err)
	}
}

// cacheSoon has the cache written for new records: now, or so long after the last time that a crowd of new members does
// not keep the disk busy.
func (n *Node) cacheSoon() {
	s := &n.state.schedule
	pause := time.Duration(len(n.state.members)) * cachePerMember
	due := s.cached.Add(min(max(pause, cacheSoonest), cacheLatest))
	if now := time.Now(); due.Before(now) {
		due = now
	}
	s.cache = earlier(s.cache, due)
}

// merge takes records from somebody (nil: from here) and passes on what was new.
func (n *Node) merge(from *peer.Remote, raws [][]byte) {
	now := time.Now()
	s := &n.state
	delta, res := s.dir.Merge(raws, now)
	n.afterMerge(from, delta, res)
}

// handleRecords takes a message of the record exchange.
func (n *Node) handleRecords(from *peer.Remote, msg []byte) {
	if n.state.dir == nil {
		return
	}
	replies, delta, res := n.state.dir.HandleSync(from.ID, msg, time.Now())
	for _, reply := range replies {
		sendControl(from, kindRecords, reply)
	}
	n.afterMerge(from, delta, res)
}

// afterMerge acts on what came of a merge: passes on what was new, and drops
// who is a member no longer.
func (n *Node) afterMerge(from *peer.Remote, delta [][]byte, res directory.MergeResult) {
	for _, alarm := range res.Alarms {
		if last, known := n.state.alarms[alarm]; !known || time.Since(last) > time.Minute {
			n.log.Warn("record alarm", "kind", alarm.Kind, "owner", alarm.Owner.String())
		}
		n.state.alarms[alarm] = time.Now()
	}
	if len(delta) > 0 {
		n.push(from, delta)
	}
	n.noteRevocations()
	if res.Own {
		n.keepEpoch()
	}
	n.noteChanges(res.Changed)
	n.stationsChanged(res.Stations)
	if res.Network {
		n.state.schedule.all = time.Time{}
	}
	if len(res.Changed) > 0 || res.Network || res.Own {
		n.cacheSoon()
		n.wake()
	}
}

// noteRevocations shows the engine's goroutine, which judges hellos, who is out.
func (n *Node) noteRevocations() {
	list := n.state.dir.Revocations()
	if last := n.banned.Load(); last == nil || len(*last) != len(list) || !slices.Equal(*last, list) {
		n.banned.Store(&list)
	}
}

// keepEpoch writes down that our records have moved above those that came back
// from others: our state was lost or rolled back.
func (n *Node) keepEpoch() {
	const most = 64 // a step at a time, each synced; the rest is caught up with at the next start
	for range most {
		epoch, err := n.store.NextEpoch()
		if err != nil {
			n.log.Warn("write the epoch", "err", err)
			return
		}
		if epoch >= n.state.dir.Epoch() {
			return
		}
	}
}

// push passes records on to all neighbours but the one they came from.
func (n *Node) push(from *peer.Remote, raws [][]byte) {
	messages := directory.Push(raws)
	for _, id := range n.state.neighbours {
		m := n.state.members[id]
		if m == nil || m.remote == from {
			continue
		}
		for _, msg := range messages {
			sendControl(m.remote, kindRecords, msg)
		}
	}
}

// compare begins to compare what we know with one member.
func (n *Node) compare(with *peer.Remote) { sendControl(with, kindRecords, n.state.dir.Sum()) }

// newTxID returns a random STUN transaction id.
func newTxID() traversal.TxID {
	var id traversal.TxID
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return id
}

// publish signs our own record anew when what it says has changed.
func (n *Node) publish(now time.Time) {
	s := &n.state
	n.gather(now)
	s.self.list = n.candidates(now)
	if told := (punch.Local{Candidates: s.self.list, Mapping: s.self.stun.Result(now).Mapping}); !told.Equal(s.self.told) {
		s.self.told = told
		n.engine.SetLocal(told)
	}
	body := record.Node{Contacts: n.keepContacts(now), Capabilities: n.capabilities(), Software: n.cfg.Version[:min(len(n.cfg.Version), record.MaxSoftware)]}
	body.Endpoints = n.ownTLSEndpoints()
	for _, c := range s.self.list {
		if len(body.Endpoints) < record.MaxEndpoints {
			body.Endpoints = append(body.Endpoints, record.Endpoint{Addr: c.Addr, Kind: endpointKind(c.Kind)})
		}
	}
	raw, err := s.dir.SetNode(body.Trim())
	if err != nil {
		n.log.Error("sign our record", "err", err)
		return
	}
	if raw != nil {
		n.push(nil, [][]byte{raw})
	}
}

// gather looks at the host's addresses, when they may have changed.
func (n *Node) gather(now time.Time) {
	s := &n.state
	if now.Before(s.schedule.gather) {
		return
	}
	s.schedule.gather = now.Add(gatherEvery)
	port := n.conns[0].LocalAddr().Port()
	overlay := n.prefixes()
	if s.segment.complete() { // the host's uplink may have addresses in them as well
		overlay = hostRoutes(ownAddresses(n.self, overlay))
	}
	list, err := n.cfg.Host.Candidates(port, n.cfg.TAP, overlay)
	if err != nil {
		n.log.Warn("list addresses", "err", err)
		return
	}
	s.self.gathered = list
	var local []netip.AddrPort
	for _, c := range list {
		local = append(local, c.Addr)
	}
	s.self.stun.SetLocal(local)
}

// candidates are all the ways to reach this node, best first: advertised by
// the operator, opened at a router, of the host, as others see us.
func (n *Node) candidates(now time.Time) []traversal.Candidate {
	s := &n.state
	var list []traversal.Candidate
	add := func(c traversal.Candidate) {
		if traversal.UsableEndpoint(c.Addr) && !slices.ContainsFunc(list, func(o traversal.Candidate) bool { return o.Addr == c.Addr }) {
			list = append(list, c)
		}
	}
	for _, a := range s.self.advertised {
		add(traversal.Candidate{Addr: a, Kind: traversal.Advertised})
	}
	for _, c := range n.mapped() {
		add(c)
	}
	for _, c := range s.self.gathered {
		add(c)
	}
	for _, a := range n.observed(now) {
		add(traversal.Candidate{Addr: a, Kind: traversal.Reflexive})
	}
	return list
}

// observed are the addresses that at least one member sees us at, most often
// seen first, at most four.
func (n *Node) observed(now time.Time) []netip.AddrPort {
	count := map[netip.AddrPort]int{}
	for _, m := range n.state.up {
		if m.observed.IsValid() {
			count[m.observed]++
		}
	}
	for _, a := range n.state.self.stun.Result(now).Reflexive {
		count[a]++
	}
	list := make([]netip.AddrPort, 0, len(count))
	for a := range count {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b netip.AddrPort) int {
		if count[a] != count[b] {
			return count[b] - count[a]
		}
		return a.Compare(b)
	})
	return list[:min(len(list), 4)]
}

func endpointKind(k traversal.Kind) record.EndpointKind {
	switch k {
	case traversal.Reflexive:
		return record.KindReflexive
	case traversal.Mapped:
		return record.KindMapped
	case traversal.Advertised:
		return record.KindAdvertised
	default:
		return record.KindHost
	}
}
