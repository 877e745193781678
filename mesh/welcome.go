package mesh

import (
	"net/netip"
	"time"

	"meshd/keys"
	"meshd/mesh/join"
	"meshd/mesh/record"
	"meshd/peer"
	"meshd/peer/hello"
	"meshd/peer/way"
)

const (
	// maxPending bounds the joiners that wait at this member.
	maxPending = 256
	// pendingFor is how long each may wait for an admin, and unheardFor for the
	// joiner's first word.
	pendingFor = 10 * time.Minute
	unheardFor = 30 * time.Second
	// maxPendingFrom is how many may wait from one IPv4 address or IPv6 /64.
	maxPendingFrom = 16
	// settleFor is how long one that has not been heard yet keeps its place: some round
	// trips of a slow link or a busy host.
	settleFor = 4 * time.Second
)

// pendingJoiner is somebody without a certificate who has said hello here.
type pendingJoiner struct {
	remote *peer.Remote
	from   netip.AddrPort
	since  time.Time
	until  time.Time
	heard  bool // a join message came
}

// met acts on a hello that ended well, whichever side began it.
func (n *Node) met(result *hello.Result, at netip.AddrPort) {
	s := &n.state
	if s.dir == nil {
		return // a joiner: joinNetwork has the result itself
	}
	id := result.Remote.ID()
	n.assignLine(at, id)
	if result.Certificate != nil {
		raw, err := record.FromCertificate(result.Certificate.Raw)
		if err != nil {
			return
		}
		n.merge(nil, [][]byte{raw})
		n.reconcileMembers(time.Now())
		if m := s.members[id]; m != nil {
			m.left = false
			n.noteHour(m, result)
			m.remote.Learn(at)
			m.remote.Want()
		}
		return
	}
	now := time.Now()
	from := n.sourceOf(at)
	if s.members[id] != nil || (s.pending[id] == nil && !n.makeRoom(from, now)) {
		return
	}
	remote, err := n.engine.SetRemote(peer.Spec{Public: result.Remote, Class: peer.Pending, HourOffset: result.HourOffset})
	if err != nil {
		return
	}
	remote.Learn(at)
	if p := s.pending[id]; p != nil && p.heard { // it meets us again
		p.remote, p.from = remote, from
		return
	}
	s.pending[id] = &pendingJoiner{remote: remote, from: from, since: now, until: now.Add(unheardFor)}
}

// noteHour takes over what a hello says of a member's clock.
func (n *Node) noteHour(m *member, result *hello.Result) {
	if m.hourOffset == result.HourOffset {
		return
	}
	m.hourOffset = result.HourOffset
	_, err := n.engine.SetRemote(peer.Spec{
		Public: m.remote.Public, Class: peer.Member, Candidates: m.endpoints, HourOffset: m.hourOffset,
	})
	if err != nil {
		n.log.Warn("note a member's clock", "err", err)
	}
}

// makeRoom reports whether another joiner may wait here. One who has not said a
// word makes room where there is none.
func (n *Node) makeRoom(at netip.AddrPort, now time.Time) bool {
	s := &n.state
	from, there := way.Source(at.Addr()), 0
	for _, p := range s.pending {
		if way.Source(p.from.Addr()) == from {
			there++
		}
	}
	if there < maxPendingFrom && len(s.pending) < maxPending {
		return true
	}
	var oldest keys.NodeID
	for id, p := range s.pending {
		if p.heard || now.Sub(p.since) < settleFor || (there >= maxPendingFrom && way.Source(p.from.Addr()) != from) {
			continue
		}
		if oldest.IsZero() || p.since.Before(s.pending[oldest].since) {
			oldest = id
		}
	}
	if oldest.IsZero() {
		return false
	}
	n.dropPending(oldest)
	return true
}

func (n *Node) dropPending(id keys.NodeID) {
	delete(n.state.pending, id)
	n.engine.Forget(id)
}

// expirePending forgets joiners who have become members or have waited too long.
func (n *Node) expirePending(now time.Time) {
	for id, p := range n.state.pending {
		switch {
		case n.state.members[id] != nil: // its remote lives on
			delete(n.state.pending, id)
		case now.After(p.until):
			n.dropPending(id)
		}
	}
}

