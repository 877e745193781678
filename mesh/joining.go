package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
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
	unsent  []byte // what found no session yet
	wake    time.Time
	shown   string // the words, as last told
	notice  string // likewise, why nothing moves on
	done    chan error
	result  *join.Result
}

// entryPoints is what --join comes down to.
type entryPoints struct {
	addrs  []netip.AddrPort
	invite *keys.Invite
}

// joinNames are the entry points as they may be shown: never an invite.
func joinNames(specs []string) []string {
	shown := make([]string, len(specs))
	for i, s := range specs {
		shown[i] = s
		if keys.IsInvite(s) {
			shown[i] = "an invite"
		}
	}
	return shown
}

// resolveEntries reads --join. When joining, at least one address must come of
// it; a member goes on without.
func (n *Node) resolveEntries(ctx context.Context, must bool) (*entryPoints, error) {
	e := new(entryPoints)
	var hosts []string
	for _, spec := range n.cfg.Join {
		if !keys.IsInvite(spec) {
			hosts = append(hosts, spec)
			continue
		}
		invite, err := keys.ParseInvite(spec, time.Now())
		if err != nil {
			if !must && errors.Is(err, keys.ErrExpired) {
				continue
			}
			return nil, fmt.Errorf("join: invite: %w", err)
		}
		if e.invite != nil {
			return nil, errors.New("join: more than one invite was given")
		}
		e.invite = invite
		hosts = append(hosts, invite.Entries...)
	}
	var errs []error
	for _, host := range hosts {
		addrs, err := n.resolve(ctx, host)
		if err != nil {
			errs = append(errs, err)
		}
		e.addrs = append(e.addrs, addrs...)
	}
	e.addrs = n.throughNAT64(ctx, e.addrs)
	if must && len(e.addrs) == 0 {
		return nil, fmt.Errorf("join: %w", errors.Join(errs...))
	}
	for _, err := range errs {
		n.event(Warning, err.Error())
	}
	return e, nil
}

// resolve looks up HOST[:PORT].
func (n *Node) resolve(ctx context.Context, spec string) ([]netip.AddrPort, error) {
	host, port := spec, uint16(DefaultPort)
	if h, p, err := net.SplitHostPort(spec); err == nil {
		number, err := strconv.ParseUint(p, 10, 16)
		if err != nil || number == 0 {
			return nil, fmt.Errorf("resolve %q: port %q is not between 1 and 65535", spec, p)
		}
		host, port = h, uint16(number)
	}
	host = strings.Trim(host, "[]")
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	addrs, err := n.cfg.Host.Resolve(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve %q: %w", host, err)
	}
	var out []netip.AddrPort
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a, port))
	}
	return out, nil
}

// meetFirst says hello at all addresses at once and returns who answers first,
// and where.
func (n *Node) meetFirst(ctx context.Context, addrs []netip.AddrPort, cfg hello.Config) (*hello.Result, netip.AddrPort, error) {
	type outcome struct {
		result *hello.Result
		at     netip.AddrPort
		err    error
	}
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	outcomes := make(chan outcome, len(addrs))
	for _, at := range addrs {
		go func() {
			r, err := n.engine.Meet(ctx, at, cfg)
			outcomes <- outcome{r, at, err}
		}()
	}
	var failed error
	for range addrs {
		o := <-outcomes
		if o.err == nil {
			return o.result, o.at, nil
		}
		if errors.Is(o.err, context.DeadlineExceeded) {
			o.err = hello.ErrNoAnswer
		}
		// A refusal says more than a silence.
		if failed == nil || errors.Is(failed, hello.ErrNoAnswer) {
			failed = fmt.Errorf("%v: %w", o.at, o.err)
		}
	}
	return nil, netip.AddrPort{}, failed
}

