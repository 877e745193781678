package flood

import (
	"bytes"
	"slices"

	"meshd/keys"
)

// Member is another node that takes copies, as this one sees it.
type Member interface {
	Node() keys.NodeID
	Reach() Reach    // whether there is a session
	Neighbour() bool // one is kept
	Away() bool      // it is thought not to be there: a hint

	Wants(frame []byte) bool // the frame is for it, as far as this node knows
}

// Reach is how a member is reached now.
type Reach uint8

// The ways, the better ones later.
const (
	NoSession Reach = iota
	Relayed         // through others, or by a stream
	Direct
)

func (n *node) up() bool { return n.member.Reach() != NoSession }

// Send says who gets a copy, and which part it is to pass it on to.
type Send struct {
	To Member
	Part
}

// ring has the nodes in the order of their ids.
type ring []*node

func (r ring) search(id keys.NodeID) (int, bool) {
	return slices.BinarySearchFunc(r, id, func(n *node, id keys.NodeID) int { return bytes.Compare(n.id[:], id[:]) })
}

// within are the nodes in a part.
func (r ring) within(p Part) ring {
	if p.First > p.Last {
		return nil
	}
	from, _ := slices.BinarySearchFunc(r, p.First, func(n *node, at uint64) int { return compare(place(n.id), at) })
	to, _ := slices.BinarySearchFunc(r, p.Last, func(n *node, at uint64) int {
		if place(n.id) <= at {
			return -1
		}
		return 1
	})
	return r[from:max(from, to)]
}

// wanting are those that a frame is for.
func (r ring) wanting(frame []byte) ring {
	for i, n := range r {
		if n.member.Wants(frame) {
			continue
		}
		some := slices.Clone(r[:i])
		for _, n := range r[i+1:] {
			if n.member.Wants(frame) {
				some = append(some, n)
			}
		}
		return some
	}
	return r // it is for all, as a rule
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// divide cuts a part into at most Fanout smaller ones, each with the child that gets a
// copy for it. They cover the part but for self's own place, also where no member is
// known: the child may know one. So nobody's part has one in it who has passed the frame
// on, and a tree of h steps reaches at least 7^h members. Those that the frame is not for
// are as if they were not there.
func (m *Machine) divide(name Name, p Part, from keys.NodeID, frame []byte) []Send {
	self, all := place(m.self), m.ring.within(p).wanting(frame)
	if p.First > p.Last || self < p.First || self > p.Last {
		return m.cut(nil, all, name, p, Fanout, from)
	}
	left, right := nowhere, nowhere
	if self > p.First {
		left = Part{p.First, self - 1}
	}
	if self < p.Last {
		right = Part{self + 1, p.Last}
	}
	l, r := len(all.within(left)), len(all.within(right))
	switch {
	case l+r == 0:
		return nil
	case r == 0:
		return m.cut(nil, all, name, left, Fanout, from)
	case l == 0:
		return m.cut(nil, all, name, right, Fanout, from)
	}
	share := min(max((Fanout*l+(l+r)/2)/(l+r), 1), Fanout-1)
	if l+r <= Fanout {
		share = l
	}
	return m.cut(m.cut(nil, all, name, left, share, from), all, name, right, Fanout-share, from)
}

// cut appends to sends what divides a part without self in it among at most n of all.
func (m *Machine) cut(sends []Send, all ring, name Name, p Part, n int, from keys.NodeID) []Send {
	all = all.within(p)
	targets := make(ring, 0, len(all))
	for _, t := range all {
		if t.id == name.Origin || t.id == from {
			continue // this node's view is another than theirs
		}
		if t.member.Away() && !t.up() {
			continue // should it be there all the same, who has a session with it tells it
		}
		targets = append(targets, t)
	}
	n = min(n, len(targets))
	next := p.First
	for i := range n {
		some := targets[i*len(targets)/n : (i+1)*len(targets)/n]
		part := Part{next, place(some[len(some)-1].id)}
		if i == n-1 {
			part.Last = p.Last
		}
		next = part.Last + 1
		child := m.choose(some, name)
		sends = append(sends, Send{child.member, part})
	}
	return sends
}

// turn is how many frames of an origin go by the same children while nothing changes, so
// that frames which follow each other mostly keep their order.
const turn = 16

// choose picks who of some gets the copy for all of them: one with a session, a direct one
// if there is, in turns, so that nobody has to pass on all, nor swallows all. Else the one whose id is the most
// like ours: what is chosen by both ends needs one session and not two.
func (m *Machine) choose(some ring, name Name) *node {
	up, best := m.scratch[:0], Relayed
	for _, n := range some {
		reach := n.member.Reach()
		if reach < best || n.doubtful() {
			continue
		}
		if reach > best {
			up, best = up[:0], reach
		}
		up = append(up, n)
	}
	m.scratch = up
	if len(up) > 0 {
		return up[(name.Number/turn+place(name.Origin)%uint64(len(up)))%uint64(len(up))]
	}
	self, like := place(m.self), some[0]
	for _, n := range some[1:] {
		if n.doubtful() != like.doubtful() {
			if like.doubtful() {
				like = n
			}
		} else if place(n.id)^self < place(like.id)^self {
			like = n
		}
	}
	return like
}

// doubtful reports whether others should pass copies on rather than this one.
func (n *node) doubtful() bool { return n.caught || n.member.Away() }
