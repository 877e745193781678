package peer

import (
	"time"

	"meshd/peer/probe"
)

// tags is the table by which a probe's sender is found.
type tags struct {
	table probe.Table[*Remote]
	again time.Time // when it is computed anew; zero: now
	hour  uint32    // for which it was: the wall clock may be set
}

// entry is what finds a remote by its tags.
func (r *Remote) entry() probe.Entry[*Remote] {
	return probe.Entry[*Remote]{Pair: r.pair, Offset: r.hourOffset, Value: r}
}

// add adds a remote, unless all are about to be computed anyway.
func (t *tags) add(r *Remote) {
	if !t.again.IsZero() {
		t.table.Add(r.entry())
	}
}

func (t *tags) remove(r *Remote) {
	if !t.again.IsZero() {
		t.table.Remove(r.entry())
	}
}

// updateTags keeps the table by which a probe's sender is found: members come
// and go, and tags change with the hour.
func (e *Engine) updateTags(now time.Time) {
	c := &e.control
	if now.Before(c.tags.again) && probe.Hour(now) == c.tags.hour {
		return
	}
	c.tags.hour = probe.Hour(now)
	entries := make([]probe.Entry[*Remote], 0, len(c.byID))
	for _, r := range c.byID {
		entries = append(entries, r.entry())
	}
	c.tags.again = c.tags.table.Update(entries, now)
}
