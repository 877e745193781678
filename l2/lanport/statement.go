package lanport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
)

// ID is a member's.
type ID [16]byte

// Segment names a LAN for as long as it lasts, whoever forwards for it. Zero is none.
type Segment [8]byte

// State is what a member's port does.
type State uint8

// The states of a port, as they stand on the wire, and the farewell.
const (
	Listening  State = 1 // it blocks, and does not know yet whether somebody else forwards
	Blocked    State = 2 // another forwards
	Forwarding State = 3
	Alone      State = 4 // there is no link to a LAN: this host is all there is behind it
	Gone       State = 5 // the member leaves the LAN
)

// String is the word that people are shown.
func (s State) String() string {
	names := [...]string{"none", "listening", "blocked", "forwarding", "alone", "gone"}
	if int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// Statement is what a member says of its port (PROTOCOL.md, section 17).
//
//	 0     1       2       3      4             12            28            36             52
//	+-----+-------+-------+------+-------------+-------------+-------------+--------------+----------- - -
//	| ver | state | flags | N    | segment (8) | from (16)   | counter (8) | forwarder(16)| heard N x 16
//	+-----+-------+-------+------+-------------+-------------+-------------+--------------+----------- - -
type Statement struct {
	From      ID
	Segment   Segment
	Counter   uint64 // never twice the same, and rising: epoch of the node's start in the upper half
	State     State
	Fit       bool // it reaches members beyond the LAN
	Ask       bool // those who hear it are to speak at once
	Forwarder ID   // whom it takes for the forwarder, itself perhaps; zero: it knows of none
	Heard     []ID // whom it hears on the LAN, ascending; any of them may speak for it in its absence
}

const (
	version   = 1
	headLen   = 52
	flagFit   = 1
	flagAsk   = 2
	flagsMask = flagFit | flagAsk
	// MaxHeard bounds the list of those heard.
	MaxHeard = 32
	// MaxLen is the length of the longest statement.
	MaxLen = headLen + MaxHeard*len(ID{})
)

// ErrMalformed says that bytes are no statement.
var ErrMalformed = errors.New("not a statement of a LAN port")

// Append encodes s.
func (s *Statement) Append(b []byte) []byte {
	var flags byte
	if s.Fit {
		flags |= flagFit
	}
	if s.Ask {
		flags |= flagAsk
	}
	b = append(b, version, byte(s.State), flags, byte(len(s.Heard)))
	b = append(append(b, s.Segment[:]...), s.From[:]...)
	b = binary.BigEndian.AppendUint64(b, s.Counter)
	b = append(b, s.Forwarder[:]...)
	for _, id := range s.Heard {
		b = append(b, id[:]...)
	}
	return b
}

// Parse decodes a statement from the front of b and returns what follows it.
func Parse(b []byte) (s Statement, rest []byte, err error) {
	if len(b) < headLen || b[0] != version || b[2]&^flagsMask != 0 {
		return s, nil, ErrMalformed
	}
	heard, size := int(b[3]), headLen+int(b[3])*len(ID{})
	s = Statement{
		State: State(b[1]), Fit: b[2]&flagFit != 0, Ask: b[2]&flagAsk != 0,
		Segment: Segment(b[4:12]), From: ID(b[12:28]), Counter: binary.BigEndian.Uint64(b[28:36]), Forwarder: ID(b[36:52]),
	}
	if s.State < Listening || s.State > Gone || heard > MaxHeard || len(b) < size || s.Segment == (Segment{}) {
		return Statement{}, nil, ErrMalformed
	}
	for at := headLen; at < size; at += len(ID{}) {
		id := ID(b[at : at+len(ID{})])
		if n := len(s.Heard); n > 0 && bytes.Compare(s.Heard[n-1][:], id[:]) >= 0 {
			return Statement{}, nil, ErrMalformed
		}
		s.Heard = append(s.Heard, id)
	}
	return s, b[size:], nil
}

// Sender reads whose statement b would be, without a look at the rest.
func Sender(b []byte) (id ID, ok bool) {
	if len(b) < headLen || b[0] != version {
		return id, false
	}
	return ID(b[12:28]), true
}

// Hears reports whether the statement's member hears another.
func (s *Statement) Hears(id ID) bool { return slices.Contains(s.Heard, id) }

// Same reports whether two statements say the same, but for when.
func (s *Statement) Same(o *Statement) bool {
	return s.From == o.From && s.Segment == o.Segment && s.State == o.State && s.Fit == o.Fit &&
		s.Forwarder == o.Forwarder && slices.Equal(s.Heard, o.Heard)
}

func less(a, b ID) bool { return bytes.Compare(a[:], b[:]) < 0 }
