package l2

import (
	"slices"
	"sync/atomic"

	"meshd/l2/snoop"
)

// audience counts what remotes want. It is guarded by Switch.mu, but for away.
type audience struct {
	listeners map[snoop.Group]int
	routers   int // remotes with a multicast router
	strays    int // remotes that want everything, without one
	away      atomic.Pointer[awayGroups]
}

// awayGroups is what hosts elsewhere listen to. It is immutable.
type awayGroups struct {
	keys    map[station]struct{}
	ordered []snoop.Group
	routers bool
	strays  bool
}

// listening is what one remote wants; nil is everything. It is immutable.
type listening struct {
	set  *snoop.Set
	keys map[station]struct{}
}

// SetGroups says which multicast groups are wanted behind the remote; nil, as before the first call, is all of them.
func (r *RemotePort) SetGroups(set *snoop.Set) {
	s := r.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.at.Load() == nil {
		return // its part has been taken from the audience
	}
	var to *listening
	if set != nil && !set.All {
		to = &listening{set, groupKeys(set.Groups)}
		if set.Router {
			to = &listening{set: &snoop.Set{Router: true, Groups: set.Groups}} // no VLAN: everything
		}
	}
	s.groups.count(r.listens.Load(), -1)
	r.listens.Store(to)
	s.groups.count(to, 1)
	s.groups.publish()
}

// count adds a remote to the audience, or takes it out.
func (a *audience) count(l *listening, n int) {
	switch {
	case l == nil:
		a.strays += n
		return
	case l.set.Router:
		a.routers += n
	}
	for _, g := range l.set.Groups {
		if a.listeners[g] += n; a.listeners[g] == 0 {
			delete(a.listeners, g)
		}
	}
}

// publish makes another away if that would differ.
func (g *groups) publish() {
	old := g.away.Load()
	routers, strays := g.routers > 0, g.strays > 0
	same := len(old.ordered) == len(g.listeners)
	for _, k := range old.ordered {
		same = same && g.listeners[k] > 0
	}
	if same && old.routers == routers && old.strays == strays {
		return
	}
	away := &awayGroups{routers: routers, strays: strays}
	for k := range g.listeners {
		away.ordered = append(away.ordered, k)
	}
	slices.SortFunc(away.ordered, snoop.Group.Compare)
	away.keys = groupKeys(away.ordered)
	g.away.Store(away)
	g.poke()
}

// enter and leave keep the audience as remotes come and go. They need Switch.mu.
func (g *groups) enter() {
	g.strays++
	g.publish()
}

func (g *groups) leave(r *RemotePort) {
	g.count(r.listens.Load(), -1)
	g.publish()
}
