package snoop

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	ownMAC   = ProxyMAC([6]byte{2, 0, 0, 0, 0, 0x50})
	hostMAC  = [6]byte{2, 0, 0, 0, 1, 1}
	otherMAC = [6]byte{2, 0, 0, 0, 2, 2}
)

// side is a Table with simulated time.
type side struct {
	t     testing.TB
	table *Table
	now   time.Duration
	sent  []string // with the time in s, since the last look
}

func newSide(t testing.TB) *side { return &side{t: t, table: NewTable(ownMAC, 0)} }

// settled is one whose startup is over.
func settled(t testing.TB) *side {
	s := newSide(t)
	s.pass(settleAfter)
	s.sent = nil
	return s
}

// pass lets time pass, as the switch does: Advance when it says.
func (s *side) pass(d time.Duration) {
	s.t.Helper()
	end := s.now + d
	for {
		frames, next := s.table.Advance(s.now)
		for _, f := range frames {
			s.sent = append(s.sent, s.name(f))
		}
		if again, _ := s.table.Advance(s.now); len(again) > 0 || next <= s.now {
			s.t.Fatalf("at %v: %d frames more, next %v", s.now, len(again), next)
		}
		if next > end {
			s.now = end
			return
		}
		s.now = next
	}
}

// name says what a frame of the Table's is.
func (s *side) name(f []byte) string {
	s.t.Helper()
	vlan, at := uint16(0), 12
	if be16(f[12:]) == 0x8100 {
		vlan, at = be16(f[14:]), 16
	}
	var m Message
	if Parse(&m, be16(f[at:]), f[at+2:]) != Control {
		s.t.Fatalf("%x is not understood", f)
	}
	name := map[Kind]string{Query: "query", Report: "report", RouterHere: "here"}[m.Kind]
	if m.Kind != RouterHere {
		name += fmt.Sprint(m.Version)
	}
	if m.Group.IsValid() {
		name += " " + m.Group.String()
	}
	for _, r := range m.Records {
		name += map[Change]string{Join: " +", Leave: " -"}[r.Change] + r.Group.String()
	}
	family := "IGMP"
	if m.V6() {
		family = "MLD"
	}
	if vlan != 0 {
		name = fmt.Sprintf("VLAN %d %s", vlan, name)
	}
	return fmt.Sprintf("%v %s %s", s.now.Seconds(), family, name)
}

// took returns what was sent of a kind, and forgets all.
func (s *side) took(of string) (list []string) {
	for _, line := range s.sent {
		if strings.Contains(line, of) {
			list = append(list, line)
		}
	}
	s.sent = nil
	return list
}

func (s *side) hear(from [6]byte, m Message) {
	s.hearIn(0, from, m)
}

func (s *side) hearIn(vlan uint16, from [6]byte, m Message) {
	if !m.Source.IsValid() {
		m.Source = host
	}
	s.table.Receive(vlan, from, false, &m, s.now)
}

func (s *side) report(version uint8, c Change, groups ...netip.Addr) {
	m := Message{Kind: Report, Version: version, Source: host}
	if groups[0].Is6() {
		m.Source = host6
	}
	for _, g := range groups {
		m.Records = append(m.Records, Record{g, c})
	}
	s.hear(hostMAC, m)
}

func (s *side) listens(group netip.Addr) bool {
	return slices.ContainsFunc(s.table.Set().Groups, func(g Group) bool { return g.Addr == group })
}

