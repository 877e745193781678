package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"meshd/keys"
	"meshd/mesh/join"
	"meshd/peer"
	"meshd/peer/hello"
)

// joining is a join under way, on the joiner's side.
type joining struct {
	machine *join.Joiner
	entry   *peer.Remote
	signs   signs
	unsent  []byte // what found no session yet
	wake    time.Time
	shown   string // the words, as last told
	notice  string // likewise, why nothing moves on
	done    chan error
	result  *join.Result
}

// joinNetwork makes this node a member of the network behind the entry points.
func (n *Node) joinNetwork(ctx context.Context, e *entryPoints) error {
	err := n.askToJoin(ctx, e)
	if err != nil && e.stale != nil && !errors.Is(err, keys.ErrExpired) {
		return fmt.Errorf("%w; %w", err, e.stale)
	}
	return err
}

func (n *Node) askToJoin(ctx context.Context, e *entryPoints) error {
	cfg := hello.Config{Identity: n.identity}
	if e.invite != nil {
		cfg.Trust = &keys.Trust{Root: e.invite.Root}
	}
	met, at, err := n.meetFirst(ctx, n.waysTo(e, joinPatience), cfg)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	n.event(Progress, "found network "+keys.Trust{Root: met.Root}.NetworkID().String()+" at "+n.endpointName(at))
	j := &joining{done: make(chan error, 1)}
	var failed error
	err = n.do(ctx, func() { failed = n.beginJoin(j, met, at, e.invite) })
	if err = firstOf(failed, err); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := n.awaitAnswer(ctx, j, at, cfg); err != nil {
		return err
	}
	if err := n.completeJoin(ctx, j); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	n.event(Joined, "joined as "+j.result.Certificate.Name)
	return nil
}

// beginJoin opens the session in which join messages pass.
func (n *Node) beginJoin(j *joining, met *hello.Result, at netip.AddrPort, invite *keys.Invite) (err error) {
	j.machine = join.NewJoiner(join.JoinerConfig{
		Identity: n.identity,
		Name:     n.cfg.Name,
		Invite:   invite,
		Root:     met.Root,
		Now:      time.Now(),
	})
	j.signs = signs{
		began: time.Now(), last: time.Now(),
		hasty: invite != nil, signer: invite != nil && met.Remote.Sign == invite.IssuerKey,
	}
	if err := n.callEntryOf(j, met, at); err != nil {
		return err
	}
	n.state.joining = j
	return nil
}

// callEntryOf opens a session with whom a hello has found, anew if there was one.
func (n *Node) callEntryOf(j *joining, met *hello.Result, at netip.AddrPort) (err error) {
	if j.entry != nil {
		n.engine.Forget(j.entry.ID)
	}
	j.entry, err = n.engine.SetRemote(peer.Spec{
		Public:     met.Remote,
		Class:      peer.Pending,
		Candidates: []netip.AddrPort{at},
		HourOffset: met.HourOffset,
	})
	if err != nil {
		return err
	}
	n.assignLine(at, met.Remote.ID())
	n.reconcileStreams(time.Now())
	j.entry.Want()
	return nil
}

// advanceJoin sends what the joiner's machine wants to say.
func (n *Node) advanceJoin(now time.Time) {
	j := n.state.joining
	if j == nil {
		return
	}
	if !j.wake.After(now) {
		out, wake := j.machine.Tick(now)
		j.wake = wake
		if out != nil {
			j.unsent = out
		}
	}
	if j.unsent != nil && sendControl(j.entry, kindJoin, []byte{joinDirect}, j.unsent) {
		j.unsent = nil
	}
	words := j.machine.Words() // others, when the admin's node has restarted
	if text := strings.Join(words, " "); text != j.shown && words != nil {
		j.shown = text
		n.event(WaitingForApproval, "waiting for an admin to approve: "+text, words...)
	}
	if notice := j.machine.Notice(); notice != j.notice {
		if j.notice = notice; notice != "" {
			n.event(Warning, "join: "+notice)
		}
	}
	if err := j.machine.Err(); err != nil {
		n.endJoin(nil, err)
	} else if result := j.machine.Result(); result != nil {
		n.endJoin(result, nil)
	}
}

