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
	RTT     time.Duration // to it and, where that is known, on to the other end
	Rate    uint64        // it offered, bytes per second; 0: no limit or not known
}

// slowRate is what a relay has to offer not to come after those that do.
const slowRate = 1_000_000 / 8

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

// cost is the round trip, and for a slow relay what a full packet takes longer
// there, ten times over.
func (c Candidate) cost() time.Duration {
	cost := c.RTT
	if c.Rate > 0 {
		cost += 10 * time.Second * 1500 / time.Duration(max(c.Rate, 1))
	}
	if c.Rate > 0 && c.Rate < slowRate {
		cost += time.Second
	}
	return cost
}
