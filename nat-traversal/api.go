package traversal

import (
	"context"
	"net/netip"
	"time"
)

// TxID is STUN's transaction id.
type TxID = [12]byte

func Gather(port uint16, exclude func(ifname string, a netip.Addr) bool) ([]Candidate, error) {
	return nil, nil
}
func Usable(a netip.Addr) bool                                { return true }
func UsableEndpoint(ap netip.AddrPort) bool                   { return true }
func Request(txid TxID) []byte                                { return nil }
func Answer(req []byte, from netip.AddrPort) ([]byte, bool)   { return nil, false }
func ParseAnswer(b []byte, txid TxID) (netip.AddrPort, error) { return netip.AddrPort{}, nil }

// Responder is Answer with a limit on the rate.
type Responder struct{}

func NewResponder() *Responder { return nil }
func (r *Responder) Answer(now time.Time, req []byte, from netip.AddrPort) ([]byte, bool) {
	return nil, false
}

// Mapping is the mapping behaviour of the NATs before us (RFC 5780).
type Mapping uint8

const (
	MappingUnknown Mapping = iota
	MappingNone
	MappingEndpointIndependent
	MappingAddressDependent
	MappingAddressAndPortDependent
)

func (m Mapping) String() string { return "" }

// Query is a STUN request to be sent.
type Query struct {
	To   netip.AddrPort
	Data []byte
}

// Result is what the answers say.
type Result struct {
	Reflexive []netip.AddrPort
	Mapping   Mapping
	UDP       bool // somebody answered
}

// Client asks STUN servers; pure.
type Client struct{}

func NewClient(newTxID func() TxID) *Client                                { return nil }
func (c *Client) SetServers(now time.Time, servers []netip.AddrPort)       {}
func (c *Client) SetLocal(local []netip.AddrPort)                          {}
func (c *Client) Refresh(now time.Time)                                    {}
func (c *Client) Poll(now time.Time) (queries []Query, next time.Time)     { return nil, time.Time{} }
func (c *Client) Handle(now time.Time, from netip.AddrPort, b []byte) bool { return false }
func (c *Client) Result(now time.Time) Result                              { return Result{} }

// Watch yields after the host's addresses, routes or links have changed.
func Watch(ctx context.Context) <-chan struct{} { return nil }