func (n *Node) endJoin(result *join.Result, err error) {
	j := n.state.joining
	n.state.joining = nil // its session goes on as a member's
	j.result = result
	j.done <- err
}

// completeJoin keeps the membership and makes this node a member.
func (n *Node) completeJoin(ctx context.Context, j *joining) error {
	m := &membership{Root: j.result.Root, Chain: j.result.Chain, Network: j.result.NetworkState}
	if err := m.save(n.store); err != nil {
		return err
	}
	var err error
	if doErr := n.do(ctx, func() { err = n.adopt(m) }); doErr != nil {
		return doErr
	}
	return errors.Join(err, n.engine.SetHello(n.hello()))
}

// checkInvite refuses an invite to another network than the one that this node is a
// member of.
func (n *Node) checkInvite(invite *keys.Invite) error {
	m := n.state.membership
	if invite == nil || m == nil || (keys.Trust{Root: invite.Root}).NetworkID() == m.trust().NetworkID() {
		return nil
	}
	return errors.New("join: the invite is of another network than this node's; use another --state for a second network")
}

// checkEntries says hello to the entry points of a node that is a member
// already. One of another network is an error; one that does not answer is not.
func (n *Node) checkEntries(ctx context.Context, e *entryPoints) error {
	limited, cancel := context.WithTimeout(ctx, joinPatience) // ssh too: nobody waits for it here
	defer cancel()
	_, _, err := n.meetFirst(limited, n.waysTo(e, joinPatience), n.hello())
	if errors.Is(err, hello.ErrWrongNetwork) {
		return fmt.Errorf("join: this node is a member of another network; use another --state for a second one: %w", err)
	}
	if err != nil && ctx.Err() == nil {
		n.event(Warning, fmt.Sprintf("entry point: %v", err))
	}
	return nil
}

// firstMember waits until a session with a member exists. The entry point may
// have died since it let us in, so that it is met until then. The first member
// may be another, on the same link, who has just joined as well and knows nobody:
// met says whether an entry point was met.
func (n *Node) firstMember(ctx context.Context, e *entryPoints) (met bool, err error) {
	for limit := meetAgain; !n.anyMember(); limit = min(2*limit, joinPatience) {
		if err := ctx.Err(); err != nil {
			return met, err
		}
		attempt, cancel := context.WithCancel(ctx)
		done := make(chan bool)
		go func() { done <- n.meetAgain(attempt, n.waysTo(e, limit), n.hello()) }()
		err := n.awaitMember(ctx, limit)
		cancel()
		met = <-done || met
		if err == nil {
			return met, nil
		}
	}
	return met, nil
}

// awaitMember waits for a session with a member.
func (n *Node) awaitMember(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !n.anyMember() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// anyMember says whether a session with a member exists.
func (n *Node) anyMember() bool {
	for _, r := range n.engine.Remotes() {
		if r.Class() == peer.Member && r.Status().Up {
			return true
		}
	}
	return false
}

// keepEntries tries the entry points, looked up anew, as long as no member can
// be reached: all of them may have moved since this node last saw them. It also
// tries them, more and more seldom, as long as none was met since this node
// joined: those that it reaches may know as little of the network as itself.
func (n *Node) keepEntries(ctx context.Context, met bool) {
	if len(n.cfg.Join) == 0 {
		<-ctx.Done()
		return
	}
	wait, lonely := entriesEvery, entriesEvery
	if !met {
		wait = 0
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		any := n.anyMember()
		if !any || !met {
			if e, err := n.resolveEntries(ctx, true); err == nil {
				met = n.meetAgain(ctx, n.waysTo(e, entriesEvery), n.hello()) || met
			}
		}
		wait = entriesEvery
		if any && !met {
			wait, lonely = lonely, min(2*lonely, entriesAtMost)
		}
		timer.Reset(wait)
	}
}
