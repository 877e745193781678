package l2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

var (
	vm     = MAC{2, 0, 0, 0, 7, 7}
	vmIP   = "10.0.0.77"
	bridge = Allow{Bridge: true}
)

// inhabited is a fabric in which m0 has the virtual machine, and everybody knows.
func inhabited(t *testing.T, allows ...Allow) *fabric {
	t.Helper()
	f := newFabric(t, allows...)
	f.sites[0].says(request(vm, vmIP, "10.0.0.200"))
	f.share()
	f.clear()
	for _, s := range f.sites[1:] {
		if got := s.at(vm); got != "m0" {
			t.Fatalf("%s has the station at %q", s.name, got)
		}
	}
	return f
}

// alarms are the kinds of a site's alarms, each once.
func (s *site) alarms() (kinds []AlarmKind) {
	for _, a := range s.sw.Alarms() {
		if !slices.Contains(kinds, a.Kind) {
			kinds = append(kinds, a.Kind)
		}
	}
	return kinds
}

// A virtual machine that goes on behind another member is reached there within half a
// second, and the former place gets no frame any more.
func TestStationMoves(t *testing.T) {
	f := inhabited(t, bridge, bridge, Allow{})
	old, now, other := f.sites[0], f.sites[1], f.sites[2]
	began := f.time
	now.says(eth(broadcast, vm, 0)) // as QEMU announces it
	for now.at(vm) != "" {
		if f.time.Sub(began) > 500*time.Millisecond {
			t.Fatalf("after %v it is at %q for its new place", f.time.Sub(began), now.at(vm))
		}
		f.step(50 * time.Millisecond)
	}
	t.Logf("moved after %v", f.time.Sub(began))
	f.step(50 * time.Millisecond)
	if other.at(vm) != "m1" || old.at(vm) != "m1" {
		t.Fatalf("it is at %q for another member, at %q for its former place", other.at(vm), old.at(vm))
	}
	if !other.got(eth(broadcast, vm, 0)) {
		t.Error("the frame that brought it about was lost")
	}
	f.clear()
	for i := range 100 {
		frame := l2frame(vm, other.allow.MAC, byte(i))
		other.says(frame)
		if !now.got(frame) {
			t.Fatal("a frame did not get to its new place")
		}
		f.step(100 * time.Millisecond)
		f.share()
	}
	if frames := old.took(); len(frames) != 0 {
		t.Errorf("its former place got %d frames: %x", len(frames), frames)
	}
	other.says(request(other.allow.MAC, "10.0.0.3", vmIP))
	if replies := other.took(); len(replies) != 1 || MAC(replies[0][6:12]) != vm {
		t.Errorf("its address is not known any more: %x", replies)
	}
	for _, s := range f.sites {
		if got := s.alarms(); len(got) != 0 {
			t.Errorf("%s: %v", s.name, got)
		}
	}
}

// l2frame is a frame that differs from others by a number.
func l2frame(dst, src MAC, number byte) []byte {
	frame := eth(dst, src, 0)
	frame[20] = number
	return frame
}