func (s *side) expect(what string, got, want any) {
	s.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestStart(t *testing.T) {
	s := newSide(t)
	s.expect("at first it wants all", s.table.Set().All, true)
	s.pass(settleAfter - 1)
	s.expect("and asks", s.took("IGMP query"), "[0 IGMP query3 2 IGMP query3 4 IGMP query3]")
	s.expect("still", s.table.Set().All, true)
	s.pass(1)
	s.expect("then it knows", *s.table.Set(), Set{VLANs: []uint16{0}})
	s.pass(3 * time.Minute)
	s.expect("and is quiet", s.took("MLD query"), "[64 MLD query2 124 MLD query2 184 MLD query2]")
	if set := s.table.Set(); s.table.Set() != set {
		t.Error("the set is made anew without need")
	}
}

func TestJoinAndLeave(t *testing.T) {
	for _, test := range []struct {
		name        string
		group       netip.Addr
		version     uint8
		stays       bool // somebody else answers the last query
		want        string
		gone, there time.Duration // after the leave
	}{
		{"IGMPv3", video, 3, false, "[6 IGMP query3 239.1.2.3 7 IGMP query3 239.1.2.3]", 2500 * time.Millisecond, 2 * time.Second},
		{"IGMPv2", video, 2, false, "[6 IGMP query3 239.1.2.3 7 IGMP query3 239.1.2.3]", 2500 * time.Millisecond, 2 * time.Second},
		{"MLDv2", video6, 2, false, "[6 MLD query2 ff15::4d:1 7 MLD query2 ff15::4d:1]", 2500 * time.Millisecond, 2 * time.Second},
		{"MLDv1", video6, 1, false, "[6 MLD query2 ff15::4d:1 7 MLD query2 ff15::4d:1]", 2500 * time.Millisecond, 2 * time.Second},
		{"another listens still", video, 3, true, "[6 IGMP query3 239.1.2.3]", 124*time.Second + 500*time.Millisecond, 2 * time.Minute},
		{"IGMPv1 says no leave", video, 1, false, "[]", 124 * time.Second, 2 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := settled(t)
			s.report(test.version, Join, test.group)
			s.expect("joined", s.listens(test.group), true)
			leave := test.version
			if leave == 1 && !test.group.Is6() {
				leave = 2 // another host's
			}
			left := s.now
			s.report(leave, Leave, test.group)
			s.pass(500 * time.Millisecond)
			s.report(leave, Leave, test.group) // said twice, as by Linux
			if test.stays {
				s.report(test.version, Join, test.group)
			}
			s.pass(left + test.there - s.now)
			s.expect("asked", s.took(test.group.String()), test.want)
			s.expect("there", s.listens(test.group), true)
			s.pass(left + test.gone - s.now)
			s.expect("gone", s.listens(test.group), false)
		})
	}
}

// A host behind a firewall does not hear queries; what it says itself counts.
func TestDeafHost(t *testing.T) {
	s := settled(t)
	s.report(3, Join, video)
	s.report(3, Leave, video) // another host's
	s.expect("left", s.table.Leaving(), true)
	s.table.Listens([]netip.Addr{video, netip.MustParseAddr("224.0.0.251"), netip.MustParseAddr("10.0.0.1")}, s.now)
	s.expect("but not by the host", s.table.Leaving(), false)
	s.pass(100 * time.Second)
	s.expect("there", s.table.Set().Groups, "[{0 239.1.2.3}]")
	s.pass(24 * time.Second)
	s.expect("gone", s.listens(video), false)
}

func TestAgeing(t *testing.T) {
	s := settled(t)
	s.report(3, Join, video)
	for range 10 {
		s.pass(100 * time.Second)
		s.report(3, Join, video)
	}
	s.expect("refreshed", s.listens(video), true)
	s.pass(124*time.Second - 1)
	s.expect("before its time", s.listens(video), true)
	s.pass(1)
	s.expect("two queries unanswered", s.listens(video), false)
}

// TestElection has another ask, which wins or not.
func TestElection(t *testing.T) {
	low, high := [6]byte{2}, [6]byte{0xfe}
	query := func(source string, version uint8) Message {
		return Message{Kind: Query, Version: version, Source: netip.MustParseAddr(source), Response: 10 * time.Second}
	}
	for _, test := range []struct {
		name   string
		mac    [6]byte
		m      Message
		yields bool
		router bool
	}{
		{"a router goes before us", high, query("192.168.1.1", 2), true, true},
		{"and one with the highest address", high, query("223.255.255.254", 3), true, true},
		{"a switch without address, lower MAC", low, query("0.0.0.0", 2), true, false},
		{"a switch without address, higher MAC", high, query("0.0.0.0", 2), false, false},
		{"MLD, lower address", high, query("fe80::1", 2), true, true},
		{"MLD, lower address, version 1", high, query("fe80::ff:fe00:1", 1), true, true},
		{"MLD, higher address", low, query("fe80::ffff:ffff:ffff:1", 2), false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := settled(t)
			family := "IGMP"
			if test.m.V6() {
				family = "MLD"
			}
			s.hear(test.mac, test.m)
			s.expect("a router", s.table.Set().Router, test.router)
			s.pass(4 * time.Minute)
			asked := len(s.took(family + " query"))
			s.expect("we ask no more", asked == 0, test.yields)
			s.pass(2 * time.Minute)
			s.expect("until it is silent for 255 s", len(s.took(family+" query")) > 0, true)
			s.expect("the router is gone", s.table.Set().Router, false)
		})
	}
	t.Run("it goes on", func(t *testing.T) {
		s := settled(t)
		for range 10 {
			s.hear(otherMAC, query("10.0.0.9", 3))
			s.pass(2 * time.Minute)
		}
		s.expect("we are silent", s.took("IGMP query"), "[]")
		s.hear(high, query("10.0.0.8", 3)) // a lower one takes over
		s.hear(otherMAC, Message{Kind: Query, Version: 3, Source: netip.MustParseAddr("10.0.0.9"), Group: video, Response: time.Second})
		s.expect("the router stays known", s.table.Set().Router, true)
	})
}

