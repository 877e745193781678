package mesh

import (
	"net/netip"
	"time"

	"meshd/keys"
	"meshd/mesh/join"
	"meshd/mesh/record"
	"meshd/peer"
	"meshd/peer/hello"
)

const (
	// maxPending bounds the joiners that wait at this member.
	maxPending = 64
	// pendingFor is how long each may wait.
	pendingFor = 10 * time.Minute
)

// pendingJoiner is somebody without a certificate who has said hello here.
type pendingJoiner struct {
	remote *peer.Remote
	from   netip.AddrPort
	until  time.Time
}

// met acts on a hello that ended well, whichever side began it.
func (n *Node) met(result *hello.Result, at netip.AddrPort) {
	s := &n.state
	if s.dir == nil {
		return // a joiner: joinNetwork has the result itself
	}
	id := result.Remote.ID()
	if result.Certificate != nil {
		raw, err := record.FromCertificate(result.Certificate.Raw)
		if err != nil {
			return
		}
		n.merge(nil, [][]byte{raw})
		n.reconcileMembers(time.Now())
		if m := s.members[id]; m != nil {
			m.left, m.hourOffset = false, result.HourOffset
			m.remote.Learn(at)
			m.remote.Want()
		}
		return
	}
	if s.members[id] != nil || (s.pending[id] == nil && len(s.pending) >= maxPending) {
		return
	}
	remote, err := n.engine.SetRemote(peer.Spec{Public: result.Remote, Class: peer.Pending, HourOffset: result.HourOffset})
	if err != nil {
		return
	}
	remote.Learn(at)
	s.pending[id] = &pendingJoiner{remote: remote, from: at, until: time.Now().Add(pendingFor)}
}

// expirePending forgets joiners who have become members or have waited too long.
func (n *Node) expirePending(now time.Time) {
	for id, p := range n.state.pending {
		switch {
		case n.state.members[id] != nil: // its remote lives on
			delete(n.state.pending, id)
		case now.After(p.until):
			delete(n.state.pending, id)
			n.engine.Forget(id)
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
		n.carryBack(body)
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
	if p := s.pending[from.ID]; p != nil {
		at = p.from
	}
	self := n.identity.Public().ID()
	if s.desk != nil && (signer.IsZero() || signer == self) {
		for _, reply := range s.desk.ReceiveFrom(from.Public, at, msg, now) {
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
	for _, reply := range n.state.desk.ReceiveFrom(carry.Joiner, carry.From, carry.Payload, now) {
		if back, err := (join.Back{Joiner: carry.Joiner.ID(), Payload: reply}).Marshal(); err == nil {
			sendControl(introducer, kindJoin, []byte{joinBack}, back)
		}
	}
}

// carryBack hands a signer's answer to the joiner who waits here.
func (n *Node) carryBack(body []byte) {
	back, err := join.ParseBack(body)
	if err != nil {
		return
	}
	if p := n.state.pending[back.Joiner]; p != nil {
		sendControl(p.remote, kindJoin, []byte{joinDirect}, back.Payload)
	}
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
