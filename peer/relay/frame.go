package relay

import "encoding/binary"

// The header of a datagram on a circuit (PROTOCOL.md, section 10).
//
//	0      1       2      3      4                 8
//	+------+-------+------+------+-----------------+--------------
//	| 0xd3 | ver 1 | from | 0    | circuit id (4)  | datagram
//	+------+-------+------+------+-----------------+--------------
//
// From is 0 on the way to the relay and 1 on the way from it. The id is the
// relay's, another on either side.
const (
	// HeaderLen is the length of the header.
	HeaderLen = 8

	frameKind = 0xd3
	// transportKind is the first byte of WireGuard's transport messages (PROTOCOL.md,
	// section 1).
	transportKind = 4
	version       = 1
)

// Header is the header of a datagram on a circuit, as one word: comparing and
// rewriting it takes one instruction.
type Header uint64

// NewHeader makes a header.
func NewHeader(fromRelay bool, id uint32) Header {
	h := Header(frameKind)<<56 | version<<48 | Header(id)
	if fromRelay {
		h |= 1 << 40
	}
	return h
}

// ParseHeader reads the header of a datagram. It is not ok when the datagram is
// too short to have anything inside, or malformed.
func ParseHeader(b []byte) (h Header, ok bool) {
	if len(b) <= HeaderLen {
		return 0, false
	}
	h = Header(binary.BigEndian.Uint64(b))
	rest := h &^ (1<<32 - 1) &^ (1 << 40)
	return h, rest == Header(frameKind)<<56|version<<48
}

// FromRelay says that the datagram comes from the relay and this is the end.
func (h Header) FromRelay() bool { return h>>40&1 == 1 }

// ID is the circuit's.
func (h Header) ID() uint32 { return uint32(h) }

// Put writes the header over the first bytes of b.
func (h Header) Put(b []byte) { binary.BigEndian.PutUint64(b, uint64(h)) }

// Is reports whether a datagram of at least one byte is on a circuit.
func Is(datagram []byte) bool { return datagram[0] == frameKind }

// Is reports whether b begins with this header and has something inside.
func (h Header) Is(b []byte) bool {
	return len(b) > HeaderLen && binary.BigEndian.Uint64(b) == uint64(h)
}

// CarriesData reports whether what is on a circuit, or on circuits inside it, is
// data and not a probe or handshake: a WireGuard transport message.
func CarriesData(datagram []byte) bool {
	for len(datagram) > HeaderLen && Is(datagram) {
		datagram = datagram[HeaderLen:]
	}
	return datagram[0] == transportKind
}
