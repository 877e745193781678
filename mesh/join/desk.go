package join

import (
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"time"

	"meshd/keys"
	"meshd/peer/way"
)

// Bounds of what waits at a desk.
const (
	requestLife = 10 * time.Minute // for an admin
	revealLife  = 30 * time.Second // for a commit to be followed by a reveal
	maxPending  = 64
	maxFromOne  = 8  // from one IPv4 address or IPv6 /64
	maxCarried  = 16 // by one member that introduces: it may make joiners up
)

// DeskConfig is what a desk needs.
type DeskConfig struct {
	Signer       *keys.Signer
	Trust        keys.Trust
	Log          *keys.IssueLog
	TakenName    func(string) bool      // whether a member has this name
	Revoked      func(keys.Public) bool // nil: nobody is
	NetworkState func() []byte          // what a new member must know; at most 14,400 bytes
}

// Desk is the signer's side. It is not safe for concurrent use; only the log
// behind it writes to disk, before the answer that depends on it is returned.
type Desk struct {
	config  DeskConfig
	pending map[keys.NodeID]*pending
}

// pending is a request by words.
type pending struct {
	public     keys.Public
	ref        ref
	name       string
	commitment [32]byte
	nonce      [32]byte
	words      []string // nil until revealed
	since      time.Time
	from       Origin
	denied     bool
}

// NewDesk starts with nothing pending. Requests granted earlier are in the log.
func NewDesk(c DeskConfig) *Desk {
	if c.Revoked == nil {
		c.Revoked = func(keys.Public) bool { return false }
	}
	if c.TakenName == nil {
		c.TakenName = func(string) bool { return false }
	}
	if c.NetworkState == nil {
		c.NetworkState = func() []byte { return nil }
	}
	return &Desk{config: c, pending: map[keys.NodeID]*pending{}}
}

// Receive takes a joiner's message and returns what to answer. The joiner's keys
// are those that a hello has authenticated. What is no message gets no answer.
func (d *Desk) Receive(joiner keys.Public, msg []byte, now time.Time) (reply [][]byte) {
	return d.ReceiveFrom(joiner, Origin{}, msg, now)
}

// Origin is where a joiner's message comes from.
type Origin struct {
	At netip.AddrPort // the joiner's address as its introducer sees it
	By keys.NodeID    // the member that carries it here; zero: the joiner is here itself
}

// ReceiveFrom is Receive with where the joiner is.
func (d *Desk) ReceiveFrom(joiner keys.Public, from Origin, msg []byte, now time.Time) (reply [][]byte) {
	d.forget(now)
	switch kindOf(msg) {
	case typeAsk:
		var a ask
		if decode(msg, &a) == nil {
			return d.asked(joiner, a, refOf(msg), now)
		}
	case typeCommit:
		var c commit
		if decode(msg, &c) == nil {
			return d.committed(joiner, from, c, refOf(msg), now)
		}
	case typeReveal:
		var r reveal
		if decode(msg, &r) == nil {
			return d.revealed(joiner, r, now)
		}
	}
	return nil
}

// asked serves a request by invite.
func (d *Desk) asked(joiner keys.Public, a ask, r ref, now time.Time) [][]byte {
	if code := d.admissible(joiner, a.Network, a.Name); code != 0 {
		return one(refuse(r, code))
	}
	if a.Issuer != d.config.Signer.ID() {
		return one(refuse(r, CodeUnreachable))
	}
	record, ok := d.config.Log.Invite(a.Invite)
	switch {
	case !ok:
		return one(refuse(r, CodeUnknownInvite))
	case !record.VerifyProof(d.config.Trust.NetworkID(), joiner, a.Name, a.Proof),
		!verify(joiner.Sign[:], a.signable(joiner), a.Signature):
		return one(refuse(r, CodeProof))
	}
	if err := d.config.Log.Redeem(a.Invite, joiner, now); err != nil {
		return one(refuse(r, codeOf(err)))
	}
	if issue, ok := d.issued(joiner, now); ok && issue.Invite == a.Invite {
		return d.grant(r, issue)
	}
	issue, err := d.issue(keys.Issue{Public: joiner, Name: a.Name, Invite: a.Invite, Ref: r, At: now}, record.Roles)
	if err != nil {
		return one(refuse(r, CodeTrouble))
	}
	return d.grant(r, issue)
}

// committed opens a request by words.
func (d *Desk) committed(joiner keys.Public, from Origin, c commit, r ref, now time.Time) [][]byte {
	if code := d.admissible(joiner, c.Network, c.Name); code != 0 {
		return one(refuse(r, code))
	}
	if !verify(joiner.Sign[:], c.signable(joiner), c.Signature) {
		return one(refuse(r, CodeMalformed))
	}
	if issue, ok := d.issued(joiner, now); ok && issue.Ref == r {
		return d.grant(r, issue)
	}
	id := joiner.ID()
	p := d.pending[id]
	if p == nil || p.ref != r || p.public != joiner {
		if p == nil && d.full(from) {
			return one(refuse(r, CodeBusy))
		}
		p = &pending{public: joiner, ref: r, name: c.Name, commitment: c.Commitment, since: now, from: from}
		if _, err := rand.Read(p.nonce[:]); err != nil {
			return one(refuse(r, CodeTrouble))
		}
		d.pending[id] = p
	}
	if p.denied {
		return one(refuse(r, CodeDenied))
	}
	answer := challenge{Ref: r, Nonce: p.nonce, SignerDER: d.config.Signer.Certificate()}
	answer.Signature = d.config.Signer.Sign(answer.signable(d.config.Trust.NetworkID(), joiner))
	return encoded(typeChallenge, answer)
}

