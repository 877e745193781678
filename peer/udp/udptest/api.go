// Package udptest is an in-memory internet for tests: hosts, links, NATs and
// udp.Conns on them, usable inside a testing/synctest bubble.
package udptest

import (
	"net/netip"
	"time"

	"meshd/peer/udp"
)

// Internet is the public internet; hosts and NATs are attached to it.
type Internet struct{}

// Host is a computer with one interface.
type Host struct{}

// NAT is a box with an outside and an inside (RFC 4787).
type NAT struct{}

// Place is where a host can be: on the Internet or behind a NAT.
type Place interface {
	Host(addrs ...netip.Addr) *Host
	NAT(cfg NATConfig, outside ...netip.Addr) *NAT
}

// Link is one direction of a host's (or NAT's) line. The zero value is perfect.
type Link struct {
	Delay, Jitter   time.Duration // one way
	Loss, Duplicate float64       // probabilities
	MTU             int           // largest IP packet; 0: 1500
	Rate            int64         // bits per second; 0: no limit
	Queue           int           // bytes that wait for Rate; 0: 256 KiB
}

// Behaviour is a NAT's mapping or filtering behaviour (RFC 4787, 4.1 and 5).
type Behaviour uint8

// The behaviours.
const (
	EndpointIndependent Behaviour = iota
	AddressDependent
	AddressAndPortDependent
)

// NATConfig is what a NAT does.
type NATConfig struct {
	Mapping, Filtering Behaviour
	Timeout            time.Duration // of an idle mapping; 0: 2 min
	Hairpin            bool
	PreservePorts      bool
}

// Datagram is what a tap or a filter sees.
type Datagram struct {
	From, To *Host // To is nil in a tap
	Src, Dst netip.AddrPort
	Data     []byte
}

func NewInternet(seed uint64) *Internet                             { return nil }
func (n *Internet) Host(addrs ...netip.Addr) *Host                  { return nil }
func (n *Internet) NAT(cfg NATConfig, outside ...netip.Addr) *NAT   { return nil }
func (n *Internet) Tap(f func(Datagram))                            {}
func (n *Internet) Block(f func(Datagram) bool) (unblock func())    { return nil }
func (n *Internet) Partition(groups ...[]*Host) (heal func())       { return nil }
func (n *Internet) Inject(src, dst netip.AddrPort, data []byte)     {}
func (n *Internet) Log() string                                     { return "" }
func (a *NAT) Host(addrs ...netip.Addr) *Host                       { return nil }
func (a *NAT) NAT(cfg NATConfig, outside ...netip.Addr) *NAT        { return nil }
func (a *NAT) SetLink(up, down Link)                                {}
func (a *NAT) Rebind()                                              {}
func (a *NAT) SetAddr(outside ...netip.Addr)                        {}
func (h *Host) Listen(port uint16) (udp.Conn, error)                { return nil, nil }
func (h *Host) ListenAddr(addr netip.AddrPort) (udp.Conn, error)    { return nil, nil }
func (h *Host) ListenPort(port uint16) (v4, v6 udp.Conn, err error) { return nil, nil, nil }
func (h *Host) SetAddr(addrs ...netip.Addr)                         {}
func (h *Host) Move(to Place, addrs ...netip.Addr)                  {}
func (h *Host) SetLink(up, down Link)                               {}
func (h *Host) Addrs() []netip.Addr                                 { return nil }