// Who claims what answers where it is gets nothing.
func TestThief(t *testing.T) {
	steal := func(f *fabric) { f.sites[1].says(eth(broadcast, vm, 0)) }
	notice := func(n Notice) func(f *fabric) {
		return func(f *fabric) {
			for _, s := range []*site{f.sites[0], f.sites[2]} {
				n.Stamp = f.sites[1].sw.stamp()
				s.sw.Hear("m1", n)
			}
		}
	}
	record := func(f *fabric) {
		for _, s := range []*site{f.sites[0], f.sites[2]} {
			s.sw.SetBindings("m1", []Binding{{MAC: vm, Seq: 1 << 30, IPs: []netip.Addr{netip.MustParseAddr(vmIP)}}})
		}
	}
	frames := func(f *fabric) { // past its own switch
		for _, s := range []*site{f.sites[0], f.sites[2]} {
			for _, frame := range [][]byte{eth(broadcast, vm, 0), request(f.sites[1].allow.MAC, vmIP, vmIP), request(vm, vmIP, vmIP)} {
				s.remotes[f.sites[1]].Receive(frame, 0)
				s.remotes[f.sites[1]].Flush()
			}
		}
	}
	here := []Binding{{MAC: vm, Seq: 99, IPs: []netip.Addr{netip.MustParseAddr(vmIP)}}}
	for name, test := range map[string]struct {
		thief Allow
		steal func(f *fabric)
		asks  bool // the host is asked
		alarm bool // at the holder
	}{
		"by its frames":                       {bridge, steal, true, true},
		"by frames that its switch refuses":   {bridge, frames, false, false},
		"by its frames, without the role":     {Allow{}, steal, false, false},
		"by a claim":                          {bridge, notice(Notice{Step: StepClaim, Bindings: here}), true, true},
		"by a claim, without the role":        {Allow{}, notice(Notice{Step: StepClaim, Bindings: here}), false, true},
		"by a notice":                         {bridge, notice(Notice{Step: StepHere, Bindings: here}), true, true},
		"by a notice, without the role":       {Allow{}, notice(Notice{Step: StepHere, Bindings: here}), true, true},
		"by a record":                         {bridge, record, true, true},
		"by a record, without the role":       {Allow{}, record, true, true},
		"by saying that it is gone":           {bridge, notice(Notice{Step: StepGone, To: "m1", Bindings: here}), false, false},
		"by yielding what nobody asked for":   {bridge, notice(Notice{Step: StepYield, Bindings: here}), false, false},
		"by a claim of its address":           {Allow{}, notice(Notice{Step: StepClaimAddress, Bindings: here}), true, true},
		"by yielding an address for somebody": {bridge, notice(Notice{Step: StepYieldAddress, Bindings: here}), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := inhabited(t, bridge, test.thief, Allow{})
			asked := false
			for range 20 {
				test.steal(f)
				f.step(50 * time.Millisecond)
				for _, frame := range f.sites[0].took() {
					if q, ok := readQuestion(frame); ok && MAC(frame[:6]) == vm {
						asked = true
						f.time = f.time.Add(time.Millisecond)
						h, _ := ParseHeader(frame)
						f.sites[0].says(answerTo(h, frame, q, vm, false))
					}
				}
			}
			f.step(time.Second)
			if asked != test.asks {
				t.Errorf("the host was asked: %v, want %v", asked, test.asks)
			}
			if got := slices.Contains(f.sites[0].alarms(), AlarmClaimed); got != test.alarm {
				t.Errorf("alarms %v", f.sites[0].sw.Alarms())
			}
			f.clear()
			frame := l2frame(vm, f.sites[2].allow.MAC, 1)
			f.sites[2].says(frame)
			if !f.sites[0].got(frame) || len(f.sites[1].took()) > 0 {
				t.Errorf("a frame for it went astray: it is at %q", f.sites[2].at(vm))
			}
			f.sites[2].says(request(f.sites[2].allow.MAC, "10.0.0.3", vmIP))
			if replies := f.sites[2].took(); len(replies) != 1 || MAC(replies[0][6:12]) != vm {
				t.Errorf("its address is not its own any more: %x", replies)
			}
		})
	}
}

// Nobody takes over a member's own MAC or address by announcing it.
func TestBindingsOfMembersDoNotCount(t *testing.T) {
	f := newFabric(t, Allow{}, bridge, Allow{})
	victim, thief, other := f.sites[0], f.sites[1], f.sites[2]
	list := []Binding{
		{MAC: victim.allow.MAC, Seq: 9, IPs: []netip.Addr{victim.allow.Addresses[0]}},
		{MAC: other.allow.MAC, Seq: 9},
		{MAC: thief.allow.MAC, Seq: 9, IPs: []netip.Addr{victim.allow.Addresses[0]}},
		{MAC: vm, IPs: []netip.Addr{victim.allow.Addresses[0], other.allow.Addresses[0], netip.MustParseAddr("fe80::1")}},
		{MAC: MAC{1, 2, 3}},
		{},
	}
	other.sw.SetBindings("m1", list)
	other.sw.Hear("m1", Notice{Step: StepHere, Stamp: 1, Bindings: list})
	if at := other.at(victim.allow.MAC); at != "m0" {
		t.Errorf("a member is at %q", at)
	}
	for _, h := range other.sw.Hosts() {
		if h.Port == "m1" && slices.Contains(h.IPs, victim.allow.Addresses[0]) || h.MAC.Multicast() || h.MAC == (MAC{}) {
			t.Errorf("%+v", h)
		}
	}
	other.says(solicit(other.allow.MAC, "fd00::3", "fd00::1"))
	replies := other.took()
	if len(replies) != 1 || MAC(replies[0][6:12]) != victim.allow.MAC {
		t.Errorf("the answer is %x", replies)
	}
	if at := other.at(vm); at != "m1" {
		t.Errorf("a host of its own is at %q", at)
	}
}

func TestLimitOfBindings(t *testing.T) {
	for name, test := range map[string]struct {
		allow Allow
		want  int
	}{"member": {Allow{}, DefaultMaxMACs}, "bridge": {bridge, BridgeMaxMACs}} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t, test.allow, Allow{})
			var list []Binding
			for i := range 2000 {
				list = append(list, Binding{MAC: MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}})
			}
			f.sites[1].sw.SetBindings("m0", list)
			got := 0
			for _, h := range f.sites[1].sw.Hosts() {
				if h.Port == "m0" && h.MAC != f.sites[0].allow.MAC {
					got++
				}
			}
			if got != test.want {
				t.Errorf("%d stations, want %d", got, test.want)
			}
			f.sites[1].sw.SetBindings("m0", nil)
			if at := f.sites[1].at(list[0].MAC); at != "?" {
				t.Errorf("withdrawn, it is at %q", at)
			}
		})
	}
}

