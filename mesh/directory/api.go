package directory

import (
	"errors"
	"net/netip"
	"time"

	"meshd/keys"
	"meshd/mesh/record"
)

// Directory is one node's view.
type Directory struct{}

// ErrUnknown and ErrAmbiguous are Find's answers when no member, or more than one, has the name or id.
var (
	ErrUnknown   = errors.New("no such member")
	ErrAmbiguous = errors.New("ambiguous member name")
)

// New returns an empty directory. Members are believed under trust; self is this node.
func New(trust keys.Trust, self keys.NodeID) *Directory { return &Directory{} }

// Own gives the directory the identity to sign our own records with, and this start's epoch.
func (d *Directory) Own(id *keys.Identity, epoch uint32) {}

// Epoch is the epoch in use; it grows when our own record comes back newer than ours. The caller persists it.
func (d *Directory) Epoch() uint32 { return 0 }

// SetNode says what we are. It signs only when that differs from what we said last, and then returns the record to pass on.
func (d *Directory) SetNode(body record.Node) ([]byte, error) { return nil, nil }

// SetNetwork says what the network is, as an admin. It returns nil when that is what everyone believes already.
func (d *Directory) SetNetwork(body record.Network) ([]byte, error) { return nil, nil }

// Merge takes records and returns those that were new or newer, to pass on.
func (d *Directory) Merge(raws [][]byte, now time.Time) (delta [][]byte, res MergeResult) {
	return nil, MergeResult{}
}

// Members returns all members sorted by display name, ourselves included.
func (d *Directory) Members() []*Member { return nil }

// Member returns a member, or nil.
func (d *Directory) Member(id keys.NodeID) *Member { return nil }

// ByName finds a member by display name, or by certificate name where only one member has it.
func (d *Directory) ByName(name string) *Member { return nil }

// Find finds a member as the command line names it: by name, id or unique prefix of an id.
func (d *Directory) Find(query string) (*Member, error) { return nil, ErrUnknown }

// Network returns what the admins say of the network; before that is known, the prefix is the network's own.
func (d *Directory) Network() (name string, prefixes []netip.Prefix, mtu int) { return "", nil, 0 }

// Revoked says whether a certificate is revoked, for handshakes, renewals and issues.
func (d *Directory) Revoked(c *keys.Certificate) bool { return false }

// Snapshot returns all records, for the cache on disk; revocations first, then certificates.
func (d *Directory) Snapshot() [][]byte { return nil }

// Load merges a snapshot.
func (d *Directory) Load(raws [][]byte, now time.Time) MergeResult { return MergeResult{} }

// Advance marks members whose certificates have expired by now and returns them.
func (d *Directory) Advance(now time.Time) []keys.NodeID { return nil }

// Push packs records (a delta) into messages for neighbours.
func Push(raws [][]byte) [][]byte { return nil }

// Digest returns the message that starts an exchange with a neighbour: on a new session at once, and every 10 s with one.
func (d *Directory) Digest() [][]byte { return nil }

// HandleSync takes a message from a neighbour. The replies go back to it, the delta to the other neighbours.
func (d *Directory) HandleSync(from keys.NodeID, msg []byte, now time.Time) (replies, delta [][]byte, res MergeResult) {
	return nil, nil, MergeResult{}
}

// Forget drops what is kept of a neighbour for the exchange with it, when its session has ended.
func (d *Directory) Forget(neighbour keys.NodeID) {}
