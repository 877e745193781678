package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshd/keys"
	"meshd/mesh/api"
	"meshd/mesh/directory"
	"meshd/mesh/join"
	"meshd/peer"
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
			reply.State, reply.Transport, reply.Endpoint = api.StateDirect, transport(st.Endpoint), st.Endpoint.String()
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
		if len(list) < maxInviteEntries {
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
			add(m.remote.Status().Endpoint)
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

// hosts is the broadcast domain as this node knows it.
func (n *Node) hosts() []api.Host {
	if n.state.segment == nil {
		return []api.Host{}
	}
	byID := map[string]*directory.Member{}
	for _, d := range n.state.dir.Members() {
		byID[d.ID.String()] = d
	}
	self := n.self.String()
	prefixes := n.prefixes()
	hosts := []api.Host{}
	for _, h := range n.state.segment.sw.Hosts() {
		id := h.Port
		if id == "" {
			id = self
		}
		a := api.Host{
			MAC: h.MAC.String(), VLAN: h.VLAN, Addresses: append([]netip.Addr{}, h.IPs...), MemberID: id,
			Source: h.Learned, AgeSeconds: h.Age.Seconds(),
		}
		if d := byID[id]; d != nil {
			a.Member = d.Display
			if h.MAC == macOf(d.ID) {
				a.Addresses = union(addrsOf(ownAddresses(d.ID, prefixes)), a.Addresses)
			}
		}
		hosts = append(hosts, a)
	}
	return hosts
}

// transport names the kind of path to an address, as in CONTRACT.
func transport(a netip.AddrPort) string {
	switch {
	case !a.IsValid():
		return ""
	case a.Addr().Is4():
		return "udp4"
	default:
		return "udp6"
	}
}

// peerState says how a member is connected.
func (n *Node) peerState(m *member, st peer.Status, now time.Time) api.PeerState {
	switch {
	case st.Up:
		return api.StateDirect
	case m.left:
		return api.StateOffline
	case st.Wanted && (m.trying.IsZero() || now.Sub(m.trying) < offlineAfter):
		return api.StateConnecting
	case st.Wanted:
		return api.StateOffline
	case n.state.gossip.Alive(st.ID):
		return api.StateIdle
	default:
		return api.StateOffline
	}
}

// describe is one member for status.
func (n *Node) describe(d *directory.Member, m *member, now time.Time) api.Peer {
	st := m.remote.Status()
	p := api.Peer{
		ID: d.ID.String(), Name: d.Display, Roles: d.Certificate.Roles,
		Addresses: addrsOf(ownAddresses(d.ID, n.prefixes())), MAC: macOf(d.ID).String(),
		State: n.peerState(m, st, now), Via: []string{}, Paths: []api.Path{},
		TxBytes: st.TxBytes, RxBytes: st.RxBytes, TxBPS: m.tx.bps, RxBPS: m.rx.bps,
		LastSeen: st.LastHeard.UTC(), LastHandshake: st.LastHandshake.UTC(),
	}
	if st.Up {
		p.Transport, p.Endpoint = transport(st.Endpoint), st.Endpoint.String()
		p.RTTMillis, p.PathMTU = millis(st.RTT), st.PathMTU
	}
	for _, path := range st.Paths {
		share := 0.0
		if path.Active && st.Up {
			share = 1
		}
		p.Paths = append(p.Paths, api.Path{
			Transport: transport(path.Addr), Endpoint: path.Addr.String(), Via: []string{},
			RTTMillis: millis(path.RTT), Loss: path.Loss, Share: share, Up: path.Up,
		})
	}
	return p
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// status is everything, for the commands.
func (n *Node) status(now time.Time) *api.Status {
	st := &api.Status{Version: n.cfg.Version, Peers: []api.Peer{}, Relaying: []api.Relaying{}, Health: n.health()}
	st.Self = n.describeSelf(now)
	s := &n.state
	if s.dir == nil {
		if s.joining != nil {
			st.Self.Waiting = strings.Join(s.joining.machine.Words(), " ")
		}
		return st
	}
	name, prefixes, _ := s.dir.Network()
	st.Network = api.Network{ID: s.membership.trust().NetworkID().String(), Name: name, Prefixes: prefixes}
	for _, d := range s.dir.Members() {
		if m := s.members[d.ID]; m != nil {
			st.Peers = append(st.Peers, n.describe(d, m, now))
		}
	}
	return st
}

func (n *Node) describeSelf(now time.Time) api.Self {
	id := n.self
	self := api.Self{
		ID: id.String(), Name: n.cfg.Name, Roles: []string{}, Addresses: []netip.Addr{}, MAC: macOf(id).String(),
		MTU: DefaultMTU, Endpoints: []api.Endpoint{}, UptimeSeconds: now.Sub(n.started).Seconds(), Ready: n.ready.Load(),
	}
	if !n.cfg.NoTAP {
		self.TAP = n.cfg.TAP
	}
	result := n.state.self.stun.Result(now)
	self.NAT = api.NAT{Mapping: result.Mapping.String(), UDP: result.UDP}
	if n.state.dir == nil {
		return self
	}
	_, prefixes, mtu := n.state.dir.Network()
	self.MTU, self.Addresses = mtu, addrsOf(ownAddresses(id, prefixes))
	if d := n.state.dir.Member(id); d != nil {
		self.Name, self.Roles = d.Display, d.Certificate.Roles
	}
	for _, m := range n.state.members {
		self.NAT.UDP = self.NAT.UDP || m.up
	}
	for _, c := range n.state.self.list {
		self.Endpoints = append(self.Endpoints, api.Endpoint{Addr: c.Addr.String(), Kind: api.EndpointKind(c.Kind.String())})
	}
	return self
}

// health lists what is not as it should be.
func (n *Node) health() []api.Health {
	list := []api.Health{}
	if n.state.segment != nil {
		if host, ok := n.state.segment.device.(hostSide); ok {
			for _, p := range host.Problems() {
				list = append(list, api.Health{Code: p.Code, Severity: api.SeverityWarning, Text: p.Text, Remedy: p.Remedy})
			}
		}
	}
	if n.state.dir != nil {
		list = append(list, certificateHealth(n.state.dir.Member(n.self))...)
	}
	for alarm, at := range n.state.alarms {
		list = append(list, api.Health{
			Code: "record-" + alarmCode(alarm.Kind), Severity: api.SeverityError,
			Text:   fmt.Sprintf("member %s: %s, seen at %s", alarm.Owner, alarmCode(alarm.Kind), at.UTC().Format(time.RFC3339)),
			Remedy: "make sure that no second machine runs with a copy of this state directory",
		})
	}
	return list
}

// certificateHealth warns of a certificate whose time is over or has not begun.
// The node stays a member all the same (DESIGN.md, decision 5).
func certificateHealth(own *directory.Member) []api.Health {
	switch {
	case own == nil:
		return nil
	case own.Expired:
		return []api.Health{{
			Code: "certificate-expired", Severity: api.SeverityWarning,
			Text:   "this node's certificate expired at " + own.Certificate.NotAfter.UTC().Format(time.RFC3339),
			Remedy: "bring an admin's node back, which renews it; check this host's clock",
		}}
	case own.Early:
		return []api.Health{{
			Code: "certificate-early", Severity: api.SeverityWarning,
			Text:   "this node's certificate is not valid before " + own.Certificate.NotBefore.UTC().Format(time.RFC3339),
			Remedy: "check this host's clock",
		}}
	}
	return nil
}

// union appends to list what is not in it yet.
func union(list, more []netip.Addr) []netip.Addr {
	for _, a := range more {
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// alarmCode names an alarm in status.
func alarmCode(k directory.AlarmKind) string {
	switch k {
	case directory.Equivocation:
		return "equivocation"
	case directory.StateLoss:
		return "state-loss"
	case directory.SelfRevoked:
		return "revoked"
	default:
		return "unknown"
	}
}
