package traversal

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/pion/stun/v3"
)

// TxID is a STUN transaction id: 96 random bits, by which an answer is known to
// come from somebody who has seen the question.
type TxID = [stun.TransactionIDSize]byte

// Sizes of the messages. A question is as large as the larger answer, so that
// answering a spoofed question gives an attacker nothing.
//
//	          header  XOR-MAPPED-ADDRESS  FINGERPRINT  sum
//	IPv4        20            12               8        40
//	IPv6        20            24               8        52
const (
	answerSize4 = 40
	answerSize6 = 52
	requestSize = answerSize6

	attributeHeader = 4
	fingerprintSize = 8
	paddingSize     = requestSize - answerOverhead - attributeHeader
	answerOverhead  = 20 + fingerprintSize // of every message

	maxMessage = 1500 // what an Ethernet carries; a longer one is not about us
)

// ErrNotAnswer is for a datagram that is no answer to the request in question.
var ErrNotAnswer = errors.New("not an answer to this STUN request")

// Request is a binding request with the size of its answer.
//
// The padding is a SOFTWARE attribute of spaces: servers must ignore what they
// do not know of it, whereas PADDING (RFC 5780) has to be understood, and
// common servers refuse it.
func Request(txid TxID) []byte {
	padding := make([]byte, paddingSize)
	for i := range padding {
		padding[i] = ' '
	}
	m := stun.New()
	m.TransactionID = txid
	m.Type = stun.BindingRequest
	m.WriteHeader()
	m.Add(stun.AttrSoftware, padding)
	addFingerprint(m)
	return m.Raw
}

// Answer makes the answer to a request that came from the given address; not ok
// when there is to be none: no binding request, or one that is smaller than its
// answer. Responder.Answer also limits the rate.
func Answer(req []byte, from netip.AddrPort) (answer []byte, ok bool) {
	size := answerSize4
	if from.Addr().Unmap().Is6() {
		size = answerSize6
	}
	if len(req) < size || !answerable(from) {
		return nil, false
	}
	q, err := decode(req)
	if err != nil || q.Type != stun.BindingRequest || !fingerprintOK(q) {
		return nil, false
	}
	m := stun.New()
	m.TransactionID = q.TransactionID
	m.Type = stun.BindingSuccess
	m.WriteHeader()
	mapped := stun.XORMappedAddress{IP: from.Addr().Unmap().AsSlice(), Port: int(from.Port())}
	if err := mapped.AddTo(m); err != nil {
		return nil, false
	}
	addFingerprint(m)
	return m.Raw, true
}

// answerable reports that from can be the source of a datagram. Loopback and
// link-local ones are answered, unlike what Usable says: they are near.
func answerable(from netip.AddrPort) bool {
	a := from.Addr()
	return from.Port() != 0 && a.IsValid() && !a.IsUnspecified() && !a.IsMulticast()
}

// ParseAnswer reads the address out of the answer to the request with this id.
// Whether the address is Usable is for the caller to check.
func ParseAnswer(b []byte, txid TxID) (netip.AddrPort, error) {
	var none netip.AddrPort
	m, err := decode(b)
	if err != nil {
		return none, err
	}
	if m.Type != stun.BindingSuccess || m.TransactionID != txid {
		return none, ErrNotAnswer
	}
	if !fingerprintOK(m) {
		return none, fmt.Errorf("%w: fingerprint", ErrNotAnswer)
	}
	return mappedAddress(m)
}

func mappedAddress(m *stun.Message) (ap netip.AddrPort, err error) {
	defer recoverTo(&err)
	value, err := m.Get(stun.AttrXORMappedAddress)
	if err != nil {
		return ap, fmt.Errorf("parse STUN answer: %w", err)
	}
	// The library would fill a short address up with zeros. The value is zero,
	// family, port (2), address (RFC 8489, 14.2).
	const ipv4, ipv6 = 1, 2
	if !(len(value) == 8 && value[1] == ipv4 || len(value) == 20 && value[1] == ipv6) {
		return ap, fmt.Errorf("parse STUN answer: mapped address of %d bytes", len(value))
	}
	var xor stun.XORMappedAddress
	if err := xor.GetFrom(m); err != nil {
		return ap, fmt.Errorf("parse STUN answer: %w", err)
	}
	a, ok := netip.AddrFromSlice(xor.IP)
	if !ok || xor.Port < 1 || xor.Port > 0xffff {
		return ap, fmt.Errorf("parse STUN answer: mapped address %v", xor)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(xor.Port)), nil
}

// decode is the only way into pion/stun for bytes from the network. The library
// has crashed on such bytes before (GHSA-34rh-wp3j-6cxc), so sizes are checked
// here and a panic ends here.
func decode(b []byte) (m *stun.Message, err error) {
	defer recoverTo(&err)
	if len(b) > maxMessage || len(b) < 20 || len(b)%4 != 0 || len(b) != 20+int(b[2])<<8+int(b[3]) {
		return nil, fmt.Errorf("parse STUN message: %d bytes do not fit the header", len(b))
	}
	if b[0]&0xc0 != 0 { // RFC 8489, section 5; the library looks away
		return nil, fmt.Errorf("parse STUN message: type %x%02x", b[0], b[1])
	}
	m = stun.New()
	if err := stun.Decode(b, m); err != nil {
		return nil, fmt.Errorf("parse STUN message: %w", err)
	}
	return m, nil
}

func recoverTo(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("parse STUN message: %v", p)
	}
}

// fingerprintOK checks the fingerprint, which has to be the last attribute
// (RFC 8489, 14.7). A message without one is fine: not all servers add it.
func fingerprintOK(m *stun.Message) bool {
	for i, a := range m.Attributes {
		if a.Type == stun.AttrFingerprint {
			return i == len(m.Attributes)-1 && a.Length == 4 && stun.Fingerprint.Check(m) == nil
		}
	}
	return true
}

func addFingerprint(m *stun.Message) {
	_ = stun.Fingerprint.AddTo(m) // always nil
}
