package l2

import (
	"net/netip"
	"time"
)

// warnEvery bounds how often frames that speak for others are told of in the log;
// all are counted.
const warnEvery = 10 * time.Second

// guard judges what a frame from o says to hosts, and remembers which address its
// source has. It is the receiver that enforces it, on the origin that the session
// proves; frames of this host that others would refuse are not sent.
func (s *Switch) guard(v *view, r *rights, h Header, frame []byte, o *origin, now time.Duration) reason {
	f := inspect(h, frame)
	switch {
	case f.why != passed:
		return f.why
	case f.needs&dutySpeakToRouters&^r.duties != 0:
		return groupControl // older versions send it
	case f.needs&^r.duties != 0:
		s.warn("a host that may not do so advertises itself as router or DHCP server", h, o, netip.Addr{}, now)
		if f.needs&dutyDHCP != 0 {
			return dhcpDenied
		}
		return routerDenied
	case f.router:
		s.heard.routes(stationOf(h.VLAN, h.Src), o, now)
	}
	if f.claim.IsValid() {
		if why := s.guardClaim(v, h, frame, f.claim, o, now); why != passed {
			return why
		}
	}
	if f.nd != 0 {
		s.observe(v, f.nd, frame, frame[h.Payload:], o, now)
	}
	return passed
}

// guardClaim judges what a frame says of who has an address.
func (s *Switch) guardClaim(v *view, h Header, frame []byte, ip netip.Addr, o *origin, now time.Duration) reason {
	if r := v.routerOf(ip); r != nil {
		if r.mac == h.Src { // whoever has the role: it is nobody's station
			return passed
		}
		s.warn("a host claims the address of the segment's router", h, o, ip, now)
		return addressTaken
	}
	if holder := v.addrs.of(ip); holder != nil {
		if holder != o {
			s.warn("a host claims a member's address", h, o, ip, now)
			return addressTaken
		}
	}
	if k := stationOf(h.VLAN, h.Src); !s.heard.claim(k, o, ip, now, liveness{s, v, now}) {
		s.sueAddress(v, k, ip, frame, o, now)
		s.warn("a host claims the address of another that is there", h, o, ip, now)
		return addressTaken
	}
	return passed
}

// liveness says whether a station was heard so lately that it keeps what it has:
// the same time that keeps it from moving.
type liveness struct {
	sw   *Switch
	view *view
	now  time.Duration
}

func (l liveness) alive(k station, at *origin) bool {
	mac := k.mac()
	if mac == l.view.own.mac {
		return at == &l.sw.local
	}
	if o := l.view.owner.of(mac); o != nil {
		return at == o && (o.remote == nil || l.now-time.Duration(o.remote.seen.Load()) < l.sw.cfg.Age)
	}
	return l.sw.hosts.lookup(k, l.now) == at
}

func (s *Switch) warn(what string, h Header, o *origin, ip netip.Addr, now time.Duration) {
	last := s.warned.Load()
	if last != 0 && now-time.Duration(last) < warnEvery || !s.warned.CompareAndSwap(last, int64(max(now, 1))) {
		return
	}
	behind := "this node"
	if o.remote != nil {
		behind = o.remote.name
	}
	args := []any{"mac", h.Src, "behind", behind}
	if ip.IsValid() {
		args = append(args, "address", ip)
	}
	s.cfg.Logger.Warn(what, args...)
}

// linkLocal is the address that a host makes of its MAC (RFC 4291, appendix A).
func linkLocal(mac MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}
