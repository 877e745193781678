package wireguard

import (
	"encoding/binary"
	"errors"
	"time"
)

// Constants of the paper, section 6.1, and of its reference implementations
// (the jitter, the handshake rate).
const (
	RekeyAfterMessages  = 1 << 60
	RejectAfterMessages = 1<<64 - 1<<13 - 1
	RekeyAttemptTime    = 90 * time.Second
	RekeyTimeout        = 5 * time.Second
	KeepaliveTimeout    = 10 * time.Second
	CookieLifetime      = 120 * time.Second
	MaxJitter           = 334 * time.Millisecond
	InitiationGap       = 20 * time.Millisecond // least time between two accepted initiations of one peer
)

// FirstRetry is the time after which a member repeats its first initiation,
// and for which the member with the higher public key waits before it.
const FirstRetry = 300 * time.Millisecond

// MessageType is the first byte of a message; three zero bytes follow it.
type MessageType byte

// The four messages of the paper, section 5.4.
const (
	TypeInitiation MessageType = 1
	TypeResponse   MessageType = 2
	TypeCookie     MessageType = 3
	TypeTransport  MessageType = 4
)

// Sizes in bytes.
const (
	InitiationSize = 148
	ResponseSize   = 92
	CookieSize     = 64
	HeaderSize     = 16 // of a transport message
	TagSize        = 16
	Overhead       = HeaderSize + TagSize // what a transport message adds to its plaintext; also the size of a keepalive
	MaxPlaintext   = 1<<16 - 1 - Overhead
)

// Errors that Local, Session and Keypair return. Whatever the network sent is
// counted by these and dropped; none of them leaves a trace in the state.
var (
	ErrMessage    = errors.New("malformed message")
	ErrAuth       = errors.New("message does not authenticate")
	ErrKey        = errors.New("unusable public key") // zero or of low order, or not this Session's peer
	ErrReplay     = errors.New("replayed")            // an initiation's timestamp or a packet's counter
	ErrFlood      = errors.New("initiations too fast")
	ErrUnexpected = errors.New("no handshake waits for this message")
	ErrExpired    = errors.New("key expired")              // call Session.Initiate
	ErrExhausted  = errors.New("key's counter is used up") // call Session.Initiate
	ErrTooLong    = errors.New("plaintext too long")
)

// Type returns the type of a WireGuard message; ok is false when b is none or
// has a size that its type does not allow.
func Type(b []byte) (t MessageType, ok bool) {
	if len(b) < Overhead || b[1]|b[2]|b[3] != 0 {
		return 0, false
	}
	switch t = MessageType(b[0]); t {
	case TypeInitiation:
		return t, len(b) == InitiationSize
	case TypeResponse:
		return t, len(b) == ResponseSize
	case TypeCookie:
		return t, len(b) == CookieSize
	case TypeTransport:
		return t, len(b) <= MaxPlaintext+Overhead
	default:
		return 0, false
	}
}

// Receiver returns the receiver index of a message of type 2, 3 or 4.
func Receiver(b []byte) (index uint32, ok bool) {
	t, ok := Type(b)
	switch {
	case !ok || t == TypeInitiation:
		return 0, false
	case t == TypeResponse:
		return binary.LittleEndian.Uint32(b[8:]), true
	default:
		return binary.LittleEndian.Uint32(b[4:]), true
	}
}

// Sender returns the sender index of a message of type 1 or 2.
func Sender(b []byte) (index uint32, ok bool) {
	t, ok := Type(b)
	if !ok || t != TypeInitiation && t != TypeResponse {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b[4:]), true
}
