package mesh

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"meshd/peer/hello"
)

// signs are the signs of life while this node waits for a signer's answer. Who is
// slow, or has many to answer, is waited for as long as there are some.
type signs struct {
	began, last time.Time
	hasty       bool // nobody has to decide anything: silence ends it
	signer      bool // the entry point is the signer itself
	up          bool // there has been a session with the entry point
}

// hear notes a sign of life.
func (s *signs) hear(at time.Time) {
	if at.After(s.last) {
		s.last = at
	}
}

// look takes in how the session with the entry point is. One that is not the
// signer itself, and may be anybody, shows by its own life only that the way to it is open.
func (s *signs) look(up bool, heard ...time.Time) {
	if s.signer || !s.up {
		for _, at := range heard {
			s.hear(at)
		}
	}
	s.up = s.up || up
}

// over says whether waiting has no point any more.
func (s *signs) over(now time.Time) bool {
	patience := joinPatience
	if s.signer {
		patience = signerPatience
	}
	return s.hasty && (now.Sub(s.last) >= patience || now.Sub(s.began) >= joinAtMost)
}

// lost says whether the entry point should be met again: it has lost us, by a
// restart or for want of room, or is silent.
func (s *signs) lost(up bool, now time.Time) bool {
	return !up || s.hasty && now.Sub(s.last) >= meetAgain
}

// awaitAnswer waits until the join has an end, or there is no sign of life any more.
func (n *Node) awaitAnswer(ctx context.Context, j *joining, at netip.AddrPort, cfg hello.Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	look := time.NewTicker(joinLook)
	defer look.Stop()
	met := make(chan *hello.Result, 1)
	meeting, slow := false, false
	next := time.Now().Add(meetAgain)
	for {
		select {
		case err := <-j.done:
			return err // which says "join" itself
		case result := <-met:
			meeting = false
			if err := n.do(ctx, func() { n.metAgain(j, result, at) }); err != nil {
				return err
			}
		case <-look.C:
			now := time.Now()
			lost, over := false, false
			if err := n.do(ctx, func() { lost, over = n.lookForSigns(j, now) }); err != nil {
				return err
			}
			if over {
				return errors.New("join: the network's signer does not answer")
			}
			if lost && !meeting && !now.Before(next) {
				meeting, next = true, now.Add(meetAgain)
				go func() {
					result, _, _ := n.meetFirst(ctx, []entryWay{wayAt(at, joinPatience)}, cfg) // there is another time
					met <- result
				}()
			}
			if !slow && j.signs.hasty && now.Sub(j.signs.began) >= joinPatience {
				slow = true
				n.event(Progress, "the network's signer is slow to answer: waiting")
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lookForSigns runs on the control goroutine.
func (n *Node) lookForSigns(j *joining, now time.Time) (lost, over bool) {
	s := j.entry.Status()
	j.signs.look(s.Up, s.LastHeard, s.LastHandshake)
	return j.signs.lost(s.Up, now), j.signs.over(now)
}

// metAgain takes what came of another hello with the entry point; nil is nothing.
// Who answers, and was silent in the session, has forgotten us, so that it begins anew.
func (n *Node) metAgain(j *joining, result *hello.Result, at netip.AddrPort) {
	if result == nil || n.state.joining != j || result.Remote != j.entry.Public {
		return
	}
	now := time.Now()
	silent := now.Sub(j.signs.last) >= meetAgain
	j.signs.look(false, now)
	if !silent {
		return
	}
	if err := n.callEntryOf(j, result, at); err != nil {
		n.endJoin(nil, err)
	}
}
