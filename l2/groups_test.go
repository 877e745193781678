package l2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/l2/snoop"
)

var (
	film  = netip.MustParseAddr("239.1.2.3")
	film6 = netip.MustParseAddr("ff15::4d:1")
)

// groupFrame is a UDP datagram to a group, size bytes in all.
func groupFrame(group netip.Addr, src MAC, vlan uint16, size int) []byte {
	dst := MAC(snoop.MAC(group))
	b := append(append([]byte(nil), dst[:]...), src[:]...)
	if vlan != 0 {
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 0), vlan)
	}
	if group.Is4() {
		b = binary.BigEndian.AppendUint16(b, etherTypeIPv4)
		b = append(b, 0x45, 0, 0, 0, 0, 0, 0, 0, 4, protoUDP, 0, 0, 10, 0, 0, 1)
	} else {
		b = binary.BigEndian.AppendUint16(b, etherTypeIPv6)
		b = append(append(b, 0x60, 0, 0, 0, 0, 8, protoUDP, 4), netip.MustParseAddr("fd00::1").AsSlice()...)
	}
	b = append(append(b, group.AsSlice()...), 0x12, 0x34, 0x13, 0x8c, 0, 8, 0, 0)
	return append(b, make([]byte, max(0, size-len(b)))...)
}

// igmpReport is one of version 2, as a host sends it.
func igmpReport(group netip.Addr, src MAC, kind byte) []byte {
	dst := MAC(snoop.MAC(group))
	b := append(append([]byte(nil), dst[:]...), src[:]...)
	b = append(b, 8, 0, 0x46, 0xc0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 5)
	b = append(append(b, group.AsSlice()...), 0x94, 4, 0, 0)
	body := append([]byte{kind, 0, 0, 0}, group.AsSlice()...)
	var sum uint32
	for i := 0; i < 8; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(body[i:]))
	}
	binary.BigEndian.PutUint16(body[2:], ^uint16(sum+sum>>16))
	return append(append(b, body...), make([]byte, 14)...)
}

// wants is what a member's record says: that untagged frames are snooped, and these groups.
func wants(groups ...snoop.Group) *snoop.Set {
	slices.SortFunc(groups, snoop.Group.Compare)
	return &snoop.Set{VLANs: []uint16{0}, Groups: groups}
}

// audienceRig has a and b, which have said what they want; nil is nothing said.
func audienceRig(t testing.TB, a, b *snoop.Set) *rig {
	r := newRig(t, Config{StormBurst: 10, StormRate: 10})
	r.connect("a", Allow{MAC: macOfA})
	r.connect("b", Allow{MAC: macOfB})
	r.remotes["a"].SetGroups(a)
	r.remotes["b"].SetGroups(b)
	return r
}

