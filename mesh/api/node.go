package api

import (
	"context"
	"time"
)

// Node is what a running node offers to its commands. Every method may be called by several goroutines at once and
// returns soon after its context ends. An error that is an [*Error] reaches the user as it is, with its remedy and
// exit status; any other becomes CodeFailed.
//
// Where a method takes a name it may be a name, an id or a unique prefix of one: [Resolve] decides.
type Node interface {
	// Status says how things are now. The caller owns the answer.
	Status(ctx context.Context) (*Status, error)
	// Hosts lists the broadcast domain.
	Hosts(ctx context.Context) ([]Host, error)
	// Ping sends count pings (0: until ctx ends), one a second, and calls each for every answer or loss in order,
	// from one goroutine. It returns nil also when all were lost.
	Ping(ctx context.Context, name string, count int, each func(PingReply)) error
	// Invite makes an invite with the given terms and returns its text.
	Invite(ctx context.Context, o InviteOptions) (string, error)
	// Requests lists who waits for approval.
	Requests(ctx context.Context) ([]Request, error)
	// Approve admits the one joiner that shows these words. Words arrive with single spaces and in lower case.
	Approve(ctx context.Context, words string) (Request, error)
	// Deny refuses the one joiner that shows these words.
	Deny(ctx context.Context, words string) error
	// Revoke ends a membership for good, as an admin.
	Revoke(ctx context.Context, o RevokeOptions) (Member, error)
	// SetRoles gives a member these roles and no others, as an admin. The new certificate spreads by itself.
	SetRoles(ctx context.Context, name string, roles []string) (Member, error)
	// Leave has an admin's node revoke this one, ends it and removes its state. It returns when the end has begun. With force
	// it does so also when no admin's node answers, or when this node holds the root key.
	Leave(ctx context.Context, force bool) error
	// Wait returns nil as soon as the condition holds, and the context's error or an [*Error] otherwise. It makes the
	// session that the condition asks for. The server turns Timeout into the context's deadline.
	Wait(ctx context.Context, w WaitSpec) error
	// Share says what is relayed, after it has changed what is not nil.
	Share(ctx context.Context, change ShareChange) (*Share, error)
	// Prefixes lists the network's prefixes, after it has changed them as an admin.
	Prefixes(ctx context.Context, change PrefixChange) ([]Prefix, error)
	// Gateway says who routes what.
	Gateway(ctx context.Context) (*Gateway, error)
	// Netcheck measures what the network in front of this host does, with the help of members and of these servers
	// (HOST:PORT). It takes some seconds.
	Netcheck(ctx context.Context, servers []string) (*Netcheck, error)
	// Down starts the clean end and returns. The daemon removes its socket last, so that its absence says that
	// nothing is left.
	Down(ctx context.Context) error
}

// RevokeOptions say whose membership ends.
type RevokeOptions struct {
	// Name is the member.
	Name string
	// Since ends also the memberships of those whom it has admitted from then on; zero: of nobody. Whom it admits after the
	// revocation never counts.
	Since time.Time
}

// WaitSpec is a condition to wait for. All that is set must hold; the empty one holds once the node is ready.
type WaitSpec struct {
	// Peers is how many members other than this one must be known and alive.
	Peers int
	// Peer names a member to which a session must exist.
	Peer string
	// Direct names a member to which a direct path must exist.
	Direct string
	// Timeout ends the wait; 0 never does.
	Timeout time.Duration
}

// Met reports whether the condition holds in s. A name that nobody has (yet) is not met; an ambiguous one is an error.
func (w WaitSpec) Met(s *Status) (bool, error) {
	if !s.Self.Ready {
		return false, nil
	}
	alive := 0
	for _, p := range s.Peers {
		if p.State.Alive() {
			alive++
		}
	}
	if alive < w.Peers {
		return false, nil
	}
	ok, err := peerMeets(s.Peers, w.Peer, PeerState.Connected)
	if err != nil || !ok {
		return false, err
	}
	return peerMeets(s.Peers, w.Direct, func(st PeerState) bool { return st == StateDirect })
}

// peerMeets looks a name up among the peers and asks its state; no name is always met.
func peerMeets(peers []Peer, name string, want func(PeerState) bool) (bool, error) {
	if name == "" {
		return true, nil
	}
	i, err := Resolve(name, peerIDs(peers))
	if err != nil {
		if CodeOf(err) == CodeUnknownName {
			return false, nil
		}
		return false, err
	}
	return want(peers[i].State), nil
}

// peerIDs is the list of peers as Resolve wants it.
func peerIDs(peers []Peer) []Named {
	list := make([]Named, len(peers))
	for i, p := range peers {
		list[i] = Named{Name: p.Name, ID: p.ID}
	}
	return list
}
