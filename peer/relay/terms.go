package relay

import (
	"maps"
	"slices"
	"time"

	"meshd/keys"
)

// On what terms relays carry for an end: what they give, and how far they are from the
// other end. What they said is remembered beyond the circuit.

const (
	// maxRemembered bounds what is known of the terms of relays, and rememberFor is how long they
	// count after they were last heard: who had little to give then may have more now.
	maxRemembered = 1024
	rememberFor   = 10 * time.Minute
)

// terms is what a relay has said of a circuit.
type terms struct {
	rate uint64
	rtt  time.Duration
	at   time.Time
}

// Restated returns the open ways whose relays have stated another rate since the last call.
func (b *Book) Restated() (list []Way) {
	for _, e := range b.ways {
		if e.open && slices.Contains(b.changes, e.Key) {
			list = append(list, e.Way)
		}
	}
	b.changes = nil
	return list
}

// Terms is what a relay has last said that it can give, to this pair or another, and how far it is from
// there to the other end; 0 is not known, and of a rate also no limit.
func (b *Book) Terms(through, other keys.NodeID, now time.Time) (rate uint64, rtt time.Duration) {
	if last := b.terms[served{relay: through}]; now.Sub(last.at) < rememberFor {
		rate = last.rate
	}
	if of := b.terms[served{through, other}]; now.Sub(of.at) < rememberFor {
		rtt = of.rtt
	}
	return rate, rtt
}

// agree takes over on what terms a relay carries, and remembers them.
func (b *Book) agree(e *entry, m message, now time.Time) {
	if e.Rate != m.rate {
		b.changes = append(b.changes, e.Key)
	}
	e.Rate, e.RTT = m.rate, m.rtt
	said := terms{m.rate, m.rtt, now}
	b.remember(served{relay: e.Relay}, said)
	if e.Asked { // a relay may offer circuits to any id
		b.remember(served{e.Relay, e.Other}, said)
	}
}

// remember keeps the terms that were heard last.
func (b *Book) remember(key served, said terms) {
	if _, known := b.terms[key]; !known && len(b.terms) >= maxRemembered {
		var oldest served
		for k, old := range b.terms {
			if first := b.terms[oldest]; oldest == (served{}) || old.at.Before(first.at) {
				oldest = k
			}
		}
		delete(b.terms, oldest)
	}
	b.terms[key] = said
}

// forgetTerms forgets what is too old to count.
func (b *Book) forgetTerms(now time.Time) {
	maps.DeleteFunc(b.terms, func(_ served, said terms) bool { return now.Sub(said.at) >= rememberFor })
}