func TestGroupsGoWhereSomebodyListens(t *testing.T) {
	tagged := &snoop.Set{VLANs: []uint16{0, 5}, Groups: []snoop.Group{{VLAN: 5, Addr: film}}}
	mismatch := groupFrame(film, ownMAC, 0, 100)
	mismatch[5]++
	unicast := groupFrame(film, ownMAC, 0, 100)
	copy(unicast[30:], []byte{10, 1, 2, 3})
	double := groupFrame(film, ownMAC, 6, 100)
	double = slices.Concat(double[:12], []byte{0x88, 0xa8, 0, 9}, double[12:])
	for _, test := range []struct {
		name  string
		a, b  *snoop.Set
		frame []byte
		want  string
	}{
		{"to the one who listens", wants(snoop.Group{Addr: film}), wants(), groupFrame(film, ownMAC, 0, 100), "a"},
		{"IPv6", wants(snoop.Group{Addr: film6}), wants(snoop.Group{Addr: film}), groupFrame(film6, ownMAC, 0, 100), "a"},
		{"to both", wants(snoop.Group{Addr: film}), wants(snoop.Group{Addr: film}), groupFrame(film, ownMAC, 0, 100), "a b"},
		{"nobody listens", wants(), wants(), groupFrame(film, ownMAC, 0, 100), "!no-listener"},
		{"who has said nothing wants it", wants(), nil, groupFrame(film, ownMAC, 0, 100), "b"},
		{"who has too many wants it", &snoop.Set{All: true}, wants(), groupFrame(film, ownMAC, 0, 100), "a"},
		{"a router wants it", &snoop.Set{Router: true, VLANs: []uint16{0}}, wants(), groupFrame(film, ownMAC, 0, 100), "a"},
		{"groups are apart by VLAN", tagged, wants(snoop.Group{Addr: film}), groupFrame(film, ownMAC, 0, 100), "b"},
		{"in a VLAN that is not snooped all is wanted", tagged, wants(snoop.Group{Addr: film}), groupFrame(film, ownMAC, 5, 100), "a b"},
		{"nobody in a VLAN", tagged, tagged, groupFrame(film6, ownMAC, 5, 100), "!no-listener"},
		{"a twin of its MAC goes along", wants(snoop.Group{Addr: netip.MustParseAddr("238.129.2.3")}), wants(), groupFrame(film, ownMAC, 0, 100), "a"},

		{"mDNS to all", wants(), wants(), groupFrame(netip.MustParseAddr("224.0.0.251"), ownMAC, 0, 100), "a b"},
		{"mDNS over IPv6 to all", wants(), wants(), groupFrame(netip.MustParseAddr("ff02::fb"), ownMAC, 0, 100), "a b"},
		{"SSDP to all", wants(), wants(), groupFrame(netip.MustParseAddr("239.255.255.250"), ownMAC, 0, 100), "a b"},
		{"SSDP over IPv6 to all", wants(), wants(), groupFrame(netip.MustParseAddr("ff05::c"), ownMAC, 0, 100), "a b"},
		{"solicited nodes to all", wants(), wants(), groupFrame(netip.MustParseAddr("ff02::1:ff00:1"), ownMAC, 0, 100), "a b"},
		{"all nodes to all", wants(), wants(), groupFrame(netip.MustParseAddr("ff02::1"), ownMAC, 0, 100), "a b"},
		{"routing protocols to all", wants(), wants(), groupFrame(netip.MustParseAddr("224.0.0.5"), ownMAC, 0, 100), "a b"},
		{"a twin of their MACs not", wants(), wants(), groupFrame(netip.MustParseAddr("239.128.0.5"), ownMAC, 0, 100), "!no-listener"},
		{"broadcast to all", wants(), wants(), eth(broadcast, ownMAC, 0), "a b"},
		{"what is no IP to all", wants(), wants(), eth(MAC(snoop.MAC(film)), ownMAC, 0), "a b"},
		{"a group at another's MAC to all", wants(), wants(), mismatch, "a b"},
		{"unicast at a group's MAC to all", wants(), wants(), unicast, "a b"},
		{"behind two tags to all", wants(), wants(), double, "a b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := audienceRig(t, test.a, test.b).send("", test.frame); got != test.want {
				t.Errorf("went to %q, want %q", got, test.want)
			}
		})
	}
}

// What is said of a remote goes with it, and what another says replaces it.
func TestAudienceFollows(t *testing.T) {
	r := audienceRig(t, wants(snoop.Group{Addr: film}), wants())
	frame := groupFrame(film, ownMAC, 0, 100)
	step := func(what, want string) {
		t.Helper()
		if got := r.send("", frame); got != want {
			t.Errorf("%s: went to %q, want %q", what, got, want)
		}
	}
	step("a listens", "a")
	r.connect("a", Allow{MAC: macOfA})
	step("connected again", "a")
	r.remotes["b"].SetGroups(wants(snoop.Group{Addr: film}, snoop.Group{Addr: film6}))
	step("b too", "a b")
	r.remotes["a"].SetGroups(wants())
	step("a no longer", "b")
	gone := r.remotes["b"]
	r.disconnect("b")
	step("b has gone", "!no-listener")
	gone.SetGroups(wants(snoop.Group{Addr: film}))
	if n := len(r.sw.groups.away.Load().keys); n != 0 {
		t.Errorf("%d groups of who has gone", n)
	}
	r.connect("b", Allow{MAC: macOfB})
	step("b is new and wants all", "b")
	r.disconnect("b")
	r.disconnect("a")
	if g := &r.sw.groups; len(g.listeners) != 0 || g.routers != 0 || g.strays != 0 {
		t.Errorf("left behind: %v, %d routers, %d strays", g.listeners, g.routers, g.strays)
	}
}

