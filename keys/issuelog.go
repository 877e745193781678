package keys

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"meshd/keys/canon"
)

// Why an invite is not redeemed. ErrExpired is the fourth.
var (
	ErrUnknown = errors.New("invite is not known to the one who should have issued it")
	ErrUsed    = errors.New("invite has been used up")
	ErrRevoked = errors.New("invite has been revoked")
)

// issueLogName is the log that an IssueLog lives in.
const issueLogName = "issued"

// LogStore is where an IssueLog lives; a *Store is one. Append must not return
// nil before the entry is durable.
type LogStore interface {
	Append(log string, entry []byte) error
	ReadLog(log string) ([][]byte, error)
}

// IssueLog is a signer's memory of what it has issued: invites, who used them,
// and certificates. Each method that changes it returns nil only when the
// change is on disk, so that nothing is told to anybody before. It is safe for
// concurrent use; its lock is held while the disk is written, because looking
// and writing must be one step.
type IssueLog struct {
	store LogStore

	mu      sync.Mutex
	invites map[InviteID]*InviteRecord
	issues  []Issue
	newest  map[[32]byte]int // by Ed25519 key: the last of its issues
}

// InviteRecord is what the issuer remembers of an invite. The secret is not in it.
type InviteRecord struct {
	ID       InviteID
	ProofKey [32]byte // the public half of the secret
	Expires  time.Time
	Uses     int
	Roles    Roles
	Redeemed []Redemption
	Revoked  bool
}

// Redemption is one use of an invite.
type Redemption struct {
	Node [32]byte // its Ed25519 key
	At   time.Time
}

// Issue is one certificate that was given out.
type Issue struct {
	Public Public
	Name   string
	Invite InviteID // zero: an admin approved
	Ref    [16]byte // the request that it answers
	Chain  []byte
	At     time.Time
}

// Entries of the log: a byte for the kind, then the structure.
const (
	entryInvite = iota + 1
	entryRedeem
	entryRevoke
	entryIssue
)

type inviteEntry struct {
	_        struct{} `cbor:",toarray"`
	ID       [16]byte
	ProofKey [32]byte
	Expires  int64
	Uses     uint16
	Roles    string
}

type redeemEntry struct {
	_    struct{} `cbor:",toarray"`
	ID   [16]byte
	Node [32]byte
	At   int64
}

type revokeEntry struct {
	_  struct{} `cbor:",toarray"`
	ID [16]byte
}

type issueEntry struct {
	_                      struct{} `cbor:",toarray"`
	Sign, WireGuard, Probe [32]byte
	Name                   string
	Invite                 [16]byte
	Ref                    [16]byte
	Chain                  []byte
	At                     int64
}

// OpenIssueLog reads the log. One store has one IssueLog at a time.
func OpenIssueLog(store LogStore) (*IssueLog, error) {
	l := &IssueLog{store: store, invites: map[InviteID]*InviteRecord{}, newest: map[[32]byte]int{}}
	entries, err := store.ReadLog(issueLogName)
	if err != nil {
		return nil, fmt.Errorf("open issue log: %w", err)
	}
	for n, entry := range entries {
		if err := l.replay(entry); err != nil {
			return nil, fmt.Errorf("open issue log: entry %d: %w", n+1, err)
		}
	}
	return l, nil
}

// replay applies an entry that was read.
func (l *IssueLog) replay(entry []byte) error {
	if len(entry) == 0 {
		return ErrCorrupt
	}
	switch kind, b := entry[0], entry[1:]; kind {
	case entryInvite:
		return replayAs(b, l.applyInvite)
	case entryRedeem:
		return replayAs(b, l.applyRedeem)
	case entryRevoke:
		return replayAs(b, l.applyRevoke)
	case entryIssue:
		return replayAs(b, l.applyIssue)
	default:
		return fmt.Errorf("kind %d is not known; was it written by a newer meshd?", kind)
	}
}

func replayAs[T any](b []byte, apply func(T) error) error {
	var v T
	if err := canon.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return apply(v)
}

// record makes an entry durable and then applies it.
func record[T any](l *IssueLog, kind byte, v T, apply func(T) error) error {
	b, err := canon.Marshal(v)
	if err != nil {
		return err
	}
	if err := l.store.Append(issueLogName, append([]byte{kind}, b...)); err != nil {
		return err
	}
	return apply(v)
}

func (l *IssueLog) applyInvite(e inviteEntry) error {
	roles, err := ParseRoles(e.Roles)
	if err != nil {
		return err
	}
	if l.invites[e.ID] != nil {
		return nil // recorded twice
	}
	l.invites[e.ID] = &InviteRecord{
		ID: e.ID, ProofKey: e.ProofKey,
		Expires: time.Unix(e.Expires, 0).UTC(), Uses: int(e.Uses), Roles: roles,
	}
	return nil
}