// handleJoin takes a join message: of the desk as a joiner, of a joiner as an
// introducer or signer, or of another member that introduces or signs.
func (n *Node) handleJoin(from *peer.Remote, body []byte) {
	if len(body) == 0 {
		return
	}
	kind, body := body[0], body[1:]
	now := time.Now()
	if j := n.state.joining; j != nil {
		if kind == joinDirect && from == j.entry {
			if err := j.machine.Receive(body, now); err != nil {
				n.log.Debug("join message", "err", err)
			} else if j.machine.Notice() == "" { // of the signer, not of an introducer that does not find it
				j.signs.hear(now)
			}
			j.wake = time.Time{}
			n.advanceJoin(now)
		}
		return
	}
	if n.state.dir == nil {
		return
	}
	switch {
	case kind == joinDirect:
		n.introduce(from, body, now)
	case from.Class() != peer.Member:
	case kind == joinCarry:
		n.signFor(from, body, now)
	case kind == joinBack:
		n.carryBack(from, body)
	}
}

// introduce answers a joiner, or carries its message to the signer it needs.
func (n *Node) introduce(from *peer.Remote, msg []byte, now time.Time) {
	s := &n.state
	signer, ok := join.Signer(msg)
	if !ok {
		return
	}
	var at netip.AddrPort
	switch p := s.pending[from.ID]; {
	case p != nil:
		if !p.heard {
			p.heard, p.until = true, now.Add(pendingFor)
		}
		at = p.from
	case from.Class() != peer.Member:
		return // it waits here no longer
	}
	self := n.self
	if s.desk != nil && (signer.IsZero() || signer == self) {
		for _, reply := range s.desk.ReceiveFrom(from.Public, join.Origin{At: at}, msg, now) {
			sendControl(from, kindJoin, []byte{joinDirect}, reply)
		}
		n.wake()
		return
	}
	to := n.signerRemote(signer)
	carry, err := join.Carry{Joiner: from.Public, From: at, Payload: msg}.Marshal()
	if to == nil || err != nil {
		sendControl(from, kindJoin, []byte{joinDirect}, join.Unreachable(msg))
		return
	}
	sendControl(to, kindJoin, []byte{joinCarry}, carry)
}

// signerRemote finds the signer by id, or any signer that can be reached, or
// any at all.
func (n *Node) signerRemote(id keys.NodeID) *peer.Remote {
	var found *peer.Remote
	for _, m := range n.state.dir.Members() {
		known := n.state.members[m.ID]
		if known == nil || !m.Certificate.Roles.Has("admin") || (!id.IsZero() && m.ID != id) {
			continue
		}
		if found = known.remote; found.Status().Up {
			return found
		}
	}
	return found
}

// signFor is the desk's answer to a joiner that another member introduces.
func (n *Node) signFor(introducer *peer.Remote, body []byte, now time.Time) {
	carry, err := join.ParseCarry(body)
	if err != nil || n.state.desk == nil {
		return
	}
	for _, reply := range n.state.desk.ReceiveFrom(carry.Joiner, join.Origin{At: carry.From, By: introducer.ID}, carry.Payload, now) {
		if back, err := (join.Back{Joiner: carry.Joiner.ID(), Payload: reply}).Marshal(); err == nil {
			sendControl(introducer, kindJoin, []byte{joinBack}, back)
		}
	}
}

// carryBack hands a signer's answer to the joiner who waits here. A refusal has
// no signature, so that members who sign nothing are not listened to.
func (n *Node) carryBack(from *peer.Remote, body []byte) {
	back, err := join.ParseBack(body)
	if d := n.state.dir.Member(from.ID); err != nil || d == nil || !d.Certificate.Roles.Has("admin") {
		return
	}
	if p := n.state.pending[back.Joiner]; p != nil {
		sendControl(p.remote, kindJoin, []byte{joinDirect}, back.Payload)
	}
}

// mayNotJoin says whose keys the desk must not sign: those of a revoked node, and
// those of which a member holds one. A joiner proves the others in its session
// with its introducer only, and that may be anybody.
func (n *Node) mayNotJoin(p keys.Public) bool {
	for _, r := range n.state.dir.Revocations() {
		if r.Key == p.Sign && r.Serial == "" {
			return true
		}
	}
	for _, m := range n.state.dir.Members() {
		if o := m.Certificate.Public; o.Sign != p.Sign && (o.WireGuard == p.WireGuard || o.Probe == p.Probe) {
			return true
		}
	}
	return false
}

// nameTaken says whether a member has the name already.
func (n *Node) nameTaken(name string) bool {
	for _, m := range n.state.dir.Members() {
		if m.Certificate.Name == name {
			return true
		}
	}
	return false
}
