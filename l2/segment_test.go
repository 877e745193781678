package l2

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// forwards has a site forward for a LAN in another's place, in the eyes of all that are
// not dead: as a node says it to its switch (mesh/standin.go).
func (f *fabric) forwards(now, off *site, dead bool) {
	now.sw.Beside(map[string]bool{off.name: !dead})
	now.sw.StandIn(off.name, Here)
	now.sw.MoveStations(off.name, Here)
	now.sw.Shut(false)
	for _, s := range f.sites {
		if s == now || s == off {
			continue
		}
		s.sw.StandIn(now.name, now.name)
		s.sw.StandIn(off.name, now.name)
		s.sw.MoveStations(off.name, now.name)
	}
	if !dead {
		off.sw.Shut(true)
		off.sw.Beside(map[string]bool{now.name: true})
		off.sw.StandIn(now.name, now.name)
	}
}

// The stations of a LAN are behind whoever forwards for it, at once: nobody is asked, least
// of all a member that is dead, and nobody counts that as moves.
func TestStationsFollowTheForwarder(t *testing.T) {
	lan := Allow{Bridge: true, Segment: Segment{1}, LAN: "m0"}
	for name, test := range map[string]struct {
		dead, heir int
		early      bool // the heir's notice comes before it is known whom it stands in for
		anew       bool // what was learned is forgotten first (mesh: learnAnew)
	}{
		"the heir has the higher name": {dead: 0, heir: 1},
		"the heir has the lower name":  {dead: 1, heir: 0},
		"its notice comes first":       {dead: 0, heir: 1, early: true},
		"with all forgotten":           {dead: 0, heir: 1, anew: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t, lan, lan, Allow{}, bridge)
			dead, heir, other, thief := f.sites[test.dead], f.sites[test.heir], f.sites[2], f.sites[3]
			f.forwards(dead, heir, false)
			dead.says(request(vm, vmIP, "10.0.0.200"))
			dead.says(eth(broadcast, host1, 0)) // has no address to be asked for
			f.share()
			f.clear()
			f.lost = func(a, b *site) bool { return a == dead || b == dead } // nobody knows of it yet
			if test.early {
				heir.sw.Beside(nil)
				heir.sw.Shut(false)
				heir.says(l2frame(broadcast, vm, 1))
			}
			if test.anew {
				for _, s := range []*site{other, thief} {
					s.sw.MoveStations(dead.name, "")
					s.sw.MoveStations(heir.name, "")
				}
				heir.sw.MoveStations(dead.name, "")
			}
			f.forwards(heir, dead, true)
			for _, mac := range []MAC{vm, host1} {
				for _, s := range []*site{other, thief} {
					if got := s.at(mac); got != heir.name {
						t.Errorf("for %s %v is at %q", s.name, mac, got)
					}
				}
				if got := heir.at(mac); got != "" {
					t.Errorf("for its heir %v is at %q", mac, got)
				}
				f.clear()
				to, of := l2frame(mac, other.allow.MAC, 2), l2frame(broadcast, mac, 3)
				other.says(to)
				heir.says(of)
				if !heir.got(to) || !other.got(of) {
					t.Errorf("a frame to %v, or of it, was lost", mac)
				}
			}
			other.says(request(other.allow.MAC, "10.0.0.3", vmIP))
			if replies := other.took(); len(replies) != 1 || MAC(replies[0][6:12]) != vm {
				t.Errorf("its address is not known any more: %x", replies)
			}
			thief.says(eth(broadcast, vm, 0)) // in the moment of the change
			f.living(time.Second, map[*site]map[MAC]netip.Addr{heir: {vm: netip.MustParseAddr(vmIP)}})
			f.step(heardFor) // until then its records have come
			for _, s := range f.sites {
				if s != dead && s != heir {
					s.sw.SetBindings(heir.name, heir.sw.Local())
				}
			}
			f.step(heardFor)
			if got := other.at(vm); got != heir.name {
				t.Errorf("later it is at %q", got)
			}
			if other.sw.where.flaps(stationOf(0, vm), 0) || len(other.alarms()) > 0 || len(other.sw.where.moves) > 0 {
				t.Errorf("moves %v, alarms %v", other.sw.where.moves, other.sw.Alarms())
			}
		})
	}
}

