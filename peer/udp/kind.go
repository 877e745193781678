package udp

import "encoding/binary"

// Kind says which protocol a datagram belongs to (PROTOCOL.md, section 1).
type Kind uint8

// The kinds of datagram that share the one socket.
const (
	KindUnknown   Kind = iota // to be dropped and counted
	KindWireGuard             // WireGuard message types 1 to 4
	KindSTUN                  // STUN binding request, success or error (RFC 8489)
	KindHello                 // two nodes meet
	KindProbe                 // path probe and its answer
	KindRelay                 // relay frame (reserved)
)

// String is the kind as it is called in logs and counters.
func (k Kind) String() string {
	switch k {
	case KindWireGuard:
		return "wireguard"
	case KindSTUN:
		return "stun"
	case KindHello:
		return "hello"
	case KindProbe:
		return "probe"
	case KindRelay:
		return "relay"
	default:
		return "unknown"
	}
}

// STUN's header (RFC 8489, section 5) as far as it tells STUN from the rest.
const (
	stunHeaderSize = 20
	stunCookie     = 0x2112A442

	stunBindingRequest = 0x0001
	stunBindingSuccess = 0x0101
	stunBindingError   = 0x0111
)

// Classify tells the kinds of datagram apart by their first bytes.
//
// WireGuard goes first: its second byte is 0 and no STUN type that we accept
// has a first byte above 1 or a second byte of 0, so that a WireGuard receiver
// index equal to the STUN cookie changes nothing. That the rest of a datagram
// is well formed is for its own decoder to check.
func Classify(b []byte) Kind {
	if len(b) == 0 {
		return KindUnknown
	}
	switch b[0] {
	case 0xd1:
		return KindHello
	case 0xd2:
		return KindProbe
	case 0xd3:
		return KindRelay
	case 0, 1, 2, 3, 4:
	default:
		return KindUnknown
	}
	switch {
	case isWireGuard(b):
		return KindWireGuard
	case isSTUN(b):
		return KindSTUN
	default:
		return KindUnknown
	}
}

// isWireGuard wants the little-endian 32-bit message type that begins every
// WireGuard message.
func isWireGuard(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	t := binary.LittleEndian.Uint32(b)
	return t >= 1 && t <= 4
}

func isSTUN(b []byte) bool {
	if len(b) < stunHeaderSize {
		return false
	}
	switch binary.BigEndian.Uint16(b) {
	case stunBindingRequest, stunBindingSuccess, stunBindingError:
	default:
		return false
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	return length%4 == 0 &&
		len(b) == stunHeaderSize+length &&
		binary.BigEndian.Uint32(b[4:]) == stunCookie
}