// An address goes from a station behind one member to one behind another, as with
// VRRP, when the first does not answer for it any more.
func TestAddressMovesBetweenMembers(t *testing.T) {
	for name, answers := range map[string]bool{"given up": false, "kept": true} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t, Allow{}, Allow{}, Allow{})
			first, second, other := f.sites[0], f.sites[1], f.sites[2]
			const ip = "10.0.0.1"
			first.says(request(first.allow.MAC, ip, ip))
			f.share()
			f.clear()
			hello := request(second.allow.MAC, ip, ip)
			second.says(hello)
			hosts := map[*site]map[MAC]netip.Addr{}
			if answers {
				hosts[first] = map[MAC]netip.Addr{first.allow.MAC: netip.MustParseAddr(ip)}
			}
			f.living(500*time.Millisecond, hosts)
			want := second.allow.MAC
			if answers {
				want = first.allow.MAC
			}
			if other.got(hello) != !answers {
				t.Error("the other members' hosts heard wrongly of it")
			}
			f.clear()
			other.says(request(other.allow.MAC, "10.0.0.3", ip))
			if replies := other.took(); len(replies) != 1 || MAC(replies[0][6:12]) != want {
				t.Errorf("the answer is %x", replies)
			}
			if f.sent() != 0 {
				t.Errorf("%d frames left", f.sent())
			}
			if got := len(first.alarms()) > 0; got != answers {
				t.Errorf("alarms %v", first.sw.Alarms())
			}
		})
	}
}

// The member that had an address is dead: the next one has it without an answer.
func TestAddressOfTheDeadMoves(t *testing.T) {
	f := newFabric(t, Allow{}, Allow{}, Allow{})
	const ip = "10.0.0.1"
	f.sites[0].says(request(f.sites[0].allow.MAC, ip, ip))
	f.share()
	f.lost = func(a, b *site) bool { return a == f.sites[0] || b == f.sites[0] }
	f.sites[1].says(request(f.sites[1].allow.MAC, ip, ip))
	f.step(3 * time.Second)
	f.sites[2].sw.SetAway("m0", true)
	f.clear()
	f.sites[2].says(request(f.sites[2].allow.MAC, "10.0.0.3", ip))
	if replies := f.sites[2].took(); len(replies) != 1 || MAC(replies[0][6:12]) != f.sites[1].allow.MAC {
		t.Errorf("the answer is %x", replies)
	}
}

// A station that moves to and fro stays where it is after five moves.
func TestFlapping(t *testing.T) {
	f := inhabited(t, bridge, bridge, Allow{})
	moves := 0
	for i := range 20 {
		to := f.sites[(i+1)%2]
		before := to.at(vm)
		to.says(l2frame(broadcast, vm, byte(i)))
		f.step(600 * time.Millisecond)
		if before != "" && to.at(vm) == "" {
			moves++
		}
		f.step(5 * time.Second)
	}
	if moves != flapMoves {
		t.Errorf("%d moves", moves)
	}
	if !slices.Contains(f.sites[0].alarms(), AlarmFlaps) && !slices.Contains(f.sites[1].alarms(), AlarmFlaps) {
		t.Error("no alarm")
	}
	f.step(flapTime)
	was := f.sites[2].at(vm)
	to := f.sites[0]
	if was == "m0" {
		to = f.sites[1]
	}
	to.says(l2frame(broadcast, vm, 99))
	f.step(600 * time.Millisecond)
	if to.at(vm) != "" {
		t.Errorf("it does not move any more: it is at %q", f.sites[2].at(vm))
	}
}

// Who says that he is on a LAN has nothing of it: the members there do not say so.
func TestThiefClaimsASegment(t *testing.T) {
	lan := Allow{Bridge: true, Segment: Segment{1}}
	f := newFabric(t, lan, lan, Allow{})
	f.sites[0].says(request(vm, vmIP, "10.0.0.200"))
	f.share()
	stolen := []Binding{{MAC: vm, Seq: 1000, Segment: Segment{1}}}
	for _, s := range []*site{f.sites[0], f.sites[2]} {
		s.sw.SetBindings("m1", stolen)
		s.sw.Hear("m1", Notice{Step: StepHere, Stamp: 1 << 40, Bindings: stolen})
	}
	f.living(time.Second, map[*site]map[MAC]netip.Addr{f.sites[0]: {vm: netip.MustParseAddr(vmIP)}})
	if mine, others := f.sites[0].at(vm), f.sites[2].at(vm); mine != "" || others != "m0" {
		t.Errorf("it is at %q for its holder, at %q for others", mine, others)
	}
}

