package probe

import (
	"maps"
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
// goroutines, beside one that changes it. The zero value is an empty table.
type Table[V any] struct {
	snapshot atomic.Pointer[parts[V]]
	tags     map[tagID][8]byte // computed so far, so that an Update computes only new ones
	hour     uint32            // of the last Update
}

// parts is a map by tag in parts by its first byte, so that one more pair costs
// a copy of few of them.
type parts[V any] [256]map[[8]byte]Entry[V]

// tagID names a tag that the remote of a pair sends.
type tagID struct {
	pair *Pair
	hour uint32
}

// ids are the names of an entry's tags for the hour before, now and after.
func (e Entry[V]) ids(hour uint32) [3]tagID {
	at := hour + uint32(e.Offset)
	return [3]tagID{{e.Pair, at - 1}, {e.Pair, at}, {e.Pair, at + 1}}
}

// Update makes the table that of entries, with the tags of each for the hour
// before, now and after. It is to be called again at the time that it returns,
// and when many members come and go; for one there are Add and Remove.
func (t *Table[V]) Update(entries []Entry[V], now time.Time) (again time.Time) {
	next := new(parts[V])
	tags := make(map[tagID][8]byte, 3*len(entries))
	t.hour = Hour(now)
	for _, e := range entries {
		for _, id := range e.ids(t.hour) {
			tag := t.tag(id)
			tags[id] = tag
			if next[tag[0]] == nil {
				next[tag[0]] = make(map[[8]byte]Entry[V])
			}
			next[tag[0]][tag] = e
		}
	}
	t.tags = tags
	t.snapshot.Store(next)
	return time.Unix((now.Unix()/3600+1)*3600, 0)
}

// tag computes a tag, or knows it.
func (t *Table[V]) tag(id tagID) [8]byte {
	if tag, known := t.tags[id]; known {
		return tag
	}
	return id.pair.InTag(id.hour)
}

// Add adds an entry, with its tags about the hour of the last Update.
func (t *Table[V]) Add(e Entry[V]) {
	t.change(e, func(part map[[8]byte]Entry[V], id tagID, tag [8]byte) {
		part[tag], t.tags[id] = e, tag
	})
}

// Remove takes an entry out that was given to Update or Add.
func (t *Table[V]) Remove(e Entry[V]) {
	t.change(e, func(part map[[8]byte]Entry[V], id tagID, tag [8]byte) {
		delete(part, tag)
		delete(t.tags, id)
	})
}

// change publishes a table in which the parts of an entry's tags are changed.
func (t *Table[V]) change(e Entry[V], do func(part map[[8]byte]Entry[V], id tagID, tag [8]byte)) {
	next := new(parts[V])
	if old := t.snapshot.Load(); old != nil {
		*next = *old
	}
	if t.tags == nil {
		t.tags = make(map[tagID][8]byte)
	}
	for _, id := range e.ids(t.hour) {
		tag := t.tag(id)
		part := maps.Clone(next[tag[0]])
		if part == nil {
			part = make(map[[8]byte]Entry[V])
		}
		do(part, id, tag)
		next[tag[0]] = part
	}
	t.snapshot.Store(next)
}

// Lookup returns the entry whose remote sends this tag about now.
func (t *Table[V]) Lookup(tag [8]byte) (entry Entry[V], ok bool) {
	snapshot := t.snapshot.Load()
	if snapshot == nil {
		return entry, false
	}
	entry, ok = snapshot[tag[0]][tag]
	return entry, ok
}
