package inner

import (
	"encoding/binary"
	"errors"
)

// Kind says what a body is.
type Kind uint8

// The kinds of body. KindIP is not on the wire: it stands for an IP packet
// without our header, from a plain WireGuard client.
const (
	KindFrame    Kind = 0 // an Ethernet frame
	KindFragment Kind = 1 // a piece of one
	KindBundle   Kind = 2 // reserved
	KindControl  Kind = 3 // a control datagram
	KindIP       Kind = 0xff
)

// HeaderLen is the size of our header, the length of the body included.
const HeaderLen = 4

const (
	version = 1
	maxLen  = 0xffff // of a body: its length has two bytes
)

// Why a plaintext is not accepted. Each is for counting by reason.
var (
	ErrShort    = errors.New("inner: shorter than its header")
	ErrVersion  = errors.New("inner: unknown version")
	ErrKind     = errors.New("inner: unknown kind")
	ErrChecksum = errors.New("inner: checksum start is not zero")
	ErrLength   = errors.New("inner: body longer than the packet")
)

// String returns the name of k in logs and counters.
func (k Kind) String() string {
	switch k {
	case KindFrame:
		return "frame"
	case KindFragment:
		return "fragment"
	case KindBundle:
		return "bundle"
	case KindControl:
		return "control"
	case KindIP:
		return "ip"
	}
	return "unknown"
}

// Append appends the header for kind, and body, to dst. The body must be
// shorter than 64 KiB; the caller pads (PadTo).
func Append(dst []byte, kind Kind, body []byte) []byte {
	return append(AppendHeader(dst, kind, len(body)), body...)
}

// AppendHeader appends the header for a body of n bytes, which the caller
// appends: no copy where a frame already lies where it will be sealed.
func AppendHeader(dst []byte, kind Kind, n int) []byte {
	if uint(n) > maxLen {
		panic("inner: body too long")
	}
	return append(dst, version<<4|byte(kind&7)<<1, 0, byte(n>>8), byte(n))
}

// Parse returns what a decrypted transport message carries. The body is a part
// of plaintext, without the padding. An empty plaintext, WireGuard's keepalive,
// is ErrShort: the session handles it before.
func Parse(plaintext []byte) (Kind, []byte, error) {
	if len(plaintext) == 0 {
		return 0, nil, ErrShort
	}
	switch plaintext[0] >> 4 {
	case 4, 6:
		return KindIP, plaintext, nil
	case version:
	default:
		return 0, nil, ErrVersion
	}
	if len(plaintext) < HeaderLen {
		return 0, nil, ErrShort
	}
	kind := Kind(plaintext[0] >> 1 & 7)
	switch kind {
	case KindFrame, KindFragment, KindControl:
	default:
		return 0, nil, ErrKind
	}
	if plaintext[0]&1 != 0 || plaintext[1] != 0 {
		return 0, nil, ErrChecksum
	}
	n := int(binary.BigEndian.Uint16(plaintext[2:]))
	if n > len(plaintext)-HeaderLen {
		return 0, nil, ErrLength
	}
	return kind, plaintext[HeaderLen : HeaderLen+n : HeaderLen+n], nil
}
