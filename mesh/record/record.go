package record

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"

	"meshd/keys"
)

// MaxSize bounds the bytes of one record, so that one always fits a control datagram of 1,100. It leaves room for the
// envelope around a certificate chain of keys.MaxChain.
const MaxSize = 1024

// Errors that say why a record was refused. They are wrapped with detail; the sentinels name the counter.
var (
	// ErrMalformed is returned for bytes that are not the one encoding of a record.
	ErrMalformed = errors.New("malformed record")
	// ErrTooLarge is returned for a record beyond MaxSize. A signer drops detail (Node.Trim) and tries again.
	ErrTooLarge = errors.New("record too large")
	// ErrInvalid is returned for a well-formed record that says something no member may say, such as a loopback endpoint.
	ErrInvalid = errors.New("invalid record")
	// ErrSignature is returned when the signature is not the owner's over this network, type and payload.
	ErrSignature = errors.New("record signature")
)

// Type is the kind of a record.
type Type uint8

// The types of records. Their numbers and names are part of the wire format.
const (
	TypeCertificate Type = 1
	TypeNode        Type = 2
	TypeNetwork     Type = 3
	TypeRevocation  Type = 4
	TypeStations    Type = 5
	TypeGroups      Type = 6
)

// String returns the name that the signature covers.
func (t Type) String() string {
	switch t {
	case TypeCertificate:
		return "certificate"
	case TypeNode:
		return "node"
	case TypeNetwork:
		return "network"
	case TypeRevocation:
		return "revocation"
	case TypeGroups:
		return "groups"
	case TypeStations:
		return "stations"
	}
	return fmt.Sprintf("type-%d", uint8(t))
}

// Version orders the records of one key. The epoch of a node is its persisted boot counter, never the time of day.
type Version struct{ Epoch, Counter uint32 }

// Compare returns -1, 0 or 1 as v is older than, equal to or newer than o.
func (v Version) Compare(o Version) int {
	return cmp.Or(cmp.Compare(v.Epoch, o.Epoch), cmp.Compare(v.Counter, o.Counter))
}

// Next returns the smallest version above v, and false when there is none.
func (v Version) Next() (Version, bool) {
	if v.Counter < ^uint32(0) {
		return Version{v.Epoch, v.Counter + 1}, true
	}
	return v.NextEpoch()
}

// NextEpoch returns the first version of the epoch after v's, and false when there is none.
func (v Version) NextEpoch() (Version, bool) {
	if v.Epoch == ^uint32(0) {
		return v, false
	}
	return Version{v.Epoch + 1, 0}, true
}

// Key is the slot that a record fills; of two records with one key the newer replaces the older.
//
// For certificates and nodes the owner is the member. Every admin owns a network record of its own and the newest of
// those who are admins counts, so that revoking an admin also undoes what it said last. For revocations the owner is the
// member that is revoked.
type Key struct {
	Type  Type
	Owner keys.NodeID
	// By is the signer of a certificate or revocation (zero: the root), and zero for other types. So two admins may
	// revoke one member without a conflict, and a signer that turns out to be a thief has overwritten nobody else's
	// certificates.
	By keys.NodeID
	// Page is the number of a page of stations, and zero for other types.
	Page uint8
}

// Compare orders keys: revocations first (they are synchronised first), then certificates, networks and the others.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Type.Rank(), o.Type.Rank()), compareID(k.Owner, o.Owner), compareID(k.By, o.By),
		cmp.Compare(k.Type, o.Type), cmp.Compare(k.Page, o.Page))
}

// Rank orders types as they are best learnt, from 0: revocations, certificates, networks, all others.
func (t Type) Rank() int {
	switch t {
	case TypeRevocation:
		return 0
	case TypeCertificate:
		return 1
	case TypeNetwork:
		return 2
	}
	return 3
}

func compareID(a, b keys.NodeID) int { return cmp.Compare(string(a[:]), string(b[:])) }

// Hash is SHA-256 over a record's bytes.
type Hash [sha256.Size]byte

// HashOf returns the hash of a record's bytes.
func HashOf(raw []byte) Hash { return sha256.Sum256(raw) }
