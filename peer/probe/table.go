package probe

import (
	"sync/atomic"
	"time"
)

// Entry is a pair in a Table.
type Entry[V any] struct {
	Pair   *Pair
	Offset int32 // the remote's hour minus ours (hello tells), for clocks that are wrong
	Value  V     // what Lookup returns
}

// Table finds who sent a probe by its tag. Lookups may run in any number of
// goroutines, beside one that calls Update. The zero value is an empty table.
type Table[V any] struct {
	snapshot atomic.Pointer[map[[8]byte]Entry[V]]
	tags     map[tagID][8]byte // computed so far, so that an Update computes only new ones
}

// tagID names a tag that the remote of a pair sends.
type tagID struct {
	pair *Pair
	hour uint32
}

// Update makes the table that of entries, with the tags of each for the hour
// before, now and after. It is to be called when members come and go and again
// at the time that it returns.
func (t *Table[V]) Update(entries []Entry[V], now time.Time) (again time.Time) {
	next := make(map[[8]byte]Entry[V], 3*len(entries))
	tags := make(map[tagID][8]byte, 3*len(entries))
	hour := Hour(now)
	for _, e := range entries {
		for delta := -1; delta <= 1; delta++ {
			id := tagID{e.Pair, hour + uint32(e.Offset) + uint32(delta)}
			tag, known := t.tags[id]
			if !known {
				tag = id.pair.InTag(id.hour)
			}
			tags[id], next[tag] = tag, e
		}
	}
	t.tags = tags
	t.snapshot.Store(&next)
	return time.Unix((now.Unix()/3600+1)*3600, 0)
}

// Lookup returns the entry whose remote sends this tag about now.
func (t *Table[V]) Lookup(tag [8]byte) (entry Entry[V], ok bool) {
	snapshot := t.snapshot.Load()
	if snapshot == nil {
		return entry, false
	}
	entry, ok = (*snapshot)[tag]
	return entry, ok
}
