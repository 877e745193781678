//go:build linux

package lab

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Link says what happens to frames in each direction of a link. The zero Link is as fast as the machine.
type Link struct {
	Delay      time.Duration // one way
	Jitter     time.Duration // up to so much is added to Delay, drawn anew for each frame; frames stay in order
	Loss       float64       // share of frames that are lost, 0 to 1
	Duplicate  float64       // share of frames that arrive twice
	Reorder    float64       // share of frames that skip Delay and Jitter, and so overtake
	Rate       int64         // bit/s; 0 is no limit
	Queue      time.Duration // how long a frame may wait for its turn where there is a Rate, else it is lost; 100 ms if 0
	MTU        int           // 1500 if 0
	Adjustable bool          // SetLink will be called: have a relay, also for a link that begins as fast as the machine
}

// defaultQueue is the depth of a slow link's queue: what home routers have, roughly.
const defaultQueue = 100 * time.Millisecond

// shaped reports whether frames need the relay.
func (l Link) shaped() bool {
	l.MTU, l.Queue = 0, 0
	return l != Link{}
}

// byFrame reports whether a super-frame would be treated otherwise than the frames in it.
func (l Link) byFrame() bool {
	return l.Jitter != 0 || l.Loss != 0 || l.Duplicate != 0 || l.Reorder != 0 || l.Rate != 0
}

func (l Link) mtu() int {
	if l.MTU == 0 {
		return defaultMTU
	}
	return l.MTU
}

func (l Link) check() error {
	for _, share := range []float64{l.Loss, l.Duplicate, l.Reorder} {
		if !(share >= 0 && share <= 1) {
			return fmt.Errorf("link: a share of %v is not between 0 and 1", share)
		}
	}
	if l.Delay < 0 || l.Jitter < 0 || l.Queue < 0 || l.Rate < 0 {
		return fmt.Errorf("link: negative value in %+v", l)
	}
	if mtu := l.mtu(); mtu < 576 || mtu > 65535 {
		return fmt.Errorf("link: MTU %d is not between 576 and 65535", mtu)
	}
	return nil
}

// shaper decides when each frame of one direction arrives. It has no clock and no queue.
type shaper struct {
	link Link
	rand *rand.Rand
	free time.Time // when the sender is free for the next frame
	last time.Time // when the last frame arrives
}

func newShaper(link Link, seed uint64) *shaper {
	return &shaper{link: link, rand: rand.New(rand.NewPCG(seed, 0))}
}

// admit takes a frame of size bytes and returns when, and how often, it arrives: 0 times, once or twice.
func (s *shaper) admit(now time.Time, size int) (due time.Time, copies int) {
	sent := now
	if s.link.Rate > 0 {
		queue := s.link.Queue
		if queue == 0 {
			queue = defaultQueue
		}
		if s.free.Before(now) {
			s.free = now
		}
		if s.free.Sub(now) > queue {
			return time.Time{}, 0
		}
		s.free = s.free.Add(time.Duration(int64(size) * 8 * int64(time.Second) / s.link.Rate))
		sent = s.free
	}
	if s.chance(s.link.Loss) {
		return time.Time{}, 0
	}
	copies = 1
	if s.chance(s.link.Duplicate) {
		copies = 2
	}
	if s.chance(s.link.Reorder) {
		return sent, copies
	}
	due = sent.Add(s.link.Delay)
	if s.link.Jitter > 0 {
		due = due.Add(time.Duration(s.rand.Int64N(int64(s.link.Jitter))))
	}
	if due.Before(s.last) {
		due = s.last
	}
	s.last = due
	return due, copies
}

func (s *shaper) chance(share float64) bool { return share > 0 && s.rand.Float64() < share }