// What was on one side of a partition and moved meanwhile is settled when it heals.
func TestPartition(t *testing.T) {
	f := inhabited(t, bridge, bridge, Allow{})
	f.lost = func(a, b *site) bool { return a == f.sites[0] || b == f.sites[0] }
	f.sites[1].sw.SetAway("m0", true)
	f.sites[2].sw.SetAway("m0", true)
	f.sites[1].says(eth(broadcast, vm, 0))
	f.step(200 * time.Millisecond)
	if got := f.sites[2].at(vm); got != "m1" {
		t.Fatalf("it is at %q", got)
	}
	f.lost = nil
	for _, s := range f.sites[1:] {
		s.sw.SetAway("m0", false)
	}
	f.share()
	f.step(500 * time.Millisecond)
	f.share()
	if got := f.sites[0].at(vm); got != "m1" {
		t.Errorf("it is at %q for its former place", got)
	}
	if got := f.sites[2].at(vm); got != "m1" {
		t.Errorf("it is at %q for others", got)
	}
}

// A station that has moved from a member that died in between is had at once when that is seen,
// by the frame that comes next, although the claim has just failed. Who is on the LAN of the dead one asks
// there for its stations: they may be silent.
func TestStationOfTheDead(t *testing.T) {
	lan := Segment{7}
	for name, test := range map[string]struct {
		segment Segment // of the member to which it has come
		says    []byte  // what it says there after the death is known
		asked   int     // questions for it before that
	}{
		"it speaks":                    {Segment{}, eth(broadcast, vm, 0), 0},
		"it answers, on the same LAN":  {lan, askedBack(memberMAC(1).probe()), 1},
		"it speaks, on the same LAN":   {lan, eth(broadcast, vm, 0), 1},
		"it is silent, and on no LAN":  {Segment{}, nil, 0},
		"it is silent, on another LAN": {Segment{8}, nil, 0},
		"it is not there":              {lan, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t, Allow{Bridge: true, Segment: lan}, Allow{Bridge: true, Segment: test.segment}, Allow{})
			f.sites[0].says(request(vm, vmIP, "10.0.0.200"))
			f.share()
			heir, other := f.sites[1], f.sites[2]
			f.dead = f.sites[0]
			if test.says != nil {
				heir.says(eth(broadcast, vm, 0)) // it is heard, and claimed in vain: nobody answers
				f.step(claimTries*claimEvery + claimEvery)
				if got := heir.at(vm); got != "m0" {
					t.Fatalf("before its member is known to be dead it is at %q", got)
				}
			}
			f.clear()
			for _, s := range f.sites[1:] {
				s.sw.SetAway("m0", true)
			}
			f.step(50 * time.Millisecond)
			asked := 0
			for _, frame := range heir.took() {
				if bytes.Contains(frame, netip.MustParseAddr(vmIP).AsSlice()) {
					asked++
				}
			}
			if asked != test.asked {
				t.Errorf("asked for it %d times, want %d", asked, test.asked)
			}
			heir.sw.SetAway("m0", false)
			heir.sw.SetAway("m0", true)
			f.step(50 * time.Millisecond)
			if frames := heir.took(); len(frames) > 0 {
				t.Errorf("asked again at once: %x", frames)
			}
			want, elsewhere := "m0", "m0"
			if test.says != nil {
				want, elsewhere = "", "m1"
				heir.says(test.says)
				f.step(50 * time.Millisecond)
			}
			if heir.at(vm) != want || other.at(vm) != elsewhere {
				t.Errorf("it is at %q for its new place, want %q, and at %q for others, want %q", heir.at(vm), want, other.at(vm), elsewhere)
			}
		})
	}
}

// askedBack is the station's answer to a question for its address.
func askedBack(to MAC) []byte {
	out := append(append(append([]byte(nil), to[:]...), vm[:]...), 8, 6)
	return pad(appendARP(out, 2, vm, netip.MustParseAddr(vmIP), to, netip.IPv4Unspecified()))
}

// Who takes a station while its member is away has to give it back when it answers there.
func TestStationIsGivenBack(t *testing.T) {
	for name, thief := range map[string]Allow{"with the role": bridge, "without": {}} {
		t.Run(name, func(t *testing.T) {
			f := inhabited(t, bridge, thief, Allow{})
			victim, other := f.sites[0], f.sites[2]
			f.lost = func(a, b *site) bool { return a == victim || b == victim }
			other.sw.SetAway("m0", true)
			stolen := []Binding{{MAC: vm, Seq: 50}}
			other.sw.SetBindings("m1", stolen)
			if got := other.at(vm); got != "m1" {
				t.Fatalf("it is at %q", got)
			}
			f.lost = nil
			other.sw.SetAway("m0", false)
			victim.sw.SetBindings("m1", stolen)
			f.living(time.Second, map[*site]map[MAC]netip.Addr{victim: {vm: netip.MustParseAddr(vmIP)}})
			other.sw.SetBindings("m0", victim.sw.Local())
			if got := other.at(vm); got != "m0" {
				t.Errorf("it is at %q", got)
			}
			for i := range uint32(20) { // the thief counts on, in vain
				stolen = []Binding{{MAC: vm, Seq: 100 + i}}
				other.sw.SetBindings("m1", stolen)
			}
			if got := other.at(vm); got != "m0" {
				t.Errorf("then it is at %q", got)
			}
		})
	}
}

