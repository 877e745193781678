package peer

import "time"

// A NAT forgets a flow that is quiet, after minutes by RFC 4787, after 30 s often
// and after 5 s sometimes. Whoever keeps a session with us finds out when we cannot
// be reached (path.Table.Unheard), and we leave shorter pauses from then on.

// mappings is what is known of how long the NATs before this node remember.
type mappings struct {
	quiet   time.Duration // the longest pause that keeps them; 0: the usual one
	learned time.Time     // when that was last shortened
}

const (
	quietFirst = 4 * time.Second
	quietLeast = 2 * time.Second
	// learnPause is between two lessons: several remotes may teach the same one.
	learnPause = 10 * time.Second
)

// keepMappings acts on a remote's word that it could not reach us while we were
// quiet.
func (e *Engine) keepMappings(now time.Time) {
	m := &e.control.mappings
	if m.quiet == quietLeast || now.Sub(m.learned) < learnPause {
		return
	}
	if m.quiet == 0 {
		m.quiet = quietFirst
	} else {
		m.quiet = max(m.quiet/2, quietLeast)
	}
	m.learned = now
	e.log.Info("a router forgets soon who may come in: packets are sent more often", "pause", m.quiet)
	e.setQuiet(now)
}

// forgetMappings begins anew at another place.
func (e *Engine) forgetMappings(now time.Time) {
	e.control.mappings = mappings{}
	e.setQuiet(now)
}

func (e *Engine) setQuiet(now time.Time) {
	for _, r := range e.control.byID {
		r.paths.Quiet(e.control.mappings.quiet)
		e.control.schedule(r, now)
	}
}
