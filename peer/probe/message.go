package probe

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Kind of a message.
type Kind uint8

// The kinds of message.
const (
	Ping Kind = 1
	Pong Kind = 2
)

// The layout of a datagram and of its message.
const (
	// First is the first byte of every probe.
	First   = 0xd2
	version = 1

	tagAt     = 4
	nonceAt   = 12
	sealedAt  = 36
	sealTag   = 16
	messageSz = 37

	// MinSize is the size of a probe without padding. Pings and pongs have the
	// same, so that the pong to an unpadded ping is not larger.
	MinSize = sealedAt + messageSz + sealTag
)

// Why a datagram is not a message of this pair. Each is for counting by reason.
var (
	ErrFormat  = errors.New("probe: malformed")        // nothing that any version 1 node sends
	ErrOpen    = errors.New("probe: not authentic")    // sealed with other keys, or changed
	ErrMessage = errors.New("probe: malformed inside") // sealed by the remote, and yet wrong
)

// Message is what a probe carries.
type Message struct {
	Kind        Kind
	Flags       uint8 // passed on as they are; PROTOCOL.md has their meaning
	Transaction [12]byte
	Observed    netip.AddrPort // in a pong: where the ping came from; may be the zero value
	Received    uint32         // in a pong: transport messages received from there so far, modulo 2^32
}

// Tag is the tag of a datagram that has the form of a probe.
func Tag(datagram []byte) (tag [8]byte, ok bool) {
	if !wellFormed(datagram) {
		return tag, false
	}
	return [8]byte(datagram[tagAt:nonceAt]), true
}

func wellFormed(datagram []byte) bool {
	return len(datagram) >= MinSize && datagram[0] == First && datagram[1] == version &&
		datagram[2] == 0 && datagram[3] == 0
}

// appendMessage appends m in its fixed form. An IPv4-mapped address is IPv4.
func appendMessage(dst []byte, m Message) []byte {
	dst = append(dst, byte(m.Kind), m.Flags)
	dst = append(dst, m.Transaction[:]...)
	var address [16]byte
	family, port := byte(0), uint16(0)
	switch ip := m.Observed.Addr().Unmap(); {
	case ip.Is4():
		four := ip.As4()
		copy(address[:], four[:])
		family, port = 4, m.Observed.Port()
	case ip.Is6():
		address = ip.As16() // a zone means nothing to another host
		family, port = 6, m.Observed.Port()
	}
	dst = append(dst, family)
	dst = binary.BigEndian.AppendUint16(dst, port)
	dst = append(dst, address[:]...)
	return binary.BigEndian.AppendUint32(dst, m.Received)
}

// parseMessage is the inverse of appendMessage; what follows is padding.
func parseMessage(b []byte) (m Message, err error) {
	if len(b) < messageSz {
		return m, ErrMessage
	}
	m.Kind, m.Flags = Kind(b[0]), b[1]
	if m.Kind != Ping && m.Kind != Pong {
		return Message{}, ErrMessage
	}
	m.Transaction = [12]byte(b[2:14])
	port := binary.BigEndian.Uint16(b[15:])
	address := b[17:33]
	m.Received = binary.BigEndian.Uint32(b[33:])
	switch b[14] {
	case 0:
		if port != 0 || [16]byte(address) != ([16]byte{}) {
			return Message{}, ErrMessage
		}
	case 4:
		if [12]byte(address[4:]) != ([12]byte{}) {
			return Message{}, ErrMessage
		}
		m.Observed = netip.AddrPortFrom(netip.AddrFrom4([4]byte(address)), port)
	case 6:
		ip := netip.AddrFrom16([16]byte(address))
		if ip.Is4In6() {
			return Message{}, ErrMessage
		}
		m.Observed = netip.AddrPortFrom(ip, port)
	default:
		return Message{}, ErrMessage
	}
	return m, nil
}
