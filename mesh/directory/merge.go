package directory

import (
	"slices"
	"time"

	"meshd/keys"
	"meshd/mesh/record"
)

// merging is one call of Merge.
type merging struct {
	*Directory
	res   *MergeResult
	delta []*item

	touched  map[keys.NodeID]bool // whose view has to be made anew
	all      bool                 // revocations have changed: everyone's
	networks bool                 // a network record has changed, or who is an admin
}

// Merge takes records and returns those that were new or newer, to pass on. Its result does not depend on the order in
// which records come, nor on how often.
func (d *Directory) Merge(raws [][]byte, now time.Time) (delta [][]byte, res MergeResult) {
	d.now = now
	m := d.merging(&res)
	for _, r := range m.parse(raws) {
		m.consider(r)
	}
	m.retryParked()
	m.republish()
	m.updateView()
	for _, it := range m.delta {
		// An item may have been replaced within this very merge.
		if kept := d.store.items[it.rec.Key]; kept == it {
			delta = append(delta, it.rec.Raw())
		}
	}
	return delta, res
}

func (d *Directory) merging(res *MergeResult) *merging {
	res.Rejected = map[string]int{}
	return &merging{Directory: d, res: res, touched: map[keys.NodeID]bool{}}
}

// parse reads records that are not known already, in the order in which they are best read: a node's record needs its
// certificate.
func (m *merging) parse(raws [][]byte) []*record.Record {
	out := make([]*record.Record, 0, len(raws))
	for _, raw := range raws {
		if len(raw) > record.MaxSize {
			m.res.Rejected[RejectMalformed]++
			continue
		}
		hash := record.HashOf(raw)
		if m.store.known[hash] {
			continue
		}
		if m.bad.seen[hash] {
			m.res.Rejected[RejectSignature]++
			continue
		}
		r, err := record.Parse(raw)
		if err != nil {
			m.res.Rejected[RejectMalformed]++
			continue
		}
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b *record.Record) int { return a.Key.Compare(b.Key) })
	return out
}

// consider judges one record. Whatever is cheap comes before the signature.
func (m *merging) consider(r *record.Record) {
	it := &item{rec: r}
	switch r.Key.Type {
	case record.TypeCertificate:
		c, _ := r.VerifyCertificate(m.trust, m.now)
		if c == nil { // an error beside a certificate is about the time only, and nothing is refused because of that
			m.refuse(r)
			return
		}
		it.certificate = c
	case record.TypeRevocation:
		v, err := r.VerifyRevocation(m.trust)
		if err != nil {
			m.refuse(r)
			return
		}
		it.revocation = v
	default:
		if !m.considerSigned(r) {
			return
		}
	}
	m.keep(it)
}

// refuse remembers a record whose signature is bad: it will be so next time.
func (m *merging) refuse(r *record.Record) {
	m.bad.add(r.Hash)
	m.res.Rejected[RejectSignature]++
}

// considerSigned judges a node's or network's record. Any certificate of the owner's will do: they bind the same key, and
// what becomes of a revoked member's records is for the view to say.
func (m *merging) considerSigned(r *record.Record) bool {
	switch m.store.weigh(r) {
	case stale:
		m.res.Rejected[RejectStale]++
		return false
	case overfull:
		m.res.Rejected[RejectFull]++
		return false
	}
	c := m.anyCertificate(r.Key.Owner)
	if c == nil {
		m.park(r)
		return false
	}
	if err := r.Verify(m.trust.NetworkID(), c.Public); err != nil {
		m.refuse(r)
		return false
	}
	if !m.withinBudget(r) { // only what is the owner's own counts
		m.res.Rejected[RejectBudget]++
		return false
	}
	return true
}

func (m *merging) keep(it *item) {
	r := it.rec
	v := m.store.put(it)
	if (v == conflict || v == won) && r.Key.Type != record.TypeCertificate {
		m.alarm(Equivocation, r)
	}
	m.ownReturned(r)
	switch v {
	case stale:
		m.res.Rejected[RejectStale]++
		return
	case conflict:
		m.res.Rejected[RejectConflict]++
		return
	case overfull:
		m.res.Rejected[RejectFull]++
		return
	case duplicate:
		return
	}
	m.delta = append(m.delta, it)
	if r.Key.Type == record.TypeStations {
		m.keepStations(it)
		return
	}
	m.touched[r.Key.Owner] = true
	switch r.Key.Type {
	case record.TypeRevocation:
		m.all = true
	case record.TypeNetwork:
		m.networks = true
	case record.TypeCertificate:
		m.networks = m.networks || m.store.items[record.Key{Type: record.TypeNetwork, Owner: r.Key.Owner}] != nil
		m.keepCertificate(it)
	}
}

// keepCertificate keeps the list of an owner's certificates in step with the store: one for each signer.
func (m *merging) keepCertificate(it *item) {
	list := m.certificates[it.rec.Key.Owner]
	if i := slices.IndexFunc(list, func(o *item) bool { return o.rec.Key == it.rec.Key }); i >= 0 {
		list[i] = it
		return
	}
	m.certificates[it.rec.Key.Owner] = append(list, it)
}

func (m *merging) alarm(kind AlarmKind, r *record.Record) {
	a := Alarm{kind, r.Key.Owner, r.Key.Type}
	if !slices.Contains(m.res.Alarms, a) {
		m.res.Alarms = append(m.res.Alarms, a)
	}
}

// park keeps a record until its owner's certificate comes. The oldest makes room.
func (m *merging) park(r *record.Record) {
	m.res.Rejected[RejectParked]++
	if slices.ContainsFunc(m.parked, func(p *record.Record) bool { return p.Hash == r.Hash }) {
		return
	}
	if len(m.parked) >= maxParked {
		m.parked = slices.Delete(m.parked, 0, len(m.parked)-maxParked+1)
	}
	m.parked = append(m.parked, r)
}

// retryParked considers the records whose owners' certificates have come.
func (m *merging) retryParked() {
	if len(m.parked) == 0 || len(m.touched) == 0 {
		return
	}
	var again []*record.Record
	m.parked = slices.DeleteFunc(m.parked, func(r *record.Record) bool {
		ready := m.touched[r.Key.Owner] && m.anyCertificate(r.Key.Owner) != nil
		if ready {
			again = append(again, r)
		}
		return ready
	})
	for _, r := range again {
		m.consider(r)
	}
}
