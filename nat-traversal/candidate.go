package traversal

import (
	"fmt"
	"net/netip"
)

// Kind says how a candidate was learnt.
type Kind uint8

// The kinds of candidate, in the order in which they are worth trying.
const (
	Host       Kind = iota // an address of an interface of this host
	Reflexive              // as seen by others (STUN)
	Mapped                 // opened at a gateway by port mapping
	Advertised             // named by the operator
)

// String is the kind's name in JSON output.
func (k Kind) String() string {
	switch k {
	case Host:
		return "host"
	case Reflexive:
		return "reflexive"
	case Mapped:
		return "mapped"
	case Advertised:
		return "advertised"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// Candidate is an address at which this node might be reached.
type Candidate struct {
	Addr netip.AddrPort
	Kind Kind
}

// String is the candidate as one word, for logs.
func (c Candidate) String() string { return c.Kind.String() + ":" + c.Addr.String() }
