package keys

import (
	"crypto/ed25519"
	"errors"
	"time"
)

var errStub = errors.New("not there yet")

// ErrExpired and the others: see the files that will hold them.
var (
	ErrMalformed = errors.New("malformed")
	ErrTampered  = errors.New("tampered with")
	ErrUsed      = errors.New("used up")
	ErrUnknown   = errors.New("unknown")
	ErrRevoked   = errors.New("revoked")
	ErrLocked    = errors.New("state directory is in use")
	ErrCorrupt   = errors.New("damaged")
)

// InviteOptions are an invite's.
type InviteOptions struct {
	Root    ed25519.PublicKey
	Network string   // the network's name, for people
	Entries []string // host:port, at least one
	Roles   Roles    // default: member
	Uses    int      // default: 1
	Expires time.Time
}

// Invite is a bearer paper.
type Invite struct {
	Root      ed25519.PublicKey
	Network   string
	Issuer    NodeID
	IssuerKey [32]byte
	Entries   []string
	ID        [16]byte
	Expires   time.Time
	Uses      int
	Roles     Roles
}

// NewInvite makes one.
func NewInvite(s *Signer, o InviteOptions, now time.Time) (*Invite, error) { return nil, errStub }

// ParseInvite reads Text.
func ParseInvite(text string, now time.Time) (*Invite, error) { return nil, errStub }

// Text is the line with the secret; nothing else prints it.
func (i *Invite) Text() string { return "" }

// Prove shows possession.
func (i *Invite) Prove(pub Public, name string) []byte { return nil }

// Words are six.
func Words(root ed25519.PublicKey, joiner Public, nonceJoiner, nonceSigner [32]byte) []string {
	return nil
}

// Commitment binds.
func Commitment(nonce [32]byte, joiner Public) [32]byte { return [32]byte{} }

// Revocation ends a node.
type Revocation struct {
	Network NetworkID
	Key     [32]byte
	Serial  string    // certificates up to and including this one
	Cascade time.Time // what the node has signed from here on; zero: nothing
	Issued  time.Time
	Signer  NodeID
	Raw     []byte
}

// Covers says whether it ends a certificate.
func (r *Revocation) Covers(c *Certificate) bool { return false }

// Revoke signs one.
func (s *Signer) Revoke(t Trust, r Revocation) (*Revocation, error) { return nil, errStub }

// Revoke signs one.
func (r *Root) Revoke(v Revocation) (*Revocation, error) { return nil, errStub }

// VerifyRevocation reads Raw.
func (t Trust) VerifyRevocation(raw []byte) (*Revocation, error) { return nil, errStub }

// Store is the state directory.
type Store struct{}

// Open locks it.
func Open(dir string) (*Store, error) { return nil, errStub }

// Dir is where.
func (s *Store) Dir() string { return "" }

// Close unlocks.
func (s *Store) Close() error { return errStub }

// Remove removes all state and closes.
func (s *Store) Remove() error { return errStub }

// Save writes a generation.
func (s *Store) Save(name string, body []byte) error { return errStub }

// Load reads the newest; os.ErrNotExist when absent.
func (s *Store) Load(name string) ([]byte, error) { return nil, errStub }

// Append adds to a log.
func (s *Store) Append(log string, entry []byte) error { return errStub }

// ReadLog reads all entries.
func (s *Store) ReadLog(log string) ([][]byte, error) { return nil, errStub }

// NextEpoch counts starts.
func (s *Store) NextEpoch() (uint32, error) { return 0, errStub }

// LoadOrCreateIdentity is the node's.
func (s *Store) LoadOrCreateIdentity() (*Identity, error) { return nil, errStub }

// IssueLog is what a signer has issued.
type IssueLog struct{}

// InviteRecord is what the log knows of an invite.
type InviteRecord struct {
	ID       [16]byte
	Expires  time.Time
	Uses     int
	Roles    Roles
	Redeemed []NodeID
	Revoked  bool
}

// Issue is a certificate issued.
type Issue struct {
	Public Public
	Name   string
	Invite [16]byte // zero: by approval
	Ref    [16]byte
	Chain  []byte
	At     time.Time
}

// OpenIssueLog reads it.
func OpenIssueLog(s *Store) (*IssueLog, error) { return nil, errStub }

// RecordInvite must precede handing out.
func (l *IssueLog) RecordInvite(i *Invite) error { return errStub }

// RevokeInvite ends one.
func (l *IssueLog) RevokeInvite(id [16]byte) error { return errStub }

// Redeem uses one.
func (l *IssueLog) Redeem(id [16]byte, node Public, now time.Time) error { return errStub }

// Invites lists.
func (l *IssueLog) Invites() []InviteRecord { return nil }

// Issues lists.
func (l *IssueLog) Issues() []Issue { return nil }

// RecordIssue keeps a certificate issued.
func (l *IssueLog) RecordIssue(i Issue) error { return errStub }
