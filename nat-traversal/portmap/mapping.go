package portmap

import (
	"fmt"
	"net/netip"
	"time"
)

// Protocol is a way to ask a router.
type Protocol uint8

// The protocols, the best first: PCP tells of a restart and knows IPv6, NAT-PMP
// is as quick, UPnP takes several round trips of HTTP.
const (
	PCP Protocol = iota
	NATPMP
	UPnP
	protocols = iota // their number
)

// String is the protocol's name in output.
func (p Protocol) String() string {
	switch p {
	case PCP:
		return "pcp"
	case NATPMP:
		return "nat-pmp"
	case UPnP:
		return "upnp-igd"
	default:
		return fmt.Sprintf("protocol(%d)", uint8(p))
	}
}

// Mapping is a way in that a router has opened: what comes for External is sent
// to Internal. For IPv6 both are the same: a pinhole in a firewall.
type Mapping struct {
	Protocol Protocol
	Gateway  netip.Addr
	Internal netip.AddrPort
	External netip.AddrPort
	Lifetime time.Duration // as granted; 0: it does not end

	epoch  epoch  // of the router, for PCP and NAT-PMP
	handle handle // what UPnP needs to find it again
}

// Pinhole reports that addresses are not translated.
func (m *Mapping) Pinhole() bool { return m.Internal.Addr() == m.External.Addr() }

// Public reports that the external address is one of the public internet. Where
// it is not, another NAT is behind the router, and others cannot reach it.
func (m *Mapping) Public() bool { return public(m.External.Addr()) }

// public reports addresses that are not private (RFC 1918, RFC 4193), shared by
// a carrier's customers (RFC 6598), link-local or something else than unicast.
func public(a netip.Addr) bool {
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10)
	if a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240) {
		return false
	}
	return a.IsValid() && a.IsGlobalUnicast() && !a.IsPrivate() && !a.Is4In6() && !shared.Contains(a)
}

// Route is the way out of this host: the router, and the address that we have
// towards it.
type Route struct {
	Gateway netip.Addr // with zone where it is link-local
	Source  netip.Addr
}

// epoch is a router's count of seconds, and when we heard it: it says whether
// the router has forgotten everything since (RFC 6887, 8.5; RFC 6886, 3.6).
type epoch struct {
	value uint32
	at    time.Time
}

// restarted reports that the count in next cannot come of the one in e by the
// time that has passed: by RFC 6887's rule, with a second of slack for the first.
func (e epoch) restarted(next epoch) bool {
	if e.at.IsZero() || next.at.IsZero() {
		return false
	}
	if int64(next.value) < int64(e.value)-1 {
		return true
	}
	client := int64(next.at.Sub(e.at).Seconds())
	server := int64(next.value) - int64(e.value)
	return client+2 < server-server/16 || server+2 < client-client/16
}
