package path

import (
	"math/bits"
	"net/netip"
	"time"

	"meshd/peer/way"
)

const (
	freshness = 60 * time.Second // for how long a pong vouches for an address
	learntFor = 60 * time.Second // an address that answers nothing is remembered
	forgotten = 5 * time.Second  // after which a pong comes too late for anything

	// An address that does not answer gets at most this many packets in a minute:
	// whoever named it may want to have it flooded.
	budgetSize   = 5
	budgetWindow = time.Minute
)

// candidate is one address of the remote.
type candidate struct {
	addr   netip.AddrPort
	class  way.Class // of addr
	listed bool      // a record names it
	held   bool      // a way that this node holds open
	eager  bool      // which may be used untried
	learnt time.Time // something authentic came from there
	up     bool      // confirmed, and not silent since
	signs

	pings   []sentPing // outstanding, oldest first
	rtt     rtt
	slower  time.Duration // held: by how much longer its round trip counts
	history history
	mtu     mtuSearch
	loss    dataLoss

	pinged time.Time     // last small ping
	pause  time.Duration // after which the next is due when all is quiet
	burst  int           // of the first quick pings to an unverified address, those sent
	stuck  bool          // the last one could not be sent: no route leads there
	poked  bool          // to be pinged at the next opportunity
	budget budget
}

// signs are the signs of life from an address, and those that are outstanding:
// of any kind, and pongs alone (data may reach us although ours does not reach
// the remote).
type signs struct {
	heard, data, pong    time.Time // last of all, last data, last pong
	waiting, waitingPong time.Time // since when; zero: not
	lost, lostPongs      int       // small pings lost meanwhile
	unheard              time.Time // when the second of them (see the constant) was sent
	questioned           bool      // somebody doubts that it is there, and nothing was heard since
	doubted              bool      // our addresses have changed and nothing was heard since
}

// sentPing is a ping that may still be answered.
type sentPing struct {
	transaction [12]byte
	at          time.Time
	mtu         int    // IP packet size that it tests; 0: none
	sent        uint32 // messages with data sent on the path before it
	lost        bool
	calm        bool      // it broke a silence, with nothing unanswered
	spent       bool      // it was taken off the budget, in place of that of
	over        time.Time // this time
}

// ghost says that nobody names the address any more.
func (c *candidate) ghost() bool { return !c.listed && !c.held && !c.up && c.learnt.IsZero() }

// verified says that the address has answered a probe in the last minute.
func (c *candidate) verified(now time.Time) bool {
	return !c.pong.IsZero() && now.Sub(c.pong) < freshness
}

// rouse makes the candidate be probed from the beginning.
func (c *candidate) rouse() { c.poked, c.burst = true, 0 }

// alive notes a sign of life.
func (s *signs) alive(now time.Time) {
	s.heard = later(s.heard, now)
	s.waiting, s.lost, s.doubted, s.questioned = time.Time{}, 0, false, false
}

// rest forgets what is outstanding.
func (s *signs) rest() {
	s.waiting, s.waitingPong, s.lost, s.lostPongs = time.Time{}, time.Time{}, 0, 0
}

// suspect says that a sign of life is overdue: after the usual time, or that which this path
// takes when it is slow.
func (c *candidate) suspect(now time.Time) bool {
	return since(c.waiting, now) >= c.rtt.atLeast(suspicion) || since(c.waitingPong, now) >= c.rtt.atLeast(deaf) ||
		c.doubted && !c.waiting.IsZero()
}

// silent says that enough is unanswered to yield to another path, on one with
// this round trip.
func (s *signs) silent(now time.Time, rtt time.Duration) bool {
	return since(s.waiting, now) >= max(silence, 3*rtt) && s.lost >= lostForDeath ||
		since(s.waitingPong, now) >= max(deafness, 4*rtt) && s.lostPongs >= lostForDeaf
}

// mute says that enough is unanswered to ask elsewhere for what the remote does not
// deliver; it may come back.
func (s *signs) mute(now time.Time, rtt time.Duration) bool {
	return since(s.waiting, now) >= max(swift, 3*rtt) && s.lost >= lostForDeath
}

// gone says that so much is unanswered that nothing more is to be sent there.
func (s *signs) gone(now time.Time) bool {
	return since(s.waiting, now) >= hopeless && s.lost >= lostForDeath ||
		since(s.waitingPong, now) >= hopelessPong && s.lostPongs >= lostForDeaf
}