// joinNetwork makes this node a member of the network behind the entry points.
func (n *Node) joinNetwork(ctx context.Context, e *entryPoints) error {
	cfg := hello.Config{Identity: n.identity}
	if e.invite != nil {
		cfg.Trust = &keys.Trust{Root: e.invite.Root}
	}
	answer, cancel := ctx, context.CancelFunc(func() {})
	if e.invite != nil { // nobody has to decide anything
		answer, cancel = context.WithTimeout(ctx, joinPatience)
	}
	defer cancel()
	met, at, err := n.meetFirst(ctx, e.addrs, cfg)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	n.event(Progress, "found network "+keys.Trust{Root: met.Root}.NetworkID().String()+" at "+at.String())
	j := &joining{done: make(chan error, 1)}
	var failed error
	err = n.do(ctx, func() { failed = n.beginJoin(j, met, at, e.invite) })
	if err = firstOf(failed, err); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	err = n.awaitAnswer(answer, j, at, cfg)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("join: the network's signer does not answer")
	}
	if err != nil {
		return err
	}
	if err := n.completeJoin(ctx, j); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	n.event(Joined, "joined as "+j.result.Certificate.Name)
	return nil
}

// awaitAnswer waits until the join has an end. Where the entry point has lost
// us, by a restart, it is met again.
func (n *Node) awaitAnswer(ctx context.Context, j *joining, at netip.AddrPort, cfg hello.Config) error {
	again := time.NewTicker(meetAgain)
	defer again.Stop()
	for {
		select {
		case err := <-j.done:
			return err // which says "join" itself
		case <-again.C:
			if !j.entry.Status().Up {
				n.meetAgain(ctx, []netip.AddrPort{at}, cfg)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// meetAgain says hello for a short while. Who it is, the observer hears.
func (n *Node) meetAgain(ctx context.Context, addrs []netip.AddrPort, cfg hello.Config) {
	ctx, cancel := context.WithTimeout(ctx, meetAgain)
	defer cancel()
	if _, at, err := n.meetFirst(ctx, addrs, cfg); err != nil {
		n.log.Debug("meet an entry point again", "addr", at.String(), "err", err)
	}
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
	j.entry, err = n.engine.SetRemote(peer.Spec{
		Public:     met.Remote,
		Class:      peer.Pending,
		Candidates: []netip.AddrPort{at},
		HourOffset: met.HourOffset,
	})
	if err != nil {
		return err
	}
	j.entry.Want()
	n.state.joining = j
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

// checkEntries says hello to the entry points of a node that is a member
// already. One of another network is an error; one that does not answer is not.
func (n *Node) checkEntries(ctx context.Context, e *entryPoints) error {
	if e.invite != nil && (keys.Trust{Root: e.invite.Root}).NetworkID() != n.state.membership.trust().NetworkID() {
		return errors.New("join: the invite is of another network than this node's; use another --state for a second network")
	}
	_, _, err := n.meetFirst(ctx, e.addrs, n.hello())
	if errors.Is(err, hello.ErrWrongNetwork) {
		return fmt.Errorf("join: this node is a member of another network; use another --state for a second one: %w", err)
	}
	if err != nil && ctx.Err() == nil {
		n.event(Warning, fmt.Sprintf("entry point: %v", err))
	}
	return nil
}

// firstMember waits until a session with a member exists. The entry point may
// have died since it let us in, so that it is met until then.
func (n *Node) firstMember(ctx context.Context, e *entryPoints) error {
	for !n.anyMember() {
		if err := ctx.Err(); err != nil {
			return err
		}
		met, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); n.meetAgain(met, e.addrs, n.hello()) }()
		err := n.awaitMember(ctx, meetAgain)
		cancel()
		<-done
		if err == nil {
			return nil
		}
	}
	return nil
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
// be reached: all of them may have moved since this node last saw them.
func (n *Node) keepEntries(ctx context.Context) {
	if len(n.cfg.Join) == 0 {
		<-ctx.Done()
		return
	}
	every := time.NewTicker(entriesEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
		if n.anyMember() {
			continue
		}
		if e, err := n.resolveEntries(ctx, true); err == nil {
			n.meetAgain(ctx, e.addrs, n.hello())
		}
	}
}