// IGMP and MLD stay on their side, and say what is wanted here.
func TestReportsStay(t *testing.T) {
	r := audienceRig(t, wants(), nil)
	r.time = r.time.Add(time.Minute)
	r.sw.advanceGroups(r.sw.now()) // settles
	r.host.frames = nil
	if got := r.send("", igmpReport(film, ownMAC, 0x16)); got != "" {
		t.Errorf("a report went to %q", got)
	}
	want := []snoop.Group{{Addr: film}}
	if got := r.sw.Groups(); got.All || got.Router || !slices.Equal(got.Groups, want) {
		t.Errorf("wanted here: %+v, want %v", got, want)
	}
	broken := igmpReport(film, ownMAC, 0x16)
	broken[45]++
	if got := r.send("", broken); got != "" {
		t.Errorf("one with a wrong checksum went to %q", got)
	}
	for name, frame := range map[string][]byte{
		"a report": igmpReport(film, macOfA, 0x16), "a leave": igmpReport(film, macOfA, 0x17), "a query": igmpReport(film, macOfA, 0x11),
		"one that is addressed to us": append(bytes.Clone(ownMAC[:]), igmpReport(film, macOfA, 0x17)[6:]...),
	} {
		if got := r.send("a", frame); got != "!igmp-mld" {
			t.Errorf("%s of a remote went to %q", name, got)
		}
	}
	if got := r.sw.Groups(); !slices.Equal(got.Groups, want) {
		t.Errorf("a remote changed what is wanted here: %+v", got)
	}
	if got := r.send("a", groupFrame(netip.MustParseAddr("224.0.0.13"), macOfA, 0, 60)); got != "host" {
		t.Errorf("routers' own protocol went to %q", got)
	}
}

// TestGroupLimits: groups with listeners are limited by bytes, others and broadcasts by number, at both ends; neither takes from the other.
func TestGroupLimits(t *testing.T) {
	const rate, size = 1_000_000, 1000
	r := newRig(t, Config{GroupRate: rate})
	r.connect("a", Allow{MAC: macOfA})
	r.connect("b", Allow{MAC: macOfB})
	r.remotes["a"].SetGroups(wants(snoop.Group{Addr: film}))
	r.remotes["b"].SetGroups(wants())
	count := func(from string, frame []byte, n int) (passed int) {
		for range n {
			if got := r.send(from, frame); !strings.HasPrefix(got, "!") {
				passed++
			} else if got != "!storm" {
				t.Fatalf("got %q", got)
			}
		}
		return passed
	}
	expect := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d passed, want %d", what, got, want)
		}
	}
	stray := groupFrame(film6, ownMAC, 0, size)
	expect("a film at once", count("", groupFrame(film, ownMAC, 0, size), 1000), rate*2/5/size)
	expect("broadcasts besides", count("", eth(broadcast, ownMAC, 0), 1000), DefaultStormBurst)
	r.remotes["b"].SetGroups(nil)
	r.time = r.time.Add(time.Hour)
	expect("a group that only who wants all gets", count("", stray, 1000), DefaultStormBurst)
	r.time = r.time.Add(time.Hour)
	film := groupFrame(film, ownMAC, 0, size)
	passed := 0
	for range 1000 { // ten seconds
		r.time = r.time.Add(10 * time.Millisecond)
		passed += count("", film, 20)
	}
	if want := 10*rate/size + rate*2/5/size; passed < want-20 || passed > want {
		t.Errorf("%d frames in 10 s, want %d", passed, want)
	}

	// As receiver: what a remote sends to a group that is not listened to here is a broadcast like others.
	copy(film[6:], macOfA[:])
	copy(stray[6:], macOfA[:])
	r.time = r.time.Add(time.Hour)
	r.send("", igmpReport(netip.MustParseAddr("239.1.2.3"), ownMAC, 0x16))
	expect("a film from a remote", count("a", film, 1000), rate*2/5/size)
	expect("a stray group from a remote", count("a", stray, 1000), DefaultStormBurst)
}

// A film that nobody wants does not take from what broadcasts may.
func TestStreamToNobodyCostsNothing(t *testing.T) {
	r := audienceRig(t, wants(), wants())
	for range 1000 {
		if got := r.send("", groupFrame(film, ownMAC, 0, 1000)); got != "!no-listener" {
			t.Fatalf("went to %q", got)
		}
	}
	if got := r.send("", eth(broadcast, ownMAC, 0)); got != "a b" {
		t.Errorf("a broadcast afterwards went to %q", got)
	}
}