// since is how long ago a time was; negative when it is not set.
func since(at, now time.Time) time.Duration {
	if at.IsZero() {
		return -1
	}
	return now.Sub(at)
}

// answered notes the pong to a ping.
func (c *candidate) answered(p sentPing, now time.Time) {
	c.alive(now)
	c.pong = later(c.pong, now)
	c.up, c.poked = true, false
	c.waitingPong, c.lostPongs = time.Time{}, 0
	c.rtt.sample(now.Sub(p.at))
	if !p.lost {
		c.history.add(true)
	}
	if p.mtu != 0 {
		c.mtu.passed(p.mtu, now)
	} else {
		c.mtu.smallPassed(p.at)
	}
}

// expire counts the pings whose pongs are overdue, and forgets the old ones.
func (c *candidate) expire(now time.Time) {
	keep := c.pings[:0]
	for _, p := range c.pings {
		age := now.Sub(p.at)
		if !p.lost && age >= c.rtt.timeout() {
			p.lost = true
			c.history.add(false)
			if p.mtu == 0 {
				c.lost++
				c.lostPongs++
				if c.lostPongs == unheard {
					c.unheard = p.at
				}
			} else {
				c.mtu.failed(p.mtu, p.at, now)
			}
		}
		if age < forgotten {
			keep = append(keep, p)
		}
	}
	c.pings = keep
}

// overdue is when the next outstanding ping counts as lost.
func (c *candidate) overdue() time.Time {
	for _, p := range c.pings {
		if !p.lost {
			return p.at.Add(c.rtt.timeout())
		}
	}
	return time.Time{}
}

// rtt is a smoothed round trip (RFC 6298, but falling faster).
type rtt struct {
	smoothed, variation time.Duration
	last, least         time.Duration // the last, and the least of late
	samples             int
}

func (r *rtt) sample(d time.Duration) {
	d = max(d, time.Microsecond)
	if r.last = d; r.least == 0 || d < r.least {
		r.least = d
	}
	r.least += (d - r.least) / 64 // a path that has become longer is no sign of strain for ever
	if r.samples++; r.samples == 1 {
		r.smoothed, r.variation = d, d/2
		return
	}
	if d < r.smoothed/2 { // what made the path slow is over: eighths would take minutes on a quiet one
		r.smoothed /= 2
		r.variation = max(r.variation, r.smoothed) / 2
		return
	}
	r.variation += (max(d-r.smoothed, r.smoothed-d) - r.variation) / 4
	r.smoothed += (d - r.smoothed) / 8
}

// timeout is when a ping counts as lost.
func (r *rtt) timeout() time.Duration {
	if r.samples == 0 {
		return time.Second
	}
	return min(max(r.smoothed+4*r.variation, 200*time.Millisecond), 3*time.Second)
}

// atLeast is the time after which a pong is overdue, if that is longer than d.
func (r *rtt) atLeast(d time.Duration) time.Duration {
	if r.samples == 0 {
		return d
	}
	return max(d, r.timeout())
}

// history is the fate of the last 16 pings.
type history struct {
	answered uint16
	count    int
}

func (h *history) add(answered bool) {
	h.answered <<= 1
	if answered {
		h.answered |= 1
	}
	h.count = min(h.count+1, 16)
}

func (h *history) loss() float64 {
	if h.count == 0 {
		return 0
	}
	return 1 - float64(bits.OnesCount16(h.answered))/float64(h.count)
}

// budget holds an unverified address to its packets per minute.
type budget struct {
	sent [budgetSize]time.Time
	next int
}

// free is when the next packet may go.
func (b *budget) free() time.Time {
	if oldest := b.sent[b.next]; !oldest.IsZero() {
		return oldest.Add(budgetWindow)
	}
	return time.Time{}
}

// spend takes a packet off, and returns the time that it stands in place of.
func (b *budget) spend(now time.Time) (over time.Time) {
	over, b.sent[b.next] = b.sent[b.next], now
	b.next = (b.next + 1) % budgetSize
	return over
}

// refund takes back the last spend.
func (b *budget) refund(over time.Time) {
	b.next = (b.next + budgetSize - 1) % budgetSize
	b.sent[b.next] = over
}

// spent says whether a packet of the last minute counts.
func (b *budget) spent(now time.Time) bool {
	for _, at := range b.sent {
		if !at.IsZero() && now.Sub(at) < budgetWindow {
			return true
		}
	}
	return false
}
