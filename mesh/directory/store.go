package directory

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"meshd/keys"
	"meshd/mesh/record"
)

// item is a record that is believed, with what it holds.
type item struct {
	place       uint64 // orders items for the exchange: type, and a hash of the key
	rec         *record.Record
	certificate *keys.Certificate
	revocation  *keys.Revocation
}

// store keeps the newest record of every key, whoever is revoked: the view is computed from it. So it only grows, and two
// stores that have seen the same are the same.
type store struct {
	items map[record.Key]*item
	order []*item // by place, then key
	known map[record.Hash]bool
	sums  [buckets]uint64 // exclusive or of the hashes of each bucket's records
}

func newStore() store {
	return store{items: map[record.Key]*item{}, known: map[record.Hash]bool{}}
}

// placeOf puts revocations first, then certificates, networks and nodes, which is the order in which they are best learnt.
func placeOf(k record.Key) uint64 {
	h := sha256.New()
	h.Write([]byte{byte(k.Type)})
	h.Write(k.Owner[:])
	h.Write(k.By[:])
	if k.Type == record.TypeStations {
		h.Write([]byte{k.Page})
	}
	return binary.BigEndian.Uint64(h.Sum(nil))>>2 | uint64(k.Type.Rank())<<62
}

func compareItems(a, b *item) int {
	return cmp.Or(cmp.Compare(a.place, b.place), a.rec.Key.Compare(b.rec.Key))
}

// verdict is what put made of a record.
type verdict uint8

const (
	stale     verdict = iota // older than what is kept
	conflict                 // another record of the same version is kept
	won                      // kept, and another of the same version went
	fresh                    // kept
	overfull                 // no room for another key
	duplicate                // kept already
)

// weigh says what put would do, before a signature is checked.
func (s *store) weigh(r *record.Record) verdict {
	old := s.items[r.Key]
	if old == nil {
		if len(s.items) >= maxRecords {
			return overfull
		}
		return fresh
	}
	switch r.Version.Compare(old.rec.Version) {
	case 1:
		return fresh
	case -1:
		return stale
	}
	// Anyone must come to the same choice, in whatever order they come: the greater hash wins.
	switch slices.Compare(r.Hash[:], old.rec.Hash[:]) {
	case 1:
		return won
	case -1:
		return conflict
	}
	return duplicate
}

func (s *store) put(it *item) verdict {
	v := s.weigh(it.rec)
	if v != fresh && v != won {
		return v
	}
	if old := s.items[it.rec.Key]; old != nil {
		it.place = old.place
		delete(s.known, old.rec.Hash)
		s.count(old)
		i, _ := slices.BinarySearchFunc(s.order, it, compareItems)
		s.order[i] = it
	} else {
		it.place = placeOf(it.rec.Key)
		i, _ := slices.BinarySearchFunc(s.order, it, compareItems)
		s.order = slices.Insert(s.order, i, it)
	}
	s.items[it.rec.Key] = it
	s.known[it.rec.Hash] = true
	s.count(it)
	return v
}

// count adds a record to the sum of its bucket, or takes it away.
func (s *store) count(it *item) {
	s.sums[bucketOf(it.place)] ^= binary.BigEndian.Uint64(it.rec.Hash[:])
}

// between returns the items with low <= place <= high.
func (s *store) between(low, high uint64) []*item {
	at := func(place uint64) int {
		i, _ := slices.BinarySearchFunc(s.order, place, func(it *item, p uint64) int { return cmp.Compare(it.place, p) })
		return i
	}
	end := len(s.order)
	if high < ^uint64(0) {
		end = at(high + 1)
	}
	return s.order[at(low):end]
}

// ranked returns items in the order in which they are best read.
func ranked(items []*item) []*item {
	out := slices.Clone(items)
	slices.SortFunc(out, func(a, b *item) int { return cmp.Or(a.rec.Key.Compare(b.rec.Key), cmp.Compare(a.place, b.place)) })
	return out
}
