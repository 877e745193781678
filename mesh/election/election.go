// Package election says which of several routers speaks for a prefix. Every router
// decides for itself from what it knows of the others; the same knowledge gives the
// same answer.
//
// Those with a way to the internet come first. Among equals the one that speaks
// already goes on, so that nothing changes without need, and else the lowest id is
// chosen. Gateways tell each other every [BeatEvery] how they are (a beat); one that
// is not heard for [Patience] is taken for dead, long before its session is.
//
// The machine has no clock and no I/O.
package election

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"meshd/keys"
)

const (
	// BeatEvery is how often gateways tell each other how they are.
	BeatEvery = 400 * time.Millisecond
	// Patience is how long a gateway may be silent: three beats and what a detour takes.
	Patience = 1500 * time.Millisecond
	// maxPrefixes bounds what a beat names.
	maxPrefixes = 8
	// MaxSought bounds how many addresses it names.
	MaxSought = 32
)

// Standing is how fit a router is.
type Standing uint8

// From the least: one that is not there, one without a way to the internet, one with it.
const (
	Absent Standing = iota
	Local
	Uplinked
)

// Beat is what a gateway says of itself.
type Beat struct {
	Uplink  bool           // it has a way to the internet
	Leaving bool           // it is about to end
	Active  []netip.Prefix // those that it speaks for
	// Sought are some of the addresses that neighbours of its uplink have asked for, for
	// who takes over; most beats name none.
	Sought []netip.Addr
}

// ErrBeat is returned by ParseBeat for what is none.
var ErrBeat = errors.New("no beat")

const (
	flagUplink = 1 << iota
	flagLeaving
)

// Append encodes a beat:
//
//	 0       1       2
//	+-------+-------+-----------------------+-------+--------------------+
//	| flags | count | upper half of a /64 … | count | sought address …   |     flags: 1 uplink, 2 leaving
//	+-------+-------+-----------------------+-------+--------------------+
//
// The second count and what follows may be left out. A reader takes a longer message for one of a later version, and ignores the rest.
func (b Beat) Append(dst []byte) []byte {
	flags := byte(0)
	if b.Uplink {
		flags |= flagUplink
	}
	if b.Leaving {
		flags |= flagLeaving
	}
	active := b.Active[:min(len(b.Active), maxPrefixes)]
	dst = append(dst, flags, byte(len(active)))
	for _, p := range active {
		a := p.Addr().As16()
		dst = append(dst, a[:8]...)
	}
	sought := b.Sought[:min(len(b.Sought), MaxSought)]
	if len(sought) == 0 {
		return dst
	}
	dst = append(dst, byte(len(sought)))
	for _, ip := range sought {
		a := ip.As16()
		dst = append(dst, a[:]...)
	}
	return dst
}

// ParseBeat decodes one.
func ParseBeat(msg []byte) (Beat, error) {
	if len(msg) < 2 || msg[1] > maxPrefixes || len(msg) < 2+8*int(msg[1]) {
		return Beat{}, fmt.Errorf("%w: %d bytes", ErrBeat, len(msg))
	}
	b := Beat{Uplink: msg[0]&flagUplink != 0, Leaving: msg[0]&flagLeaving != 0}
	for i := range int(msg[1]) {
		var a [16]byte
		binary.BigEndian.PutUint64(a[:], binary.BigEndian.Uint64(msg[2+8*i:]))
		b.Active = append(b.Active, netip.PrefixFrom(netip.AddrFrom16(a), 64))
	}
	rest := msg[2+8*int(msg[1]):]
	if len(rest) == 0 {
		return b, nil
	}
	n := int(rest[0])
	if n > MaxSought || len(rest) < 1+16*n {
		return Beat{}, fmt.Errorf("%w: %d addresses in %d bytes", ErrBeat, n, len(rest))
	}
	for i := range n {
		b.Sought = append(b.Sought, netip.AddrFrom16([16]byte(rest[1+16*i:])))
	}
	return b, nil
}

// Router is one of those among whom is chosen, as records and sessions show it.
type Router struct {
	ID      keys.NodeID
	Gateway bool // it has said that it is one: then its beats count
	Alive   bool // it is reached, or may be
}

// Machine is one router's view.
type Machine struct {
	self  keys.NodeID
	since time.Time // when we began to listen
	beats map[keys.NodeID]heard
}

type heard struct {
	Beat
	at time.Time
}

// New begins at now. For a time it only listens.
func New(self keys.NodeID, now time.Time) *Machine {
	return &Machine{self: self, since: now, beats: map[keys.NodeID]heard{}}
}

// Receive takes a beat from another router.
func (m *Machine) Receive(from keys.NodeID, b Beat, now time.Time) { m.beats[from] = heard{b, now} }

// Keep forgets the beats of all but these.
func (m *Machine) Keep(routers []Router) {
	for id := range m.beats {
		if !slices.ContainsFunc(routers, func(r Router) bool { return r.ID == id }) {
			delete(m.beats, id)
		}
	}
}

// fresh returns the beat of a router that is there.
func (m *Machine) fresh(id keys.NodeID, now time.Time) (Beat, bool) {
	h, ok := m.beats[id]
	if !ok || h.Leaving || now.Sub(h.at) >= Patience {
		return Beat{}, false
	}
	return h.Beat, true
}

// Standing is how fit another router is.
func (m *Machine) Standing(r Router, now time.Time) Standing {
	b, ok := m.fresh(r.ID, now)
	switch {
	case ok && b.Uplink:
		return Uplinked
	case ok:
		return Local
	case r.Gateway || m.beats[r.ID].Leaving: // it would be heard
		return Absent
	case r.Alive:
		return Local
	}
	return Absent
}

// Choose says who is to speak for a prefix: of the others, and of us with our own
// standing. speaks is who did last as far as we see, zero for nobody. It is the zero
// id when nobody can, or while we only listen.
func (m *Machine) Choose(p netip.Prefix, own Standing, others []Router, speaks keys.NodeID, now time.Time) keys.NodeID {
	if now.Sub(m.since) < Patience {
		return keys.NodeID{}
	}
	best, chosen, incumbent := Absent, keys.NodeID{}, false
	consider := func(id keys.NodeID, s Standing, holds bool) {
		if s == Absent || s < best {
			return
		}
		better := s > best || chosen == (keys.NodeID{}) ||
			holds && !incumbent || holds == incumbent && id.Compare(chosen) < 0
		if better {
			best, chosen, incumbent = s, id, holds
		}
	}
	for _, r := range others {
		b, beats := m.fresh(r.ID, now)
		holds := beats && slices.Contains(b.Active, p) || !beats && r.ID == speaks
		consider(r.ID, m.Standing(r, now), holds)
	}
	consider(m.self, own, speaks == m.self)
	return chosen
}

// Wake is when the answer may change without a message: when the next router is
// given up, or our time of listening ends. Zero: not by itself.
func (m *Machine) Wake(now time.Time) (next time.Time) {
	consider := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	consider(m.since.Add(Patience))
	for _, h := range m.beats {
		consider(h.at.Add(Patience))
	}
	return next
}
