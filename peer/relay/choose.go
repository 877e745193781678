package relay

import (
	"cmp"
	"slices"
	"time"

	"meshd/keys"
)

// Candidate is a member that might carry for a pair.
type Candidate struct {
	ID      keys.NodeID
	Contact bool          // the other end has announced it as a contact of its own
	Public  bool          // it can be reached directly by anybody, as far as it says
	Far     bool          // it is itself reached through a relay
	Poor    bool          // it has lost the pair's data lately
	RTT     time.Duration // to it and on to the other end
	Rate    uint64        // it offered, bytes per second; 0: no limit or not known
}

// slowRate is what a relay has to offer not to come after those that do.
const slowRate = 1_000_000 / 8

// maxRate is the most that a message can state.
const maxRate = maxUint * rateUnit

// Rank sorts candidates, the one to ask first in front: who knows the other end,
// who is near, who has bandwidth to offer.
func Rank(list []Candidate) {
	slices.SortStableFunc(list, func(a, b Candidate) int {
		return cmp.Or(
			cmp.Compare(a.tier(), b.tier()),
			cmp.Compare(a.cost(), b.cost()),
			a.ID.Compare(b.ID),
		)
	})
}

func (c Candidate) tier() int {
	tier := 0
	if !c.Contact {
		tier++
	}
	if !c.Contact && !c.Public {
		tier++
	}
	if c.Far {
		tier += 3
	}
	if c.Poor {
		tier += 6
	}
	return tier
}

// cost is the round trip, and what the rate adds.
func (c Candidate) cost() time.Duration { return c.RTT + Slower(c.Rate) }

// Slower is by how much longer a round trip a relay without a limit may have to be
// as good as one that offers a rate: what ten full packets take there, and a second
// more where that is very little.
func Slower(rate uint64) time.Duration {
	if rate == 0 {
		return 0
	}
	slower := 10 * 1500 * time.Second / time.Duration(min(rate, maxRate))
	if rate < slowRate {
		slower += time.Second
	}
	return slower
}
