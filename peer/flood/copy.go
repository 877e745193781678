package flood

import (
	"encoding/binary"
	"errors"
	"math"

	"meshd/keys"
)

// A copy (PROTOCOL.md, 4.5), as the body of a transport message or of its pieces:
//
//	0             16          20           28          36         44               108
//	+-------------+-----------+------------+-----------+----------+----------------+-------
//	| origin (16) | epoch (4) | number (8) | first (8) | last (8) | signature (64) | frame
//	+-------------+-----------+------------+-----------+----------+----------------+-------
const (
	// HeaderLen is what a copy is longer than its frame.
	HeaderLen = signatureAt + signatureLen

	firstAt      = 28
	lastAt       = 36
	signatureAt  = 44
	signatureLen = 64

	minFrame = 14   // an Ethernet header
	maxFrame = 9022 // as fragment.MaxFrame
)

// ErrFormat says that something is no copy or message of this protocol.
var ErrFormat = errors.New("flood: malformed")

// Name is what no two frames have in common: who sent it, in which of its lives, and
// which of its frames it is, from 1.
type Name struct {
	Origin keys.NodeID
	Epoch  uint32
	Number uint64
}

// Part is a run of places on the circle of ids, both ends included. With First beyond
// Last it is empty.
type Part struct{ First, Last uint64 }

var (
	everywhere = Part{0, math.MaxUint64}
	nowhere    = Part{1, 0}
)

// place is where a node is on the circle: two with one place would take the search of
// 2^64 keys.
func place(id keys.NodeID) uint64 { return binary.BigEndian.Uint64(id[:]) }

// Copy is a frame on its way to a part of the members.
type Copy struct {
	Name
	Part
	Signature [signatureLen]byte
	Frame     []byte
}

// Append appends the copy to dst.
func (c *Copy) Append(dst []byte) []byte {
	dst = append(dst, c.Origin[:]...)
	dst = binary.BigEndian.AppendUint32(dst, c.Epoch)
	dst = binary.BigEndian.AppendUint64(dst, c.Number)
	dst = binary.BigEndian.AppendUint64(dst, c.First)
	dst = binary.BigEndian.AppendUint64(dst, c.Last)
	dst = append(dst, c.Signature[:]...)
	return append(dst, c.Frame...)
}

// Parse reads what Append wrote. The frame is a part of b.
func Parse(b []byte) (Copy, error) {
	if len(b) < HeaderLen+minFrame || len(b) > HeaderLen+maxFrame {
		return Copy{}, ErrFormat
	}
	c := Copy{
		Name: Name{keys.NodeID(b[:16]), binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint64(b[20:])},
		Part: Part{binary.BigEndian.Uint64(b[firstAt:]), binary.BigEndian.Uint64(b[lastAt:])},
	}
	if c.Number == 0 {
		return Copy{}, ErrFormat
	}
	c.Signature = [signatureLen]byte(b[signatureAt:])
	c.Frame = b[HeaderLen:]
	return c, nil
}

// SetPart replaces the part in the bytes of a copy: all else is the same for everybody.
func SetPart(b []byte, p Part) {
	binary.BigEndian.PutUint64(b[firstAt:], p.First)
	binary.BigEndian.PutUint64(b[lastAt:], p.Last)
}

// label keeps this signature apart from all others by the same key.
const label = "meshd/1/flood\x00"

// AppendSigned appends what the origin signs to dst. The part is not in it: it changes on
// the way.
func (c *Copy) AppendSigned(dst []byte, network keys.NetworkID) []byte {
	dst = append(append(dst, label...), network[:]...)
	dst = append(dst, c.Origin[:]...)
	dst = binary.BigEndian.AppendUint32(dst, c.Epoch)
	dst = binary.BigEndian.AppendUint64(dst, c.Number)
	return append(dst, c.Frame...)
}
