package l2

import (
	"net/netip"
	"testing"
	"time"
)

// hears gives a site a notice of another, with the next stamp.
func (s *site) hears(from *site, step Step, to string, b ...Binding) {
	from.stamp++
	s.sw.Hear(from.name, Notice{Step: step, To: to, Stamp: 1<<40 + from.stamp, Bindings: b})
}

// Who hands over stations that nobody wants fills nobody's share with them, and gives him
// no address.
func TestHandedOverToWhoDoesNotClaim(t *testing.T) {
	f := newFabric(t, Allow{Hosts: true}, Allow{Hosts: true}, Allow{Hosts: true})
	at, villain, victim := f.sites[0], f.sites[1], f.sites[2]
	for i := range byte(90) {
		b := Binding{MAC: MAC{2, 0x66, 0, 0, 0, i}, Seq: 1, IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, i})}}
		at.hears(villain, StepHere, "", b)
		at.hears(villain, StepGone, victim.name, b)
		if got := at.at(b.MAC); got != "?" {
			t.Fatalf("station %d is at %q", i, got)
		}
		f.time = f.time.Add(10 * time.Millisecond)
	}
	if n := at.remotes[victim].stations; n != 0 {
		t.Errorf("the victim is charged with %d stations", n)
	}
	if l := at.sw.where.by[at.remotes[victim]]; l != nil && len(l.told) > 0 {
		t.Errorf("%d notices stand for the victim's", len(l.told))
	}
	if mac, known := at.sw.Holder(netip.MustParseAddr("10.0.0.7")); known {
		t.Errorf("%v has an address in the victim's name", mac)
	}
	frame := eth(broadcast, vm, 0)
	victim.says(frame)
	if !at.got(frame) {
		t.Error("the victim's own host is refused")
	}
	f.step(heirFor)
	if n := len(at.sw.where.heirs); n != 0 {
		t.Errorf("%d are kept for him still", n)
	}
}

// A station that is handed over goes to who was named as soon as he says so, before or
// after, and to nobody else meanwhile; when he does not, to who has announced it.
func TestHandedOver(t *testing.T) {
	held := Binding{MAC: vm, Seq: 1}
	taken := Binding{MAC: vm, Seq: 2}
	setup := func(t *testing.T) *fabric {
		f := newFabric(t, Allow{}, bridge, bridge, bridge)
		at := f.sites[0]
		at.hears(f.sites[1], StepHere, "", held)
		at.hears(f.sites[3], StepHere, "", Binding{MAC: vm, Seq: 1 << 20}) // waits for it
		return f
	}
	expect := func(t *testing.T, f *fabric, when, want string) {
		t.Helper()
		if got := f.sites[0].at(vm); got != want {
			t.Errorf("%s: it is at %q, want %q", when, got, want)
		}
	}
	t.Run("before he says so", func(t *testing.T) {
		f := setup(t)
		f.sites[0].hears(f.sites[1], StepGone, "m2", held)
		expect(t, f, "handed over", "?")
		f.step(100 * time.Millisecond)
		expect(t, f, "handed over", "?")
		f.sites[0].hears(f.sites[2], StepHere, "", taken)
		expect(t, f, "he says so", "m2")
		f.step(3 * time.Second)
		expect(t, f, "later", "m2")
	})
	t.Run("after", func(t *testing.T) {
		f := setup(t)
		f.sites[0].hears(f.sites[2], StepHere, "", taken)
		expect(t, f, "he says so", "m1")
		f.sites[0].hears(f.sites[1], StepGone, "m2", held)
		expect(t, f, "handed over", "m2")
	})
	t.Run("he never does", func(t *testing.T) {
		f := setup(t)
		f.sites[0].hears(f.sites[1], StepGone, "m2", held)
		f.step(heirFor + 100*time.Millisecond)
		expect(t, f, "after a while", "m3")
	})
	t.Run("he is gone", func(t *testing.T) {
		f := setup(t)
		f.sites[0].hears(f.sites[1], StepGone, "m2", held)
		f.sites[0].sw.Disconnect("m2")
		expect(t, f, "then", "m3")
	})
	t.Run("his frame comes first", func(t *testing.T) {
		f := setup(t)
		f.sites[0].hears(f.sites[1], StepGone, "m2", held)
		f.sites[0].remotes[f.sites[2]].Receive(eth(broadcast, vm, 0), 0)
		expect(t, f, "learned", "m2")
	})
}
