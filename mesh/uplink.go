package mesh

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"meshd/keys"
	"meshd/l2/radv"
	"meshd/mesh/election"
	"meshd/mesh/gateway"
	"meshd/mesh/record"
)

// The host's side of routing: its uplink, and its own packets.

// openUplink listens there for who looks for hosts of the segment.
func (n *Node) openUplink() {
	r := &n.state.routing
	n.closeUplink()
	if !r.up || r.uplink.MAC == ([6]byte{}) {
		return
	}
	link, err := gateway.OpenLink(r.uplink)
	if err != nil {
		r.noProxy = err
		n.log.Warn("no neighbour proxy", "err", err)
		return
	}
	r.noProxy = nil
	r.link, r.proxy, r.outside = link, radv.NewProxy(r.uplink.MAC, r.uplink.Addrs), map[netip.Addr]time.Time{}
	r.readers.Go(func() {
		frame := make([]byte, 2048)
		for {
			size, err := link.Receive(context.Background(), frame)
			if err != nil {
				return
			}
			n.see(sighting{slices.Clone(frame[:size]), true})
		}
	})
}

func (n *Node) closeUplink() {
	r := &n.state.routing
	if r.link != nil {
		_ = r.link.Close()
		r.readers.Wait()
	}
	r.link, r.proxy, r.outside = nil, nil, nil
}

const (
	// outsideFor is how long a neighbour of the uplink counts as there after it was
	// heard; maxOutside bounds how many do.
	outsideFor = 10 * time.Minute
	maxOutside = 256
)

// sharedPrefixes are those of the network in which the uplink has addresses as well.
func (n *Node) sharedPrefixes() []netip.Prefix {
	r := &n.state.routing
	return slices.DeleteFunc(n.prefixes(), func(p netip.Prefix) bool {
		return r.proxy == nil || !slices.ContainsFunc(r.uplink.Addrs, p.Contains)
	})
}

// heardOutside remembers a neighbour of the uplink whose address is in a prefix of the
// segment, unless it is on the segment.
func (n *Node) heardOutside(ip netip.Addr, now time.Time) {
	r := &n.state.routing
	if !slices.ContainsFunc(r.watched, func(p netip.Prefix) bool { return p.Contains(ip) }) || slices.Contains(r.uplink.Addrs, ip) || n.onSegment(ip) {
		return
	}
	if _, known := r.outside[ip]; known || len(r.outside) < maxOutside {
		r.outside[ip] = now
		r.proxy.Forget(ip)
	}
}

