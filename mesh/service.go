package mesh

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshd/keys"
	"meshd/mesh/api"
	"meshd/mesh/join"
	"meshd/peer/stream"
	"meshd/peer/way"
)

// service implements api.Node: what the control socket offers.
type service struct{ n *Node }

var _ api.Node = service{}

// Status implements api.Node.
func (s service) Status(ctx context.Context) (*api.Status, error) {
	var st *api.Status
	err := s.n.do(ctx, func() { st = s.n.status(time.Now()) })
	return st, err
}

// Hosts implements api.Node.
func (s service) Hosts(ctx context.Context) ([]api.Host, error) {
	var hosts []api.Host
	err := s.n.do(ctx, func() { hosts = s.n.hosts() })
	return hosts, err
}

// Ping implements api.Node.
func (s service) Ping(ctx context.Context, name string, count int, each func(api.PingReply)) error {
	var id keys.NodeID
	var resolved error
	if err := s.n.do(ctx, func() { id, resolved = s.n.find(name) }); err != nil || resolved != nil {
		return firstOf(resolved, err)
	}
	next := time.NewTicker(time.Second)
	defer next.Stop()
	for seq := 1; count == 0 || seq <= count; seq++ {
		reply, err := s.n.pingOnce(ctx, id, seq)
		if err != nil {
			return err
		}
		each(reply)
		if seq == count {
			return nil
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// Invite implements api.Node.
func (s service) Invite(ctx context.Context, o api.InviteOptions) (string, error) {
	var text string
	var failed error
	err := s.n.do(ctx, func() { text, failed = s.n.invite(o) })
	return text, firstOf(failed, err)
}

// Requests implements api.Node.
func (s service) Requests(ctx context.Context) ([]api.Request, error) {
	var list []api.Request
	var failed error
	err := s.n.do(ctx, func() {
		if failed = s.n.mustSign(); failed != nil {
			return
		}
		for _, r := range s.n.state.desk.Requests(time.Now()) {
			list = append(list, request(r))
		}
	})
	return list, firstOf(failed, err)
}

// Approve implements api.Node.
func (s service) Approve(ctx context.Context, words string) (api.Request, error) {
	var r join.Request
	var failed error
	err := s.n.do(ctx, func() {
		if failed = s.n.mustSign(); failed != nil {
			return
		}
		if r, failed = s.n.state.desk.Approve(words, keys.Roles{"member"}, time.Now()); failed == nil {
			s.n.answerNow(r.ID)
		}
	})
	return request(r), firstOf(failed, err)
}

// Deny implements api.Node.
func (s service) Deny(ctx context.Context, words string) error {
	var failed error
	err := s.n.do(ctx, func() {
		if failed = s.n.mustSign(); failed != nil {
			return
		}
		var r join.Request
		if r, failed = s.n.state.desk.Deny(words, time.Now()); failed == nil {
			s.n.answerNow(r.ID)
		}
	})
	return firstOf(failed, err)
}

// Wait implements api.Node.
func (s service) Wait(ctx context.Context, w api.WaitSpec) error {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		var met bool
		var failed error
		err := s.n.do(ctx, func() {
			st := s.n.status(time.Now())
			if met, failed = w.Met(st); met || failed != nil {
				return
			}
			for _, name := range []string{w.Peer, w.Direct} {
				if id, err := s.n.find(name); err == nil && name != "" {
					s.n.state.members[id].remote.Want()
				}
			}
		})
		if err = firstOf(failed, err); err != nil || met {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Down implements api.Node.
func (s service) Down(context.Context) error {
	s.n.stop(errDown)
	return nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// mustSign says why this node cannot admit anybody.
func (n *Node) mustSign() error {
	if n.state.desk != nil {
		return nil
	}
	return &api.Error{
		Code: api.CodeDenied, What: "admit", Why: "this node is not an admin of the network",
		Remedy: "run it on an admin's node; `meshd status` shows who is one",
	}
}

// find resolves a name to a member other than this one.
func (n *Node) find(name string) (keys.NodeID, error) {
	var ids []keys.NodeID
	var list []api.Named
	if n.state.dir != nil {
		for _, d := range n.state.dir.Members() {
			if n.state.members[d.ID] != nil {
				ids = append(ids, d.ID)
				list = append(list, api.Named{Name: d.Display, ID: d.ID.String()})
			}
		}
	}
	i, err := api.Resolve(name, list)
	if err != nil {
		return keys.NodeID{}, err
	}
	return ids[i], nil
}

// pingOnce sends one ping and waits a second for its answer.
func (n *Node) pingOnce(ctx context.Context, id keys.NodeID, seq int) (api.PingReply, error) {
	remote := n.engine.Remote(id)
	if remote == nil {
		return api.PingReply{}, &api.Error{Code: api.CodeNotConnected, What: "ping", Why: "it is a member no longer"}
	}
	reply := api.PingReply{Seq: seq, Name: n.displayName(ctx, id), Bytes: pingSize, Via: []string{}}
	deadline := time.NewTimer(time.Second)
	defer deadline.Stop()
	began := time.Now()
	answer, forget := n.pings.send(remote)
	defer func() { forget() }()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		select {
		case at := <-answer:
			st := remote.Status()
			reply.RTTMillis = float64(at.Sub(began).Microseconds()) / 1000
			_ = n.do(ctx, func() {
				reply.State = n.peerState(&member{}, st, at)
				reply.Transport, reply.Endpoint, reply.Via = n.wayTo(st, st.Endpoint)
			})
			return reply, nil
		case <-retry.C: // there was no session to send it in
			if !reply.Lost && !remote.Status().Up {
				reply.Lost = true // for now
			} else if reply.Lost && remote.Status().Up {
				reply.Lost = false
				forget()
				began = time.Now()
				answer, forget = n.pings.send(remote)
			}
		case <-deadline.C:
			reply.Lost, reply.Reason = true, "no answer"
			if !remote.Status().Up {
				reply.Reason = "no session"
			}
			return reply, nil
		case <-ctx.Done():
			return reply, ctx.Err()
		}
	}
}

func (n *Node) displayName(ctx context.Context, id keys.NodeID) (name string) {
	_ = n.do(ctx, func() {
		if d := n.state.dir.Member(id); d != nil {
			name = d.Display
		}
	})
	return name
}

// invite makes an invite and records it before it is shown to anybody.
func (n *Node) invite(o api.InviteOptions) (string, error) {
	if err := n.mustSign(); err != nil {
		return "", err
	}
	roles, err := keys.ParseRoles(o.Roles...)
	if err != nil {
		return "", &api.Error{Code: api.CodeUsage, What: "invite", Why: err.Error()}
	}
	if root, err := n.root(); err != nil {
		return "", err
	} else if root == nil && roles.Has(keys.RoleAdmin) {
		return "", notRoot("invite")
	}
	name, _, _ := n.state.dir.Network()
	now := time.Now()
	invite, err := keys.NewInvite(n.state.signer, keys.InviteOptions{
		Root:    n.state.membership.trust().Root,
		Network: name,
		Entries: n.inviteEntries(),
		Roles:   roles,
		Uses:    o.Uses,
		Expires: now.Add(o.Expires),
	}, now)
	if err != nil {
		return "", err
	}
	if err := n.state.issues.RecordInvite(invite); err != nil {
		return "", err
	}
	n.log.Info("invite made", "uses", o.Uses, "expires", invite.Expires, "roles", strings.Join(roles, ","))
	return invite.Text(), nil
}

// inviteEntries are where a joiner may knock: as the operator advertises, else
// our own addresses, and a few members'.
func (n *Node) inviteEntries() []string {
	var list []string
	list = append(list, n.cfg.Advertise...)
	add := func(a netip.AddrPort) {
		if len(list) < maxInviteEntries && a.IsValid() && !way.IsVirtual(a.Addr()) && !slices.Contains(list, a.String()) {
			list = append(list, a.String())
		}
	}
	for _, c := range n.state.self.list {
		if len(list) < maxInviteEntries-2 {
			add(c.Addr)
		}
	}
	for _, id := range n.state.neighbours {
		if m := n.state.members[id]; m != nil && m.up {
			if at := m.remote.Status().Endpoint; way.ClassOf(at) == way.Direct {
				add(at)
			}
		}
	}
	return list
}

// maxInviteEntries keeps an invite a line that can be pasted.
const maxInviteEntries = 6

// answerNow tells a joiner who waits here at once; others ask again.
func (n *Node) answerNow(id keys.NodeID) {
	if p := n.state.pending[id]; p != nil {
		for _, msg := range n.state.desk.Answers(id, time.Now()) {
			sendControl(p.remote, kindJoin, []byte{joinDirect}, msg)
		}
	}
}

func request(r join.Request) api.Request {
	a := api.Request{Words: strings.Join(r.Words, " "), ID: r.ID.String(), Name: r.Name, Asked: r.Since, Expires: r.Since.Add(pendingFor)}
	if r.From.IsValid() {
		a.From = r.From.String()
	}
	return a
}

var _ api.Streamer = service{}

// Stream implements api.Streamer.
func (s service) Stream(conn io.ReadWriteCloser, from string) error {
	name := "ssh"
	if from != "" {
		name = "ssh from " + from
	}
	return s.n.streams.carriers[way.SSH].Accept(conn, stream.Caller{Name: name})
}
