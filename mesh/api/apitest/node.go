// Package apitest is a node that does nothing but answer: the in-memory twin of a real one behind [api.Node].
package apitest

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"meshd/mesh/api"
)

// Node answers with what stands in its fields. Its methods may be called by several goroutines; the fields are set before.
type Node struct {
	StatusAnswer   api.Status
	HostsAnswer    []api.Host
	RequestsAnswer []api.Request
	InviteAnswer   string
	PrefixesAnswer []api.Prefix
	GatewayAnswer  api.Gateway
	ShareAnswer    api.Share
	NetcheckAnswer api.Netcheck
	// Replies is how many of the pings are answered; the rest is lost.
	Replies int
	// Err, if set, is the answer to everything.
	Err error
	// OnDown is called by Down.
	OnDown func()

	mu    sync.Mutex
	calls []string
}

var _ api.Node = (*Node)(nil)

// Calls lists the operations that were asked for, in order.
func (n *Node) Calls() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.calls...)
}

func (n *Node) note(op string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, op)
	return n.Err
}

// Status answers with a copy of StatusAnswer.
func (n *Node) Status(context.Context) (*api.Status, error) {
	if err := n.note("status"); err != nil {
		return nil, err
	}
	s := n.StatusAnswer
	s.Peers = append([]api.Peer(nil), s.Peers...)
	return &s, nil
}

// Netcheck answers with NetcheckAnswer.
func (n *Node) Netcheck(_ context.Context, servers []string) (*api.Netcheck, error) {
	if err := n.note(strings.TrimSpace("netcheck " + strings.Join(servers, " "))); err != nil {
		return nil, err
	}
	report := n.NetcheckAnswer
	return &report, nil
}

// Hosts answers with HostsAnswer.
func (n *Node) Hosts(context.Context) ([]api.Host, error) {
	return append([]api.Host(nil), n.HostsAnswer...), n.note("hosts")
}

// Ping answers Replies pings at once and loses the others.
func (n *Node) Ping(ctx context.Context, name string, count int, each func(api.PingReply)) error {
	if err := n.note("ping " + name); err != nil {
		return err
	}
	var list []api.Named
	for _, p := range n.StatusAnswer.Peers {
		list = append(list, api.Named{Name: p.Name, ID: p.ID})
	}
	i, err := api.Resolve(name, list)
	if err != nil {
		return err
	}
	p := n.StatusAnswer.Peers[i]
	for seq := 1; count == 0 || seq <= count; seq++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if seq > n.Replies {
			each(api.PingReply{Seq: seq, Name: p.Name, Bytes: 64, Lost: true, Reason: "no answer in 1s"})
			continue
		}
		each(api.PingReply{Seq: seq, Name: p.Name, Bytes: 64, RTTMillis: 1.25, State: p.State, Transport: p.Transport, Endpoint: p.Endpoint, Via: p.Via})
	}
	return nil
}

// Invite answers with InviteAnswer.
func (n *Node) Invite(context.Context, api.InviteOptions) (string, error) {
	return n.InviteAnswer, n.note("invite")
}

// Requests answers with RequestsAnswer.
func (n *Node) Requests(context.Context) ([]api.Request, error) {
	return append([]api.Request(nil), n.RequestsAnswer...), n.note("requests")
}

// Approve answers with the request that has the words.
func (n *Node) Approve(_ context.Context, words string) (api.Request, error) {
	if err := n.note("approve " + words); err != nil {
		return api.Request{}, err
	}
	for _, r := range n.RequestsAnswer {
		if r.Words == words {
			return r, nil
		}
	}
	return api.Request{}, &api.Error{Code: api.CodeFailed, What: "approve", Why: "nobody shows these words", Remedy: "meshd requests lists who waits"}
}

// Deny notes the words.
func (n *Node) Deny(_ context.Context, words string) error { return n.note("deny " + words) }

// Revoke answers with the peer of that name.
func (n *Node) Revoke(_ context.Context, o api.RevokeOptions) (api.Member, error) {
	return n.member(o.Name, "revoke "+o.Name)
}

// SetRoles answers with the peer of that name in its new roles.
func (n *Node) SetRoles(_ context.Context, name string, roles []string) (api.Member, error) {
	m, err := n.member(name, "role "+name+" "+strings.Join(roles, " "))
	m.Roles = roles
	return m, err
}

func (n *Node) member(name, call string) (api.Member, error) {
	if err := n.note(call); err != nil {
		return api.Member{}, err
	}
	list := make([]api.Named, len(n.StatusAnswer.Peers))
	for i, p := range n.StatusAnswer.Peers {
		list[i] = api.Named{Name: p.Name, ID: p.ID}
	}
	i, err := api.Resolve(name, list)
	if err != nil {
		return api.Member{}, err
	}
	p := n.StatusAnswer.Peers[i]
	return api.Member{ID: p.ID, Name: p.Name, Roles: p.Roles}, nil
}

// Leave notes that it was asked for.
func (n *Node) Leave(_ context.Context, force bool) error {
	call := "leave"
	if force {
		call += " by force"
	}
	if err := n.note(call); err != nil || n.OnDown == nil {
		return err
	}
	n.OnDown()
	return nil
}