// TestAnothersQuerier asks for a group that somebody has left.
func TestAnothersQuerier(t *testing.T) {
	s := settled(t)
	general := Message{Kind: Query, Version: 3, Source: router, Response: 10 * time.Second, Interval: 125 * time.Second}
	s.hear(otherMAC, general)
	s.report(3, Join, video)
	s.pass(200 * time.Second)
	s.expect("it holds for its interval", s.listens(video), true)
	s.hear(otherMAC, general)
	s.report(3, Join, video)
	s.report(3, Leave, video)
	s.pass(10 * time.Second)
	s.expect("a leave is for it to follow", s.listens(video), true)
	last := Message{Kind: Query, Version: 3, Source: router, Group: video, Response: time.Second, Suppress: true}
	s.hear(otherMAC, last)
	s.pass(10 * time.Second)
	s.expect("a query that shortens nothing", s.listens(video), true)
	last.Suppress = false
	s.hear(otherMAC, last)
	s.pass(2 * time.Second)
	s.expect("time to answer", s.listens(video), true)
	s.pass(time.Second)
	s.expect("nobody did", s.listens(video), false)
}

func TestRouters(t *testing.T) {
	s := settled(t)
	s.hear(otherMAC, Message{Kind: RouterHere, Interval: 105 * time.Second, Source: router})
	s.expect("a hello", s.table.Set().Router, true)
	s.pass(105 * time.Second)
	s.expect("is over", s.table.Set().Router, false)
	s.hear(otherMAC, Message{Kind: RouterHere, Interval: time.Hour, Source: host6})
	s.expect("of IPv6", s.table.Set().Router, true)
	s.hear(otherMAC, Message{Kind: RouterGone, Source: host6})
	s.expect("has said goodbye", s.table.Set().Router, false)
	s.took("")
	s.hear(otherMAC, Message{Kind: RouterAsked, Source: host})
	s.pass(time.Second)
	s.expect("who looks for one finds us", len(s.took("IGMP here")), 1)
}

// TestSpeaksForOthers says what hosts elsewhere listen to, to routers and bridges of this side.
func TestSpeaksForOthers(t *testing.T) {
	s := settled(t)
	s.table.SetRemote([]Group{{0, video}, {0, video.Next()}, {0, video6}, {7, video}})
	s.pass(0)
	s.expect("joins", s.took("report"), "[6 IGMP report3 +239.1.2.3 +239.1.2.4 6 MLD report2 +ff15::4d:1]")
	s.table.SetRemote([]Group{{0, video}, {0, video6}})
	s.pass(time.Second)
	s.expect("a leave, a second later", s.took("report"), "[7 IGMP report3 -239.1.2.4]")
	s.hear(otherMAC, Message{Kind: Query, Version: 2, Source: router, Response: 8 * time.Second})
	s.pass(2 * time.Second)
	s.expect("a querier of version 2 is answered as it understands", s.took("IGMP report"), "[9 IGMP report2 +239.1.2.3]")
	s.hear(otherMAC, Message{Kind: Query, Version: 2, Source: router, Group: video, Response: time.Second})
	s.pass(0)
	s.expect("also for one group", s.took("IGMP report"), "[9 IGMP report2 +239.1.2.3]")
	s.table.SetRemote(nil)
	s.pass(0)
	s.expect("and that they leave", s.took("IGMP report"), "[9 IGMP report2 -239.1.2.3]")

	// Members that change their minds all the time do not keep others' LANs busy.
	for range 1000 {
		s.table.SetRemote([]Group{{0, video6}})
		s.pass(5 * time.Millisecond)
		s.table.SetRemote(nil)
		s.pass(5 * time.Millisecond)
	}
	if n := len(s.took("MLD report")); n < 5 || n > 11 {
		t.Errorf("%d reports in 10 s", n)
	}
}

