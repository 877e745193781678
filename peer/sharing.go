package peer

import (
	"time"

	"meshd/peer/relay"
)

// How much of what this node carries for others goes through, while it carries
// anything.

const (
	// divideEvery is how often the rate is divided anew.
	divideEvery = 200 * time.Millisecond
	// ownFlows is how many bytes of its own a node sends in a second when it has
	// traffic that others could be in the way of.
	ownFlows = 2000
)

// sharing is the state of dividing.
type sharing struct {
	Sharing
	at    time.Time // when the rate is divided next; zero: nothing is carried
	last  time.Time // when it was
	own   uint64    // bytes of frames sent so far
	yield relay.Yield
	flows []*flow
	want  []uint64
}

// divideShares limits circuits to their shares. What a pair would use is what it
// offered of late, and a quarter more.
func (e *Engine) divideShares(now time.Time) {
	c := &e.control.relay
	s := &c.share
	if len(c.flows) == 0 {
		if !s.at.IsZero() {
			c.desk.SetOffer(relay.Offer{On: s.On, Spent: s.Spent, Rate: s.Rate}) // nobody has a part of it any more
		}
		s.at, s.yield = time.Time{}, relay.Yield{}
		return
	}
	if now.Before(s.at) {
		return
	}
	passed := now.Sub(s.last)
	s.at, s.last = now.Add(divideEvery), now
	if passed > 2*divideEvery {
		passed = 2 * divideEvery
	}
	s.flows, s.want = s.flows[:0], s.want[:0]
	carried := uint64(0)
	perSecond := func(bytes uint64) uint64 { return uint64(float64(bytes) / max(passed.Seconds(), 0.001)) }
	for _, f := range c.flows {
		offered, bytes := f.offered.Load(), f.bytes.Load()
		s.flows = append(s.flows, f)
		s.want = append(s.want, perSecond(offered-f.offeredBefore)*5/4)
		carried += perSecond(bytes - f.bytesBefore)
		f.offeredBefore, f.bytesBefore = offered, bytes
	}
	total := s.yield.Observe(carried, e.ownTraffic(perSecond), e.ownStrain(now), now)
	if s.Rate > 0 && (total == 0 || s.Rate < total) {
		total = s.Rate
	}
	shares := relay.Divide(total, s.want)
	offer := uint64(0)
	if total > 0 {
		more := append(s.want, total) // what one more pair would get that wants all
		offer = relay.Divide(total, more)[len(more)-1]
	}
	for i, f := range s.flows {
		f.share.Limit(shares[i])
		f.most, f.divided = max(shares[i], offer), true
	}
	c.desk.SetOffer(relay.Offer{On: s.On, Spent: s.Spent, Rate: offer})
}

// shareOf is what a pair gets that wants all: what it has, or where it wants little now, what one more would get. So it
// is not led away from a relay by its own traffic.
func (e *Engine) shareOf(k relay.Circuit) (rate uint64, ok bool) {
	f := e.control.relay.flows[k]
	if f == nil || !f.divided {
		return 0, false
	}
	return f.most, true
}

// ownTraffic reports whether this node sends frames of its own.
func (e *Engine) ownTraffic(perSecond func(uint64) uint64) bool {
	s := &e.control.relay.share
	own := uint64(0)
	for _, r := range e.control.byID {
		own += r.txBytes.Load()
	}
	grown := own - s.own
	s.own = own
	return int64(grown) > 0 && perSecond(grown) >= ownFlows
}

// ownStrain reports whether frames of this node's own are lost or late.
func (e *Engine) ownStrain(now time.Time) bool {
	for _, r := range e.control.byID {
		if t := r.carried.Load(); t != 0 && now.Sub(e.at(t)) < time.Second && r.paths.Strained(now) {
			return true
		}
	}
	return false
}
