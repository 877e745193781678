package l2

import (
	"net/netip"
	"testing"
	"time"
)

// Who takes the name of another's LAN gets none of its stations; they are asked.
func TestNameOfAnothersLAN(t *testing.T) {
	lan := Segment{7}
	mine, villain := Allow{Bridge: true, Segment: lan, LAN: "m0"}, Allow{Bridge: true, Segment: lan}
	for name, villain := range map[string]Allow{
		"alone": villain, "with another": {Bridge: true, Segment: lan, LAN: "m1"}, "without the role": {Segment: lan},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t, mine, villain, Allow{}, mine)
			a, m, c := f.sites[0], f.sites[1], f.sites[2]
			a.says(request(vm, vmIP, vmIP))
			f.share()
			for _, s := range []*site{a, c, f.sites[3]} {
				for seq := range uint32(10) {
					s.hears(m, StepHere, "", Binding{MAC: vm, Seq: 5 + seq, Segment: lan})
				}
			}
			expect := func(when string) {
				t.Helper()
				for i, want := range map[int]string{0: "", 2: "m0", 3: "m0"} {
					if got := f.sites[i].at(vm); got != want {
						t.Errorf("%s: for %s it is at %q, want %q", when, f.sites[i].name, got, want)
					}
				}
			}
			expect("at once")
			f.living(time.Second, map[*site]map[MAC]netip.Addr{a: {vm: netip.MustParseAddr(vmIP)}})
			f.share()
			expect("asked")
			for _, s := range f.sites[2:] { // it says that the LAN's forwarder speaks for it, and that it is that itself
				s.sw.StandIn(m.name, a.name)
				s.sw.MoveStations(a.name, m.name)
				s.sw.SetBindings(a.name, a.sw.Local())
			}
			f.step(5 * time.Second)
			expect("stood in for")
			for _, s := range f.sites[2:] {
				if n := s.remotes[a].stations; n != 1 {
					t.Errorf("for %s there are %d stations behind the victim", s.name, n)
				}
			}
		})
	}
}

// What was forgotten when a LAN changed comes back by records that have not changed.
func TestForgottenStationsComeBack(t *testing.T) {
	for name, forget := range map[string]func(a, c *site){
		"LAN changed": func(a, c *site) { c.sw.MoveStations(a.name, ""); a.sw.MoveStations(Here, "") },
		"it was on our LAN": func(a, c *site) {
			c.sw.Beside(map[string]bool{a.name: true})
			c.sw.Beside(nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t, bridge, bridge, Allow{})
			a, c := f.sites[0], f.sites[2]
			a.says(request(vm, vmIP, vmIP))
			f.share()
			forget(a, c)
			if got := c.at(vm); got != "?" {
				t.Fatalf("it is at %q", got)
			}
			a.says(request(vm, vmIP, vmIP)) // before the page is made anew: it stays the same
			f.share()
			f.step(relearnFor + 100*time.Millisecond)
			if h := hostOfMAC(c, vm); h.Port != a.name || len(h.IPs) != 1 {
				t.Errorf("the records say %s, and it is %+v", a.name, h)
			}
			if n := len(c.sw.where.former); n != 0 {
				t.Errorf("%d former places are remembered", n)
			}
		})
	}
}

// When a LAN has changed, its stations go to who shared it, by the latest that is said, and
// to no stranger that has waited for it.
func TestForgottenStationsStayOnTheLAN(t *testing.T) {
	lan := Allow{Bridge: true, Segment: Segment{7}, LAN: "m0"}
	for name, test := range map[string]struct {
		says int // who says, after the change, that it is behind him
		seq  uint32
		away bool
		want string
	}{
		"nobody":                 {want: "m0"},
		"its former place":       {says: 0, seq: 3, want: "m0"},
		"the other of the LAN":   {says: 1, seq: 0, want: "m1"},
		"a stranger":             {says: 2, seq: 1 << 20, want: "m0"},
		"a stranger to the dead": {says: 2, seq: 1 << 20, away: true, want: "m2"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t, lan, lan, bridge, Allow{})
			c := f.sites[3]
			c.sw.SetBindings("m0", []Binding{{MAC: vm, Seq: 2, Segment: lan.Segment}})
			c.sw.SetBindings("m2", []Binding{{MAC: vm, Seq: 1 << 19}})
			c.sw.MoveStations("m0", "")
			c.sw.MoveStations("m1", "")
			c.sw.SetAway("m0", test.away)
			if name != "nobody" {
				c.hears(f.sites[test.says], StepHere, "", Binding{MAC: vm, Seq: test.seq, Segment: f.sites[test.says].allow.Segment})
				if got := c.at(vm); got != test.want {
					t.Errorf("at once it is at %q, want %q", got, test.want)
				}
			}
			f.step(relearnFor + 100*time.Millisecond)
			if got := c.at(vm); got != test.want {
				t.Errorf("later it is at %q, want %q", got, test.want)
			}
		})
	}
}
