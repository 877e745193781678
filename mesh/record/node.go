package record

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"meshd/keys"
	"meshd/keys/canon"
	"meshd/peer/way"
)

// Bounds of a node record.
const (
	MaxEndpoints = 8
	MaxSoftware  = 32
	MaxContacts  = 3
)

// EndpointKind says how an endpoint was found.
type EndpointKind uint8

// The kinds of endpoints, in the words of `meshd status --json`.
const (
	KindHost       EndpointKind = 1
	KindReflexive  EndpointKind = 2
	KindMapped     EndpointKind = 3
	KindAdvertised EndpointKind = 4
	KindTLS        EndpointKind = 5 // streams over TLS are taken there; the others are of UDP
)

// String returns the word that status shows.
func (k EndpointKind) String() string {
	switch k {
	case KindHost:
		return "host"
	case KindReflexive:
		return "reflexive"
	case KindMapped:
		return "mapped"
	case KindAdvertised:
		return "advertised"
	case KindTLS:
		return "tls"
	}
	return "unknown"
}

// Endpoint is an address of the underlay at which a member says it may be reached.
type Endpoint struct {
	Addr netip.AddrPort
	Kind EndpointKind
}

// Capabilities are bits that say what a member's software can do. A reader ignores bits that it does not know.
type Capabilities uint32

// The capabilities of version 1.
const (
	// CapRelay says that the member carries others' packets.
	CapRelay Capabilities = 1 << iota
	// CapSTUN says that the member answers STUN requests on its port.
	CapSTUN
	// CapHosts says that there may be hosts behind the member that nobody has heard: it has plugs, or its TAP is in a bridge.
	CapHosts
	_
	// CapCopies says that the member takes copies of frames for all from whoever has them, and passes them on.
	CapCopies
)

// The capabilities of gateways.
const (
	// CapGateway says that the member routes between the segment and an uplink, when it has one, and sends beats.
	CapGateway Capabilities = 1 << (8 + iota)
	// CapUplink says that it has one.
	CapUplink
)

// Node is what a member says of itself.
type Node struct {
	Endpoints    []Endpoint
	Software     string
	Capabilities Capabilities
	Contacts     []keys.NodeID // members who reach it where others do not
}

// Endpoints and contacts are in ascending order on the wire, so that one statement has one encoding.
type wireNode struct {
	_            struct{} `cbor:",toarray"`
	Endpoints    []wireEndpoint
	Bindings     []struct{} // empty: where a member's stations once were to be
	Software     string
	Capabilities Capabilities
	Contacts     [][]byte // 16 each
}

type wireEndpoint struct {
	_    struct{} `cbor:",toarray"`
	Kind EndpointKind
	IP   []byte // 4 or 16
	Port uint16
}

func parseNode(b []byte) (*Node, error) {
	var w wireNode
	if err := canon.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if w.Endpoints == nil || w.Bindings == nil || w.Contacts == nil {
		return nil, fmt.Errorf("%w: null list", ErrMalformed)
	}
	if len(w.Bindings) > 0 {
		return nil, fmt.Errorf("%w: %d bindings in a node's record", ErrMalformed, len(w.Bindings))
	}
	n := &Node{Software: w.Software, Capabilities: w.Capabilities}
	for _, e := range w.Endpoints {
		ip, err := parseIP(e.IP)
		if err != nil {
			return nil, err
		}
		n.Endpoints = append(n.Endpoints, Endpoint{netip.AddrPortFrom(ip, e.Port), e.Kind})
	}
	for _, raw := range w.Contacts {
		if len(raw) != len(keys.NodeID{}) {
			return nil, fmt.Errorf("%w: contact of %d bytes", ErrMalformed, len(raw))
		}
		n.Contacts = append(n.Contacts, keys.NodeID(raw))
	}
	return n, n.check()
}

func parseIP(b []byte) (netip.Addr, error) {
	ip, ok := netip.AddrFromSlice(b)
	if !ok || ip.Is4In6() {
		return ip, fmt.Errorf("%w: IP address of %d bytes, or IPv4 as IPv6", ErrMalformed, len(b))
	}
	return ip, nil
}

