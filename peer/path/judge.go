package path

import "time"

const (
	suspicion    = 500 * time.Millisecond  // of silence after data or a ping
	deaf         = time.Second             // without a pong, although data comes
	swift        = 800 * time.Millisecond  // the same for a way when another stands by
	silence      = 1500 * time.Millisecond // after which the active path yields to one that answers
	deafness     = 2500 * time.Millisecond // the same for pongs alone
	hopeless     = 10 * time.Second        // after which it is given up although there is no other
	hopelessPong = 30 * time.Second        // the same for pongs alone
	lostForDeath = 3                       // pings that must be lost for it
	lostForDeaf  = 5
	controlTest  = 5 * time.Second // of silence, after which a control message brings a ping along
	quietTest    = time.Second     // of silence on the active path while data comes from elsewhere: test it

	// A better path is taken when it is better by both, has been measured three
	// times, and the last change is some time ago.
	betterPart   = 0.8
	betterBy     = 3 * time.Millisecond
	enough       = 3
	betweenMoves = 3 * time.Second
)

// judge brings verdicts and the active path up to date with what is known.
func (t *Table) judge(now time.Time) {
	for _, c := range t.candidates {
		if c.up && c != t.active && c.silent(now, c.rtt.smoothed) {
			c.up = false
		}
	}
	if t.active == nil {
		if c := t.fastest(now); c != nil {
			t.choose(c, now)
		} else if c := t.assumed(); c != nil {
			c.up = true
			t.choose(c, now)
		}
		return
	}
	if !t.active.tried() {
		if c := t.fastest(now); c != nil {
			t.choose(c, now)
		}
		return
	}
	if c := t.heir(now); c != nil {
		t.drop(t.active)
		t.choose(c, now)
		return
	}
	if t.active.gone(now) {
		t.drop(t.active)
		return
	}
	if c := t.better(now); c != nil {
		t.choose(c, now)
	}
}

func (t *Table) choose(c *candidate, now time.Time) {
	if c.class > t.class && !t.switched.IsZero() {
		t.worse = now
	}
	t.class = c.class
	c.loss.restart()
	t.active, t.switched = c, now
}

// drop takes a path for down.
func (t *Table) drop(c *candidate) {
	c.up = false
	if t.active == c {
		t.active = nil
	}
}

// heir is the path that takes over from an active one that has fallen silent: the
// best of those that have answered since.
func (t *Table) heir(now time.Time) *candidate {
	a := t.active
	if !a.suspect(now) && a.lost == 0 {
		return nil
	}
	var best *candidate
	for _, c := range t.candidates {
		if !c.up || c == a || !c.pong.After(a.pong) {
			continue
		}
		if !moved(c, a) && !a.silent(now, a.rtt.smoothed) && !standsBy(c, a, now) {
			continue
		}
		if best == nil || c.before(best, now) {
			best = c
		}
	}
	return best
}

// standsBy says that another way of the same kind has answered since the active
// one fell silent: there is little to lose by taking it.
func standsBy(c, active *candidate, now time.Time) bool {
	return c.held && active.held && c.class <= active.class &&
		active.lost > 1 && since(active.waiting, now) >= max(swift, 3*active.rtt.smoothed)
}

// moved says that it looks as if the remote, or we, had moved from the active
// path to another: that answers, and something other than an answer comes from
// there, while the active one is silent. One or two lost pings are enough then.
func moved(to, active *candidate) bool {
	if !to.pong.After(active.heard) {
		return false
	}
	return active.lost > 0 && (active.doubted || to.data.After(active.heard)) ||
		active.lost > 1 && to.learnt.After(active.heard)
}

// fastest is the best of what is up and fresh.
func (t *Table) fastest(now time.Time) (best *candidate) {
	for _, c := range t.candidates {
		if c.up && c.verified(now) && (best == nil || c.before(best, now)) {
			best = c
		}
	}
	return best
}

// better is a path that is worth leaving a good one for.
func (t *Table) better(now time.Time) *candidate {
	a := t.active
	c := t.fastest(now)
	if c == nil || c == a || c.rtt.samples < enough || c.lost > 0 {
		return nil
	}
	switch bad := a.bad(now); {
	case bad && !c.bad(now):
		return c
	case !bad && c.bad(now):
		return nil
	}
	if c.class < a.class && now.Sub(t.worse) >= betweenMoves {
		return c
	}
	if c.class != a.class || a.rtt.samples < enough || a.suspect(now) || now.Sub(t.switched) < betweenMoves {
		return nil
	}
	if float64(c.cost()) <= betterPart*float64(a.cost()) && c.cost() <= a.cost()-betterBy {
		return c
	}
	return nil
}
