package l2

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Questions of this side's hosts that the switch answers itself, since it knows who is
// where (RFC 9161): nothing of them leaves this node.

// enquiry is an ARP request or a neighbour solicitation.
type enquiry struct {
	target  netip.Addr
	from    netip.Addr // who asks; unspecified: to see whether the address is free (RFC 5227, RFC 4862)
	replyTo MAC
}

const (
	arpRequest = 1
	// soughtFor is within which time a question that nobody could answer is asked again
	// by who got no answer.
	soughtFor  = 5 * time.Second
	soughtSoon = 200 * time.Millisecond // before, it is the same question by another
	maxSought  = 256
)

// enquires reads what a multicast frame asks; false: it asks for nobody. The guards
// have passed the frame.
func enquires(h Header, frame []byte) (q enquiry, ok bool) {
	p := frame[h.Payload:]
	switch h.EtherType {
	case etherTypeARP:
		if len(p) < 28 || binary.BigEndian.Uint16(p[6:]) != arpRequest {
			return q, false
		}
		q = enquiry{netip.AddrFrom4([4]byte(p[24:28])), netip.AddrFrom4([4]byte(p[14:18])), MAC(p[8:14])}
	case etherTypeIPv6:
		if len(p) < 64 || p[0]>>4 != 6 || p[6] != protoICMPv6 || p[40] != ndNeighborSolicitation || p[7] != 255 {
			return q, false
		}
		q = enquiry{netip.AddrFrom16([16]byte(p[48:64])), netip.AddrFrom16([16]byte(p[8:24])), h.Src}
	default:
		return q, false
	}
	// Who asks for its own address tells everybody that it has it.
	return q, usable(q.target).IsValid() && q.target != q.from
}

// verdicts on an enquiry.
type seek uint8

const (
	nobody seek = iota // it is not known who has the address
	ours               // a host on our side has it, which hears the question itself
	theirs             // a remote's host has it: answered
)

// whoHas says who has the address of an enquiry by o, and with which MAC.
func (s *Switch) whoHas(v *view, h Header, q enquiry, now time.Duration) (where seek, mac MAC, router bool) {
	if r := v.routerOf(q.target); r != nil {
		return r.whoHas(h)
	}
	at := (*origin)(nil)
	if h.VLAN == 0 {
		at = v.addrs.of(q.target)
	}
	if at != nil {
		mac = v.own.mac
		if at.remote != nil {
			a := at.remote.at.Load()
			if a == nil || !slices.Contains(a.addrs, q.target) { // another stands in for who has it
				return nobody, mac, false
			}
			mac = a.mac
		}
		_, router = s.heard.of(stationOf(0, mac), at, now)
	} else {
		has := s.heard.holder(h.VLAN, q.target, now)
		if at = has.at; at == nil || has.seen != announced && !(liveness{s, v, now}).alive(has.station, at) {
			return nobody, mac, false
		}
		mac, router = has.station.mac(), has.router
	}
	switch {
	case mac == h.Src, at.remote != nil && at.remote.away.Load():
		// It asks whether somebody else has its address, or the answer is of no use.
		return nobody, mac, false
	case at.remote == nil:
		return ours, mac, false
	}
	return theirs, mac, router
}

// aimBUM adds those that a BUM frame is for to where the frame in hand goes. It reports
// true for a frame that needs to go nowhere, since it has been answered.
func (p *pump) aimBUM(v *view, h Header, frame []byte, g group, now time.Duration) (done bool) {
	s := p.sw
	if !h.Dst.Multicast() {
		p.aimHere(v, nil)
		p.aimSilent(v, h.VLAN)
		return false
	}
	q, asks := enquires(h, frame)
	if !asks || p.inner { // what the control plane asks, it asks the hosts
		p.aimHere(v, nil)
		p.aimAll(v, h.VLAN, g)
		return false
	}
	where, mac, router := s.whoHas(v, h, q, now)
	switch {
	case where == theirs:
		s.answer(p.from, answerTo(h, frame, q, mac, router))
		return true
	case where == ours:
		p.aimHere(v, nil)
	case s.sought.again(claim{h.VLAN, q.target}, now):
		// A member may have an address that it does not know of, as that of an
		// interface of its own in a VLAN.
		p.aimHere(v, nil)
		p.aimAll(v, h.VLAN, g)
	default:
		p.aimHere(v, nil)
		p.aimSilent(v, h.VLAN)
	}
	return false
}

// aimAll adds all remotes that want the frame; those that it must not reach are passed
// over.
func (p *pump) aimAll(v *view, vlan uint16, g group) {
	for _, r := range v.ports {
		if g.reaches(r) {
			p.aim(r, vlan)
		}
	}
}

// aimSilent adds the remotes behind which hosts may be that nobody has heard.
func (p *pump) aimSilent(v *view, vlan uint16) {
	for _, r := range v.ports {
		if at := r.at.Load(); at != nil && at.silent {
			p.aim(r, vlan)
		}
	}
}

// answer hands a frame to a local origin.
func (s *Switch) answer(to *origin, frame []byte) {
	dev := s.cfg.Device
	if to.plug != nil {
		dev = to.plug.dev
	}
	if dev == nil {
		return
	}
	s.given.Add(1)
	if err := dev.Write([]Frame{{Data: frame}}); err != nil {
		s.fromDevice.drop(device)
	}
}

// sought remembers for whom nobody could answer lately.
type sought struct {
	mu   sync.Mutex
	list map[claim]time.Duration
}

// again reports whether an address was asked for a moment ago, in vain.
func (l *sought) again(what claim, now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, known := l.list[what]
	if known && now-at < soughtSoon {
		return false
	}
	if len(l.list) >= maxSought {
		for k, at := range l.list {
			if now-at >= soughtFor {
				delete(l.list, k)
			}
		}
	}
	if l.list == nil {
		l.list = make(map[claim]time.Duration)
	}
	if len(l.list) < maxSought || known {
		l.list[what] = now
	}
	return known && now-at < soughtFor
}

// hearAnswer learns from the answer to a question of ours, which goes no further.
func (s *Switch) hearAnswer(v *view, h Header, frame []byte, o *origin, now time.Duration) {
	s.guard(v, &v.own, h, frame, o, now)
	s.poke()
}