// Two members of one LAN forward in turn, as often as they like.
func TestForwardersInTurn(t *testing.T) {
	lan := Allow{Bridge: true, Segment: Segment{1}, LAN: "m0"}
	f := newFabric(t, lan, lan, Allow{})
	for i := range 12 {
		now, off := f.sites[i%2], f.sites[(i+1)%2]
		f.forwards(now, off, false)
		if i == 0 {
			now.says(request(vm, vmIP, "10.0.0.200"))
		}
		f.step(50 * time.Millisecond)
		f.share()
		f.step(time.Second)
		if got := f.sites[2].at(vm); got != now.name {
			t.Fatalf("after %d changes it is at %q", i, got)
		}
		for _, s := range f.sites {
			if len(s.sw.where.moves) > 0 || len(s.alarms()) > 0 {
				t.Fatalf("%s: moves %v, alarms %v", s.name, s.sw.where.moves, s.sw.Alarms())
			}
		}
	}
}

// A LAN that is split is learned anew: what a member took over while it was not known that
// the other lives is not its any more.
func TestStationsOfASplitLAN(t *testing.T) {
	lan := Allow{Bridge: true, Segment: Segment{1}, LAN: "m0"}
	f := newFabric(t, lan, lan, Allow{})
	one, two, other := f.sites[0], f.sites[1], f.sites[2]
	f.forwards(two, one, false)
	two.says(request(vm, vmIP, "10.0.0.200"))
	f.share()
	f.forwards(one, two, true)
	if got := other.at(vm); got != "m0" {
		t.Fatalf("it is at %q", got)
	}
	other.sw.MoveStations("m0", "")
	other.sw.MoveStations("m1", "")
	other.sw.StandIn("m1", "m1")
	two.sw.MoveStations(Here, "")
	if got := other.at(vm); got != "?" {
		t.Errorf("it is at %q although nobody knows", got)
	}
	two.says(l2frame(broadcast, vm, 1))
	if got := other.at(vm); got != "m1" {
		t.Errorf("it is at %q after it has been heard", got)
	}
}

// looseLAN is a LAN in one VLAN that joins the sides of some sites, which know nothing of it.
type looseLAN struct {
	f      *fabric
	sites  []*site
	vlan   uint16
	cut    bool
	copies map[string]int // of each frame
}

// carries moves what the sites have sent to the others, until there is no more, or too much.
func (l *looseLAN) carries(frame []byte, from *site) {
	type sent struct {
		frame []byte
		from  *site
	}
	queue := []sent{{frame, from}}
	for n := 0; len(queue) > 0 && n < 3000; n++ {
		s := queue[0]
		queue = queue[1:]
		if s.frame != nil {
			l.copies[string(s.frame)]++
			for _, to := range l.sites {
				if to != s.from {
					to.says(s.frame)
				}
			}
		}
		for _, site := range l.sites {
			for _, frame := range site.took() {
				if h, ok := ParseHeader(frame); ok && h.VLAN == l.vlan && !l.cut {
					queue = append(queue, sent{frame, site})
				}
			}
		}
	}
}

func (l *looseLAN) step(d time.Duration) {
	for end := l.f.time.Add(d); l.f.time.Before(end); {
		l.f.step(50 * time.Millisecond)
		l.carries(nil, nil)
	}
}

