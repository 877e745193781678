package traversal

import (
	"fmt"
	"net/netip"
	"slices"
)

// Mapping is the mapping behaviour of the NATs between us and others, in the
// terms of RFC 5780.
type Mapping uint8

// The behaviours, as far as the answers of the servers asked can tell.
const (
	MappingUnknown                 Mapping = iota // too few answers
	MappingNone                                   // no NAT: others see our own address
	MappingEndpointIndependent                    // one outside address and port for all: can be punched
	MappingAddressDependent                       // another for each remote address
	MappingAddressAndPortDependent                // another for each remote address and port
)

// String is the term in JSON output (CONTRACT.md).
func (m Mapping) String() string {
	switch m {
	case MappingUnknown:
		return "unknown"
	case MappingNone:
		return "none"
	case MappingEndpointIndependent:
		return "endpoint-independent"
	case MappingAddressDependent:
		return "address-dependent"
	case MappingAddressAndPortDependent:
		return "address-and-port-dependent"
	default:
		return fmt.Sprintf("mapping(%d)", uint8(m))
	}
}

// mapping concludes from answers of one family. Servers with private addresses
// may be on our side of a NAT: they count only if there are no others.
func mapping(answers []observation, local []netip.AddrPort) Mapping {
	var public []observation
	for _, o := range answers {
		if !private(o.server.Addr()) {
			public = append(public, o)
		}
	}
	near := len(public) == 0
	if !near {
		answers = public
	}
	// A server that sees a private address where others see a public one is behind
	// a router that hides where packets come from, and says nothing of us.
	hidden := slices.ContainsFunc(answers, func(o observation) bool { return Global(o.mapped.Addr()) })
	var translated []observation
	for _, o := range answers {
		if hidden && private(o.mapped.Addr()) {
			continue
		}
		if !slices.Contains(local, o.mapped) {
			translated = append(translated, o)
		}
	}
	switch {
	case len(translated) > 0:
		return translation(translated)
	case len(answers) == 0:
		return MappingUnknown
	case near && private(answers[0].mapped.Addr()):
		return MappingUnknown // neighbours on a private network: a NAT may be beyond
	}
	return MappingNone
}

// translation compares the answers by pairs, as RFC 5780, 4.3 does with the
// addresses and ports of one server. Where servers at different addresses
// disagree and no two are at one address, the dependence on the port cannot be
// seen and the stricter kind, which is also the common one, is assumed.
func translation(answers []observation) Mapping {
	var otherAddr, otherAddrDiffers, otherPort, otherPortDiffers bool
	for i, a := range answers {
		for _, b := range answers[:i] {
			differs := a.mapped != b.mapped
			if a.server.Addr() == b.server.Addr() {
				otherPort = true
				otherPortDiffers = otherPortDiffers || differs
			} else {
				otherAddr = true
				otherAddrDiffers = otherAddrDiffers || differs
			}
		}
	}
	switch {
	case otherPortDiffers:
		return MappingAddressAndPortDependent
	case otherAddrDiffers && otherPort:
		return MappingAddressDependent
	case otherAddrDiffers:
		return MappingAddressAndPortDependent
	case otherAddr:
		return MappingEndpointIndependent
	}
	return MappingUnknown // one address asked: that others see the same is not known
}
