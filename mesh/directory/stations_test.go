package directory

import (
	"fmt"
	"testing"
	"time"

	"meshd/keys"
	"meshd/mesh/record"
)

// page makes one with count stations.
func page(number uint8, count int, seq uint32) record.Stations {
	p := record.Stations{Page: number}
	for i := range count {
		p.Stations = append(p.Stations, record.Station{MAC: [6]byte{2, number, 0, 0, 0, byte(i)}, Seq: seq})
	}
	return p
}

// speaker is a member's own directory.
func (a *authority) speaker(id *keys.Identity, epoch uint32, raws ...[]byte) *Directory {
	d := New(a.trust, id.Public().ID())
	d.Merge(raws, testNow())
	d.Own(id, epoch)
	return d
}

func TestStationsSpread(t *testing.T) {
	a := newAuthority(t)
	id, raw := a.member("vm-host")
	me := a.speaker(id, 1, raw)
	other := a.directory(raw)
	say := func(pages ...record.Stations) [][]byte {
		t.Helper()
		raws, err := me.SetStations(pages)
		check(t, err)
		return raws
	}
	owner := id.Public().ID()
	first := say(page(0, 3, 0), page(1, 2, 0), page(2, 0, 0))
	if len(first) != 2 {
		t.Fatalf("%d pages signed", len(first))
	}
	delta, res := other.Merge(first, testNow())
	if len(delta) != 2 || len(res.Stations) != 1 || res.Stations[0] != owner || len(res.Changed) != 0 {
		t.Fatalf("%d, %+v", len(delta), res)
	}
	if got := len(other.Stations(owner)); got != 5 {
		t.Errorf("%d stations", got)
	}
	if again := say(page(0, 3, 0), page(1, 2, 0)); again != nil {
		t.Error("signed anew without a change")
	}
	second := say(page(0, 3, 0), page(1, 0, 0))
	if len(second) != 1 {
		t.Fatalf("%d pages signed for one change", len(second))
	}
	other.Merge(second, testNow())
	other.Merge(first, testNow()) // late
	if got := len(other.Stations(owner)); got != 3 {
		t.Errorf("%d stations", got)
	}
	if got := other.Stations(keys.NodeID{1}); got != nil {
		t.Errorf("of nobody: %v", got)
	}
}

// A later start goes above what the one before has said, known or not.
func TestStationsOfALaterStart(t *testing.T) {
	a := newAuthority(t)
	id, raw := a.member("vm-host")
	before := a.speaker(id, 1, raw)
	old, err := before.SetStations([]record.Stations{page(0, 3, 0), page(1, 1, 0)})
	check(t, err)
	for name, known := range map[string][][]byte{"known": old, "not known": nil} {
		t.Run(name, func(t *testing.T) {
			other := a.directory(append([][]byte{raw}, old...)...)
			me := a.speaker(id, 2, append([][]byte{raw}, known...)...)
			raws, err := me.SetStations([]record.Stations{page(0, 1, 0)})
			check(t, err)
			other.Merge(raws, testNow())
			me.Merge(old, testNow()) // comes back
			pages := me.OwnPages()
			for i := range pages {
				pages[i].Stations = nil
				if pages[i].Page == 0 {
					pages[i] = page(0, 1, 0)
				}
			}
			raws, err = me.SetStations(pages)
			check(t, err)
			other.Merge(raws, testNow())
			if got := len(other.Stations(id.Public().ID())); got != 1 {
				t.Errorf("%d stations", got)
			}
		})
	}
}

// Who may not bridge has few pages that count, and nobody changes them without end.
func TestBoundsOfStations(t *testing.T) {
	a := newAuthority(t)
	id, plain := a.member("plain")
	bridge := a.issue(a.signer, id, "plain", keys.Roles{"bridge", "member"}, testNow().Add(time.Minute))
	me := a.speaker(id, 1, plain)
	var pages []record.Stations
	for n := range uint8(record.MaxPages) {
		pages = append(pages, page(n, 5, 0))
	}
	raws, err := me.SetStations(pages)
	check(t, err)
	other := a.directory(plain)
	_, res := other.Merge(raws, testNow())
	owner := id.Public().ID()
	if got := len(other.Stations(owner)); got != 5*plainPages || len(res.Rejected) != 0 {
		t.Errorf("%d stations of a plain member, %v", got, res.Rejected)
	}
	other.Merge([][]byte{bridge}, testNow())
	if got := len(other.Stations(owner)); got != 5*record.MaxPages {
		t.Errorf("%d stations of a bridge", got)
	}
	refused := 0
	for n := range 1000 {
		raws, err := me.SetStations([]record.Stations{page(0, 1, uint32(n+1))})
		check(t, err)
		_, res := other.Merge(raws, testNow())
		refused += res.Rejected[RejectBudget]
	}
	if refused != 1000+record.MaxPages-pageBurst {
		t.Errorf("%d changes refused", refused)
	}
}

// Two directories that know different pages end up with the same.
func TestStationsAreCompared(t *testing.T) {
	a := newAuthority(t)
	var x, y [][]byte
	for i := range 20 {
		id, raw := a.member(fmt.Sprint("m", i))
		pages, err := a.speaker(id, 1, raw).SetStations([]record.Stations{page(0, 3, 0), page(1, 3, 0)})
		check(t, err)
		x, y = append(x, raw, pages[0]), append(y, raw, pages[1])
	}
	dx, dy := a.directory(x...), a.directory(y...)
	now := testNow()
	type message struct {
		to  *Directory
		msg []byte
	}
	queue := []message{{dy, dx.Sum()}, {dx, dy.Sum()}}
	for len(queue) > 0 {
		m := queue[0]
		queue = queue[1:]
		now = now.Add(100 * time.Millisecond)
		replies, _, _ := m.to.HandleSync(keys.NodeID{9}, m.msg, now)
		back := dx
		if m.to == dx {
			back = dy
		}
		for _, r := range replies {
			queue = append(queue, message{back, r})
		}
	}
	if dx.sum() != dy.sum() || len(dx.store.items) != 60 {
		t.Errorf("%d and %d records", len(dx.store.items), len(dy.store.items))
	}
}