// Two nodes on one LAN must not take each other's word for hosts: it would never end.
func TestAlliesDoNotEcho(t *testing.T) {
	s := settled(t)
	ally := ProxyMAC(otherMAC)
	m := Message{Kind: Report, Version: 3, Source: netip.IPv4Unspecified(), Records: []Record{{video, Join}}}
	s.table.Receive(0, ally, true, &m, s.now)
	s.expect("its report", s.listens(video), false)
	m = Message{Kind: Query, Version: 2, Source: proxyAddress(ally), Response: time.Second}
	s.table.Receive(0, ally, true, &m, s.now)
	m = Message{Kind: RouterHere, Source: proxyAddress(ally), Interval: time.Hour}
	s.table.Receive(0, ally, true, &m, s.now)
	s.expect("it is no router", s.table.Set().Router, false)
	s.report(3, Join, video)
	s.table.Receive(0, ownMAC, false, &Message{Kind: Query, Version: 3, Source: router, Response: time.Second}, s.now)
	s.expect("what is our own comes back", s.table.Set().Router, false)
}

func TestVLANs(t *testing.T) {
	s := settled(t)
	s.hearIn(5, hostMAC, Message{Kind: Report, Version: 3, Records: []Record{{video, Join}}})
	s.expect("a VLAN is not settled at once", s.table.Set().VLANs, "[0]")
	s.pass(settleAfter)
	s.expect("is asked", s.took("IGMP VLAN 5"), "[6 IGMP VLAN 5 here 6 IGMP VLAN 5 query3 8 IGMP VLAN 5 here 8 IGMP VLAN 5 query3 10 IGMP VLAN 5 here 10 IGMP VLAN 5 query3]")
	s.expect("and then known", *s.table.Set(), Set{VLANs: []uint16{0, 5}, Groups: []Group{{5, video}}})
	s.pass(vlanIdle)
	s.expect("forgotten when silent", *s.table.Set(), Set{VLANs: []uint16{0}})
	for id := range uint16(100) {
		s.table.Saw(id+1, s.now)
	}
	s.pass(settleAfter)
	s.expect("bounded", len(s.table.Set().VLANs), maxVLANs)
	s.hearIn(99, hostMAC, Message{Kind: Report, Version: 3, Records: []Record{{video, Join}}})
	s.expect("beyond that nothing is kept", s.listens(video), false)
}

func TestOverflow(t *testing.T) {
	s := settled(t)
	group := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{239, 1, byte(i >> 8), byte(i)}) }
	for i := range maxGroups {
		s.report(3, Join, group(i))
	}
	s.expect("as many as are kept", s.table.Set().All, false)
	s.report(3, Join, group(maxGroups))
	s.expect("one more", s.table.Set().All, true)
	s.expect("is not kept", len(s.table.Set().Groups), maxGroups)
	for range 3 {
		s.pass(100 * time.Second)
		s.report(3, Join, group(maxGroups)) // those before have aged: there is room
	}
	s.expect("later", *s.table.Set(), Set{VLANs: []uint16{0}, Groups: []Group{{0, group(maxGroups)}}})
}

// What everybody gets is not counted.
func TestFloodedGroupsAreNotKept(t *testing.T) {
	s := settled(t)
	before := s.table.Set()
	s.report(3, Join, netip.MustParseAddr("224.0.0.251"), netip.MustParseAddr("239.255.255.250"))
	s.report(2, Join, netip.MustParseAddr("ff02::fb"), netip.MustParseAddr("ff02::1:ff00:5"))
	if s.table.Set() != before {
		t.Errorf("%+v", s.table.Set())
	}
}

// FuzzTable feeds a Table with anything that parses: it stays bounded and its timers go on.
func FuzzTable(f *testing.F) {
	f.Add([]byte("\x00" + string(igmp(host, video, []byte{0x16, 0, 0, 0, 239, 1, 2, 3}))))
	f.Add([]byte("\x07" + string(mld(host6, video6, mld1(131)))))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < 2 {
			return
		}
		s := newSide(t)
		var m Message
		for step := range 4 {
			for _, etherType := range []uint16{etherTypeIPv4, etherTypeIPv6} {
				if v := Parse(&m, etherType, p[1:]); v == Control || v == Hello {
					s.table.Receive(uint16(p[0]), [6]byte{2, byte(step)}, false, &m, s.now)
				}
			}
			s.pass(time.Duration(p[0]) * time.Second / 4)
		}
		s.pass(time.Hour)
		if s.now != time.Hour+4*(time.Duration(p[0])*time.Second/4) || len(s.table.Set().Groups) > 0 {
			t.Errorf("after an hour: %+v", s.table.Set())
		}
	})
}
