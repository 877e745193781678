package stations

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"meshd/keys"
	"meshd/l2"
)

// Message is an l2.Notice as it crosses a session: members are named by their ids.
//
//	 0      1           9
//	+------+-----------+---------+--------------------
//	| step | stamp (8) | to (16) | bindings, at least one     to: step 2 alone; zero: nobody
//	+------+-----------+---------+--------------------
//
//	 0       1          3         9              13
//	+-------+----------+---------+--------------+-------------+--------------------
//	| flags | VLAN (2) | MAC (6) | sequence (4) | segment (8) | family (1), address
//	+-------+----------+---------+--------------+-------------+--------------------
//	flags: bits 0-3 how many addresses, bit 4 router, bit 5 a segment follows; family: 4 or 6
type Message struct {
	l2.Notice
	To keys.NodeID // in place of Notice.To
}

// MaxMessage bounds a message, so that it fits a control datagram of 1,100 bytes with its kind.
const MaxMessage = 1099

const (
	maskIPs     = 0x0f
	flagRouter  = 0x10
	flagSegment = 0x20

	headLen    = 9
	bindingLen = 13
	maxVLAN    = 4094
)

// ErrMalformed is returned for bytes that are no message.
var ErrMalformed = errors.New("malformed notice of stations")

// Append appends a message.
func Append(b []byte, m Message) []byte {
	b = append(b, byte(m.Step))
	b = binary.BigEndian.AppendUint64(b, m.Stamp)
	if m.Step == l2.StepGone {
		b = append(b, m.To[:]...)
	}
	for _, binding := range m.Bindings {
		b = appendBinding(b, binding)
	}
	return b
}

func appendBinding(b []byte, binding l2.Binding) []byte {
	ips := binding.IPs[:min(len(binding.IPs), l2.MaxBindingIPs)]
	flags := byte(len(ips))
	if binding.Router {
		flags |= flagRouter
	}
	if binding.Segment != (l2.Segment{}) {
		flags |= flagSegment
	}
	b = binary.BigEndian.AppendUint16(append(b, flags), binding.VLAN)
	b = binary.BigEndian.AppendUint32(append(b, binding.MAC[:]...), binding.Seq)
	if flags&flagSegment != 0 {
		b = append(b, binding.Segment[:]...)
	}
	for _, ip := range ips {
		family := byte(6)
		if ip.Is4() {
			family = 4
		}
		b = append(append(b, family), ip.AsSlice()...)
	}
	return b
}

// Parse reads a message.
func Parse(b []byte) (m Message, err error) {
	if len(b) < headLen || len(b) > MaxMessage {
		return m, ErrMalformed
	}
	m.Step, m.Stamp = l2.Step(b[0]), binary.BigEndian.Uint64(b[1:])
	if m.Step < l2.StepHere || m.Step > l2.StepKeepAddress {
		return m, ErrMalformed
	}
	b = b[headLen:]
	if m.Step == l2.StepGone {
		if len(b) < len(m.To) {
			return m, ErrMalformed
		}
		b = b[copy(m.To[:], b):]
	}
	for len(b) > 0 {
		var binding l2.Binding
		if binding, b, err = parseBinding(b); err != nil {
			return m, err
		}
		m.Bindings = append(m.Bindings, binding)
	}
	if len(m.Bindings) == 0 {
		return m, ErrMalformed
	}
	return m, nil
}

func parseBinding(b []byte) (binding l2.Binding, rest []byte, err error) {
	if len(b) < bindingLen {
		return binding, nil, ErrMalformed
	}
	flags := b[0]
	binding.VLAN, binding.MAC = binary.BigEndian.Uint16(b[1:]), l2.MAC(b[3:9])
	binding.Seq, binding.Router = binary.BigEndian.Uint32(b[9:]), flags&flagRouter != 0
	b = b[bindingLen:]
	count := int(flags & maskIPs)
	if flags&^(maskIPs|flagRouter|flagSegment) != 0 || count > l2.MaxBindingIPs || binding.VLAN > maxVLAN ||
		binding.MAC.Multicast() || binding.MAC == (l2.MAC{}) {
		return binding, nil, ErrMalformed
	}
	if flags&flagSegment != 0 {
		if len(b) < len(binding.Segment) {
			return binding, nil, ErrMalformed
		}
		b = b[copy(binding.Segment[:], b):]
		if binding.Segment == (l2.Segment{}) {
			return binding, nil, ErrMalformed
		}
	}
	for range count {
		size := 4
		if len(b) > 0 && b[0] == 6 {
			size = 16
		}
		if len(b) < 1+size || b[0] != 4 && b[0] != 6 {
			return binding, nil, ErrMalformed
		}
		ip, _ := netip.AddrFromSlice(b[1 : 1+size]) // has one of the two sizes
		if ip.Is4In6() {
			return binding, nil, ErrMalformed
		}
		binding.IPs = append(binding.IPs, ip)
		b = b[1+size:]
	}
	return binding, b, nil
}