// What is answered here, and what leaves.
func TestAnswers(t *testing.T) {
	const far6 = "fd00::77"
	setup := func(t *testing.T) *fabric {
		f := newFabric(t, Allow{}, Allow{Hosts: true}, Allow{}, Allow{Bridge: true, Router: true})
		f.sites[0].says(request(vm, vmIP, "10.0.0.200"))
		f.sites[0].says(solicit(vm, far6, "fd00::200"))
		f.sites[3].says(routerAdvertisementOf(f.sites[3].allow.MAC))
		f.sites[2].says(request(host1, "10.0.0.50", "10.0.0.200"))
		f.step(6 * time.Second) // what was asked in vain is forgotten
		f.share()
		f.clear()
		return f
	}
	me := memberMAC(2)
	reply4 := func(mac MAC, ip string, to MAC, toIP string) []byte {
		out := append(append(append([]byte(nil), to[:]...), mac[:]...), 8, 6)
		return pad(appendARP(out, 2, mac, netip.MustParseAddr(ip), to, netip.MustParseAddr(toIP)))
	}
	reply6 := func(mac MAC, ip string, to MAC, toIP string, flags byte) []byte {
		out := append(append(append([]byte(nil), to[:]...), mac[:]...), 0x86, 0xdd)
		a := netip.MustParseAddr(ip)
		return pad(appendND(out, ndNeighborAdvertisement, flags, a, netip.MustParseAddr(toIP), a, ndOptTarget, mac))
	}
	router := linkLocal(memberMAC(3)).String()
	for name, test := range map[string]struct {
		frame []byte
		want  []byte // the answer; nil: none
		sent  int    // frames that leave
	}{
		"arp: known elsewhere":                     {request(me, "10.0.0.3", vmIP), reply4(vm, vmIP, me, "10.0.0.3"), 0},
		"arp: is a known address free?":            {request(me, "0.0.0.0", vmIP), reply4(vm, vmIP, me, "0.0.0.0"), 0},
		"arp: is an unknown address free?":         {request(me, "0.0.0.0", "10.0.0.99"), nil, 2},
		"arp: is the own address free?":            {request(host1, "0.0.0.0", "10.0.0.50"), nil, 2},
		"arp: unknown":                             {request(me, "10.0.0.3", "10.0.0.99"), nil, 2},
		"arp: on this side":                        {request(me, "10.0.0.3", "10.0.0.50"), nil, 0},
		"arp: of itself":                           {request(me, "10.0.0.3", "10.0.0.3"), nil, 3},
		"nd: known elsewhere":                      {solicit(me, "fd00::3", far6), reply6(vm, far6, me, "fd00::3", 0x60), 0},
		"nd: a member":                             {solicit(me, "fd00::3", "fd00::1"), reply6(memberMAC(0), "fd00::1", me, "fd00::3", 0x60), 0},
		"nd: a router":                             {solicit(me, "fd00::3", router), reply6(memberMAC(3), router, me, "fd00::3", 0xe0), 0},
		"nd: a known address, for being free":      {solicit(me, "::", far6), reply6(vm, far6, MAC{0x33, 0x33, 0, 0, 0, 1}, "ff02::1", 0x20), 0},
		"nd: a member's address, for being free":   {solicit(host1, "::", "fd00::1"), reply6(memberMAC(0), "fd00::1", MAC{0x33, 0x33, 0, 0, 0, 1}, "ff02::1", 0x20), 0},
		"nd: the own address, for being free":      {solicit(me, "::", "fd00::3"), nil, 2},
		"nd: an unknown address, for being free":   {solicit(me, "::", "fd00::99"), nil, 2},
		"nd: unknown":                              {solicit(me, "fd00::3", "fd00::99"), nil, 2},
		"nd: all nodes hear an advertisement":      {from(me, advertisement("fd00::3", me[:])), nil, 3},
		"unknown unicast":                          {eth(MAC{2, 9, 9, 9, 9, 9}, me, 0), nil, 2},
		"a broadcast":                              {eth(broadcast, me, 0), nil, 3},
		"a known station, to which there is a way": {eth(vm, me, 0), nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t)
			s := f.sites[2]
			s.says(test.frame)
			replies := s.took()
			if test.want == nil && len(replies) != 0 || test.want != nil && (len(replies) != 1 || !bytes.Equal(replies[0], test.want)) {
				t.Errorf("answered\n%x, want\n%x", replies, test.want)
			}
			if s.sent != test.sent {
				t.Errorf("%d frames left, want %d", s.sent, test.sent)
			}
			for _, reply := range replies {
				sane(t, reply)
			}
		})
	}
	t.Run("asked again", func(t *testing.T) {
		f := setup(t)
		f.sites[2].says(request(me, "10.0.0.3", "10.0.0.99"))
		f.step(time.Second)
		f.clear()
		f.sites[2].says(request(me, "10.0.0.3", "10.0.0.99"))
		if f.sites[2].sent != 3 {
			t.Errorf("%d frames left", f.sites[2].sent)
		}
	})
	t.Run("its member is away", func(t *testing.T) {
		f := setup(t)
		f.sites[2].sw.SetAway("m0", true)
		f.sites[2].says(request(me, "10.0.0.3", vmIP))
		if replies := f.sites[2].took(); len(replies) != 0 {
			t.Errorf("answered %x", replies)
		}
	})
	t.Run("in a VLAN", func(t *testing.T) {
		f := setup(t)
		f.sites[0].says(tagged(request(vm, "10.0.7.1", "10.0.7.200"), 0x81))
		f.share()
		f.clear()
		f.sites[2].says(request(me, "10.0.7.3", "10.0.7.1"))
		if got := f.sites[2].took(); len(got) != 0 {
			t.Errorf("outside the VLAN: %x", got)
		}
		f.clear()
		f.sites[2].says(tagged(request(me, "10.0.7.3", "10.0.7.1"), 0x81))
		if got := f.sites[2].took(); len(got) != 1 || !bytes.Equal(got[0][12:16], []byte{0x81, 0, 0, 7}) || f.sites[2].sent != 0 {
			t.Errorf("%d left, answered %x", f.sites[2].sent, got)
		}
	})
}

