package directory

import (
	"fmt"
	"slices"

	"golang.org/x/time/rate"

	"meshd/keys"
	"meshd/mesh/record"
)

// What one member may change of its stations, in pages a second, and at once: all of a bridge's.
const (
	pageRate, pageBurst = 20, 2 * record.MaxPages
	// plainPages is how many pages count of a member that may not bridge: 32 stations with all their addresses.
	plainPages = 8
)

// pages are the stations of one member.
type pages struct {
	items  map[uint8]*item
	budget *rate.Limiter
}

func (d *Directory) pagesOf(owner keys.NodeID) *pages {
	p := d.stations[owner]
	if p == nil {
		p = &pages{items: map[uint8]*item{}, budget: rate.NewLimiter(pageRate, pageBurst)}
		d.stations[owner] = p
	}
	return p
}

// keepStations notes a page that has been kept.
func (m *merging) keepStations(it *item) {
	owner := it.rec.Key.Owner
	m.pagesOf(owner).items[it.rec.Key.Page] = it
	if !slices.Contains(m.res.Stations, owner) {
		m.res.Stations = append(m.res.Stations, owner)
	}
}

// withinBudget says whether the owner of a page may change it now. What is refused is offered again by the exchange.
func (m *merging) withinBudget(r *record.Record) bool {
	return r.Key.Type != record.TypeStations || r.Key.Owner == m.self || m.pagesOf(r.Key.Owner).budget.AllowN(m.now, 1)
}

// Stations returns those that a member says are behind it, of no member none. Where two of its pages name one station, the
// higher number counts.
func (d *Directory) Stations(owner keys.NodeID) []record.Station {
	member, p := d.members[owner], d.stations[owner]
	if member == nil || p == nil {
		return nil
	}
	var list []record.Station
	for page, it := range p.items {
		if page < plainPages || member.Certificate.Roles.Has("bridge") {
			list = append(list, it.rec.Stations.Stations...)
		}
	}
	slices.SortFunc(list, func(a, b record.Station) int {
		if c := record.CompareStation(a, b); c != 0 {
			return c
		}
		return int(int64(b.Seq) - int64(a.Seq))
	})
	return slices.CompactFunc(list, func(a, b record.Station) bool { return record.CompareStation(a, b) == 0 })
}

// OwnPages returns the pages by which we say what is behind us, as they are known now; empty ones too.
func (d *Directory) OwnPages() (list []record.Stations) {
	if p := d.stations[d.self]; p != nil {
		for _, it := range p.items {
			list = append(list, *it.rec.Stations)
		}
	}
	slices.SortFunc(list, func(a, b record.Stations) int { return int(a.Page) - int(b.Page) })
	return list
}

// SetStations says what is behind us. It signs the pages that differ from what we said last, and returns them to pass on.
func (d *Directory) SetStations(list []record.Stations) (raws [][]byte, err error) {
	if d.own.identity == nil {
		return nil, fmt.Errorf("say what is behind us: %w", errNoIdentity)
	}
	for _, page := range list {
		key := record.Key{Type: record.TypeStations, Owner: d.self, Page: page.Page}
		kept := d.store.items[key]
		if kept == nil && len(page.Stations) == 0 || kept != nil && kept.rec.Stations.Equal(page) {
			continue
		}
		v := record.Version{Epoch: d.own.epoch, Counter: 1}
		if kept != nil && v.Compare(kept.rec.Version) <= 0 {
			var ok bool
			if v, ok = kept.rec.Version.Next(); !ok {
				return raws, fmt.Errorf("say what is behind us: %w", errExhausted)
			}
		}
		raw, err := record.SignStations(d.own.identity, d.trust.NetworkID(), v, page)
		if err != nil {
			return raws, fmt.Errorf("say what is behind us: %w", err)
		}
		r, err := record.Parse(raw)
		if err != nil {
			return raws, fmt.Errorf("say what is behind us: %w", err)
		}
		if err := d.keepOwn(&item{rec: r}); err != nil {
			return raws, err
		}
		raws = append(raws, raw)
	}
	return raws, nil
}
