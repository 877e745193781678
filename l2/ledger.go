package l2

import (
	"slices"
	"time"
)

// ledger is what one remote has announced.
type ledger struct {
	said map[station]Binding // its records
	told map[station]notion  // its notices, which are newer
	rate bucket

	claims bucket

	sought time.Duration // when its stations were last asked for; 0: never

	anew time.Duration // when it is all to be settled again; 0: it is settled
	lan  string        // that was shared when the stations were forgotten, until then
}

// notion is what a notice said of a station.
type notion struct {
	Binding
	gone  bool
	stamp uint64
	until time.Duration
}

// of returns a remote's ledger. It needs mu.
func (w *whereabouts) of(r *RemotePort) *ledger {
	l := w.by[r]
	if l == nil {
		l = &ledger{
			said: make(map[station]Binding), told: make(map[station]notion),
			rate: bucket{rate: noticeRate, burst: noticeBurst}, claims: bucket{rate: claimRate, burst: claimBurst},
		}
		w.by[r] = l
	}
	return l
}

// current is what a remote says of a station now.
func (l *ledger) current(k station) (Binding, bool) {
	if n, ok := l.told[k]; ok {
		return n.Binding, !n.gone
	}
	b, ok := l.said[k]
	return b, ok
}

// stations are all that a remote has said anything of.
func (l *ledger) stations() map[station]struct{} {
	all := make(map[station]struct{}, len(l.said)+len(l.told))
	for k := range l.said {
		all[k] = struct{}{}
	}
	for k := range l.told {
		all[k] = struct{}{}
	}
	return all
}

// resettle has all that a remote announces settled after a while. It needs mu.
func (w *whereabouts) resettle(r *RemotePort, now time.Duration) {
	at := r.at.Load()
	if at == nil {
		return
	}
	l := w.of(r)
	if l.anew == 0 {
		l.lan = at.lan
	}
	l.anew = now + relearnFor
}

// doubt drops the notices of what a remote has, its own and what it has inherited: its
// records, or the next notice, say it anew. It needs mu.
func (w *whereabouts) doubt(r *RemotePort) {
	l := w.by[r]
	if l == nil {
		return
	}
	for k, n := range l.told {
		if !n.gone {
			delete(l.told, k)
			w.index(k, r)
		}
	}
}

// says tells whether r announces a station. It needs mu.
func (w *whereabouts) says(r *RemotePort, k station) bool {
	l := w.by[r]
	if l == nil {
		return false
	}
	_, says := l.current(k)
	return says
}

// gone says whether a notice of r has taken a station away. It needs mu.
func (w *whereabouts) gone(r *RemotePort, k station) bool {
	l := w.by[r]
	return l != nil && l.told[k].gone
}

// index keeps announcers in step with the ledger of r. It needs mu.
func (w *whereabouts) index(k station, r *RemotePort) {
	has := w.says(r, k)
	list := w.announcers[k]
	i := slices.Index(list, r)
	switch {
	case has && i < 0:
		w.announcers[k] = append(list, r)
	case !has && i >= 0:
		if list = slices.Delete(list, i, i+1); len(list) == 0 {
			delete(w.announcers, k)
			return
		}
		w.announcers[k] = list
	}
}

// note writes what a notice says into the ledger of r. It reports false when that is
// old, or more than r may bring. It needs where.mu.
func (s *Switch) note(r *RemotePort, b Binding, gone bool, stamp uint64, now time.Duration) bool {
	l, k := s.where.of(r), b.station()
	old, known := l.told[k]
	if known && stamp != 0 && old.stamp >= stamp {
		return false
	}
	if !known && len(l.told) >= int(r.limit.Load())+neighborMore {
		return false
	}
	l.told[k] = notion{b, gone, max(stamp, old.stamp), now + heardFor}
	return true
}
