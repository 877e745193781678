package directory

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"meshd/keys"
	"meshd/mesh/record"
)

// anyCertificate returns a certificate of an owner's, revoked or not, or nil.
func (d *Directory) anyCertificate(owner keys.NodeID) *keys.Certificate {
	if list := d.certificates[owner]; len(list) > 0 {
		return list[0].certificate
	}
	return nil
}

// updateView makes the view of what a merge has touched anew.
func (m *merging) updateView() {
	if m.all {
		m.banned = effective(ranked(m.store.order))
		m.networks = true
	}
	if m.networks {
		m.updateNetwork()
	}
	if m.all || m.res.Network { // prefixes decide which endpoints count
		for owner := range m.certificates {
			m.touched[owner] = true
		}
	}
	changed := map[keys.NodeID]bool{}
	renamed := false
	for owner := range m.touched {
		was, is := m.members[owner], m.view(owner)
		if was != nil && is != nil && sameMember(was, is) {
			continue
		}
		if was == nil && is == nil {
			continue
		}
		changed[owner] = true
		renamed = renamed || was == nil || is == nil || was.Certificate.Name != is.Certificate.Name || was.Expired != is.Expired
		if is == nil {
			delete(m.members, owner)
			m.res.Removed = append(m.res.Removed, owner)
			if owner == m.self {
				m.res.Alarms = append(m.res.Alarms, Alarm{SelfRevoked, owner, record.TypeRevocation})
			}
			continue
		}
		if was != nil {
			is.Display = was.Display
		}
		m.members[owner] = is
	}
	if renamed {
		m.assignNames(changed)
	}
	if len(changed) > 0 {
		m.sorted = nil
	}
	m.res.Changed = sortedIDs(changed)
	slices.SortFunc(m.res.Removed, keys.NodeID.Compare)
}

func sortedIDs(set map[keys.NodeID]bool) []keys.NodeID {
	out := make([]keys.NodeID, 0, len(set))
	for id := range set {
		out = append(out, id)
	}
	slices.SortFunc(out, keys.NodeID.Compare)
	return out
}

// view computes a member from the store; nil when no certificate of its counts.
func (d *Directory) view(owner keys.NodeID) *Member {
	var best *keys.Certificate
	for _, it := range d.certificates[owner] {
		c := it.certificate
		if !d.Revoked(c) && (best == nil || cmp.Or(cmp.Compare(c.Serial, best.Serial), c.Signer.Compare(best.Signer)) > 0) {
			best = c
		}
	}
	if best == nil {
		return nil
	}
	m := &Member{ID: owner, Certificate: best, Expired: d.now.After(best.NotAfter), Early: d.now.Before(best.NotBefore)}
	if it := d.store.items[record.Key{Type: record.TypeNode, Owner: owner}]; it != nil {
		m.Node, m.NodeVersion = d.outside(it.rec.Node), it.rec.Version
	}
	if it := d.store.items[record.Key{Type: record.TypeGroups, Owner: owner}]; it != nil {
		m.Groups = it.rec.Groups
	}
	return m
}

// outside returns a node without the endpoints that are inside the mesh: the underlay must never go through the overlay.
func (d *Directory) outside(n *record.Node) *record.Node {
	_, prefixes, _ := d.Network()
	prefixes = append(prefixes, keys.ULA(d.trust.NetworkID()))
	inside := func(e record.Endpoint) bool {
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(e.Addr.Addr()) })
	}
	if !slices.ContainsFunc(n.Endpoints, inside) {
		return n
	}
	out := *n
	out.Endpoints = slices.DeleteFunc(slices.Clone(n.Endpoints), inside)
	return &out
}

// sameMember compares all but the display name.
func sameMember(a, b *Member) bool {
	if !slices.Equal(a.Certificate.Raw, b.Certificate.Raw) || a.NodeVersion != b.NodeVersion || a.Expired != b.Expired ||
		a.Early != b.Early || a.Groups != b.Groups || (a.Node == nil) != (b.Node == nil) {
		return false
	}
	return a.Node == b.Node || a.Node != nil && a.Node.Equal(*b.Node)
}

