package directory

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"meshd/keys"
	"meshd/mesh/record"
)

// Bounds of what is kept.
const (
	maxRecords = 16384 // of all kinds
	maxParked  = 512   // records whose owner's certificate is not known yet
	maxBad     = 1024  // hashes of records with bad signatures, so that they are checked once
)

// How often we outbid our own record.
const (
	jumpEvery = 10 * time.Second
	jumpBurst = 3
)

// DefaultMTU is the segment's MTU before the network's record is known.
const DefaultMTU = 1500

// ErrUnknown and ErrAmbiguous are Find's answers when no member, or more than one, has the name or id.
var (
	ErrUnknown   = errors.New("no such member")
	ErrAmbiguous = errors.New("more than one member of that name")
)

// Member is what is known of a member. Members are immutable: a change makes a new one.
type Member struct {
	// ID is the member's node id, the certificate's.
	ID keys.NodeID
	// Certificate is the member's newest certificate that is not revoked; never nil.
	Certificate *keys.Certificate
	// Node is what the member says of itself, without endpoints inside the mesh; nil until that is known.
	Node *record.Node
	// NodeVersion is the version of Node.
	NodeVersion record.Version
	// Groups is which multicast groups it listens to; nil until that is known.
	Groups *record.Groups
	// Display is the name to show and to resolve: the certificate's, with a suffix where two members have the same.
	Display string
	// Expired says that the certificate's time is over. The member stays (DESIGN.md, decision 5).
	Expired bool
	// Early says that the certificate's time has not begun: either clock is wrong.
	Early bool
}

// AlarmKind says what is wrong.
type AlarmKind uint8

// The kinds of alarms.
const (
	// Equivocation: an owner signed two different records with one version.
	Equivocation AlarmKind = iota + 1
	// StateLoss: our own record came back newer than ours; we have moved above it. The state was lost or rolled back, or a
	// second node runs with our key.
	StateLoss
	// SelfRevoked: a valid revocation names this node.
	SelfRevoked
)

// String returns the alarm as a word.
func (k AlarmKind) String() string {
	switch k {
	case Equivocation:
		return "equivocation"
	case StateLoss:
		return "state-loss"
	case SelfRevoked:
		return "self-revoked"
	}
	return "unknown"
}

// Alarm is something an operator should know about a member.
type Alarm struct {
	Kind  AlarmKind
	Owner keys.NodeID
	Type  record.Type
}

// MergeResult says what a merge did.
type MergeResult struct {
	// Changed are the members that appeared, changed or went, each once.
	Changed []keys.NodeID
	// Removed are those of Changed that are members no longer: their sessions and keys must go at once.
	Removed []keys.NodeID
	// Stations are the members whose stations changed, each once.
	Stations []keys.NodeID
	// Network says that the network's name, prefixes, MTU or settings changed.
	Network bool
	// Own says that our own record was signed anew (it is in the delta); the caller persists Epoch.
	Own    bool
	Alarms []Alarm
	// Rejected counts refused records by reason.
	Rejected map[string]int
}

// The reasons in MergeResult.Rejected.
const (
	RejectMalformed = "malformed" // not a record, or one that says what none may say
	RejectSignature = "signature" // not signed by whom it names, or not for this network
	RejectStale     = "stale"     // older than what is known
	RejectConflict  = "conflict"  // lost to another of the same version
	RejectParked    = "parked"    // waits for its owner's certificate
	RejectFull      = "full"      // no room
	RejectBudget    = "budget"    // more than one neighbour may send
	RejectMessage   = "message"   // a message of the exchange that is not well formed
)

// Directory is one node's view.
type Directory struct {
	trust keys.Trust
	self  keys.NodeID
	own   own

	now time.Time // the last that we were told

	store        store
	certificates map[keys.NodeID][]*item
	parked       []*record.Record // oldest first
	bad          badList

	members map[keys.NodeID]*Member
	names   map[string]keys.NodeID // by Display
	sorted  []*Member              // nil when it has to be made anew
	network *record.Network
	banned  []*keys.Revocation // those that count

	neighbours map[keys.NodeID]*neighbour
	stations   map[keys.NodeID]*pages
}

