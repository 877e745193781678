package mesh

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"meshd/l2/radv"
	"meshd/mesh/election"
	"meshd/mesh/gateway"
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
		r.trouble = err
		n.log.Warn("no neighbour proxy", "err", err)
		return
	}
	r.link, r.proxy = link, radv.NewProxy(r.uplink.MAC, r.uplink.Addrs)
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
	r.link, r.proxy = nil, nil
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

// onSegment says whether an address is there: a member's, or one that was heard.
func (n *Node) onSegment(ip netip.Addr) bool {
	prefixes := n.prefixes()
	for _, d := range n.state.dir.Members() {
		if slices.Contains(addrsOf(ownAddresses(d.ID, prefixes)), ip) {
			return true
		}
	}
	_, held := n.state.segment.sw.Holder(ip)
	return held
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
	r.asked++
	r.askNext = now.Add(solicitEvery)
	if f, err := radv.Solicitation(n.state.segment.mac); err == nil {
		n.state.segment.sw.Inject(f)
	}
	return r.askNext
}

// routersFor are the routers on the segment that this node's own packets may go to:
// not those that it is itself.
func (n *Node) routersFor(now time.Time) []radv.Heard {
	r := &n.state.routing
	return slices.DeleteFunc(r.heard.List(now), func(h radv.Heard) bool {
		return slices.ContainsFunc(r.slots, func(s *slot) bool { return s.addr == h.Addr && s.advert.Active() })
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
		w.Prefixes = append(w.Prefixes, p)
	}
	takes := n.cfg.DefaultRoute == DefaultAlways || n.cfg.DefaultRoute != DefaultNever && !r.up
	if takes {
		w.Default = best(heard, netip.Addr{})
	}
	return w
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
	host, ok := n.state.segment.device.(interface{ Deprecate(old []netip.Addr) error })
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
