package punch

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"meshd/nat-traversal"
)

// A message, behind the byte that says that it is a control message of this kind
// (PROTOCOL.md, 4.4):
//
//	 0      1       2         3        4            8
//	 +------+-------+---------+--------+------------+----------------------
//	 | step | flags | mapping | count  | number (4) | candidates
//	 +------+-------+---------+--------+------------+----------------------
//	candidate: kind (1), family (1: 4 or 6), port (2), address (4 or 16)

// Step says which message of a round it is.
type Step uint8

// The steps.
const (
	Call   Step = 1
	Answer Step = 2
)

// flagMany says that the sender wants, or agrees to, the method of many ports.
const flagMany = 1

const (
	headerLen = 8
	// MaxCandidates bounds the addresses in a message.
	MaxCandidates = 16
)

// ErrFormat says that something is no message of this protocol.
var ErrFormat = errors.New("punch: malformed")

// Message is a call or an answer.
type Message struct {
	Step       Step
	Many       bool // try many ports
	Mapping    traversal.Mapping
	Number     uint32 // of the round; an answer has its call's
	Candidates []traversal.Candidate
}

// Append appends the message to dst. Candidates that cannot be told are left out.
func (m Message) Append(dst []byte) []byte {
	var flags byte
	if m.Many {
		flags = flagMany
	}
	at := len(dst)
	dst = append(dst, byte(m.Step), flags, byte(m.Mapping), 0)
	dst = binary.BigEndian.AppendUint32(dst, m.Number)
	count := byte(0)
	for _, c := range m.Candidates {
		if count == MaxCandidates || !traversal.UsableEndpoint(c.Addr) || c.Kind > traversal.Advertised {
			continue
		}
		family := byte(6)
		if c.Addr.Addr().Is4() {
			family = 4
		}
		dst = append(dst, byte(c.Kind), family)
		dst = binary.BigEndian.AppendUint16(dst, c.Addr.Port())
		dst = append(dst, c.Addr.Addr().AsSlice()...)
		count++
	}
	dst[at+3] = count
	return dst
}

// Parse is the inverse of Append. It takes what Append makes and nothing else, and
// no address that nobody may be sent to.
func Parse(b []byte) (m Message, err error) {
	if len(b) < headerLen {
		return m, ErrFormat
	}
	m = Message{Step: Step(b[0]), Many: b[1] == flagMany, Mapping: traversal.Mapping(b[2]), Number: binary.BigEndian.Uint32(b[4:])}
	count := int(b[3])
	if m.Step != Call && m.Step != Answer || b[1] > flagMany || m.Mapping > traversal.MappingAddressAndPortDependent || count > MaxCandidates {
		return Message{}, ErrFormat
	}
	b = b[headerLen:]
	for range count {
		var c traversal.Candidate
		if c, b, err = parseCandidate(b); err != nil {
			return Message{}, err
		}
		m.Candidates = append(m.Candidates, c)
	}
	if len(b) > 0 {
		return Message{}, ErrFormat
	}
	return m, nil
}

func parseCandidate(b []byte) (c traversal.Candidate, rest []byte, err error) {
	const head = 4
	if len(b) < head {
		return c, nil, ErrFormat
	}
	size := 16
	switch b[1] {
	case 4:
		size = 4
	case 6:
	default:
		return c, nil, ErrFormat
	}
	if len(b) < head+size {
		return c, nil, ErrFormat
	}
	addr, _ := netip.AddrFromSlice(b[head : head+size])
	c = traversal.Candidate{Kind: traversal.Kind(b[0]), Addr: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[2:]))}
	if c.Kind > traversal.Advertised || !traversal.UsableEndpoint(c.Addr) {
		return c, nil, ErrFormat
	}
	return c, b[head+size:], nil
}
