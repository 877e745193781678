package traversal

import (
	"fmt"
	"net/netip"

	"github.com/pion/stun/v3"
)

// Filtering is the filtering behaviour of the NATs and firewalls in front of us,
// in the terms of RFC 5780: whose packets come in at an address that we have
// sent from.
type Filtering uint8

// The behaviours.
const (
	FilteringUnknown                 Filtering = iota // nobody who could tell was asked
	FilteringEndpointIndependent                      // everybody's
	FilteringAddressDependent                         // those of hosts that we have sent to
	FilteringAddressAndPortDependent                  // answers only
)

// String is the term in JSON output.
func (f Filtering) String() string {
	switch f {
	case FilteringUnknown:
		return "unknown"
	case FilteringEndpointIndependent:
		return "endpoint-independent"
	case FilteringAddressDependent:
		return "address-dependent"
	case FilteringAddressAndPortDependent:
		return "address-and-port-dependent"
	default:
		return fmt.Sprintf("filtering(%d)", uint8(f))
	}
}

// The attributes of RFC 5780 that matter here, and one of our own.
const (
	attrChangeRequest = stun.AttrChangeRequest
	attrOtherAddress  = stun.AttrOtherAddress

	changeIP, changePort = 4, 2 // RFC 5780, 7.2

	// attrFill is of the range that a server must ignore when it does not know
	// them (RFC 8489, 18.3), unlike PADDING.
	attrFill stun.AttrType = 0xc0de
)

// SizedRequest is a binding request of so many bytes, which has to be a multiple
// of four from 52 on: it measures whether a path carries them.
func SizedRequest(txid TxID, size int) []byte {
	m := stun.New()
	m.TransactionID = txid
	m.Type = stun.BindingRequest
	m.WriteHeader()
	fill := max(size, requestSize)&^3 - answerOverhead - attributeHeader
	m.Add(attrFill, make([]byte, fill))
	addFingerprint(m)
	return m.Raw
}

// ChangeRequest asks a server of RFC 5780 to answer from its other address, or
// only its other port.
func ChangeRequest(txid TxID, otherAddress bool) []byte {
	m := stun.New()
	m.TransactionID = txid
	m.Type = stun.BindingRequest
	m.WriteHeader()
	flags := byte(changePort)
	if otherAddress {
		flags |= changeIP
	}
	m.Add(attrChangeRequest, []byte{0, 0, 0, flags})
	addFingerprint(m)
	return m.Raw
}

// OtherAddress is where else a server of RFC 5780 listens, by its answer.
func OtherAddress(b []byte, txid TxID) (ap netip.AddrPort, ok bool) {
	m, err := decode(b)
	if err != nil || m.Type != stun.BindingSuccess || m.TransactionID != txid {
		return ap, false
	}
	value, err := m.Get(attrOtherAddress)
	const ipv4, ipv6 = 1, 2
	if err != nil || !(len(value) == 8 && value[1] == ipv4 || len(value) == 20 && value[1] == ipv6) {
		return ap, false
	}
	a, _ := netip.AddrFromSlice(value[4:])
	ap = netip.AddrPortFrom(a.Unmap(), uint16(value[2])<<8|uint16(value[3]))
	return ap, UsableEndpoint(ap)
}
