package udptest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Behaviour is how much of the remote address a NAT looks at (RFC 4787,
// sections 4.1 and 5).
type Behaviour uint8

// The behaviours, of mapping as of filtering.
const (
	EndpointIndependent Behaviour = iota
	AddressDependent
	AddressAndPortDependent
)

// String is the term of RFC 4787.
func (b Behaviour) String() string {
	switch b {
	case EndpointIndependent:
		return "endpoint-independent"
	case AddressDependent:
		return "address-dependent"
	case AddressAndPortDependent:
		return "address-and-port-dependent"
	default:
		return fmt.Sprintf("behaviour(%d)", uint8(b))
	}
}

// part is what of a remote address the behaviour looks at.
func (b Behaviour) part(remote netip.AddrPort) netip.AddrPort {
	switch b {
	case EndpointIndependent:
		return netip.AddrPort{}
	case AddressDependent:
		return netip.AddrPortFrom(remote.Addr(), 0)
	default:
		return remote
	}
}

// NATConfig is what a NAT does.
type NATConfig struct {
	Mapping        Behaviour
	Filtering      Behaviour
	Timeout        time.Duration // of what is not used; 0: 2 min (RFC 4787, REQ-5)
	InboundRefresh bool          // inbound packets count as use, too (REQ-6)
	Hairpin        bool          // two hosts inside reach each other by outside addresses (REQ-9)
	PreservePorts  bool          // the outside port is the inside port while that is free
}

// NAT is a box with a realm of its own inside. It is a Place for hosts and
// further NATs.
type NAT struct {
	n    *Internet
	name string
	cfg  NATConfig
	out  *realm
	in   *realm

	// Under the Internet's lock.
	outside   []netip.Addr
	up, down  line
	rng       *rand.Rand
	byInside  map[mapKey]*mapping
	byOutside map[netip.AddrPort]*mapping
	avoid     map[uint16]bool // ports that were in use before Rebind
}

// mapKey is what two packets have in common that leave by the same mapping.
type mapKey struct{ inside, remote netip.AddrPort }

type mapping struct {
	key     mapKey
	outside netip.AddrPort
	used    time.Time
	remotes map[netip.AddrPort]time.Time // the part that filtering looks at, and when it was sent to
}

func newNAT(n *Internet, outer *realm, cfg NATConfig, outside []netip.Addr) *NAT {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Minute
	}
	a := &NAT{n: n, cfg: cfg, out: outer, outside: slices.Clone(outside), name: "nat"}
	if len(outside) > 0 {
		a.name = "nat " + outside[0].String()
	}
	a.in = newRealm("inside of "+a.name, a)
	n.mu.Lock()
	defer n.mu.Unlock()
	a.up = line{name: "the uplink of " + a.name, rng: n.rng()}
	a.down = line{name: "the downlink of " + a.name, rng: n.rng()}
	a.rng = n.rng()
	a.avoid = make(map[uint16]bool)
	a.forget()
	outer.join(a, outside)
	outer.nats = append(outer.nats, a)
	return a
}

func (a *NAT) inside() *realm { return a.in }

// Host attaches a host inside.
func (a *NAT) Host(addrs ...netip.Addr) *Host { return newHost(a.n, a.in, addrs) }

// NAT attaches a further NAT inside, whose outside addresses are of this one's
// inside.
func (a *NAT) NAT(cfg NATConfig, outside ...netip.Addr) *NAT {
	return newNAT(a.n, a.in, cfg, outside)
}

// SetLink changes the two directions of the line outside.
func (a *NAT) SetLink(up, down Link) {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	a.up.Link, a.down.Link = up, down
}

// SetAddr gives the box other outside addresses. All mappings are gone.
func (a *NAT) SetAddr(outside ...netip.Addr) {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	a.out.leave(a)
	a.outside = slices.Clone(outside)
	a.out.join(a, outside)
	a.forget()
}

// Rebind forgets all mappings, as after a restart of the box. New ones have
// other ports than before.
func (a *NAT) Rebind() {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	for o := range a.byOutside {
		a.avoid[o.Port()] = true
	}
	a.forget()
}

func (a *NAT) forget() {
	a.byInside = make(map[mapKey]*mapping)
	a.byOutside = make(map[netip.AddrPort]*mapping)
}

func (a *NAT) downLine() *line { return &a.down }

// outbound takes a packet from the inside to the outside, or back by hairpin.
// The lock is held.
func (a *NAT) outbound(d *passage) {
	now := time.Now()
	m := a.mappingFor(d.src, d.dst, now)
	if m == nil {
		a.n.flows.dropped(d, a.name+" has no outside address or port")
		return
	}
	m.used = now
	m.remotes[a.cfg.Filtering.part(d.dst)] = now
	d.src = m.outside
	switch {
	case !slices.Contains(a.outside, d.dst.Addr()):
		a.n.cross(&a.up, d, func(d *passage) { a.n.route(a.out, d) })
	case a.cfg.Hairpin:
		a.n.schedule(now, func() { a.arrive(d) })
	default:
		a.n.flows.dropped(d, a.name+" does not hairpin")
	}
}

// arrive takes a packet from the outside to the inside.
func (a *NAT) arrive(d *passage) {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	now := time.Now()
	m := a.byOutside[d.dst]
	if m == nil || a.stale(m.used, now) {
		a.n.flows.dropped(d, a.name+" has no mapping")
		return
	}
	sent, ok := m.remotes[a.cfg.Filtering.part(d.src)]
	if !ok || a.stale(sent, now) {
		a.n.flows.dropped(d, a.name+" filters this source")
		return
	}
	if a.cfg.InboundRefresh {
		m.used = now
		m.remotes[a.cfg.Filtering.part(d.src)] = now
	}
	d.dst = m.key.inside
	dst := a.in.find(d.dst.Addr())
	if dst == nil {
		a.n.flows.dropped(d, "nobody inside "+a.name+" has this address")
		return
	}
	a.n.cross(dst.downLine(), d, dst.arrive)
}

func (a *NAT) stale(used, now time.Time) bool { return now.Sub(used) >= a.cfg.Timeout }

// mappingFor finds or makes the mapping for a packet; nil when there is no
// address or port left for one.
func (a *NAT) mappingFor(inside, remote netip.AddrPort, now time.Time) *mapping {
	key := mapKey{inside, a.cfg.Mapping.part(remote)}
	if inside.Addr().Is6() {
		key.remote = netip.AddrPort{} // not translated, so that one entry is enough
	}
	if m := a.byInside[key]; m != nil && !a.stale(m.used, now) {
		return m
	}
	outside := inside
	if inside.Addr().Is4() {
		var ok bool
		if outside, ok = a.freePort(inside.Port(), now); !ok {
			return nil
		}
	}
	m := &mapping{key: key, outside: outside, remotes: make(map[netip.AddrPort]time.Time)}
	a.byInside[key] = m
	a.byOutside[outside] = m
	return m
}

// freePort picks the outside address and port of a new mapping.
func (a *NAT) freePort(want uint16, now time.Time) (netip.AddrPort, bool) {
	i := slices.IndexFunc(a.outside, netip.Addr.Is4)
	if i < 0 {
		return netip.AddrPort{}, false
	}
	const tries = 1000
	for t := range tries {
		port := want
		if t > 0 || !a.cfg.PreservePorts {
			port = uint16(1024 + a.rng.IntN(65536-1024))
		}
		o := netip.AddrPortFrom(a.outside[i], port)
		if m := a.byOutside[o]; (m == nil || a.stale(m.used, now)) && !a.avoid[port] {
			return o, true
		}
	}
	return netip.AddrPort{}, false
}
