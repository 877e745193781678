package l2

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Virtual routers: MAC and link-local addresses that are bound to the role router
// and not to a member. Whoever has the role and speaks last from one has it, so that
// hosts need to learn nothing when another member takes over.

// routers are the virtual routers of the segment. All their MACs begin alike.
type routers struct {
	begin [3]byte
	list  []*virtualRouter
	watch []netip.Prefix // solicitations for addresses in them are observed
}

type virtualRouter struct {
	mac  MAC
	addr netip.Addr             // its link-local address
	at   atomic.Pointer[origin] // who spoke from it last; nil: nobody yet
}

// virtual returns the router that has mac, or nil.
func (v *view) virtual(mac MAC) *virtualRouter {
	if v.routers == nil || [3]byte(mac[:3]) != v.routers.begin {
		return nil
	}
	return v.routers.of(mac)
}

func (t *routers) of(mac MAC) *virtualRouter {
	for _, r := range t.list {
		if r.mac == mac {
			return r
		}
	}
	return nil
}

// SetRouters replaces the virtual routers. Their MACs must begin with the same three
// bytes, which no member's do by chance more often than once in 16 million.
//
// Solicitations for addresses in watch are observed: this node may know who has them.
func (s *Switch) SetRouters(macs []MAC, watch []netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := *s.view.Load()
	old := v.routers
	v.routers = nil
	if len(macs) > 0 {
		v.routers = &routers{begin: [3]byte(macs[0][:3]), watch: watch}
	}
	for _, mac := range macs {
		var r *virtualRouter
		if old != nil {
			r = old.of(mac)
		}
		if r == nil {
			r = &virtualRouter{mac: mac, addr: linkLocal(mac)}
			s.forgetMAC(mac)
		}
		v.routers.list = append(v.routers.list, r)
	}
	s.view.Store(&v)
}

// RouterAt says behind which remote a virtual router is: "" for here, and false when
// nobody has spoken from it.
func (s *Switch) RouterAt(mac MAC) (name string, known bool) {
	r := s.view.Load().virtual(mac)
	if r == nil {
		return "", false
	}
	o := r.at.Load()
	if o == nil {
		return "", false
	}
	if o.remote != nil {
		name = o.remote.name
	}
	return name, true
}

// leave forgets that virtual routers are at o, which is gone.
func (t *routers) leave(o *origin) {
	if t == nil {
		return
	}
	for _, r := range t.list {
		r.at.CompareAndSwap(o, nil)
	}
}

// admitRouter is admit for the MAC of a virtual router.
func (s *Switch) admitRouter(v *view, r *virtualRouter, o *origin) reason {
	duties := v.own.duties
	if o.plug != nil {
		return sourceMAC
	}
	if o.remote != nil {
		at := o.remote.at.Load()
		if at == nil {
			return disconnected
		}
		duties = at.duties
	}
	if duties&dutyRouter == 0 {
		return sourceMAC
	}
	r.at.Store(o)
	return passed
}

// routerOf returns the virtual router that has a link-local address, or nil.
func (v *view) routerOf(addr netip.Addr) *virtualRouter {
	if v.routers == nil {
		return nil
	}
	for _, r := range v.routers.list {
		if r.addr == addr {
			return r
		}
	}
	return nil
}

// whoHas says who is to answer a question for a virtual router: here its control plane
// does.
func (r *virtualRouter) whoHas(h Header) (where seek, mac MAC, router bool) {
	switch at := r.at.Load(); {
	case at == nil || h.VLAN != 0:
		return nobody, r.mac, true
	case at.remote == nil:
		return ours, r.mac, true
	}
	return theirs, r.mac, true
}

// reflect hands a frame that the host has sent to a virtual router, which is this
// host, back to it as one to its own address. (The host's kernel bridges others, to
// whom the router is on our side of its bridge. The frame's source is the router's, so
// that the bridge does not take its sender to be here.)
func (p *pump) reflect(v *view, f Frame, h Header, r *virtualRouter) reason {
	dev := p.sw.cfg.Device
	switch {
	case dev == nil:
		return device
	case h.Src == v.own.mac, forRouterItself(h, f.Data): // it must not go round
		return elsewhere
	}
	copy(f.Data, v.own.mac[:])
	copy(f.Data[6:], r.mac[:])
	p.here = append(p.here, dev)
	return p.emit(f)
}

