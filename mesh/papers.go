package mesh

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"time"

	"meshd/keys"
	"meshd/mesh/directory"
	"meshd/mesh/join"
	"meshd/mesh/record"
	"meshd/peer"
)

// Control messages of kind papers: a member asks a signer (PROTOCOL.md, section
// 8.1). Certificates and revocations themselves travel as records.
const (
	paperRenew    = 1 // serial of ours as text (24): it wants renewal
	paperSigner   = 2 // we are an admin without a signer's certificate
	paperSignerIs = 3 // DER: the answer
	paperLeave    = 4 // we are leaving for good: revoke us
)

const (
	// renewSpread is the part of a certificate's life over which the members'
	// renewals are spread, from half of it on: many are admitted on one day.
	renewSpread = 20
	// renewRetry is how soon a signer is asked again, doubling up to renewAtMost.
	renewRetry, renewAtMost = 30 * time.Second, time.Hour
	// renewLook is how often the certificate is looked at.
	renewLook = 10 * time.Minute
)

// renewAt is when a node wants a new certificate.
func renewAt(c *keys.Certificate) time.Time {
	life := c.NotAfter.Sub(c.NotBefore)
	h := fnv.New32a()
	h.Write([]byte(c.Serial)) // has no error
	spread := life / renewSpread
	return c.NotBefore.Add(life/2 + spread*time.Duration(h.Sum32()%1024)/1024)
}

// renewable says whether a signer gives a new certificate for this one.
func renewable(c *keys.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 2))
}

// keepPapers asks for what this node should have and has not: a certificate with
// half its life left, and as an admin a signer's.
func (n *Node) keepPapers(now time.Time) {
	s := &n.state
	if now.Before(s.schedule.papers) {
		return
	}
	own := s.dir.Member(n.self)
	s.schedule.papers = now.Add(renewLook)
	if own == nil {
		return
	}
	old := !now.Before(renewAt(own.Certificate))
	unsigned := own.Certificate.Roles.Has(keys.RoleAdmin) && s.signer == nil
	if !old && !unsigned {
		s.renewWait = 0
		return
	}
	if old && s.signer != nil {
		if err := n.certify(own, own.Certificate.Roles, now); err != nil {
			n.log.Error("renew our certificate", "err", err)
		}
		return
	}
	if unsigned {
		n.askSigner(own.Certificate.Signer, []byte{paperSigner})
	}
	if old {
		n.askSigner(keys.NodeID{}, append([]byte{paperRenew}, own.Certificate.Serial...))
	}
	s.renewWait = min(max(2*s.renewWait, renewRetry), renewAtMost)
	s.schedule.papers = now.Add(s.renewWait)
}

// askSigner asks one admin, if it can be had a given one, else one with a
// session, else any. It reports whether there is one.
func (n *Node) askSigner(first keys.NodeID, msg []byte) bool {
	s := &n.state
	var up, all []*member
	for _, d := range s.dir.Members() {
		m := s.members[d.ID]
		if m == nil || !d.Certificate.Roles.Has(keys.RoleAdmin) {
			continue
		}
		if d.ID == first {
			up, all = []*member{m}, []*member{m}
			break
		}
		all = append(all, m)
		if m.up {
			up = append(up, m)
		}
	}
	// Now and then another one than those at hand: they may be unable to.
	if len(up) == 0 || rand.IntN(4) == 0 {
		up = all
	}
	if len(up) == 0 {
		return false
	}
	m := up[rand.IntN(len(up))]
	if !sendControl(m.remote, kindPapers, msg) { // asked again once there is a session
		s.schedule.papers = time.Time{}
		m.remote.Want()
	}
	return true
}

