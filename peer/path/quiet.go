package path

import (
	"time"

	"meshd/peer/way"
)

// A path that is in use and quiet is pinged from both sides, for two reasons: NATs
// on it forget it otherwise, and a side that can be reached no longer has to know.
// The pauses are random. So now and then the outer side of a NAT is the first to
// break a long silence, and finds out whether the NAT still lets it in. If it does
// not, it tells so when the inner side is heard again (Unheard), which then does
// not leave such long pauses any more (Quiet).

// unheard is how many pings must be lost in a row for it: less is chance.
const unheard = 2

// calmAfter is how long a silence is at least that a NAT may have ended a flow in.
const calmAfter = time.Second

// Unheard says when the second of the pings was sent that have gone unanswered on the active path, the first of
// which may have met the beginning of something; zero: they are too few. When something comes from the
// remote all the same, and others were heard meanwhile, a NAT has kept them out.
func (t *Table) Unheard() (since time.Time) {
	if t.active != nil && t.active.class == way.Direct && t.active.lostPongs >= unheard {
		return t.active.unheard
	}
	return since
}

// LastHeard is when something last came, from any address.
func (t *Table) LastHeard() (at time.Time) {
	for _, c := range t.candidates {
		at = later(at, c.heard)
	}
	return at
}

// Calm reports whether the last fresh pong has answered, without delay, the first ping after a silence: nothing is wrong
// on our side.
func (t *Table) Calm() bool { return t.calm }

// Quiet sets the longest pause between packets on a path that is in use; 0 is the
// usual one.
func (t *Table) Quiet(pause time.Duration) { t.quiet = pause }

// pause is how long a path may be quiet.
func (t *Table) pause(c *candidate) time.Duration {
	if t.quiet > 0 && c.class == way.Direct {
		return min(t.quiet, c.pause)
	}
	return c.pause
}
