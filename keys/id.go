package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
)

// idLength is the length of an id as text: 128 bits, five to a character.
const idLength = 26

var errBadID = errors.New("want 26 lower-case base32 characters (a-z, 2-7)")

// NodeID names a node: the first 16 bytes of the SHA-256 of its Ed25519 key.
type NodeID [16]byte

// NetworkID names a network: the same of its root's Ed25519 key.
type NetworkID [16]byte

// String is the id as 26 lower-case base32 characters.
func (id NodeID) String() string { return idText(id) }

// MarshalText is String, for JSON and maps.
func (id NodeID) MarshalText() ([]byte, error) { return []byte(idText(id)), nil }

// UnmarshalText is ParseNodeID.
func (id *NodeID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseNodeID(string(b))
	return err
}

// IsZero says that this is no id.
func (id NodeID) IsZero() bool { return id == NodeID{} }

// Compare orders ids by their bytes.
func (id NodeID) Compare(other NodeID) int { return bytes.Compare(id[:], other[:]) }

// String is the id as 26 lower-case base32 characters.
func (id NetworkID) String() string { return idText(id) }

// MarshalText is String, for JSON and maps.
func (id NetworkID) MarshalText() ([]byte, error) { return []byte(idText(id)), nil }

// UnmarshalText is ParseNetworkID.
func (id *NetworkID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseNetworkID(string(b))
	return err
}

// IsZero says that this is no id.
func (id NetworkID) IsZero() bool { return id == NetworkID{} }

// ParseNodeID reads what NodeID.String writes, and nothing else.
func ParseNodeID(s string) (NodeID, error) {
	b, err := parseID(s)
	if err != nil {
		return NodeID{}, fmt.Errorf("parse node id %.40q: %w", s, err)
	}
	return b, nil
}

// ParseNetworkID reads what NetworkID.String writes, and nothing else.
func ParseNetworkID(s string) (NetworkID, error) {
	b, err := parseID(s)
	if err != nil {
		return NetworkID{}, fmt.Errorf("parse network id %.40q: %w", s, err)
	}
	return b, nil
}

func base32ID() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

func idText(b [16]byte) string { return base32ID().EncodeToString(b[:]) }

func parseID(s string) (id [16]byte, err error) {
	if len(s) != idLength {
		return id, errBadID
	}
	b, err := base32ID().DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, errBadID
	}
	copy(id[:], b)
	if idText(id) != s { // the two spare bits of the last character
		return [16]byte{}, errBadID
	}
	return id, nil
}

// nodeID is the id that belongs to an Ed25519 key.
func nodeID(key []byte) NodeID {
	sum := sha256.Sum256(key)
	return NodeID(sum[:16])
}

// networkID is the id that belongs to a root key.
func networkID(root ed25519.PublicKey) NetworkID { return NetworkID(nodeID(root)) }