// The switch tells when what is wanted changes, and says on its side what is wanted elsewhere.
func TestGroupsAreTold(t *testing.T) {
	told := 0
	r := newRig(t, Config{GroupsChanged: func() { told++ }})
	r.connect("a", Allow{MAC: macOfA})
	var said []string
	advance := func(d time.Duration) {
		for range 10 {
			r.time = r.time.Add(d / 10)
			r.sw.advanceGroups(r.sw.now())
		}
		for _, f := range r.host.frames {
			var m snoop.Message
			h, _ := ParseHeader(f)
			if h.Src != MAC(snoop.ProxyMAC(ownMAC)) || snoop.Parse(&m, h.EtherType, f[h.Payload:]) != snoop.Control {
				t.Fatalf("the host got %x", f)
			}
			if m.Kind == snoop.Report {
				said = append(said, fmt.Sprint(m.Records))
			}
		}
		r.host.frames = nil
	}
	expect := func(what string, times int, sets ...string) {
		t.Helper()
		if told != times || !slices.Equal(said, sets) {
			t.Errorf("%s: told %d times and said %q, want %d and %q", what, told, said, times, sets)
		}
		told, said = 0, nil
	}
	advance(10 * time.Millisecond)
	expect("at the start", 1)
	advance(10 * time.Second)
	expect("settled", 1)
	r.send("", igmpReport(film, ownMAC, 0x16))
	advance(time.Second)
	expect("a report", 1)
	r.send("", igmpReport(film, ownMAC, 0x16))
	advance(time.Second)
	expect("the same again", 0)
	r.remotes["a"].SetGroups(wants(snoop.Group{Addr: film6}))
	advance(time.Second)
	expect("a remote listens", 0, "[{ff15::4d:1 0}]")
	r.disconnect("a")
	advance(time.Second)
	expect("it has gone", 0, "[{ff15::4d:1 1}]")
	r.send("", eth(MAC{0x33, 0x33, 0, 0, 0, 1}, ownMAC, 7))
	advance(10 * time.Second)
	if got := r.sw.Groups().VLANs; !slices.Equal(got, []uint16{0, 7}) {
		t.Errorf("VLANs %v", got)
	}
}

// knowing is a host that says by itself what it listens to.
type knowing struct {
	*tape
	groups []netip.Addr
	asked  int
	err    error
}

func (k *knowing) HostGroups() ([]netip.Addr, error) {
	k.asked++
	return k.groups, k.err
}

func TestHostSaysWhatItListensTo(t *testing.T) {
	dev := &knowing{tape: &tape{}, groups: []netip.Addr{film, film6, netip.MustParseAddr("224.0.0.1")}}
	now := time.Unix(1e9, 0)
	s := NewSwitch(Config{Device: dev, MAC: ownMAC, Now: func() time.Time { return now }})
	step := func(d time.Duration) {
		now = now.Add(d)
		s.askHost(s.now())
		s.advanceGroups(s.now())
	}
	for range 100 {
		step(10 * time.Millisecond)
	}
	if want := []snoop.Group{{Addr: film}, {Addr: film6}}; dev.asked != 1 || !slices.Equal(s.Groups().Groups, want) {
		t.Errorf("asked %d times, known %v, want %v", dev.asked, s.Groups().Groups, want)
	}
	for range 20 { // minutes without a report
		step(30 * time.Second)
	}
	if dev.asked != 21 || len(s.Groups().Groups) != 2 {
		t.Errorf("asked %d times, known %v", dev.asked, s.Groups().Groups)
	}
	p := &pump{sw: s, from: &s.local}
	p.batch(whole(igmpReport(film, ownMAC, 0x17))) // a neighbour's leave
	step(time.Second)
	if s.groups.table.Leaving() || dev.asked != 22 {
		t.Errorf("asked %d times while a group is left", dev.asked)
	}
	dev.groups = dev.groups[1:]
	p.batch(whole(igmpReport(film, ownMAC, 0x17)))
	step(time.Second)
	step(2 * time.Second)
	if got := s.Groups().Groups; len(got) != 1 || got[0].Addr != film6 {
		t.Errorf("after the host has left: %v", got)
	}
	dev.err = errors.New("no such file")
	step(time.Minute)
	if got := s.Groups().Groups; len(got) != 1 {
		t.Errorf("after an error: %v", got)
	}
}