// forRouterItself says that a frame to a virtual router is not to be routed: what is
// for a link-local address is answered by the control plane, and a kernel that forwards
// would send it to where it came from.
func forRouterItself(h Header, frame []byte) bool {
	p := frame[h.Payload:]
	return h.EtherType == etherTypeIPv6 && (len(p) < 40 || p[24] == 0xfe && p[25]&0xc0 == 0x80 || p[24] == 0xff)
}

// toRouter makes a frame to a virtual router that is here one to this host's own
// address, if the host is to have it.
func (v *view) toRouter(h Header, frame []byte) reason {
	if h.Dst == v.own.mac || v.virtual(h.Dst) == nil {
		return passed
	}
	if forRouterItself(h, frame) {
		return elsewhere
	}
	copy(frame, v.own.mac[:])
	return passed
}

// What the control plane is shown of one origin in a second, and at once: what is shown
// costs it more than a frame costs the switch, and hosts ask again.
const observeRate, observeBurst = 50, 64

// observe passes on what the control plane is to know of an admitted frame: router
// solicitations, router advertisements, and solicitations for virtual routers and in
// watched prefixes.
func (s *Switch) observe(v *view, kind byte, frame, body []byte, o *origin, now time.Duration) {
	if s.cfg.Observe == nil {
		return
	}
	if kind == ndNeighborSolicitation {
		const target = 40 + 8 // IPv6 header; type, code, checksum, reserved
		if v.routers == nil || len(body) < target+16 || !v.routers.has(netip.AddrFrom16([16]byte(body[target:target+16]))) {
			return
		}
	}
	if s.takeObserved(o, now) {
		s.cfg.Observe(frame)
	}
}

// takeObserved asks whether the control plane may be shown another frame of an origin. A
// remote's has its mu.
func (s *Switch) takeObserved(o *origin, now time.Duration) bool {
	if o.remote != nil {
		return o.remote.observed.take(now)
	}
	s.bumMu.Lock()
	defer s.bumMu.Unlock()
	return s.observed.take(now)
}

func observeBucket() bucket { return bucket{rate: observeRate, burst: observeBurst} }

func (t *routers) has(addr netip.Addr) bool {
	for _, p := range t.watch {
		if p.Contains(addr) {
			return true
		}
	}
	for _, r := range t.list {
		if r.addr == addr {
			return true
		}
	}
	return false
}

// Inject sends a frame of this node's own to the segment, the host and the plugs
// among it, as if the host had sent it: what others would refuse is dropped and
// counted. (A frame to the host's own address does not reach it.)
func (s *Switch) Inject(frame []byte) {
	s.plugMu.Lock()
	defer s.plugMu.Unlock()
	if s.inner == nil {
		s.inner = &pump{sw: s, from: &s.local, index: s.queues, inner: true}
	}
	s.inner.batch([]Frame{{Data: frame}})
}

// Strangers reports whether stations were heard that are no members.
func (s *Switch) Strangers() bool {
	s.hosts.mu.RLock()
	defer s.hosts.mu.RUnlock()
	return len(s.hosts.hosts) > 0
}

// Holder says which station has an IP address, as far as it was heard lately.
func (s *Switch) Holder(ip netip.Addr) (MAC, bool) {
	now, n := s.now(), s.heard
	n.mu.Lock()
	defer n.mu.Unlock()
	k, ok := n.claims[claim{0, ip}]
	if !ok {
		return MAC{}, false
	}
	h := n.hosts[k]
	if age := now - h.seen[h.slot(ip)]; age > holderAge {
		return MAC{}, false
	}
	return k.mac(), true
}

// holderAge is how long an address counts as held after it was heard. Hosts that are
// in use are heard about once a minute, when their neighbours ask for them.
const holderAge = 10 * time.Minute