// Two members' sides are one LAN, and no statements are made there. A station that
// nobody can ask, for it has no address, stays where it is, and its frames do not go round.
func TestLoopIsNoMove(t *testing.T) {
	for _, vlan := range []uint16{0, 5} {
		t.Run(fmt.Sprint("VLAN ", vlan), func(t *testing.T) {
			f := newFabric(t, bridge, bridge, Allow{})
			one, two, other := f.sites[0], f.sites[1], f.sites[2]
			l := &looseLAN{f: f, sites: f.sites[:2], vlan: vlan, copies: map[string]int{}}
			at := func(s *site) string {
				if o := s.sw.hosts.find(stationOf(vlan, host1), s.sw.now()).at; o != nil && o.remote != nil {
					return o.remote.name
				}
				return ""
			}
			one.says(eth(broadcast, host1, vlan))
			f.share()
			f.clear()
			for i := range byte(8) {
				frame := eth(broadcast, host1, vlan)
				frame[30] = i
				l.carries(frame, nil)
				l.step(700 * time.Millisecond)
				if n := l.copies[string(frame)]; n > 3 {
					t.Fatalf("frame %d: %d copies", i, n)
				}
			}
			if at(other) != "m0" || at(two) != "m0" || at(one) != "" {
				t.Errorf("it is at %q, %q, %q", at(one), at(two), at(other))
			}
			for _, s := range []*site{one, two} {
				if s == one && !slices.Equal(s.alarms(), []AlarmKind{AlarmLoop}) || len(s.alarms()) != 1 || len(s.sw.where.moves) > 0 {
					t.Errorf("%s: alarms %v, moves %v", s.name, s.sw.Alarms(), s.sw.where.moves)
				}
			}
			// With the cable out, what moves moves.
			l.cut = true
			l.step(claimPause + time.Second)
			two.says(eth(broadcast, host1, vlan))
			f.step(500 * time.Millisecond)
			if at(other) != "m1" || at(two) != "" || at(one) != "m1" {
				t.Errorf("moved: it is at %q, %q, %q", at(one), at(two), at(other))
			}
		})
	}
}

// A station of a loop that both members have heard before they knew of each other is soon
// behind one of them, and stays there.
func TestLoopHeardTwice(t *testing.T) {
	f := newFabric(t, bridge, bridge, Allow{})
	l := &looseLAN{f: f, sites: f.sites[:2], copies: map[string]int{}}
	f.lost = func(_, _ *site) bool { return true }
	l.carries(eth(broadcast, host1, 0), nil)
	f.lost = nil
	for i := range byte(8) {
		f.share()
		frame := l2frame(broadcast, host1, i)
		l.carries(frame, nil)
		l.step(700 * time.Millisecond)
		if n := l.copies[string(frame)]; n > 3 {
			t.Fatalf("frame %d: %d copies", i, n)
		}
	}
	f.share()
	was := f.sites[2].at(host1)
	for i := range byte(8) {
		l.carries(l2frame(broadcast, host1, 100+i), nil)
		l.step(700 * time.Millisecond)
		f.share()
		if got := f.sites[2].at(host1); got != was {
			t.Fatalf("it goes from %q to %q", was, got)
		}
	}
	for _, s := range f.sites {
		t.Logf("%s: at %q, %v, moves %v", s.name, s.at(host1), s.sw.Alarms(), s.sw.where.moves)
	}
}

// Nobody says over the overlay that the sides of members are one LAN.
func TestHailsStayOnTheLAN(t *testing.T) {
	f := inhabited(t, bridge, bridge, Allow{})
	hail := announcement(stationOf(0, f.sites[1].allow.MAC.onLAN()))
	for range 10 {
		f.sites[0].remotes[f.sites[1]].Receive(hail, 0)
		f.sites[0].says(announcement(stationOf(0, MAC{2, 9, 9, 9, 9, 9}))) // nobody's
	}
	if n := len(f.sites[0].sw.where.joined); n > 0 {
		t.Errorf("%d heard", n)
	}
	f.sites[0].says(hail)
	if n := len(f.sites[0].sw.where.joined); n != 1 {
		t.Errorf("%d heard on the LAN", n)
	}
}

// The same with a frame of a member itself, whose own switch knows no loop by it: the
// cable takes a millisecond.
func TestLoopOfAMembersOwn(t *testing.T) {
	f := newFabric(t, bridge, bridge)
	one, two := f.sites[0], f.sites[1]
	frame := eth(broadcast, one.allow.MAC, 0)
	copies := 0
	one.says(frame)
	two.says(frame)  // by the cable
	for range 5000 { // in 5 s
		f.time = f.time.Add(time.Millisecond)
		if len(two.took()) > 0 {
			copies++
			one.says(frame) // what the other has put on the LAN comes round
		}
	}
	if copies == 0 || copies > 3 {
		t.Errorf("%d copies", copies)
	}
	for range 100 { // a member that speaks without end, and what each of its frames costs
		f.time = f.time.Add(100 * time.Millisecond)
		copies = 0
		for round := 0; round == 0 || len(two.took()) > 0; round++ {
			copies++
			two.says(frame)
			one.says(frame)
		}
		if copies > 3 {
			t.Fatalf("%d copies", copies)
		}
	}
}