// assignNames gives every member its display name. A name that several members hold gets a suffix with each of them, from
// the id, so that all nodes show the same and nobody takes a name over; members whose time is over do not count against
// the others.
func (d *Directory) assignNames(changed map[keys.NodeID]bool) {
	type count struct{ live, expired int }
	holders := map[string]count{}
	ids := make([]keys.NodeID, 0, len(d.members))
	for id, m := range d.members {
		ids = append(ids, id)
		c := holders[m.Certificate.Name]
		if m.Expired {
			c.expired++
		} else {
			c.live++
		}
		holders[m.Certificate.Name] = c
	}
	slices.SortFunc(ids, keys.NodeID.Compare)
	d.names = make(map[string]keys.NodeID, len(ids))
	var rest []keys.NodeID
	for _, id := range ids { // who has a name alone comes first: no suffix may collide with it
		m := d.members[id]
		if c := holders[m.Certificate.Name]; m.Expired && c == (count{0, 1}) || !m.Expired && c.live == 1 {
			d.rename(id, m.Certificate.Name, changed)
		} else {
			rest = append(rest, id)
		}
	}
	for _, id := range rest {
		text := id.String()
		for n := 4; n <= len(text); n++ {
			name := d.members[id].Certificate.Name + "-" + text[:n]
			if _, taken := d.names[name]; !taken {
				d.rename(id, name, changed)
				break
			}
		}
	}
}

func (d *Directory) rename(id keys.NodeID, name string, changed map[keys.NodeID]bool) {
	d.names[name] = id
	m := d.members[id]
	if m.Display == name {
		return
	}
	renamed := *m
	renamed.Display = name
	d.members[id] = &renamed
	changed[id] = true
}

// updateNetwork takes the newest network record of those who are admins now.
func (m *merging) updateNetwork() {
	var best *record.Record
	for _, it := range m.store.order {
		r := it.rec
		if r.Key.Type != record.TypeNetwork {
			continue
		}
		admin := m.view(r.Key.Owner)
		if admin == nil || !admin.Certificate.Roles.Has(keys.RoleAdmin) {
			continue
		}
		if best == nil || cmp.Or(r.Version.Compare(best.Version), slices.Compare(r.Hash[:], best.Hash[:])) > 0 {
			best = r
		}
	}
	was := m.network
	var is *record.Network
	if best != nil {
		is = best.Network
	}
	if was == nil && is == nil || was != nil && is != nil && was.Equal(*is) {
		return
	}
	m.network = is
	m.res.Network = true
}

// effective picks the revocations that count from all. The root's do. A signer's does unless the signer was revoked itself
// before, or from a time (Cascade) at or before which it was issued. Where two signers revoke each other, who did so first
// prevails; only the root can undo that. The result depends on the set alone.
func effective(items []*item) []*keys.Revocation {
	var all []*item
	for _, it := range items {
		if it.revocation != nil {
			all = append(all, it)
		}
	}
	slices.SortFunc(all, func(a, b *item) int {
		byRoot := func(it *item) int {
			if it.revocation.Signer.IsZero() {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(byRoot(a), byRoot(b)), a.revocation.Issued.Compare(b.revocation.Issued),
			slices.Compare(a.rec.Hash[:], b.rec.Hash[:]))
	})
	first := inForce(all, nil)
	// A later revocation may reach back: without what it undoes, look again.
	return inForce(all, func(r *keys.Revocation) bool { return voided(r, first) })
}

func inForce(all []*item, skip func(*keys.Revocation) bool) []*keys.Revocation {
	var out []*keys.Revocation
	for _, it := range all {
		r := it.revocation
		if skip != nil && skip(r) || voided(r, out) {
			continue
		}
		if r.Serial == "" && r.Cascade.IsZero() { // who is out for good admits nobody from then on
			cascading := *r
			cascading.Cascade = r.Issued
			r = &cascading
		}
		out = append(out, r)
	}
	return out
}

func voided(r *keys.Revocation, by []*keys.Revocation) bool {
	if r.Signer.IsZero() {
		return false
	}
	return slices.ContainsFunc(by, func(q *keys.Revocation) bool {
		return !q.Cascade.IsZero() && !r.Issued.Before(q.Cascade) && (keys.Public{Sign: q.Key}).ID() == r.Signer
	})
}

// Advance marks members whose certificates have expired, or whose time has come, and returns them.
func (d *Directory) Advance(now time.Time) []keys.NodeID {
	d.now = now
	var res MergeResult
	m := d.merging(&res)
	for id, member := range d.members {
		c := member.Certificate
		if now.After(c.NotAfter) != member.Expired || now.Before(c.NotBefore) != member.Early {
			m.touched[id] = true
		}
	}
	m.updateView()
	return res.Changed
}
