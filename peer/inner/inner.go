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
	KindCopy     Kind = 4 // a copy of a frame for all (package flood)
	KindCopyPart Kind = 5 // a piece of one
	KindIP       Kind = 0xff
)

// HeaderLen is the size of our header, the length of the body included.
const HeaderLen = 4

// MaxCsumStart is the largest checksum start: it has nine bits.
const MaxCsumStart = 1<<9 - 1

const (
	version = 1
	maxLen  = 0xffff // of a body: its length has two bytes
)

// Why a plaintext is not accepted. Each is for counting by reason.
var (
	ErrShort    = errors.New("inner: shorter than its header")
	ErrVersion  = errors.New("inner: unknown version")
	ErrKind     = errors.New("inner: unknown kind")
	ErrChecksum = errors.New("inner: checksum start in what is no frame")
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
	case KindCopy:
		return "copy"
	case KindCopyPart:
		return "copy-part"
	case KindIP:
		return "ip"
	}
	return "unknown"
}

// Header is what stands before a body.
type Header struct {
	Kind Kind
	// CsumStart is where the transport header of a frame begins whose checksum is
	// left to the receiver; 0: none is. The pieces of a frame all have it.
	CsumStart int
}

// Append appends h and body to dst. The body must be shorter than 64 KiB; the
// caller pads (PadTo).
func Append(dst []byte, h Header, body []byte) []byte {
	return append(AppendHeader(dst, h, len(body)), body...)
}

// AppendHeader appends h for a body of n bytes, which the caller appends: no copy
// where a frame already lies where it will be sealed.
func AppendHeader(dst []byte, h Header, n int) []byte {
	if uint(n) > maxLen {
		panic("inner: body too long")
	}
	if uint(h.CsumStart) > MaxCsumStart {
		panic("inner: checksum start too large")
	}
	return append(dst, version<<4|byte(h.Kind&7)<<1|byte(h.CsumStart>>8), byte(h.CsumStart), byte(n>>8), byte(n))
}

// Parse returns what a decrypted transport message carries. The body is a part
// of plaintext, without the padding. An empty plaintext, WireGuard's keepalive,
// is ErrShort: the session handles it before.
//
// That a checksum start lies in the frame, and that there is a checksum, is for
// who reads frames to see.
func Parse(plaintext []byte) (h Header, body []byte, err error) {
	if len(plaintext) == 0 {
		return Header{}, nil, ErrShort
	}
	switch plaintext[0] >> 4 {
	case 4, 6:
		return Header{Kind: KindIP}, plaintext, nil
	case version:
	default:
		return Header{}, nil, ErrVersion
	}
	if len(plaintext) < HeaderLen {
		return Header{}, nil, ErrShort
	}
	h = Header{Kind: Kind(plaintext[0] >> 1 & 7), CsumStart: int(plaintext[0]&1)<<8 | int(plaintext[1])}
	switch h.Kind {
	case KindFrame, KindFragment:
	case KindControl, KindCopy, KindCopyPart:
		if h.CsumStart != 0 {
			return Header{}, nil, ErrChecksum
		}
	default:
		return Header{}, nil, ErrKind
	}
	n := int(binary.BigEndian.Uint16(plaintext[2:]))
	if n > len(plaintext)-HeaderLen {
		return Header{}, nil, ErrLength
	}
	return h, plaintext[HeaderLen : HeaderLen+n : HeaderLen+n], nil
}