// revealed takes the joiner's nonce, and is how it asks for the outcome.
func (d *Desk) revealed(joiner keys.Public, v reveal, now time.Time) [][]byte {
	if v.Signer != d.config.Signer.ID() {
		return one(refuse(v.Ref, CodeUnreachable))
	}
	if d.config.Revoked(joiner) {
		return one(refuse(v.Ref, CodeRevokedNode))
	}
	if issue, ok := d.issued(joiner, now); ok && issue.Ref == v.Ref {
		return d.grant(v.Ref, issue)
	}
	p := d.pending[joiner.ID()]
	switch {
	case p == nil || p.ref != v.Ref || p.public != joiner:
		return one(refuse(v.Ref, CodeAgain))
	case p.denied:
		return one(refuse(v.Ref, CodeDenied))
	case keys.Commitment(v.Nonce, joiner) != p.commitment,
		!verify(joiner.Sign[:], v.signable(d.config.Trust.NetworkID(), joiner, p.nonce), v.Signature):
		return one(refuse(v.Ref, CodeMalformed))
	}
	p.words = keys.Words(d.config.Trust.Root, joiner, v.Nonce, p.nonce)
	return encoded(typeWaiting, waiting{Ref: v.Ref})
}

// admissible says why a request is refused whatever else it holds; 0: it is not.
func (d *Desk) admissible(joiner keys.Public, network keys.NetworkID, name string) Code {
	switch {
	case network != d.config.Trust.NetworkID():
		return CodeWrongNetwork
	case d.config.Revoked(joiner):
		return CodeRevokedNode
	case joiner.Check() != nil || keys.ValidateName(name) != nil:
		return CodeMalformed
	}
	return 0
}

// issued is the certificate that this joiner, with just these keys, was given
// and that still holds.
func (d *Desk) issued(joiner keys.Public, now time.Time) (keys.Issue, bool) {
	issue, ok := d.config.Log.IssuedTo(joiner.Sign)
	if !ok || issue.Public != joiner {
		return keys.Issue{}, false
	}
	crt, err := d.config.Trust.Verify(issue.Chain, now)
	return issue, err == nil && crt.Signer == d.config.Signer.ID()
}

// issue makes a certificate and writes it down, before anybody hears of it.
func (d *Desk) issue(i keys.Issue, roles keys.Roles) (keys.Issue, error) {
	i.Name = d.freeName(i.Public, i.Name, i.At)
	var err error
	if i.Chain, err = d.config.Signer.Issue(i.Public, i.Name, roles, i.At); err != nil {
		return i, err
	}
	return i, d.config.Log.RecordIssue(i)
}

// grant is the answer to a request that has been admitted: the chain, and the
// network's state in parts.
func (d *Desk) grant(r ref, issue keys.Issue) [][]byte {
	blob := d.config.NetworkState()
	if len(blob) > maxPart*maxParts {
		return one(refuse(r, CodeTrouble))
	}
	out := encoded(typeGrant, grant{Ref: r, Chain: issue.Chain})
	s := state{Ref: r, Parts: uint8(max(1, (len(blob)+maxPart-1)/maxPart)), Hash: sha256.Sum256(blob)}
	s.Signature = d.config.Signer.Sign(s.signable(d.config.Trust.NetworkID(), issue.Public))
	for s.Part = 0; s.Part < s.Parts; s.Part++ {
		s.Bytes = blob[:min(maxPart, len(blob))]
		blob = blob[len(s.Bytes):]
		out = append(out, encoded(typeState, s)...)
	}
	return out
}

// one is an answer of one message.
func one(msg []byte) [][]byte { return [][]byte{msg} }

// encoded is an answer of one message that is encoded first.
func encoded(kind byte, body any) [][]byte {
	msg, err := encode(kind, body)
	if err != nil || len(msg) > MaxMessage {
		return nil // cannot be: all fields are bounded
	}
	return one(msg)
}

// forget drops what has waited too long.
func (d *Desk) forget(now time.Time) {
	for id, p := range d.pending {
		life := requestLife
		if p.words == nil {
			life = revealLife
		}
		if now.Sub(p.since) >= life {
			delete(d.pending, id)
		}
	}
}

// full says whether no more requests fit, at all, from there or by that member.
func (d *Desk) full(from Origin) bool {
	there, carried := 0, 0
	for _, p := range d.pending {
		if from.At.IsValid() && p.from.At.IsValid() && way.Source(p.from.At.Addr()) == way.Source(from.At.Addr()) {
			there++
		}
		if !from.By.IsZero() && p.from.By == from.By {
			carried++
		}
	}
	return len(d.pending) >= maxPending || there >= maxFromOne || carried >= maxCarried
}