// New returns an empty directory. Members are believed under trust; self is this node.
func New(trust keys.Trust, self keys.NodeID) *Directory {
	return &Directory{
		trust: trust, self: self,
		own:          own{jumps: rate.NewLimiter(rate.Every(jumpEvery), jumpBurst)},
		store:        newStore(),
		certificates: map[keys.NodeID][]*item{},
		bad:          badList{seen: map[record.Hash]bool{}},
		members:      map[keys.NodeID]*Member{},
		names:        map[string]keys.NodeID{},
		neighbours:   map[keys.NodeID]*neighbour{},
		stations:     map[keys.NodeID]*pages{},
	}
}

// Members returns all members sorted by display name, ourselves included. The slice must not be changed.
func (d *Directory) Members() []*Member {
	if d.sorted == nil {
		d.sorted = make([]*Member, 0, len(d.members))
		for _, m := range d.members {
			d.sorted = append(d.sorted, m)
		}
		slices.SortFunc(d.sorted, func(a, b *Member) int { return strings.Compare(a.Display, b.Display) })
	}
	return d.sorted
}

// Member returns a member, or nil.
func (d *Directory) Member(id keys.NodeID) *Member { return d.members[id] }

// ByName finds a member by its display name, or returns nil. A name that two certificates hold is nobody's: their members
// have display names with a suffix, and a newcomer cannot take a name over.
func (d *Directory) ByName(name string) *Member {
	id, ok := d.names[name]
	if !ok {
		return nil
	}
	return d.members[id]
}

// minIDPrefix is the shortest prefix of an id that Find takes.
const minIDPrefix = 2

// Find finds a member as the command line names it: by name, id or unique prefix of an id.
func (d *Directory) Find(query string) (*Member, error) {
	if m := d.ByName(query); m != nil {
		return m, nil
	}
	var byName, byID []*Member
	for _, m := range d.Members() {
		if m.Certificate.Name == query {
			byName = append(byName, m)
		}
		if len(query) >= minIDPrefix && strings.HasPrefix(m.ID.String(), query) {
			byID = append(byID, m)
		}
	}
	for _, found := range [][]*Member{byName, byID} {
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return nil, ErrAmbiguous
		}
	}
	return nil, ErrUnknown
}

// Network returns what the admins say of the network; before that is known, the prefix is the network's own and the name is
// empty.
func (d *Directory) Network() (name string, prefixes []netip.Prefix, mtu int) {
	if d.network == nil {
		return "", []netip.Prefix{keys.ULA(d.trust.NetworkID())}, DefaultMTU
	}
	return d.network.Name, slices.Clone(d.network.Prefixes), d.network.MTU
}

// Settings returns the network's settings; they must not be changed.
func (d *Directory) Settings() map[string]string {
	if d.network == nil {
		return nil
	}
	return d.network.Settings
}

// Revoked says whether a certificate is revoked, for handshakes, renewals and issues.
func (d *Directory) Revoked(c *keys.Certificate) bool {
	return slices.ContainsFunc(d.banned, func(r *keys.Revocation) bool { return r.Covers(c) })
}

// Revocations returns the revocations that count, for whoever judges certificates elsewhere.
func (d *Directory) Revocations() []*keys.Revocation { return slices.Clone(d.banned) }

// Snapshot returns all records, for the cache on disk; revocations first, then certificates.
func (d *Directory) Snapshot() [][]byte {
	out := make([][]byte, 0, len(d.store.order))
	for _, it := range ranked(d.store.order) {
		out = append(out, it.rec.Raw())
	}
	return out
}

// Load merges a snapshot.
func (d *Directory) Load(raws [][]byte, now time.Time) MergeResult {
	_, res := d.Merge(raws, now)
	return res
}

// badList remembers the last records whose signature was bad.
type badList struct {
	seen map[record.Hash]bool
	ring []record.Hash
	next int
}

func (b *badList) add(h record.Hash) {
	if len(b.ring) < maxBad {
		b.ring = append(b.ring, h)
	} else {
		delete(b.seen, b.ring[b.next])
		b.ring[b.next] = h
		b.next = (b.next + 1) % maxBad
	}
	b.seen[h] = true
}
