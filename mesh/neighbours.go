package mesh

import (
	"bytes"
	"math/bits"
	"time"

	"meshd/keys"
	"meshd/mesh/directory"
)

const (
	// failingAfter is how long a neighbour may be tried for before another one
	// stands in, and failingFor how long that lasts.
	failingAfter = 15 * time.Second
	failingFor   = 5 * time.Minute
)

// neighbours picks the members to keep a session with, about log2(N)+4 of them:
// those before and behind this node on several rings, each of which has the
// members in another order. Who is a neighbour of whom is mutual, every node has
// as many, one that comes or goes changes little, and the whole is connected
// (unions of random rings are expanders: Law and Siu, "Distributed construction
// of random expander networks", 2003). Those that skip names are passed over,
// unless there are so few members that each is everybody's neighbour.
func neighbours(self keys.NodeID, all []keys.NodeID, skip func(keys.NodeID) bool) []keys.NodeID {
	others := len(all) - 1
	want := min(others, bits.Len(uint(max(others, 0)))+4)
	var picked []keys.NodeID
	if others <= want {
		for _, id := range all {
			if id != self {
				picked = append(picked, id)
			}
		}
		return picked
	}
	rings := make([]ring, want/2)
	for i := range rings {
		rings[i].self = turned(self, i)
	}
	for _, id := range all {
		if id == self || skip(id) {
			continue
		}
		for i := range rings {
			rings[i].offer(turned(id, i))
		}
	}
	seen := map[keys.NodeID]bool{self: true}
	for i := range rings {
		for _, at := range []keys.NodeID{rings[i].behind(), rings[i].before()} {
			if id := turned(at, len(at)-i); !seen[id] {
				seen[id] = true
				picked = append(picked, id)
			}
		}
	}
	return picked
}

// turned is an id with its bytes turned around, by which one ring orders the
// members: ids are hashes, so that each ring has another order.
func turned(id keys.NodeID, by int) (out keys.NodeID) {
	copy(out[copy(out[:], id[by%len(id):]):], id[:])
	return out
}

// ring finds the places next to self.
type ring struct {
	self         keys.NodeID
	above, below keys.NodeID // the closest to self in either direction
	least, most  keys.NodeID
	anyAbove     bool
	anyBelow     bool
}

func (r *ring) offer(id keys.NodeID) {
	if bytes.Compare(id[:], r.self[:]) > 0 {
		if !r.anyAbove || bytes.Compare(id[:], r.above[:]) < 0 {
			r.above = id
		}
		if !r.anyAbove || bytes.Compare(id[:], r.most[:]) > 0 {
			r.most = id
		}
		r.anyAbove = true
		return
	}
	if !r.anyBelow || bytes.Compare(id[:], r.below[:]) > 0 {
		r.below = id
	}
	if !r.anyBelow || bytes.Compare(id[:], r.least[:]) < 0 {
		r.least = id
	}
	r.anyBelow = true
}

// behind is the next place, self where there is none.
func (r *ring) behind() keys.NodeID {
	switch {
	case r.anyAbove:
		return r.above
	case r.anyBelow:
		return r.least
	}
	return r.self
}

// before is the place before.
func (r *ring) before() keys.NodeID {
	switch {
	case r.anyBelow:
		return r.below
	case r.anyAbove:
		return r.most
	}
	return r.self
}

// keepNeighbours keeps a session with each neighbour. One that cannot be reached
// is replaced for a while.
func (n *Node) keepNeighbours(now time.Time) {
	s := &n.state
	for _, id := range s.neighbours {
		m := s.members[id]
		if m == nil {
			continue
		}
		if m.up {
			m.keptSince = now
		} else if now.Sub(m.keptSince) > failingAfter && now.Sub(m.failed) > failingFor {
			m.failed = now
			s.schedule.neighbours = now
		}
	}
	select {
	case <-s.gossip.Changed():
		s.schedule.neighbours = earlier(s.schedule.neighbours, now)
	default:
	}
	if s.schedule.neighbours.IsZero() || now.Before(s.schedule.neighbours) {
		return
	}
	s.schedule.neighbours = now.Add(failingFor)
	n.chooseNeighbours(now)
}

// chooseNeighbours brings the neighbours up to date with who is a member and who
// is alive.
func (n *Node) chooseNeighbours(now time.Time) {
	s := &n.state
	ids := idsOf(s.dir.Members())
	skip := func(id keys.NodeID) bool { return n.away(id, now) }
	n.hintAway(skip)
	picked := neighbours(n.self, ids, skip)
	kept := map[keys.NodeID]bool{}
	s.neighbours = s.neighbours[:0]
	for _, id := range picked {
		m := s.members[id]
		if m == nil || m.left {
			continue
		}
		kept[id] = true
		s.neighbours = append(s.neighbours, id)
		if !m.kept {
			m.kept, m.keptSince = true, now
			m.remote.Keep(true)
		}
	}
	for id, m := range s.members {
		if m.kept && !kept[id] {
			m.kept = false
			m.remote.Keep(false)
		}
	}
	s.gossip.SetNeighbours(s.neighbours)
}

func idsOf(members []*directory.Member) []keys.NodeID {
	ids := make([]keys.NodeID, 0, len(members))
	for _, d := range members {
		ids = append(ids, d.ID)
	}
	return ids
}
