package relay

import (
	"encoding/binary"
	"errors"
	"time"

	"meshd/keys"
)

// Control messages between an end and a relay, inside their session (PROTOCOL.md,
// section 11). Each is idempotent; who asks repeats.
//
//	open    1  ticket (8)  other (16)
//	opened  2  ticket (8)  id (4)  seconds (2)  rate (4)  rtt (4)  chain
//	offer   3  ticket (8)  id (4)  seconds (2)  other (16)  chain
//	accept  4  ticket (8)
//	end     5  ticket (8)  reason (1)
//	terms   6  ticket (8)  rate (4)  rtt (4)
//	chain: n (1), node id (16) n times
type kind byte

const (
	kindOpen kind = iota + 1
	kindOpened
	kindOffer
	kindAccept
	kindEnd
	kindTerms // what opened says and offer does not; older versions ignore it
)

// Ticket names a circuit between an end and its relay. Who asks, or offers,
// draws it.
type Ticket [8]byte

// Reason says why a circuit is not, or no longer.
type Reason byte

// The reasons.
const (
	Ended       Reason = 1 // nobody needs it any more
	Off         Reason = 2 // this member does not relay
	Busy        Reason = 3 // as many circuits as it carries
	Unreachable Reason = 4 // it has no session with the other end
	TooFar      Reason = 5 // more relays than MaxHops, or one of them twice
	Spent       Reason = 6 // the month's volume is used up
)

// String is the reason as logs show it.
func (r Reason) String() string {
	switch r {
	case Ended:
		return "ended"
	case Off:
		return "does not relay"
	case Busy:
		return "busy"
	case Unreachable:
		return "other end is not reachable"
	case TooFar:
		return "too many relays"
	case Spent:
		return "volume is spent"
	}
	return "unknown"
}

// message is any of them; which fields count depends on the kind.
type message struct {
	kind     kind
	ticket   Ticket
	other    keys.NodeID // open: to whom; offer: from whom
	id       uint32
	lifetime time.Duration
	rate     uint64        // bytes per second that the relay offers; 0: no limit
	rtt      time.Duration // between the relay and the other end, as seen by who gets it
	chain    []keys.NodeID // relays between this one and the other end, the nearest first
	reason   Reason
}

// errMalformed says that a message is not one of ours.
var errMalformed = errors.New("malformed relay message")

// Units on the wire.
const (
	rateUnit = 125 // bytes per second in a kbit/s
	maxUint  = 1<<32 - 1
)

func (m *message) append(b []byte) []byte {
	b = append(append(b, byte(m.kind)), m.ticket[:]...)
	switch m.kind {
	case kindOpen:
		b = append(b, m.other[:]...)
	case kindOpened:
		b = binary.BigEndian.AppendUint32(b, m.id)
		b = binary.BigEndian.AppendUint16(b, uint16(m.lifetime/time.Second))
		b = appendChain(m.appendTerms(b), m.chain)
	case kindOffer:
		b = binary.BigEndian.AppendUint32(b, m.id)
		b = binary.BigEndian.AppendUint16(b, uint16(m.lifetime/time.Second))
		b = appendChain(append(b, m.other[:]...), m.chain)
	case kindAccept:
	case kindEnd:
		b = append(b, byte(m.reason))
	case kindTerms:
		b = m.appendTerms(b)
	}
	return b
}

func (m *message) appendTerms(b []byte) []byte {
	rate := min(m.rate/rateUnit, maxUint)
	if m.rate > 0 {
		rate = max(rate, 1) // 0 is no limit
	}
	b = binary.BigEndian.AppendUint32(b, uint32(rate))
	return binary.BigEndian.AppendUint32(b, uint32(min(m.rtt.Microseconds(), maxUint)))
}

func appendChain(b []byte, chain []keys.NodeID) []byte {
	b = append(b, byte(len(chain)))
	for _, id := range chain {
		b = append(b, id[:]...)
	}
	return b
}

// parse reads a message. All of it has to be understood.
func parse(b []byte) (m message, err error) {
	r := reader{b: b}
	m.kind = kind(r.take(1)[0])
	copy(m.ticket[:], r.take(len(m.ticket)))
	switch m.kind {
	case kindOpen:
		copy(m.other[:], r.take(len(m.other)))
	case kindOpened:
		m.id = binary.BigEndian.Uint32(r.take(4))
		m.lifetime = time.Duration(binary.BigEndian.Uint16(r.take(2))) * time.Second
		r.terms(&m)
		m.chain = r.chain()
	case kindOffer:
		m.id = binary.BigEndian.Uint32(r.take(4))
		m.lifetime = time.Duration(binary.BigEndian.Uint16(r.take(2))) * time.Second
		copy(m.other[:], r.take(len(m.other)))
		m.chain = r.chain()
	case kindAccept:
	case kindEnd:
		m.reason = Reason(r.take(1)[0])
	case kindTerms:
		r.terms(&m)
	default:
		r.bad = true
	}
	if r.bad || len(r.b) != 0 {
		return message{}, errMalformed
	}
	return m, nil
}

// reader takes a message apart. What is missing reads as zeros and is noted.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.b, r.bad = nil, true
		return make([]byte, n)
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

func (r *reader) terms(m *message) {
	m.rate = uint64(binary.BigEndian.Uint32(r.take(4))) * rateUnit
	m.rtt = time.Duration(binary.BigEndian.Uint32(r.take(4))) * time.Microsecond
}

func (r *reader) chain() []keys.NodeID {
	n := int(r.take(1)[0])
	if n > MaxHops {
		r.bad = true
		return nil
	}
	var chain []keys.NodeID
	for range n {
		var id keys.NodeID
		copy(id[:], r.take(len(id)))
		chain = append(chain, id)
	}
	return chain
}
