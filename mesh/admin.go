package mesh

import (
	"context"
	"slices"
	"time"

	"meshd/keys"
	"meshd/mesh/api"
	"meshd/mesh/directory"
)

const (
	// leavePatience is how long an admin's node is waited for, leaveForced how long
	// when its word is not wanted, leaveAgain how often one is asked.
	leavePatience = 10 * time.Second
	leaveForced   = 3 * time.Second
	leaveAgain    = 500 * time.Millisecond
)

// Revoke implements api.Node.
func (s service) Revoke(ctx context.Context, o api.RevokeOptions) (api.Member, error) {
	var out api.Member
	var failed error
	err := s.n.do(ctx, func() { out, failed = s.n.revokeMember(o, time.Now()) })
	return out, firstOf(failed, err)
}

func (n *Node) revokeMember(o api.RevokeOptions, now time.Time) (api.Member, error) {
	d, err := n.subject(o.Name, "revoke")
	if err != nil {
		return api.Member{}, err
	}
	if d.ID == n.self {
		return api.Member{}, &api.Error{
			Code: api.CodeUsage, What: "revoke", Why: "that is this node itself", Remedy: "meshd leave takes it out of the network",
		}
	}
	before := idsOf(n.state.dir.Members())
	if err := n.revoke(d, o.Since, now); err != nil {
		return api.Member{}, err
	}
	n.reconcileMembers(now) // their sessions end now
	out := memberOf(d)
	for _, id := range before {
		if id != d.ID && n.state.dir.Member(id) == nil {
			out.Also = append(out.Also, id.String())
		}
	}
	return out, nil
}

// SetRoles implements api.Node.
func (s service) SetRoles(ctx context.Context, name string, roles []string) (api.Member, error) {
	var out api.Member
	var failed error
	err := s.n.do(ctx, func() { out, failed = s.n.setRoles(name, roles, time.Now()) })
	return out, firstOf(failed, err)
}

func (n *Node) setRoles(name string, want []string, now time.Time) (api.Member, error) {
	const what = "role"
	d, err := n.subject(name, what)
	if err != nil {
		return api.Member{}, err
	}
	roles, err := keys.ParseRoles(want...)
	if err != nil {
		return api.Member{}, &api.Error{Code: api.CodeUsage, What: what, Why: err.Error()}
	}
	root, err := n.root()
	if err != nil {
		return api.Member{}, err
	}
	was, will := d.Certificate.Roles.Has(keys.RoleAdmin), roles.Has(keys.RoleAdmin)
	switch {
	case was && !will && d.ID == n.self:
		return api.Member{}, &api.Error{
			Code: api.CodeUsage, What: what, Why: "a node cannot take the role admin from itself", Remedy: "ask another admin",
		}
	case !was && will && root == nil:
		return api.Member{}, notRoot(what)
	case slices.Equal(roles, d.Certificate.Roles):
		return memberOf(d), nil
	}
	if err := n.certify(d, roles, now); err != nil {
		return api.Member{}, err
	}
	old := d.Certificate
	revocation := keys.Revocation{Key: old.Sign, Serial: old.Serial, Issued: now}
	switch {
	case was && !will: // what it signs from now on counts no more, nor do its former certificates
		revocation.Cascade = now
		err = n.sealRevocation(d, revocation)
	case will && !was && n.demoted(old): // what it signs counts again
		err = n.sealRevocation(d, revocation)
	}
	if err != nil {
		return api.Member{}, err
	}
	n.reconcileMembers(now)
	if d = n.state.dir.Member(d.ID); d == nil {
		return api.Member{}, &api.Error{Code: api.CodeFailed, What: what, Why: "it is a member no longer"}
	}
	return memberOf(d), nil
}

// demoted says whether what a node signs does not count.
func (n *Node) demoted(c *keys.Certificate) bool {
	return slices.ContainsFunc(n.state.dir.Revocations(), func(r *keys.Revocation) bool {
		return r.Key == c.Sign && !r.Cascade.IsZero()
	})
}

// notRoot is the error of who wants to make an admin and cannot.
func notRoot(what string) error {
	return &api.Error{
		Code: api.CodeDenied, What: what, Why: "only the node with the network's root key makes admins",
		Remedy: "run it on the founder's node",
	}
}

// subject is the member, this node included, that an admin's act is about.
func (n *Node) subject(name, what string) (*directory.Member, error) {
	if err := n.mustSign(); err != nil {
		return nil, &api.Error{
			Code: api.CodeDenied, What: what, Why: "this node is not an admin of the network",
			Remedy: "run it on an admin's node; `meshd status` shows who is one",
		}
	}
	members := n.state.dir.Members()
	list := make([]api.Named, len(members))
	for i, d := range members {
		list[i] = api.Named{Name: d.Display, ID: d.ID.String()}
	}
	i, err := api.Resolve(name, list)
	if err != nil {
		return nil, err
	}
	return members[i], nil
}

func memberOf(d *directory.Member) api.Member {
	return api.Member{ID: d.ID.String(), Name: d.Display, Roles: d.Certificate.Roles, Expires: d.Certificate.NotAfter, Also: []string{}}
}

// Leave implements api.Node: asks a signer to revoke this node and ends it; then
// its state is removed.
func (s service) Leave(ctx context.Context, force bool) error {
	n := s.n
	patience := leavePatience
	if force {
		patience = leaveForced
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(leaveAgain)
	defer again.Stop()
	for {
		var gone bool
		var failed error
		err := n.do(ctx, func() { gone, failed = n.askToLeave(force) })
		if failed != nil {
			return failed
		}
		if gone {
			break
		}
		if err == nil {
			select {
			case <-again.C:
				continue
			case <-ctx.Done():
			}
		}
		if force {
			break
		}
		return &api.Error{
			Code: api.CodeNotConnected, What: "leave", Why: "no admin's node answers, and one has to revoke this node",
			Remedy: "try again when one is back, or use --force: others then go on counting this node as a member",
		}
	}
	n.leaving.Store(true)
	n.stop(errDown)
	return nil
}

// askToLeave reports whether this node is a member no longer, and else asks for it.
func (n *Node) askToLeave(force bool) (gone bool, err error) {
	s := &n.state
	if s.dir == nil {
		return true, nil // not yet
	}
	own := s.dir.Member(n.self)
	if own == nil {
		return true, nil
	}
	root, err := n.root()
	if err != nil {
		return false, err
	}
	if root != nil {
		if !force {
			return false, &api.Error{
				Code: api.CodeFailed, What: "leave", Why: "this node holds the network's root key, which would be lost: nobody could make admins any more",
				Remedy: "meshd down ends it for now; --force leaves all the same",
			}
		}
		if err := n.revoke(own, time.Time{}, time.Now()); err != nil {
			return false, err
		}
		return s.dir.Member(n.self) == nil, nil
	}
	n.askSigner(keys.NodeID{}, []byte{paperLeave})
	return false, nil
}