// Wait looks once: it returns nil if StatusAnswer meets the condition, and else when ctx ends.
func (n *Node) Wait(ctx context.Context, w api.WaitSpec) error {
	if err := n.note("wait"); err != nil {
		return err
	}
	ok, err := w.Met(&n.StatusAnswer)
	if err != nil || ok {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// Share answers with ShareAnswer, changed.
func (n *Node) Share(_ context.Context, c api.ShareChange) (*api.Share, error) {
	s := n.ShareAnswer
	if c.On != nil {
		s.On = *c.On
	}
	if c.RateBPS != nil {
		s.RateBPS = *c.RateBPS
	}
	if c.VolumeBytes != nil {
		s.VolumeBytes = *c.VolumeBytes
	}
	return &s, n.note("share")
}

// Prefixes answers with PrefixesAnswer, changed.
func (n *Node) Prefixes(_ context.Context, c api.PrefixChange) ([]api.Prefix, error) {
	list := slices.DeleteFunc(slices.Clone(n.PrefixesAnswer), func(p api.Prefix) bool { return slices.Contains(c.Remove, p.Prefix) })
	for _, p := range c.Add {
		list = append(list, api.Prefix{Prefix: p, State: api.PrefixInUse, ValidSeconds: c.Lifetime.Seconds()})
	}
	return list, n.note("prefix")
}

// Gateway answers with GatewayAnswer.
func (n *Node) Gateway(context.Context) (*api.Gateway, error) {
	g := n.GatewayAnswer
	return &g, n.note("gateway")
}

// Down calls OnDown.
func (n *Node) Down(context.Context) error {
	if err := n.note("down"); err != nil {
		return err
	}
	if n.OnDown != nil {
		n.OnDown()
	}
	return nil
}

// Sample is a node of a network with four members, in every state that output has to show.
func Sample(now time.Time) *Node {
	addr := netip.MustParseAddr
	return &Node{
		InviteAnswer: "meshd1-sample-invite",
		ShareAnswer: api.Share{
			On: true, RateBPS: 10_000_000, VolumeBytes: 100_000_000_000, Month: "2026-01", UsedBytes: 123456789,
			For: []api.Relaying{{From: "laptop", To: "phone", Bytes: 5000000, RateBPS: 800000}},
			By:  []api.SharedBy{{Peer: "nas", Via: []string{"laptop"}, RateBPS: 1200}},
		},
		Replies: 2,
		StatusAnswer: api.Status{
			Version: "1.2.3",
			Network: api.Network{ID: "n7k2", Name: "home", Prefixes: []netip.Prefix{netip.MustParsePrefix("fd12:3456:789a::/64")}},
			Self: api.Self{
				ID: "aaaa1111", Name: "anchor", Roles: []string{"admin"}, Addresses: []netip.Addr{addr("fd12:3456:789a::1")},
				MAC: "02:00:00:00:00:01", TAP: "mesh0", MTU: 1500,
				Endpoints: []api.Endpoint{{Addr: "198.18.0.1:51830", Kind: api.EndpointHost}},
				NAT:       api.NAT{Mapping: "none", UDP: true}, UptimeSeconds: 3661.5, Ready: true,
			},
			Peers: []api.Peer{
				{
					ID: "dddd4444", Name: "phone", Roles: []string{"member"}, Addresses: []netip.Addr{addr("fd12:3456:789a::4")},
					MAC: "02:00:00:00:00:04", State: api.StateOffline, LastSeen: now.Add(-2 * time.Hour),
				},
				{
					ID: "bbbb2222", Name: "laptop", Roles: []string{"member"}, Addresses: []netip.Addr{addr("fd12:3456:789a::2")},
					MAC: "02:00:00:00:00:02", State: api.StateDirect, Transport: "udp4", Endpoint: "198.18.0.2:51830", RTTMillis: 12.34,
					PathMTU: 1500, TxBytes: 123456, RxBytes: 7, TxBPS: 8000, Dropped: 3, QueueDropped: 2, LastSeen: now.Add(-time.Second), LastHandshake: now.Add(-time.Minute),
					Paths: []api.Path{{Transport: "udp4", Endpoint: "198.18.0.2:51830", RTTMillis: 12.34, Share: 1, Up: true}},
				},
				{
					ID: "cccc3333", Name: "nas", Roles: []string{"member", "bridge"}, Addresses: []netip.Addr{addr("fd12:3456:789a::3")},
					MAC: "02:00:00:00:00:03", State: api.StateRelayed, Transport: "udp6", Endpoint: "[2001:db8::2]:51830", Via: []string{"laptop"},
					RTTMillis: 40.5, PathMTU: 1280, LastSeen: now,
				},
				{ID: "cccc5555", Name: "tv", Roles: []string{"member"}, Addresses: []netip.Addr{addr("fd12:3456:789a::5")}, MAC: "02:00:00:00:00:05", State: api.StateIdle, LastSeen: now},
			},
			Health: []api.Health{{Code: "clock-skew", Severity: api.SeverityWarning, Text: "the clock of laptop is 5 min ahead", Remedy: "set it"}},
		},
		HostsAnswer: []api.Host{
			{MAC: "02:00:00:00:00:01", Addresses: []netip.Addr{addr("fd12:3456:789a::1")}, Member: "anchor", MemberID: "aaaa1111", Source: "own"},
			{MAC: "52:54:00:00:00:09", VLAN: 10, Addresses: []netip.Addr{addr("192.0.2.9"), addr("fd12:3456:789a::9")}, Member: "nas", MemberID: "cccc3333", Source: "binding", AgeSeconds: 75},
		},
		RequestsAnswer: []api.Request{{
			Words: "apple bridge candle dragon eagle forest", ID: "eeee6666", Name: "tablet", From: "198.18.0.9:51830", Introducer: "laptop",
			Asked: now.Add(-30 * time.Second), Expires: now.Add(9 * time.Minute),
		}},
	}
}