// sane has another library read a frame of ours, with its checksums.
func sane(t *testing.T, frame []byte) {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if p.ErrorLayer() != nil {
		t.Fatalf("%x: %v", frame, p.ErrorLayer().Error())
	}
	if icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
		_ = icmp.SetNetworkLayerForChecksum(p.NetworkLayer())
		if err, result := icmp.VerifyChecksum(); err != nil || !result.Valid {
			t.Fatalf("%x: checksum %v, %v", frame, result, err)
		}
	}
}

func routerAdvertisementOf(mac MAC) []byte {
	return from(mac, routerAdvertisement(linkLocal(mac).String(), mac[:]))
}

// A silent host on our side is asked before it is forgotten; then everybody hears of it.
func TestSilentHosts(t *testing.T) {
	for name, alive := range map[string]bool{"there": true, "gone": false} {
		t.Run(name, func(t *testing.T) {
			f := inhabited(t, Allow{}, Allow{})
			hosts := map[*site]map[MAC]netip.Addr{}
			if alive {
				hosts[f.sites[0]] = map[MAC]netip.Addr{vm: netip.MustParseAddr(vmIP)}
			}
			f.living(2*DefaultAge, hosts)
			f.share()
			want := "?"
			if alive {
				want = "m0"
			}
			if got := f.sites[1].at(vm); got != want {
				t.Errorf("it is at %q, want %q", got, want)
			}
			if f.sent() != 0 {
				t.Errorf("%d frames left", f.sent())
			}
		})
	}
}

// A binding goes ahead of the first frame, to each who gets one, once.
func TestBindingsGoAhead(t *testing.T) {
	f := newFabric(t, Allow{}, Allow{}, Allow{})
	a := f.sites[0]
	a.says(eth(memberMAC(1), vm, 0))
	if f.sites[1].at(vm) != "m0" || a.notices != 1 {
		t.Fatalf("it is at %q, %d notices", f.sites[1].at(vm), a.notices)
	}
	if h := hostOfMAC(f.sites[1], vm); h.Learned != LearnedRecord {
		t.Errorf("learned by %s", h.Learned)
	}
	for i := range 10 {
		a.says(l2frame(memberMAC(1), vm, byte(i)))
		a.says(l2frame(broadcast, vm, byte(i)))
	}
	if a.notices != 2 {
		t.Errorf("%d notices", a.notices)
	}
	a.says(request(vm, vmIP, vmIP)) // its address is news
	if a.notices != 4 {
		t.Errorf("%d notices", a.notices)
	}
	if h := hostOfMAC(f.sites[2], vm); !slices.Contains(h.IPs, netip.MustParseAddr(vmIP)) {
		t.Errorf("%+v", h)
	}
	// A notice that not everybody gets is made good by the record.
	a.says(from(vm, arp(vm[:], "10.0.0.78", 2)))
	f.share()
	late := request(vm, "10.0.0.79", "10.0.0.79")
	copy(late, f.sites[1].allow.MAC[:])
	a.says(late)
	f.share()
	if h := hostOfMAC(f.sites[2], vm); !slices.Contains(h.IPs, netip.MustParseAddr("10.0.0.79")) {
		t.Errorf("%+v", h)
	}
	a.notices = 4
	f.step(recentFor + 2*time.Second)
	a.says(eth(broadcast, vm, 0))
	if a.notices != 4 || a.sw.recent.some.Load() {
		t.Errorf("%d notices when nothing is new", a.notices)
	}
	// What notices said gives way to records.
	if got := f.sites[1].at(vm); got != "m0" {
		t.Errorf("it is at %q", got)
	}
}

