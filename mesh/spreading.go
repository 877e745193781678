package mesh

import (
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/mesh/directory"
	"meshd/mesh/record"
	"meshd/peer"
)

// How frames for all go by copies that members pass on: what the engine and the switch
// need to know for it.

// What is not for all is for those that the switch says.
var _ peer.Selective = (*l2.RemotePort)(nil)

// everyone is the port that stands for all members that take copies.
func (n *Node) everyone() l2.Port {
	n.tellLife()
	return n.engine.Everyone()
}

// tellLife tells the engine in which of its lives this node is: its record says it too, and
// others drop copies of an earlier one.
func (n *Node) tellLife() {
	n.engine.StartFlooding(n.state.membership.trust().NetworkID(), n.state.dir.Epoch())
}

// tellSpreading says whether a member takes copies, by its record.
func (n *Node) tellSpreading(d *directory.Member, m *member) {
	takes := d.Node != nil && d.Node.Capabilities&record.CapCopies != 0
	m.remote.TakeCopies(takes, d.NodeVersion.Epoch)
}

// hintAway tells the engine who is thought not to be there, so that others pass copies on.
func (n *Node) hintAway(away func(keys.NodeID) bool) {
	for id, m := range n.state.members {
		m.remote.SetAway(away(id))
	}
}

// away says whether a member is thought not to be there.
func (n *Node) away(id keys.NodeID, now time.Time) bool {
	m := n.state.members[id]
	return m == nil || m.left || now.Sub(m.failed) < failingFor || n.state.gossip.GivenUp(id)
}
