package flood

import (
	"bytes"
	"cmp"
	"time"
)

func compareNames(a, b Name) int {
	return cmp.Or(bytes.Compare(a.Origin[:], b.Origin[:]), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Number, b.Number))
}

const (
	windowSize = 1024
	// firstReach is how far before the first frame that is seen of an origin others may
	// be: all before are taken for replays.
	firstReach = 64
)

// window remembers which frames of an origin's present life were seen. Those too far
// behind the greatest number count as seen.
type window struct {
	top  uint64 // greatest number; 0: none was seen
	bits [windowSize / 64]uint64
}

func (w *window) seen(n uint64) bool {
	switch {
	case n > w.top:
		return false
	case w.top-n >= windowSize:
		return true
	}
	return w.bits[n%windowSize/64]&(1<<(n%64)) != 0
}

func (w *window) mark(n uint64) {
	switch {
	case w.top == 0:
		for i := range w.bits {
			w.bits[i] = ^uint64(0)
		}
		w.top = n
		for k := n; k > 0 && n-k <= firstReach; k-- {
			w.set(k, false)
		}
	case n > w.top && n-w.top >= windowSize:
		w.bits, w.top = [windowSize / 64]uint64{}, n
	case n > w.top:
		for w.top < n {
			w.top++
			w.set(w.top, false)
		}
	case w.top-n >= windowSize:
		return
	}
	w.set(n, true)
}

func (w *window) set(n uint64, seen bool) {
	word, bit := &w.bits[n%windowSize/64], uint64(1)<<(n%64)
	if seen {
		*word |= bit
	} else {
		*word &^= bit
	}
}

// meter lets so many events pass at once, and one more after every pause.
type meter struct{ spent time.Time }

// terms are how much a meter lets pass.
type terms struct {
	pause time.Duration
	burst int
}

// empty reports whether nothing may pass now.
func (m *meter) empty(now time.Time, t terms) bool {
	return m.spent.Add(t.pause).After(now.Add(time.Duration(t.burst) * t.pause))
}

// take lets one event pass, if it may.
func (m *meter) take(now time.Time, t terms) bool {
	if m.empty(now, t) {
		return false
	}
	if m.spent.Before(now) {
		m.spent = now
	}
	m.spent = m.spent.Add(t.pause)
	return true
}