func hostOfMAC(s *site, mac MAC) Host {
	for _, h := range s.sw.Hosts() {
		if h.MAC == mac {
			return h
		}
	}
	return Host{}
}

// With fifty members of twenty hosts each, every host finds every other without that a
// frame leaves, and the first frame of a conversation goes to one member.
func TestFiftyByTwenty(t *testing.T) {
	const members, hosts = 50, 20
	f := newFabric(t, slices.Repeat([]Allow{{Hosts: true}}, members)...)
	mac := func(m, h int) MAC { return MAC{2, 0x20, 0, byte(m), 0, byte(h)} }
	v4 := func(m, h int) string { return fmt.Sprintf("10.1.%d.%d", m, h+1) }
	v6 := func(m, h int) string { return fmt.Sprintf("fd00::%x:%x", m+1, h+1) }
	for m, s := range f.sites {
		for h := range hosts {
			for _, frame := range [][]byte{request(mac(m, h), v4(m, h), v4(m, h)), solicit(mac(m, h), v6(m, h), v6(m, h))} {
				probe := s.allow.MAC.probe()
				copy(frame, probe[:]) // it goes no further
				s.says(frame)
			}
		}
	}
	for range 3 { // what is recent is not any more
		f.time = f.time.Add(recentFor)
		f.step(50 * time.Millisecond)
	}
	f.share()
	for _, s := range f.sites {
		if n := len(s.sw.Hosts()); n != members*(hosts+1) {
			t.Fatalf("%s knows %d hosts", s.name, n)
		}
	}
	f.clear()
	var times []time.Duration
	s := f.sites[7]
	for m := range members {
		f.time = f.time.Add(time.Second)
		for h := range hosts {
			if m == 7 {
				continue
			}
			for _, q := range [][]byte{request(mac(7, 3), v4(7, 3), v4(m, h)), solicit(mac(7, 3), v6(7, 3), v6(m, h))} {
				began := time.Now()
				s.says(q)
				times = append(times, time.Since(began))
				if replies := s.took(); len(replies) != 1 || MAC(replies[0][6:12]) != mac(m, h) {
					t.Fatalf("host %d of %d: %x", h, m, replies)
				}
			}
		}
	}
	slices.Sort(times)
	late := times[len(times)*95/100] // this machine is shared: a few wait for their turn
	t.Logf("%d questions answered, half of them within %v, 95 %% within %v; %d frames left", len(times), times[len(times)/2], late, f.sent())
	if f.sent() != 0 || late > 2*time.Millisecond {
		t.Errorf("%d frames left, 95 %% of the answers within %v", f.sent(), late)
	}
	talks := 0
	for m := range members {
		for h := range hosts {
			if m != 7 {
				s.says(eth(mac(m, h), mac(7, 3), 0))
				talks++
			}
		}
	}
	if s.sent != talks {
		t.Errorf("%d frames left for %d conversations", s.sent, talks)
	}
}

