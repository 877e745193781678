// Package gateway is what a member that routes, or that takes a route through the
// mesh, changes on its host, and how all of it is put back.
//
//	settings   force_forwarding of the mesh's interface and the uplink, else forwarding
//	           of all (and accept_ra 2, so that routes learned from routers stay)
//	5186       from an own address: table T      packets with a mesh source leave by the mesh
//	5187       iif UPLINK to P/64: table T       what is for the segment goes there, though the
//	                                             uplink may have the same /64
//	5188       to P/64: table T                  where it has: what is not known to be there
//	                                             is in the mesh
//	table T    P/64 into the mesh; default by the router of P; what of P is at the uplink
//	main       default by a router of the mesh, metric 4096: beside what the host has
//	nftables   table meshd_…: masquerades what comes from the IPv4 subnet
//
// There is one table for each prefix. What is set is compared with what is there each
// time (level-triggered). Settings of others are written down before they are changed,
// and so is a bridge before it gets the route in main or the IPv4 address, so that a
// later start, or `down`, puts them back after a crash.
package gateway

import (
	"net/netip"
	"slices"
)

// Want is what this host is to do.
type Want struct {
	Forward  bool     // between uplink and mesh
	Prefixes []Prefix // of the network, at most MaxPrefixes count
	// Default is the router for what this host sends elsewhere, beside other routes
	// that it has; invalid: none.
	Default netip.Addr
	// NAT4 is an IPv4 subnet of the segment in which this host has the first address and
	// whose packets it forwards and masquerades; invalid: none.
	NAT4 netip.Prefix
}

// MaxPrefixes is how many prefixes have tables.
const MaxPrefixes = 8

// Prefix is one of the network's.
type Prefix struct {
	Prefix netip.Prefix
	Own    netip.Addr // this host's address in it
	// Via is the router for packets with that source: its link-local address. Invalid:
	// they go as the host's main table says.
	Via netip.Addr
	// Outside are addresses in the prefix that are on the uplink's link, where that has
	// addresses in the prefix, too: they are reached there, and the rest in the mesh.
	Outside []netip.Addr
	// Shared says that the uplink has.
	Shared bool
}

// Problem is a setting of the host's that stands in the way.
type Problem struct{ Text, Remedy string }

// Uplink is the interface of the host's own default route.
type Uplink struct {
	Name  string
	Index int
	MAC   [6]byte // zero: it is no Ethernet
	Addrs []netip.Addr
	// Beside are the routers of the host's own default routes by the bridge that the TAP
	// is in, where there is no other. They are no uplink: to route there is to send packets
	// back to the segment.
	Beside []netip.Addr
}

// Equal says whether both are the same.
func (u Uplink) Equal(o Uplink) bool {
	return u.Name == o.Name && u.Index == o.Index && u.MAC == o.MAC &&
		slices.Equal(u.Addrs, o.Addrs) && slices.Equal(u.Beside, o.Beside)
}