func (l *IssueLog) applyRedeem(e redeemEntry) error {
	r := l.invites[e.ID]
	if r == nil {
		return ErrUnknown
	}
	r.Redeemed = append(r.Redeemed, Redemption{e.Node, time.Unix(e.At, 0).UTC()})
	return nil
}

func (l *IssueLog) applyRevoke(e revokeEntry) error {
	r := l.invites[e.ID]
	if r == nil {
		return ErrUnknown
	}
	r.Revoked = true
	return nil
}

func (l *IssueLog) applyIssue(e issueEntry) error {
	l.newest[e.Sign] = len(l.issues)
	l.issues = append(l.issues, Issue{
		Public: Public{e.Sign, wgtypes.Key(e.WireGuard), wgtypes.Key(e.Probe)},
		Name:   e.Name, Invite: e.Invite, Ref: e.Ref, Chain: e.Chain, At: time.Unix(e.At, 0).UTC(),
	})
	return nil
}

// RecordInvite makes an invite redeemable. It comes before the invite is shown.
func (l *IssueLog) RecordInvite(i *Invite) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := inviteEntry{
		ID: i.ID, ProofKey: [32]byte(i.proofKey()),
		Expires: i.Expires.Unix(), Uses: uint16(i.Uses), Roles: i.Roles.String(),
	}
	if err := record(l, entryInvite, e, l.applyInvite); err != nil {
		return fmt.Errorf("record invite: %w", err)
	}
	return nil
}

// RevokeInvite ends an invite. Who has joined by it stays.
func (l *IssueLog) RevokeInvite(id InviteID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r := l.invites[id]; {
	case r == nil:
		return fmt.Errorf("revoke invite: %w", ErrUnknown)
	case r.Revoked:
		return nil
	}
	if err := record(l, entryRevoke, revokeEntry{ID: id}, l.applyRevoke); err != nil {
		return fmt.Errorf("revoke invite: %w", err)
	}
	return nil
}

// Redeem uses an invite for a node. For a node that has used it already it
// returns nil again, so that an answer that was lost can be asked for anew.
func (l *IssueLog) Redeem(id InviteID, node Public, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.invites[id]
	switch {
	case r == nil:
		return fmt.Errorf("redeem invite: %w", ErrUnknown)
	case r.Revoked:
		return fmt.Errorf("redeem invite: %w", ErrRevoked)
	case slices.ContainsFunc(r.Redeemed, func(u Redemption) bool { return u.Node == node.Sign }):
		return nil
	case len(r.Redeemed) >= r.Uses:
		return fmt.Errorf("redeem invite: %w", ErrUsed)
	case !now.Before(r.Expires):
		return fmt.Errorf("redeem invite: %w on %s", ErrExpired, r.Expires.Format(time.RFC3339))
	}
	if err := record(l, entryRedeem, redeemEntry{ID: id, Node: node.Sign, At: now.Unix()}, l.applyRedeem); err != nil {
		return fmt.Errorf("redeem invite: %w", err)
	}
	return nil
}

// RecordIssue keeps a certificate. It comes before the certificate is sent.
func (l *IssueLog) RecordIssue(i Issue) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := issueEntry{
		Sign: i.Public.Sign, WireGuard: i.Public.WireGuard, Probe: i.Public.Probe,
		Name: i.Name, Invite: i.Invite, Ref: i.Ref, Chain: bytes.Clone(i.Chain), At: i.At.Unix(),
	}
	if err := record(l, entryIssue, e, l.applyIssue); err != nil {
		return fmt.Errorf("record certificate: %w", err)
	}
	return nil
}

// Invite looks an invite up.
func (l *IssueLog) Invite(id InviteID) (InviteRecord, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.invites[id]
	if r == nil {
		return InviteRecord{}, false
	}
	return r.clone(), true
}

// Invites lists all invites, by their end.
func (l *IssueLog) Invites() []InviteRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]InviteRecord, 0, len(l.invites))
	for _, r := range l.invites {
		out = append(out, r.clone())
	}
	slices.SortFunc(out, func(a, b InviteRecord) int {
		return cmp.Or(a.Expires.Compare(b.Expires), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return out
}

func (r *InviteRecord) clone() InviteRecord {
	out := *r
	out.Redeemed = slices.Clone(r.Redeemed)
	return out
}

// Issues lists all certificates given out, oldest first.
func (l *IssueLog) Issues() []Issue {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.issues)
}

// IssuedTo is the last certificate given to an Ed25519 key.
func (l *IssueLog) IssuedTo(key [32]byte) (Issue, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.newest[key]
	if !ok {
		return Issue{}, false
	}
	return l.issues[n], true
}
