package directory

import (
	"net/netip"

	"meshd/keys"
	"meshd/mesh/record"
)

// Member is what is known of a member. Members are immutable: a change makes a new one.
type Member struct {
	// ID is the member's node id, the certificate's.
	ID keys.NodeID
	// Certificate is the member's newest certificate; never nil.
	Certificate *keys.Certificate
	// Node is what the member says of itself, and nil until that is known.
	Node *record.Node
	// NodeVersion is the version of Node.
	NodeVersion record.Version
	// Display is the name to show and to resolve: the certificate's, with a suffix where two members have the same.
	Display string
	// Expired says that the certificate's time is over. The member stays (DESIGN.md, decision 5).
	Expired bool
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
	// Network says that the network's name, prefixes, MTU or settings changed.
	Network bool
	// Own says that our own record was signed anew (it is in the delta); the caller persists Epoch.
	Own    bool
	Alarms []Alarm
	// Rejected counts refused records by reason.
	Rejected map[string]int
}

// NetworkInfo is what the admins say of the network.
type NetworkInfo struct {
	Name     string
	Prefixes []netip.Prefix
	MTU      int
	Settings map[string]string
}
