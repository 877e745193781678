package peer

import "time"

// A NAT forgets a flow that is quiet, after minutes by RFC 4787, after 30 s often
// and after 5 s sometimes. Whoever keeps a session with us finds out when we cannot
// be reached (path.Table.Unheard), and we leave shorter pauses from then on.

//
// Through its contacts a node is reached by all others. Until it has been at a place
// for some minutes it takes the worst for granted with them.

// mappings is what is known of how long the NATs before this node remember.
type mappings struct {
	quiet   time.Duration // the longest pause that keeps them; 0: the usual one
	learned time.Time     // when that was last shortened
	told    time.Time     // when a remote last gave reason to
	since   time.Time     // when the node came to this place
}

const (
	quietFirst = 4 * time.Second
	quietLeast = 2 * time.Second
	// learnPause is between two lessons: several remotes may teach the same one.
	learnPause = 10 * time.Second
	// learnWithin is how soon a lesson is to be repeated to count.
	learnWithin = 90 * time.Second
	// lessonFor is how long a lesson counts: it may have been a wrong one.
	lessonFor = 6 * time.Hour
	// newFor is how long contacts are pinged often at a new place.
	newFor = 5 * time.Minute
)

// Rely says whether others reach this node through the remote.
func (r *Remote) Rely(on bool) {
	if r.relied.Swap(on) != on {
		r.engine.attend(r)
	}
}

// pause is the longest pause on quiet paths to the remote; 0 is the usual one.
func (r *Remote) pause(now time.Time) time.Duration {
	m := &r.engine.control.mappings
	if m.quiet != 0 && now.Sub(m.learned) >= lessonFor {
		m.quiet = 0
	}
	if m.quiet == 0 && r.relied.Load() && now.Sub(m.since) < newFor {
		return quietFirst
	}
	return m.quiet
}

// keepMappings acts on a remote's word that it could not reach us while we were
// quiet.
func (e *Engine) keepMappings(now time.Time) {
	m := &e.control.mappings
	if m.quiet == quietLeast || now.Sub(m.learned) < learnPause || now.Sub(m.told) < learnPause {
		return
	}
	again := now.Sub(m.told) < learnWithin
	if m.told = now; !again { // our line may have been cut for a moment in which we said nothing
		return
	}
	if m.quiet == 0 {
		m.quiet = quietFirst
	} else {
		m.quiet = max(m.quiet/2, quietLeast)
	}
	m.learned = now
	e.log.Info("a router forgets soon who may come in: packets are sent more often", "pause", m.quiet)
	for _, r := range e.control.byID {
		e.control.schedule(r, now)
	}
}

// forgetMappings begins anew at another place.
func (e *Engine) forgetMappings(now time.Time) { e.control.mappings = mappings{since: now} }