func (n Node) wire() wireNode {
	w := wireNode{
		Endpoints: make([]wireEndpoint, 0, len(n.Endpoints)), Bindings: []struct{}{},
		Software: n.Software, Capabilities: n.Capabilities, Contacts: make([][]byte, 0, len(n.Contacts)),
	}
	for _, id := range n.Contacts {
		w.Contacts = append(w.Contacts, id[:])
	}
	for _, e := range n.Endpoints {
		w.Endpoints = append(w.Endpoints, wireEndpoint{Kind: e.Kind, IP: e.Addr.Addr().AsSlice(), Port: e.Addr.Port()})
	}
	return w
}

// check holds a node to what any member may say, and to the one order.
func (n Node) check() error {
	if len(n.Endpoints) > MaxEndpoints || len(n.Contacts) > MaxContacts {
		return fmt.Errorf("%w: %d endpoints, %d contacts", ErrInvalid, len(n.Endpoints), len(n.Contacts))
	}
	if err := checkText("software", n.Software, MaxSoftware); err != nil {
		return err
	}
	for _, e := range n.Endpoints {
		if err := e.Check(); err != nil {
			return err
		}
	}
	if !ascending(n.Endpoints, compareEndpoint) || !ascending(n.Contacts, keys.NodeID.Compare) {
		return fmt.Errorf("%w: out of order or twice", ErrMalformed)
	}
	return nil
}

// Check refuses endpoints that a member must not make others send to. That an endpoint is not inside a prefix of the mesh
// is checked where the prefixes are known.
func (e Endpoint) Check() error {
	ip := e.Addr.Addr()
	switch {
	case e.Kind < KindHost || e.Kind > KindTLS:
		return fmt.Errorf("%w: endpoint of unknown kind %d", ErrInvalid, e.Kind)
	case e.Addr.Port() == 0:
		return fmt.Errorf("%w: endpoint with port 0", ErrInvalid)
	case ip.Zone() != "" || ip.Is4In6() || !ip.IsGlobalUnicast() || way.IsVirtual(ip):
		// IsGlobalUnicast is false for the unspecified, loopback, multicast, link-local and limited broadcast addresses.
		return fmt.Errorf("%w: endpoint %v", ErrInvalid, e.Addr)
	case ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240):
		return fmt.Errorf("%w: endpoint %v is reserved", ErrInvalid, e.Addr)
	}
	return nil
}

// Equal says whether both say the same.
func (n Node) Equal(o Node) bool {
	return n.Software == o.Software && n.Capabilities == o.Capabilities && slices.Equal(n.Endpoints, o.Endpoints) &&
		slices.Equal(n.Contacts, o.Contacts)
}

// Normal returns n in the one order, without duplicates. It shares nothing with n.
func (n Node) Normal() Node {
	n.Endpoints = slices.Clone(n.Endpoints)
	for i, e := range n.Endpoints {
		n.Endpoints[i].Addr = netip.AddrPortFrom(e.Addr.Addr().Unmap(), e.Addr.Port())
	}
	slices.SortFunc(n.Endpoints, compareEndpoint)
	n.Endpoints = slices.CompactFunc(n.Endpoints, func(a, b Endpoint) bool { return a.Addr == b.Addr && (a.Kind == KindTLS) == (b.Kind == KindTLS) })
	n.Contacts = slices.Clone(n.Contacts)
	slices.SortFunc(n.Contacts, keys.NodeID.Compare)
	n.Contacts = slices.Compact(n.Contacts)
	return n
}

// Trim returns the part of n that a record can hold: without what Check refuses, and cut to the bounds.
func (n Node) Trim() Node {
	n = n.Normal()
	n.Endpoints = slices.DeleteFunc(n.Endpoints, func(e Endpoint) bool { return e.Check() != nil })
	n.Endpoints = n.Endpoints[:min(len(n.Endpoints), MaxEndpoints)]
	n.Contacts = n.Contacts[:min(len(n.Contacts), MaxContacts)]
	n.Software = printable(n.Software, MaxSoftware)
	return n
}

// The kinds that reach furthest sort first, so that Trim keeps them.
func compareEndpoint(a, b Endpoint) int {
	return cmp.Or(cmp.Compare(b.Kind, a.Kind), a.Addr.Compare(b.Addr))
}

// ascending says that s is in strictly ascending order: sorted, and nothing twice.
func ascending[T any](s []T, compare func(a, b T) int) bool {
	for i := 1; i < len(s); i++ {
		if compare(s[i-1], s[i]) >= 0 {
			return false
		}
	}
	return true
}
