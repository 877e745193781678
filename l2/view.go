package l2

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// view is what the data path reads without a lock. It is immutable: changes
// publish another one.
type view struct {
	own   rights
	ports []*RemotePort // in the order of Connect
	plugs []*plugPort   // likewise of Plug
	shut  bool          // nothing passes between us and the remotes
	owner *macTable     // of the members' own addresses
	addrs *addrTable    // of the members' own IP addresses

	routers *routers // nil: there are no virtual ones
}

// macTable and addrTable are maps in parts, so that one more member costs a copy
// of one part and not of all: a node that comes to know thousands does not copy
// the table thousands of times.
type (
	macTable  [256]map[MAC]*origin
	addrTable [256]map[netip.Addr]*origin
)

// of returns behind which origin the member is whose address mac is, or nil.
func (t *macTable) of(mac MAC) *origin { return t[mac[5]][mac] }

// all are the addresses, and behind which origin they are.
func (t *macTable) all() iter.Seq2[MAC, *origin] {
	return func(yield func(MAC, *origin) bool) {
		for _, part := range t {
			for mac, at := range part {
				if !yield(mac, at) {
					return
				}
			}
		}
	}
}

// of returns whose address a is, or nil.
func (t *addrTable) of(a netip.Addr) *origin { return t[partOf(a)][a] }

func partOf(a netip.Addr) byte {
	b := a.As16()
	return b[15]
}

// put writes into a part, of which it makes a copy first unless that is done.
func put[K comparable, V any](part *map[K]V, copied bool, k K, v V) {
	if !copied {
		*part = maps.Clone(*part)
	}
	if *part == nil {
		*part = make(map[K]V)
	}
	(*part)[k] = v
}

// claim adds the addresses of a remote to v, as far as nobody has them: of two
// remotes with one address the first to connect has it, and nobody has ours.
// fresh says that v's tables are v's alone.
func (v *view) claim(r *RemotePort, fresh bool) {
	at := r.at.Load()
	if mac := at.mac; mac != v.own.mac && mac != (MAC{}) && v.owner.of(mac) == nil {
		if !fresh {
			owner := *v.owner
			v.owner = &owner
		}
		put(&v.owner[mac[5]], fresh, mac, r.place.Load())
	}
	copied := fresh
	for _, a := range at.addrs {
		if v.addrs.of(a) != nil {
			continue
		}
		if !copied {
			addrs := *v.addrs
			v.addrs, copied = &addrs, true
		}
		put(&v.addrs[partOf(a)], fresh, a, r.place.Load())
	}
}

// add publishes a view with one more port. It needs mu.
func (s *Switch) add(r *RemotePort) {
	v := *s.view.Load()
	v.ports = append(v.ports, r) // who reads an older view does not look beyond its end
	v.claim(r, false)
	s.view.Store(&v)
}

// remove publishes a view without a port. It needs mu.
func (s *Switch) remove(r *RemotePort) {
	s.publish(slices.DeleteFunc(slices.Clone(s.view.Load().ports), func(p *RemotePort) bool { return p == r }))
}

// publish makes the view anew from these ports and from rights as they are. It needs mu.
func (s *Switch) publish(ports []*RemotePort) {
	v := &view{own: s.own, ports: ports, owner: new(macTable), addrs: new(addrTable)}
	if old := s.view.Load(); old != nil {
		v.plugs, v.routers, v.shut = old.plugs, old.routers, old.shut
	}
	for _, a := range v.own.addrs {
		put(&v.addrs[partOf(a)], true, a, &s.local)
	}
	for _, r := range ports {
		v.claim(r, true)
	}
	s.view.Store(v)
}
