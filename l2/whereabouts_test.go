package l2

import (
	"net/netip"
	"testing"
	"time"
)

// All that wait for addresses of others are tried now and then, however many notices come,
// and get them soon after they are free.
func TestAddressesAreRetriedSeldom(t *testing.T) {
	f := newFabric(t, Allow{}, bridge, bridge)
	at, holder, waits := f.sites[0], f.sites[1], f.sites[2]
	ip := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}) }
	var held, wanted []Binding
	for i := range 1000 {
		held = append(held, Binding{MAC: MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}, IPs: []netip.Addr{ip(i)}})
		wanted = append(wanted, Binding{MAC: MAC{2, 2, 0, 0, byte(i >> 8), byte(i)}, IPs: []netip.Addr{ip(i)}})
	}
	at.sw.SetBindings(holder.name, held)
	at.sw.SetBindings(waits.name, wanted)
	if n := len(at.sw.where.partly); n != 1000 {
		t.Fatalf("%d wait", n)
	}
	tried, last := 0, at.sw.where.retried
	for range 300 { // in 3 s
		f.time = f.time.Add(10 * time.Millisecond)
		at.hears(waits, StepHere, "", wanted[0])
		if now := at.sw.where.retried; now != last {
			tried, last = tried+1, now
		}
	}
	if most := int(3 * time.Second / retryEvery); tried < most/2 || tried > most {
		t.Errorf("all were tried %d times in 3 s, want %d at most", tried, most)
	}
	at.sw.SetBindings(holder.name, nil)
	f.time = f.time.Add(at.sw.Advance())
	at.sw.Advance()
	if mac, _ := at.sw.Holder(ip(999)); mac != wanted[999].MAC {
		t.Errorf("a free address is %v's", mac)
	}
	if at.sw.where.retry || len(at.sw.where.partly) > 0 {
		t.Errorf("%d wait still", len(at.sw.where.partly))
	}
}

// What comes for a remote that has just gone leaves nothing behind.
func TestLateBindings(t *testing.T) {
	f := newFabric(t, Allow{}, bridge)
	s, r := f.sites[0].sw, f.sites[0].remotes[f.sites[1]]
	b := Binding{MAC: vm, Seq: 1}
	s.Disconnect("m1")
	s.mu.Lock()
	s.remotes["m1"] = r // as who has looked it up before still sees it
	s.mu.Unlock()
	s.SetBindings("m1", []Binding{b})
	s.Hear("m1", Notice{Step: StepHere, Stamp: 1, Bindings: []Binding{b}})
	if n := len(s.where.by); n != 0 {
		t.Errorf("%d ledgers of nobody", n)
	}
	if got := f.sites[0].at(vm); got != "?" {
		t.Errorf("it is at %q", got)
	}
}