// Whatever has moved where, and whoever could not be reached meanwhile: when it is quiet
// again all have every station where it is.
func TestWhereaboutsConverge(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 14))
		f := newFabric(t, bridge, bridge, bridge, bridge)
		truth := map[MAC]*site{}
		address := func(i int) string { return fmt.Sprintf("10.0.9.%d", i+1) }
		station := func(i int) MAC { return MAC{2, 9, 9, 0, 0, byte(i)} }
		cut := map[*site]bool{}
		f.lost = func(a, b *site) bool { return cut[a] || cut[b] }
		living := func(d time.Duration) {
			hosts := map[*site]map[MAC]netip.Addr{}
			for i := range 6 {
				if s := truth[station(i)]; s != nil {
					if hosts[s] == nil {
						hosts[s] = map[MAC]netip.Addr{}
					}
					hosts[s][station(i)] = netip.MustParseAddr(address(i))
				}
			}
			f.living(d, hosts)
		}
		isolate := func(s *site, on bool) {
			cut[s] = on
			for _, other := range f.sites {
				if other != s {
					other.sw.SetAway(s.name, on)
					s.sw.SetAway(other.name, on)
				}
			}
		}
		shareReachable := func() {
			for _, a := range f.sites {
				for _, b := range f.sites {
					if a != b && !cut[a] && !cut[b] {
						b.sw.SetBindings(a.name, a.sw.Local())
					}
				}
			}
		}
		for range 60 {
			i := rng.IntN(6)
			s := f.sites[rng.IntN(4)]
			switch rng.IntN(6) {
			case 0:
				isolate(s, !cut[s])
			case 1:
				shareReachable()
			default:
				truth[station(i)] = s
				s.says(request(station(i), address(i), address(i)))
			}
			living(time.Duration(rng.IntN(20)) * 100 * time.Millisecond)
		}
		for _, s := range f.sites {
			isolate(s, false)
		}
		for range 3 {
			shareReachable()
			living(flapTime + time.Second)
		}
		for range 3 {
			for i := range 6 {
				if s := truth[station(i)]; s != nil {
					s.says(request(station(i), address(i), address(i)))
				}
			}
			living(6 * time.Second)
			shareReachable()
		}
		for i := range 6 {
			where := truth[station(i)]
			for _, s := range f.sites {
				want := ""
				if where == nil {
					want = "?"
				} else if where != s {
					want = where.name
				}
				if got := s.at(station(i)); got != want {
					t.Fatalf("seed %d: %s has station %d at %q, it is at %q", seed, s.name, i, got, want)
				}
			}
		}
		for _, s := range f.sites { // what is counted is what is there
			count := map[*origin]int{}
			for _, e := range s.sw.hosts.hosts {
				count[e.at]++
			}
			for _, r := range s.remotes {
				if r.stations != count[&r.origin] {
					t.Fatalf("seed %d: %d stations are counted, %d are there", seed, r.stations, count[&r.origin])
				}
			}
		}
	}
}

// Who has announced a station with a high number and waits does not get it when its
// holder yields it to another.
func TestHandOverIsForTheClaimant(t *testing.T) {
	f := inhabited(t, bridge, bridge, Allow{}, bridge)
	for _, s := range []*site{f.sites[0], f.sites[1], f.sites[2]} {
		s.sw.SetBindings("m3", []Binding{{MAC: vm, Seq: 1 << 20}})
	}
	f.sites[0].took()
	f.living(time.Second, map[*site]map[MAC]netip.Addr{f.sites[0]: {vm: netip.MustParseAddr(vmIP)}})
	f.sites[1].says(eth(broadcast, vm, 0))
	f.step(500 * time.Millisecond)
	for i, want := range []string{"m1", "", "m1"} {
		if got := f.sites[i].at(vm); got != want {
			t.Errorf("for %s it is at %q, want %q", f.sites[i].name, got, want)
		}
	}
}

// A virtual machine whose cable is pulled may go on anywhere at once: nobody needs a role.
func TestUnplugged(t *testing.T) {
	f := newFabric(t, Allow{}, Allow{}, Allow{})
	first := f.sites[0]
	cable := &plugPort{dev: &tape{}}
	cable.plug, cable.share = cable, first.sw.local.share
	plugged := &pump{sw: first.sw, from: &cable.origin, index: first.sw.queues}
	plugged.batch([]Frame{{Data: request(vm, vmIP, vmIP)}})
	f.share()
	if got := f.sites[2].at(vm); got != "m0" {
		t.Fatalf("it is at %q", got)
	}
	first.sw.forgetPlug(&cable.origin)
	f.step(50 * time.Millisecond)
	if got := f.sites[2].at(vm); got != "?" {
		t.Errorf("unplugged, it is at %q", got)
	}
	f.sites[1].says(request(vm, vmIP, vmIP))
	if got := f.sites[2].at(vm); got != "m1" {
		t.Errorf("plugged in elsewhere, it is at %q", got)
	}
	if h := hostOfMAC(f.sites[2], vm); !slices.Contains(h.IPs, netip.MustParseAddr(vmIP)) {
		t.Errorf("%+v", h)
	}
}

// Who had no session when a station was new is told when there is one.
func TestGreet(t *testing.T) {
	f := newFabric(t, Allow{}, Allow{})
	a, b := f.sites[0], f.sites[1]
	f.lost = func(*site, *site) bool { return true }
	a.says(request(vm, vmIP, vmIP))
	if got := b.at(vm); got != "?" {
		t.Fatalf("it is at %q", got)
	}
	f.lost = nil
	a.sw.Greet("m1")
	if got := b.at(vm); got != "m0" {
		t.Errorf("it is at %q", got)
	}
	a.notices = 0
	a.sw.Greet("m1")
	a.sw.Greet("nobody")
	if a.notices != 0 {
		t.Errorf("told %d times more", a.notices)
	}
}
