package gossip

import (
	"errors"
	"fmt"
)

// The messages of memberlist that we use (net.go of memberlist). The others are never accepted: push/pull, user, compressed,
// encrypted and checksummed messages, errors.
const (
	kindPing         = 0
	kindIndirectPing = 1
	kindAck          = 2
	kindSuspect      = 3
	kindAlive        = 4
	kindDead         = 5
	kindCompound     = 7
	kindNack         = 11
	kindChecksum     = 12 // only taken off what our own memberlist writes
	kindLabel        = 244
)

// maxParts bounds the messages in one packet.
const maxParts = 32

var errMalformed = errors.New("malformed")

// message is any of memberlist's messages: kind says which fields count.
//
//	ping          SeqNo, Node, SourceAddr, SourcePort, SourceNode
//	indirect ping SeqNo, Target, Port, Node, Nack, SourceAddr, SourcePort, SourceNode
//	ack           SeqNo, Payload
//	nack          SeqNo
//	suspect, dead Incarnation, Node, From
//	alive         Incarnation, Node, Addr, Port, Meta, Vsn
type message struct {
	kind        byte
	seq         uint32
	incarnation uint32
	node        string
	from        string
	addr        []byte // an alive's Addr, an indirect ping's Target
	port        uint16
	meta        []byte // an alive's Meta, an ack's Payload
	versions    []byte
	nack        bool
	source      source
}

// source is where the answer to a ping goes.
type source struct {
	addr []byte
	port uint16
	node string
}

// fields lists a kind's fields in the order in which memberlist writes them.
func fields(kind byte) []string {
	switch kind {
	case kindPing:
		return []string{"Node", "SeqNo", "SourceAddr", "SourceNode", "SourcePort"}
	case kindIndirectPing:
		return []string{"Nack", "Node", "Port", "SeqNo", "SourceAddr", "SourceNode", "SourcePort", "Target"}
	case kindAck:
		return []string{"Payload", "SeqNo"}
	case kindNack:
		return []string{"SeqNo"}
	case kindSuspect, kindDead:
		return []string{"From", "Incarnation", "Node"}
	case kindAlive:
		return []string{"Addr", "Incarnation", "Meta", "Node", "Port", "Vsn"}
	}
	return nil
}

// field points to where a named field is kept: *uint32, *uint16, *string, *[]byte or *bool.
func (m *message) field(name string) any {
	switch name {
	case "SeqNo":
		return &m.seq
	case "Incarnation":
		return &m.incarnation
	case "Node":
		return &m.node
	case "From":
		return &m.from
	case "Addr", "Target":
		return &m.addr
	case "Port":
		return &m.port
	case "Meta", "Payload":
		return &m.meta
	case "Vsn":
		return &m.versions
	case "Nack":
		return &m.nack
	case "SourceAddr":
		return &m.source.addr
	case "SourcePort":
		return &m.source.port
	case "SourceNode":
		return &m.source.node
	}
	return nil
}

// parseMessage decodes one message with its kind in front. Every field of the kind must be there once, and no other.
// Byte fields alias b.
func parseMessage(b []byte) (message, error) {
	if len(b) == 0 {
		return message{}, fmt.Errorf("%w: empty message", errMalformed)
	}
	m := message{kind: b[0]}
	want := fields(m.kind)
	if want == nil {
		return m, fmt.Errorf("%w: message of kind %d", errMalformed, m.kind)
	}
	r := reader{b: b[1:]}
	n := r.mapSize()
	if r.bad || n != len(want) {
		return m, fmt.Errorf("%w: %d fields in a message of kind %d", errMalformed, n, m.kind)
	}
	var seen uint16
	for range n {
		i := index(want, r.bytes())
		if i < 0 || seen&(1<<i) != 0 {
			return m, fmt.Errorf("%w: unknown or repeated field", errMalformed)
		}
		seen |= 1 << i
		r.into(m.field(want[i]))
	}
	if r.bad || len(r.b) > 0 {
		return m, fmt.Errorf("%w: message of kind %d", errMalformed, m.kind)
	}
	return m, nil
}

func index(names []string, name []byte) int {
	for i, s := range names {
		if s == string(name) {
			return i
		}
	}
	return -1
}

// append encodes the message as memberlist does.
func (m *message) append(b []byte) []byte {
	names := fields(m.kind)
	b = append(b, m.kind, 0x80|byte(len(names)))
	for _, name := range names {
		b = appendBytes(b, name)
		switch v := m.field(name).(type) {
		case *uint32:
			b = appendUint(b, *v)
		case *uint16:
			b = appendUint(b, uint32(*v))
		case *string:
			b = appendBytes(b, *v)
		case *[]byte:
			b = appendBytes(b, string(*v))
		case *bool:
			b = appendBool(b, *v)
		}
	}
	return b
}

// splitPacket returns the messages of a packet without its label: one, or those of a compound. Compounds do not nest.
func splitPacket(b []byte) ([][]byte, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: empty packet", errMalformed)
	}
	if b[0] != kindCompound {
		return [][]byte{b}, nil
	}
	if len(b) < 2 || b[1] == 0 || b[1] > maxParts || len(b) < 2+2*int(b[1]) {
		return nil, fmt.Errorf("%w: compound", errMalformed)
	}
	n := int(b[1])
	sizes, rest := b[2:2+2*n], b[2+2*n:]
	parts := make([][]byte, 0, n)
	for i := range n {
		size := int(sizes[2*i])<<8 | int(sizes[2*i+1])
		if size == 0 || size > len(rest) || rest[0] == kindCompound {
			return nil, fmt.Errorf("%w: part of a compound", errMalformed)
		}
		parts = append(parts, rest[:size])
		rest = rest[size:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after a compound", errMalformed, len(rest))
	}
	return parts, nil
}

// joinParts makes a packet without label of encoded messages, at least one.
func joinParts(b []byte, parts [][]byte) []byte {
	if len(parts) == 1 {
		return append(b, parts[0]...)
	}
	b = append(b, kindCompound, byte(len(parts)))
	for _, p := range parts {
		b = append(b, byte(len(p)>>8), byte(len(p)))
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}
