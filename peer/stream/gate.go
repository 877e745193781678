package stream

import (
	"net/netip"
	"time"
)

// gate bounds what strangers may hold here: so many at once, of which so many
// from one source. Where there is no place left, who has had some time to show
// that it belongs here makes room for who has just come, so that an honest
// newcomer gets in however many there are.
type gate struct {
	limit, perSource int
	patience         time.Duration // nobody goes sooner
	inside           []entrant     // oldest first
	next             uint64
}

// entrant is one that is inside.
type entrant struct {
	id     uint64
	source netip.Prefix
	since  time.Time
}

// enter lets one in; evicted has to go for it, 0 for none. Ids begin with 1.
func (g *gate) enter(source netip.Prefix, now time.Time) (id, evicted uint64, ok bool) {
	there, first := 0, -1
	for i, e := range g.inside {
		if e.source == source {
			if there++; first < 0 {
				first = i
			}
		}
	}
	out := -1
	switch {
	case there >= g.perSource:
		out = first
	case len(g.inside) >= g.limit:
		out = 0
	}
	if out >= 0 {
		if now.Sub(g.inside[out].since) < g.patience {
			return 0, 0, false
		}
		evicted = g.inside[out].id
		g.leave(evicted)
	}
	g.next++
	g.inside = append(g.inside, entrant{g.next, source, now})
	return g.next, evicted, true
}

// leave takes one off the count: it has gone, or has shown that it belongs here.
func (g *gate) leave(id uint64) {
	for i, e := range g.inside {
		if e.id == id {
			g.inside = append(g.inside[:i], g.inside[i+1:]...)
			return
		}
	}
}