// outsideOf lists the neighbours of the uplink in a prefix.
func (n *Node) outsideOf(p netip.Prefix, now time.Time) (list []netip.Addr) {
	r := &n.state.routing
	for ip, heard := range r.outside {
		switch {
		case now.Sub(heard) >= outsideFor || n.onSegment(ip):
			delete(r.outside, ip)
		case p.Contains(ip):
			list = append(list, ip)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// advanceProxy answers on the uplink for hosts of the segment.
func (n *Node) advanceProxy(now time.Time) time.Time {
	r := &n.state.routing
	if r.proxy == nil {
		return time.Time{}
	}
	var active []netip.Prefix
	if n.standing() == election.Uplinked {
		for _, s := range r.slots {
			if s.advert.Active() {
				active = append(active, s.prefix)
			}
		}
	}
	r.proxy.Serve(n.prefixes(), active)
	frames, ask, next := r.proxy.Poll(now, n.onSegment)
	n.sendUplink(frames)
	for _, ip := range ask {
		if f, err := radv.WhoHas(n.state.segment.mac, ip); err == nil {
			n.state.segment.sw.Inject(f)
		}
	}
	for _, s := range r.slots {
		next = earlier(next, n.advanceInside(s, active, now))
	}
	return next
}

// advanceInside answers on the segment for neighbours of the uplink.
func (n *Node) advanceInside(s *slot, active []netip.Prefix, now time.Time) time.Time {
	r := &n.state.routing
	var serve []netip.Prefix
	if slices.Contains(active, s.prefix) && slices.Contains(r.watched, s.prefix) {
		serve = []netip.Prefix{s.prefix}
	}
	s.proxy.Serve(serve, serve)
	frames, ask, next := s.proxy.Poll(now, func(ip netip.Addr) bool { _, there := r.outside[ip]; return there })
	for _, f := range frames {
		n.state.segment.sw.Inject(f)
	}
	for _, ip := range ask {
		if slices.Contains(r.uplink.Addrs, ip) || n.onSegment(ip) {
			continue // who has it answers for itself
		}
		if f, err := radv.WhoHas(r.uplink.MAC, ip); err == nil {
			n.sendUplink([][]byte{f})
		}
	}
	return next
}

func (n *Node) sendUplink(frames [][]byte) {
	for _, f := range frames {
		if err := n.state.routing.link.Send(f); err != nil {
			n.log.Debug("answer on the uplink", "err", err)
			return
		}
	}
}

// listFor is how old the list of members' addresses may be.
const listFor = time.Second

// onSegment says whether an address is there: a member's, or one that was heard.
func (n *Node) onSegment(ip netip.Addr) bool {
	r := &n.state.routing
	if now := time.Now(); r.members == nil || now.Sub(r.listed) >= listFor {
		r.members, r.listed = map[netip.Addr]struct{}{}, now
		prefixes := n.prefixes()
		for _, d := range n.state.dir.Members() {
			for _, a := range ownAddresses(d.ID, prefixes) {
				r.members[a.Addr()] = struct{}{}
			}
		}
	}
	if _, member := r.members[ip]; member {
		return true
	}
	mac, held := n.state.segment.sw.Holder(ip)
	// What the router answers for is at the uplink.
	return held && !slices.ContainsFunc(n.state.routing.slots, func(s *slot) bool { return s.mac == mac })
}

// announce tells the uplink's neighbours that this node answers from now on.
func (n *Node) announce(p netip.Prefix) {
	if r := &n.state.routing; r.proxy != nil && n.standing() == election.Uplinked {
		n.sendUplink(r.proxy.Announce(p))
	}
}

// solicit asks for routers when this node is new on the segment.
func (n *Node) solicit(now time.Time) time.Time {
	r := &n.state.routing
	if r.host == nil || r.asked >= solicitTimes || len(r.heard.List(now)) > 0 {
		return time.Time{}
	}
	if now.Before(r.askNext) {
		return r.askNext
	}
	gateways := n.uplinked()
	if len(gateways) == 0 {
		return time.Time{}
	}
	r.asked++
	r.askNext = now.Add(solicitEvery)
	for _, id := range gateways {
		if f, err := radv.Solicitation(n.state.segment.mac, macOf(id)); err == nil {
			n.state.segment.sw.Inject(f)
		}
	}
	return r.askNext
}

// uplinked are the other members that say that they route to an uplink.
func (n *Node) uplinked() (list []keys.NodeID) {
	for _, d := range n.state.dir.Members() {
		if d.ID != n.self && d.Certificate.Roles.Has(keys.RoleRouter) && d.Node != nil && d.Node.Capabilities&record.CapUplink != 0 {
			list = append(list, d.ID)
		}
	}
	return list
}

// keepStandbys keeps a session with every gateway while one of them carries for this
// node: the one that takes over is then reached at once.
func (n *Node) keepStandbys(now time.Time) {
	r := &n.state.routing
	if now.Sub(r.counted) < tick {
		return
	}
	r.counted = now
	gateways, total := n.uplinked(), uint64(0)
	for _, id := range gateways {
		if m := n.state.members[id]; m != nil && slices.ContainsFunc(r.slots, func(s *slot) bool { return n.speaker(s) == id }) {
			tx, _ := m.remote.Carried()
			total += tx
		}
	}
	if grown := total > r.carried; grown {
		for _, id := range gateways {
			if m := n.state.members[id]; m != nil {
				m.remote.Want()
			}
		}
	}
	r.carried = total
}

// routersFor are the routers on the segment that this node's own packets may go to:
// not those that it is itself, nor a daemon of this host, such as radvd.
func (n *Node) routersFor(now time.Time) []radv.Heard {
	r := &n.state.routing
	return slices.DeleteFunc(r.heard.List(now), func(h radv.Heard) bool {
		return h.MAC == n.state.segment.mac || slices.ContainsFunc(r.slots, func(s *slot) bool { return s.addr == h.Addr && s.advert.Active() })
	})
}

// wanted is what this host is to do.
func (n *Node) wanted(now time.Time) gateway.Want {
	r := &n.state.routing
	heard := n.routersFor(now)
	w := gateway.Want{Forward: n.standing() == election.Uplinked}
	for _, s := range r.slots {
		p := gateway.Prefix{Prefix: s.prefix, Own: addrsOf(ownAddresses(n.self, []netip.Prefix{s.prefix}))[0]}
		if !w.Forward || !s.advert.Active() {
			p.Via = best(heard, s.addr)
		}
		if p.Shared = slices.Contains(r.watched, s.prefix); p.Shared {
			p.Outside = n.outsideOf(s.prefix, now)
		}
		w.Prefixes = append(w.Prefixes, p)
	}
	takes := n.cfg.DefaultRoute == DefaultAlways || n.cfg.DefaultRoute != DefaultNever && !r.up && !n.ownBeside()
	if takes && n.state.segment.complete() { // else what carries the mesh would go that way
		w.Default = best(heard, netip.Addr{})
	}
	if r.dhcp.server != nil {
		w.NAT4 = n.cfg.DHCP4
	}
	return w
}

// ownBeside says that the host has a default route of its own by the bridge that the TAP
// is in, to a router of the LAN there. (A kernel there takes what the mesh's routers
// advertise as well, as any host of the LAN.)
func (n *Node) ownBeside() bool {
	r := &n.state.routing
	return slices.ContainsFunc(r.uplink.Beside, func(a netip.Addr) bool {
		return !slices.ContainsFunc(r.slots, func(s *slot) bool { return s.addr == a })
	})
}

// best is the router with an address, if it was heard, else the first; invalid for none.
func best(heard []radv.Heard, addr netip.Addr) netip.Addr {
	if len(heard) == 0 {
		return netip.Addr{}
	}
	if slices.ContainsFunc(heard, func(h radv.Heard) bool { return h.Addr == addr }) {
		return addr
	}
	return heard[0].Addr
}

// applyRoutes sets routes and settings, if they may not be as they should.
func (n *Node) applyRoutes(now time.Time) {
	r := &n.state.routing
	n.deprecateOwn()
	if r.host == nil {
		return
	}
	w := n.wanted(now)
	if reflect.DeepEqual(w, r.applied) {
		return
	}
	if err := r.host.Sync(w); err != nil {
		if r.trouble == nil || r.trouble.Error() != err.Error() {
			n.log.Warn("set routes", "err", err)
		}
		r.trouble = err
		return
	}
	r.applied, r.trouble = w, nil
}

// deprecateOwn has this host use other addresses than those of removed prefixes.
func (n *Node) deprecateOwn() {
	r := &n.state.routing
	var on any = n.state.segment.device
	if b := n.state.segment.bridging.on; b != nil { // there they are
		on = b
	}
	host, ok := on.(interface{ Deprecate(old []netip.Addr) error })
	if !ok {
		return
	}
	old := addrsOf(ownAddresses(n.self, n.deprecated()))
	if slices.Equal(old, r.old) {
		return
	}
	if err := host.Deprecate(old); err != nil {
		n.log.Warn("deprecate addresses", "err", err)
		return
	}
	r.old = old
}
