package punch

import (
	"net/netip"
	"time"

	"meshd/nat-traversal"
)

// The method of many ports. With p ports open of the 64,512 that a NAT gives out,
// a probe of a random one meets an open one with probability p/64512; of n probes
// of different ones, one does with 1-(1-p/64512)^n: 0.98 for the numbers here.
// docs/adr has the argument for them.
const (
	// Ports is how many ports the hidden side opens: one packet each, all to one
	// address.
	Ports = 256
	// Probes is how many of the hidden side's ports the other probes, at most.
	Probes = 1024

	sprayBatch = 8
	sprayEvery = 25 * time.Millisecond // so 320 a second, for 3.2 s
	openAfter  = 3400 * time.Millisecond
	openFor    = 3 * time.Second
	manyAfter  = 2500 * time.Millisecond // an ordinary round that has come to nothing
	manyAgain  = 10 * time.Minute        // between two tries with one remote
	manyLater  = 15 * time.Second        // when one of the two is at it with another

	firstPort = 1024
	// Where a NAT counts its ports up, the next ones follow those that others see.
	guesses, guessStride = 64, 4
)

type role uint8

const (
	idle role = iota
	opener
	sprayer
)

// many is one try. The zero value has made none.
type many struct {
	role    role
	tried   time.Time // zero: never
	startAt time.Time
	closeAt time.Time // of an opener
	to      netip.AddrPort
	ports   []uint16 // yet to be probed
}

func (t *many) running() bool { return t.role != idle }

// stop ends a try: there is a direct path, or nobody wants one.
func (t *many) stop() {
	if t.role == opener {
		t.closeAt, t.to = t.tried, netip.AddrPort{} // at once
	}
	t.ports = nil
	if t.role == sprayer {
		t.role = idle
	}
}

// dependent says that a NAT gives each destination another port.
func dependent(n traversal.Mapping) bool {
	return n == traversal.MappingAddressDependent || n == traversal.MappingAddressAndPortDependent
}

// fixed says that all see the same port.
func fixed(n traversal.Mapping) bool {
	return n == traversal.MappingEndpointIndependent || n == traversal.MappingNone
}

// manyAgreed says that the method may be tried now: the two NATs are of the kinds
// for which it is, and the last try is long ago.
func (m *Machine) manyAgreed(now time.Time) bool {
	return m.manyRole() != idle && (m.many.tried.IsZero() || now.Sub(m.many.tried) >= manyAgain)
}

func (m *Machine) manyRole() role {
	switch {
	case dependent(m.local.Mapping) && fixed(m.remoteNAT):
		return opener
	case fixed(m.local.Mapping) && dependent(m.remoteNAT):
		return sprayer
	}
	return idle
}

// start begins a try with what the remote has named. The opener goes last: a router
// that accepts what comes unasked would remember its packets, and give those that the
// other sends to the same ports another source.
func (t *many) start(as role, named []traversal.Candidate, at time.Time, random func() uint32) {
	seen := outside(named)
	if t.running() || len(seen) == 0 {
		return
	}
	*t = many{role: as, tried: at, startAt: at, to: seen[0]}
	switch as {
	case opener:
		t.startAt = at.Add(openAfter)
		t.closeAt = t.startAt.Add(openFor)
	case sprayer:
		t.ports = portsToProbe(seen, random)
	}
}

// outside are the addresses at which others see a node behind a NAT. Private ones
// are not of that kind, and nobody is to flood a neighbour.
func outside(named []traversal.Candidate) (list []netip.AddrPort) {
	for _, c := range named {
		a := c.Addr.Addr()
		if c.Kind == traversal.Reflexive && a.Is4() && !a.IsPrivate() && !a.IsLinkLocalUnicast() &&
			(len(list) == 0 || list[0].Addr() == a) {
			list = append(list, c.Addr)
		}
	}
	return list
}

// portsToProbe are guesses and then random ports, none twice.
func portsToProbe(seen []netip.AddrPort, random func() uint32) []uint16 {
	taken := make(map[uint16]bool, Probes)
	ports := make([]uint16, 0, Probes)
	add := func(p uint32) {
		if p >= firstPort && p <= 65535 && !taken[uint16(p)] {
			taken[uint16(p)] = true
			ports = append(ports, uint16(p))
		}
	}
	var last uint32
	for _, a := range seen {
		taken[a.Port()] = true // the ordinary probes go there
		last = max(last, uint32(a.Port()))
	}
	for i := range uint32(guesses) {
		add(last + 1 + i*guessStride)
	}
	for len(ports) < Probes {
		add(firstPort + random()%(65536-firstPort))
	}
	return ports
}

// tick adds what is due of a try.
func (t *many) tick(out *Output, now time.Time) (wake time.Time) {
	if !t.running() {
		return time.Time{}
	}
	if t.role == opener && !t.closeAt.After(now) {
		t.role, out.Close = idle, true
		return time.Time{}
	}
	if t.startAt.After(now) {
		return t.startAt
	}
	if t.role == opener {
		if t.to.IsValid() {
			out.Open, t.to = t.to, netip.AddrPort{}
		}
		return t.closeAt
	}
	n := min(sprayBatch, len(t.ports))
	for _, p := range t.ports[:n] {
		out.Spray = append(out.Spray, netip.AddrPortFrom(t.to.Addr(), p))
	}
	if t.ports = t.ports[n:]; len(t.ports) == 0 {
		t.role = idle
		return time.Time{}
	}
	t.startAt = now.Add(sprayEvery)
	return t.startAt
}
