package mesh

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"meshd/keys"
	"meshd/mesh/api"
	"meshd/mesh/directory"
	"meshd/mesh/record"
	"meshd/peer"
	"meshd/peer/way"
)

const (
	// wantedContacts is how many members a node that others may not reach keeps a
	// session with, for them to relay to it.
	wantedContacts = record.MaxContacts
	// contactPatience is how long a contact may be away before another takes its
	// place.
	contactPatience = 5 * time.Second
	// tidyEvery is how often it is looked at whether they are the right ones.
	tidyEvery = 2 * time.Minute
	// reachedFor is how long it counts that somebody came by himself.
	reachedFor = time.Hour
)

// contact is a member that relays to us.
type contact struct {
	id   keys.NodeID
	seen time.Time // up, at that time
}

// reachable says whether others can begin a conversation with this node, as far
// as it can tell.
func (n *Node) reachable(now time.Time) bool {
	for _, c := range n.state.self.list {
		if k := endpointKind(c.Kind); k == record.KindMapped || k == record.KindAdvertised {
			return true
		}
	}
	at := n.engine.Reached()
	return !at.IsZero() && now.Sub(at) < reachedFor
}

// keepContacts has sessions with members that can relay to this node, where it
// cannot count on being reached, and returns them. A contact stays for as long as
// it is up: each change is a new record for everybody.
func (n *Node) keepContacts(now time.Time) []keys.NodeID {
	s := &n.state
	reachable := n.reachable(now)
	s.contacts = slices.DeleteFunc(s.contacts, func(c contact) bool {
		m := s.members[c.id]
		drop := reachable || m == nil || !m.relays || m.left || !m.up && now.Sub(c.seen) > contactPatience
		if drop && m != nil && m.remote != nil {
			m.remote.Rely(false)
		}
		return drop
	})
	if reachable {
		return nil
	}
	for i := range s.contacts {
		m := s.members[s.contacts[i].id]
		m.remote.Want()
		m.remote.Rely(true)
		if m.up {
			s.contacts[i].seen = now
		}
	}
	if now.After(s.schedule.contacts) {
		n.tidyContacts(now)
	}
	if len(s.contacts) < wantedContacts {
		n.addContacts(now)
	}
	list := make([]keys.NodeID, 0, len(s.contacts))
	for _, c := range s.contacts {
		list = append(list, c.id)
	}
	return list
}

// tidyContacts gives up contacts from before the neighbours were known, where those
// serve as well: else the first member of all would be everybody's contact.
func (n *Node) tidyContacts(now time.Time) {
	s := &n.state
	s.schedule.contacts = now.Add(tidyEvery)
	able := 0
	for _, id := range s.neighbours {
		if m := s.up[id]; m != nil && m.relays && len(m.contacts) == 0 {
			able++
		}
	}
	if able < wantedContacts || now.Sub(n.started) < tidyEvery {
		return
	}
	s.contacts = slices.DeleteFunc(s.contacts, func(c contact) bool {
		m := s.members[c.id]
		return m == nil || !m.kept || len(m.contacts) > 0
	})
}

// addContacts fills up the contacts: who can be reached by others first, then who
// is near.
func (n *Node) addContacts(now time.Time) {
	s := &n.state
	type candidate struct {
		id      keys.NodeID
		private bool
		rtt     time.Duration
	}
	var list []candidate
	for id, m := range s.members {
		if !m.up || !m.relays || slices.ContainsFunc(s.contacts, func(c contact) bool { return c.id == id }) {
			continue
		}
		if st := m.remote.Status(); way.ClassOf(st.Endpoint) != way.Relayed {
			list = append(list, candidate{id, len(m.contacts) > 0, st.RTT})
		}
	}
	// Among the neighbours if they can be reached themselves: sessions with them are
	// kept anyway, and one member is not everybody's contact.
	able := slices.DeleteFunc(slices.Clone(list), func(c candidate) bool { return !s.members[c.id].kept || c.private })
	if len(able) >= wantedContacts-len(s.contacts) {
		list = able
	}
	slices.SortFunc(list, func(a, b candidate) int {
		if a.private != b.private {
			if b.private {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.rtt, b.rtt), a.id.Compare(b.id))
	})
	for _, c := range list[:min(len(list), wantedContacts-len(s.contacts))] {
		s.contacts = append(s.contacts, contact{c.id, now})
	}
}

// relayTerms are what a member's record says of relaying.
func relayTerms(d *directory.Member) (contacts []keys.NodeID, relays bool) {
	if d.Node == nil {
		return nil, false
	}
	return d.Node.Contacts, d.Node.Capabilities&record.CapRelay != 0
}

// viaNames are the names of the relays on a path, the nearest first.
func (n *Node) viaNames(v peer.Via) []string {
	names := make([]string, 0, len(v.Relays))
	for _, id := range v.Relays {
		names = append(names, n.nameOf(id))
	}
	return names
}

// nameOf is how a member is called, its id where it has no name here.
func (n *Node) nameOf(id keys.NodeID) string {
	if d := n.state.dir.Member(id); d != nil {
		return d.Display
	}
	return id.String()
}

// relaying lists what this node carries for others.
func (n *Node) relaying() []api.Relaying {
	out := []api.Relaying{}
	list, _ := n.engine.Relaying()
	for _, c := range list {
		key := [2]keys.NodeID{c.Asker, c.Other}
		out = append(out, api.Relaying{
			From: n.nameOf(c.Asker), To: n.nameOf(c.Other), Bytes: c.Bytes, RateBPS: n.state.share.rates[key].bps,
		})
	}
	return out
}

// wayTo is how status shows a path: a relayed one has its first relay's endpoint.
func (n *Node) wayTo(st peer.Status, at netip.AddrPort) (transported, endpoint string, via []string) {
	if v, ok := st.Via[at]; ok {
		return transport(v.Endpoint), v.Endpoint.String(), n.viaNames(v)
	}
	if c := way.ClassOf(at); c != way.Direct {
		return transport(at), n.endpointName(at), []string{}
	}
	return transport(at), at.String(), []string{}
}
