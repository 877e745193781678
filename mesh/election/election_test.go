package election

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"meshd/keys"
)

var (
	p = netip.MustParsePrefix("2001:db8:1:2::/64")
	q = netip.MustParsePrefix("fd00::/64")
)

func id(n byte) keys.NodeID { return keys.NodeID{n} }

func TestExactBytes(t *testing.T) {
	b := Beat{Uplink: true, Leaving: true, Active: []netip.Prefix{p, q}, Sought: []netip.Addr{netip.MustParseAddr("2001:db8::7")}}
	want := []byte{3, 2, 0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2, 0xfd, 0, 0, 0, 0, 0, 0, 0, 1, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}
	if got := b.Append(nil); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	got, err := ParseBeat(append(want, "of a later version"...))
	if err != nil || !got.Uplink || !got.Leaving || !slices.Equal(got.Active, b.Active) || !slices.Equal(got.Sought, b.Sought) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, {0}, {0, 1}, {0, 9}, want[:17], want[:30], {0, 0, 33}, {0, 0, 1}} {
		if _, err := ParseBeat(bad); err == nil {
			t.Errorf("%x is a beat", bad)
		}
	}
}

func FuzzBeat(f *testing.F) {
	f.Add(Beat{Uplink: true, Active: []netip.Prefix{p}}.Append(nil))
	f.Add(Beat{Sought: []netip.Addr{netip.MustParseAddr("2001:db8::7")}}.Append(nil))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if b, err := ParseBeat(msg); err == nil {
			if again := b.Append(nil); !bytes.Equal(again[1:], msg[1:len(again)]) || again[0] != msg[0]&3 {
				t.Errorf("%x became %x", msg, again)
			}
		}
	})
}

func TestChoose(t *testing.T) {
	start := time.Unix(1e9, 0)
	later := start.Add(time.Minute)
	up, active := Beat{Uplink: true}, Beat{Uplink: true, Active: []netip.Prefix{p}}
	for _, c := range []struct {
		name   string
		own    Standing
		others []Router
		beats  map[byte]Beat
		age    time.Duration
		speaks keys.NodeID
		want   keys.NodeID
	}{
		{"alone", Local, nil, nil, 0, keys.NodeID{}, id(5)},
		{"alone and unfit", Absent, nil, nil, 0, keys.NodeID{}, keys.NodeID{}},
		{"the lowest of equals", Local, []Router{{id(3), false, true}, {id(7), false, true}}, nil, 0, keys.NodeID{}, id(3)},
		{"who speaks goes on", Local, []Router{{id(3), false, true}, {id(7), false, true}}, nil, 0, id(7), id(7)},
		{"but not when it is gone", Local, []Router{{id(3), false, true}, {id(7), false, false}}, nil, 0, id(7), id(3)},
		{"an uplink wins", Uplinked, []Router{{id(3), false, true}}, nil, 0, id(3), id(5)},
		{"another's uplink wins", Local, []Router{{id(9), true, true}}, map[byte]Beat{9: up}, 0, id(5), id(9)},
		{"a gateway that is silent is dead, whatever its session says", Uplinked, []Router{{id(3), true, true}}, map[byte]Beat{3: active}, Patience, id(3), id(5)},
		{"just before that it is not", Uplinked, []Router{{id(3), true, true}}, map[byte]Beat{3: active}, Patience - 1, id(3), id(3)},
		{"who says that it speaks goes on", Uplinked, []Router{{id(9), true, true}}, map[byte]Beat{9: active}, 0, keys.NodeID{}, id(9)},
		{"two who speak: the lower", Uplinked, []Router{{id(9), true, true}}, map[byte]Beat{9: active}, 0, id(5), id(5)},
		{"it has lost its uplink", Uplinked, []Router{{id(3), true, true}}, map[byte]Beat{3: {Active: []netip.Prefix{p}}}, 0, id(3), id(5)},
		{"it is leaving", Local, []Router{{id(3), true, true}}, map[byte]Beat{3: {Uplink: true, Leaving: true}}, 0, id(3), id(5)},
		{"what it said of another prefix", Uplinked, []Router{{id(9), true, true}}, map[byte]Beat{9: {Uplink: true, Active: []netip.Prefix{q}}}, 0, keys.NodeID{}, id(5)},
	} {
		m := New(id(5), start)
		for n, b := range c.beats {
			m.Receive(id(n), b, later.Add(-c.age))
		}
		if got := m.Choose(p, c.own, c.others, c.speaks, later); got != c.want {
			t.Errorf("%s: %x, want %x", c.name, got[0], c.want[0])
		}
	}
}

func TestListensFirst(t *testing.T) {
	start := time.Unix(1e9, 0)
	m := New(id(5), start)
	if got := m.Choose(p, Uplinked, nil, keys.NodeID{}, start.Add(Patience-1)); got != (keys.NodeID{}) {
		t.Errorf("%v speaks before it has listened", got)
	}
	if m.Wake(start) != start.Add(Patience) {
		t.Error("it does not say when it is done")
	}
}

// TestTakeover: of three gateways the one that speaks falls silent; the others agree
// on one of them within Patience and two beats, and there are never two that agree to
// disagree for longer.
func TestTakeover(t *testing.T) {
	now := time.Unix(1e9, 0)
	ids := []keys.NodeID{id(1), id(2), id(3)}
	machines := map[keys.NodeID]*Machine{}
	active := map[keys.NodeID]bool{}
	for _, i := range ids {
		machines[i] = New(i, now)
	}
	speaks := keys.NodeID{}
	dead := keys.NodeID{}
	step := func() {
		now = now.Add(BeatEvery)
		for _, i := range ids {
			if i == dead {
				continue
			}
			b := Beat{Uplink: true}
			if active[i] {
				b.Active = []netip.Prefix{p}
			}
			var others []Router
			for _, j := range ids {
				if j != i {
					others = append(others, Router{j, true, true})
					machines[j].Receive(i, b, now)
				}
			}
			if active[i] = machines[i].Choose(p, Uplinked, others, speaks, now) == i; active[i] {
				speaks = i
			}
		}
	}
	count := func() (n int) {
		for _, i := range ids {
			if active[i] && i != dead {
				n++
			}
		}
		return n
	}
	for range 20 {
		step()
	}
	if count() != 1 {
		t.Fatalf("%d speak", count())
	}
	dead = speaks
	begun := now
	for count() == 0 {
		step()
	}
	if took := now.Sub(begun); took > Patience+2*BeatEvery {
		t.Errorf("the takeover took %v", took)
	}
	for range 20 {
		step()
	}
	heir := speaks
	if count() != 1 || heir == dead {
		t.Fatalf("%d speak, the last was %v", count(), heir)
	}
	active[dead], dead = false, keys.NodeID{} // it comes back: nothing changes
	for range 20 {
		step()
	}
	if count() != 1 || speaks != heir {
		t.Errorf("%d speak, the last was %x, want %x", count(), speaks[0], heir[0])
	}
}