// handlePapers takes what a member asks of a signer, and the answer.
func (n *Node) handlePapers(from *peer.Remote, body []byte) {
	s := &n.state
	if s.dir == nil || len(body) == 0 {
		return
	}
	d := s.dir.Member(from.ID)
	if d == nil {
		return
	}
	now := time.Now()
	switch kind, body := body[0], body[1:]; kind {
	case paperRenew:
		n.renewFor(d, from, string(body), now)
	case paperSigner:
		n.makeSigner(d, from, now)
	case paperSignerIs:
		n.becomeSigner(body, now)
	case paperLeave:
		if s.signer == nil || len(body) > 0 {
			return
		}
		if err := n.revoke(d, time.Time{}, now); err != nil {
			n.log.Error("revoke a member that leaves", "member", d.Display, "err", err)
		}
	}
}

// renewFor gives a member a certificate that follows its present one. Asked again
// it gives the same again.
func (n *Node) renewFor(d *directory.Member, to *peer.Remote, serial string, now time.Time) {
	if n.state.signer == nil || len(serial) != len(d.Certificate.Serial) {
		return
	}
	if serial < d.Certificate.Serial { // it has missed one
		n.pushTo(to, d.Certificate.Raw)
		return
	}
	if serial > d.Certificate.Serial || !renewable(d.Certificate, now) {
		return // we have missed one: its record is on its way
	}
	if err := n.certify(d, d.Certificate.Roles, now); err != nil {
		n.log.Error("renew a certificate", "member", d.Display, "err", err)
	}
}

// certify gives a member a new certificate. It is in the signer's log before
// anybody hears of it.
func (n *Node) certify(d *directory.Member, roles keys.Roles, now time.Time) error {
	s := &n.state
	old := d.Certificate
	if last := old.IssuedAt(); !now.After(last) { // ours has to count as the newer one
		if last.Sub(now) > time.Hour {
			return fmt.Errorf("issue certificate: the present one is from %s; check this host's clock", last.Format(time.RFC3339))
		}
		now = last.Add(time.Millisecond)
	}
	chain, err := s.signer.Issue(old.Public, old.Name, roles, now)
	if err != nil {
		return err
	}
	issue := keys.Issue{Public: old.Public, Name: old.Name, Chain: chain, At: now}
	if before, ok := s.issues.IssuedTo(old.Sign); ok { // what it joined by is used up as before
		issue.Invite, issue.Ref = before.Invite, before.Ref
	}
	if err := s.issues.RecordIssue(issue); err != nil {
		return err
	}
	if m := s.members[d.ID]; m != nil {
		n.pushTo(m.remote, chain)
	}
	raw, err := record.FromCertificate(chain)
	if err != nil {
		return err
	}
	n.merge(nil, [][]byte{raw})
	n.log.Info("certificate issued", "member", d.Display, "roles", roles.String())
	return nil
}

// pushTo sends a certificate to one member, neighbour or not.
func (n *Node) pushTo(to *peer.Remote, chain []byte) {
	if raw, err := record.FromCertificate(chain); err == nil {
		for _, msg := range directory.Push([][]byte{raw}) {
			sendControl(to, kindRecords, msg)
		}
	}
}

// makeSigner signs an admin's node as a signer, which only the root key does, and
// only for those that this node has itself made admins: a signer that was
// stolen must not make others.
func (n *Node) makeSigner(d *directory.Member, to *peer.Remote, now time.Time) {
	if !d.Certificate.Roles.Has(keys.RoleAdmin) || d.Certificate.Signer != n.self {
		return
	}
	root, err := n.root()
	if root == nil {
		if err != nil {
			n.log.Error("make a signer", "err", err)
		}
		return
	}
	der, err := root.IssueSigner(d.Certificate.Public, now)
	if err != nil {
		n.log.Error("make a signer", "member", d.Display, "err", err)
		return
	}
	sendControl(to, kindPapers, []byte{paperSignerIs}, der)
}

