package mesh

import (
	"sync"
	"sync/atomic"

	limit "golang.org/x/time/rate"

	"meshd/keys"
	"meshd/peer"
)

// What may wait for the control goroutine, by where it comes from, so that
// nobody crowds out the others: there is room for taskQueue in all.
const (
	maxFromMember   = 64  // control messages of one member
	maxFromPending  = 4   // of one joiner
	maxFromJoiners  = 128 // of all joiners
	maxFromStranger = 64  // hellos that ended, and STUN answers

	// A member's control messages in a second, and at once. Comparing the records
	// of a thousand members takes a few thousand.
	memberRate, memberBurst   = 1000, 1000
	pendingRate, pendingBurst = 20, 40
	// maxSenders bounds the senders that are remembered.
	maxSenders = 4096
)

// inbox counts what waits for the control goroutine.
type inbox struct {
	mu      sync.Mutex
	senders map[keys.NodeID]*sender
	joiners int

	strangers atomic.Int32
}

// sender is what one remote has waiting.
type sender struct {
	waiting int
	rate    *limit.Limiter
	class   peer.Class
}

// take reports whether another message of a remote may wait; done has to be
// called when it does so no longer.
func (b *inbox) take(id keys.NodeID, class peer.Class) (done func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sender(id, class)
	most := maxFromMember
	if class != peer.Member {
		most = maxFromPending
		if b.joiners >= maxFromJoiners {
			return nil, false
		}
	}
	if s.waiting >= most || !s.rate.Allow() {
		return nil, false
	}
	s.waiting++
	if class != peer.Member {
		b.joiners++
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		s.waiting--
		if class != peer.Member {
			b.joiners--
		}
	}, true
}

// sender returns a remote's entry. b.mu is held.
func (b *inbox) sender(id keys.NodeID, class peer.Class) *sender {
	if s := b.senders[id]; s != nil && s.class == class {
		return s
	}
	if len(b.senders) >= maxSenders {
		for other, s := range b.senders {
			if s.waiting == 0 {
				delete(b.senders, other)
			}
		}
	}
	if b.senders == nil {
		b.senders = map[keys.NodeID]*sender{}
	}
	s := &sender{class: class, rate: limit.NewLimiter(memberRate, memberBurst)}
	if class != peer.Member {
		s.rate = limit.NewLimiter(pendingRate, pendingBurst)
	}
	b.senders[id] = s
	return s
}

// postStranger is post for what anybody can bring about.
func (n *Node) postStranger(f func()) {
	if n.inbox.strangers.Add(1) > maxFromStranger {
		n.inbox.strangers.Add(-1)
		n.dropped.Add(1)
		return
	}
	if !n.post(func() { n.inbox.strangers.Add(-1); f() }) {
		n.inbox.strangers.Add(-1)
	}
}
