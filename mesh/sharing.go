package mesh

import (
	"bytes"
	"slices"
	"time"

	"meshd/keys"
	"meshd/l2/lanport"
)

// Which members share a LAN: as far as they say that they hear each other there. What a
// member says alone, of another's LAN, gives it nothing of that.

// lingers is how long two go on sharing a LAN when one has ceased to hear the other, who
// has not taken back that he hears it: he may have died, and the one speaks for both.
const lingers = 10 * time.Second

// pair is two members, the lower one first.
type pair [2]keys.NodeID

func pairOf(a, b *lanSaid) pair {
	if bytes.Compare(a.From[:], b.From[:]) > 0 {
		a, b = b, a
	}
	return pair{keys.NodeID(a.From), keys.NodeID(b.From)}
}

// mutual reports whether two hear each other on a LAN that both give one name.
func mutual(a, b *lanSaid) bool {
	return a.Segment == b.Segment && a.Hears(b.From) && b.Hears(a.From)
}

// share reports whether two are on one LAN, one of whom hears the other.
func (t *lans) share(a, b *lanSaid, now time.Time) bool {
	if a.Segment != b.Segment || mutual(a, b) {
		return a.Segment == b.Segment
	}
	met, known := t.met[pairOf(a, b)]
	return known && now.Sub(met) < lingers
}

// parts notes with whom a member shares a LAN, before it says something else.
func (t *lans) parts(s *lanSaid, now time.Time) {
	if t.met == nil {
		t.met = map[pair]time.Time{}
	}
	for _, id := range s.Heard {
		if other := t.said[keys.NodeID(id)]; other != nil && mutual(s, other) {
			t.met[pairOf(s, other)] = now
		}
	}
}

// tidy forgets who once shared a LAN, and reports whether there was somebody to forget.
func (t *lans) tidy(now time.Time) bool {
	before := len(t.met)
	for p, met := range t.met {
		if now.Sub(met) >= lingers {
			delete(t.met, p)
		}
	}
	return len(t.met) < before
}

// shared divides the members among the LANs that they share, each of which goes by the
// lowest of them. Who shares none is left out.
func (t *lans) shared(now time.Time) map[keys.NodeID]keys.NodeID {
	next := map[lanport.ID][]lanport.ID{}
	ids := make([]lanport.ID, 0, len(t.said))
	for _, s := range t.said {
		ids = append(ids, s.From)
		for _, id := range s.Heard {
			if other := t.said[keys.NodeID(id)]; other != nil && other != s && t.share(s, other, now) {
				next[s.From], next[id] = append(next[s.From], id), append(next[id], s.From)
			}
		}
	}
	slices.SortFunc(ids, func(a, b lanport.ID) int { return bytes.Compare(a[:], b[:]) })
	names := map[keys.NodeID]keys.NodeID{}
	for _, lowest := range ids {
		for wave := next[lowest]; len(wave) > 0; {
			id := keys.NodeID(wave[0])
			wave = wave[1:]
			if _, done := names[id]; !done {
				names[id] = keys.NodeID(lowest)
				wave = append(slices.Clip(wave), next[lanport.ID(id)]...)
			}
		}
	}
	return names
}