// becomeSigner keeps the certificate that lets this node sign.
func (n *Node) becomeSigner(der []byte, now time.Time) {
	s := &n.state
	own := s.dir.Member(n.self)
	if s.signer != nil || own == nil || !own.Certificate.Roles.Has(keys.RoleAdmin) {
		return
	}
	if _, err := s.membership.trust().VerifySigner(der, now); err != nil {
		return
	}
	if _, err := keys.NewSigner(n.identity, der); err != nil { // of another node
		return
	}
	err := n.store.Save(stateSigner, der)
	if err == nil {
		err = n.openDesk()
	}
	if err != nil {
		n.log.Error("become an admin", "err", err)
		return
	}
	n.log.Info("this node is an admin now")
}

// openDesk makes this node what it signs with, if it may.
func (n *Node) openDesk() error {
	s := &n.state
	own := s.dir.Member(n.self)
	if s.desk != nil || own == nil || !own.Certificate.Roles.Has(keys.RoleAdmin) {
		return nil
	}
	signer, err := loadSigner(n.store, n.identity)
	if signer == nil || err != nil {
		return err
	}
	if s.issues == nil { // one log of a store is open at a time
		if s.issues, err = keys.OpenIssueLog(n.store); err != nil {
			return err
		}
	}
	s.signer = signer
	s.desk = join.NewDesk(join.DeskConfig{
		Signer:       signer,
		Trust:        s.membership.trust(),
		Log:          s.issues,
		TakenName:    n.nameTaken,
		Revoked:      n.mayNotJoin,
		NetworkState: func() []byte { return s.membership.Network },
	})
	return nil
}

// keepOwn takes up our own certificate as the directory has it.
func (n *Node) keepOwn() {
	s := &n.state
	own := s.dir.Member(n.self)
	if own == nil || string(own.Certificate.Raw) == string(*n.chain.Load()) {
		return
	}
	next := *s.membership
	next.Chain = own.Certificate.Raw
	if err := next.save(n.store); err != nil {
		n.log.Error("keep our certificate", "err", err)
		return
	}
	n.chain.Store(&next.Chain)
	if !own.Certificate.Roles.Has(keys.RoleAdmin) {
		s.desk, s.signer = nil, nil
	} else if err := n.openDesk(); err != nil {
		n.log.Error("become an admin", "err", err)
	}
	s.schedule.papers = time.Time{}
	if err := n.engine.SetHello(n.hello()); err != nil {
		n.log.Error("show our certificate", "err", err)
	}
}

// root is the network's root key, nil where it is not.
func (n *Node) root() (*keys.Root, error) {
	text, err := n.store.Load(stateRoot)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return keys.ParseRoot(text)
}

// revoke ends a membership for good; with since, also those of whom it has
// admitted from then on. Whoever it concerns is told first.
func (n *Node) revoke(d *directory.Member, since, now time.Time) error {
	return n.sealRevocation(d, keys.Revocation{Key: d.Certificate.Sign, Cascade: since, Issued: now})
}

// sealRevocation signs a revocation by the root key where that is here, since a
// signer's does not hold against another signer that was first.
func (n *Node) sealRevocation(d *directory.Member, r keys.Revocation) error {
	s := &n.state
	for _, old := range s.dir.Revocations() { // ours takes the place of the one before
		if old.Key == r.Key && r.Serial == "" && !old.Cascade.IsZero() && (r.Cascade.IsZero() || old.Cascade.Before(r.Cascade)) {
			r.Cascade = old.Cascade
		}
	}
	root, err := n.root()
	if err != nil {
		return err
	}
	var sealed *keys.Revocation
	if root != nil {
		sealed, err = root.Revoke(r)
	} else {
		sealed, err = s.signer.Revoke(s.membership.trust().NetworkID(), r)
	}
	if err != nil {
		return err
	}
	raw, err := record.FromRevocation(sealed.Raw)
	if err != nil {
		return err
	}
	if m := s.members[d.ID]; m != nil {
		for _, msg := range directory.Push([][]byte{raw}) {
			sendControl(m.remote, kindRecords, msg)
		}
	}
	n.merge(nil, [][]byte{raw})
	n.log.Info("revoked", "member", d.Display, "id", d.ID.String())
	return nil
}
