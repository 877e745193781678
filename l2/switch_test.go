package l2

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"
)

// step is a frame and who gets it.
type step struct {
	from     string // "" is the host
	dst, src MAC
	vlan     uint16
	want     string // as rig.send returns it
	pause    time.Duration
}

func TestForwarding(t *testing.T) {
	multicast := MAC{0x33, 0x33, 0, 0, 0, 1}
	tests := map[string][]step{
		"broadcast from the host goes to all":     {{"", broadcast, ownMAC, 0, "a b", 0}},
		"multicast from the host goes to all":     {{"", multicast, ownMAC, 0, "a b", 0}},
		"unknown unicast from the host too":       {{"", host1, ownMAC, 0, "a b", 0}},
		"a member's own address is known":         {{"", macOfA, ownMAC, 0, "a", 0}, {"", macOfB, ownMAC, 9, "b", 0}},
		"broadcast from a remote goes to us only": {{"a", broadcast, macOfA, 0, "host", 0}},
		"unicast to us":                           {{"a", ownMAC, macOfA, 0, "host", 0}},
		"unknown unicast from a remote":           {{"a", host1, macOfA, 0, "host", 0}},
		"split horizon":                           {{"a", macOfB, macOfA, 0, "!elsewhere", 0}, {"a", macOfA, macOfA, 0, "!elsewhere", 0}},
		"split horizon for learned stations":      {{"b", ownMAC, host1, 0, "host", 0}, {"a", host1, macOfA, 0, "!elsewhere", 0}},
		"learned":                                 {{"a", ownMAC, host1, 0, "host", 0}, {"", host1, ownMAC, 0, "a", 0}},
		"learned from a broadcast":                {{"a", broadcast, host1, 0, "host", 0}, {"", host1, ownMAC, 0, "a", 0}},
		"forgotten when silent":                   {{"a", ownMAC, host1, 0, "host", DefaultAge}, {"", host1, ownMAC, 0, "a b", 0}},
		"not forgotten before":                    {{"a", ownMAC, host1, 0, "host", DefaultAge - 1}, {"", host1, ownMAC, 0, "a", 0}},
		"being asked is not speaking": {
			{"a", ownMAC, host1, 0, "host", DefaultAge / 2},
			{"", host1, ownMAC, 0, "a", DefaultAge / 2},
			{"", host1, ownMAC, 0, "a b", 0},
		},
		"refreshed": {
			{"a", ownMAC, host1, 0, "host", DefaultAge / 2},
			{"a", ownMAC, host1, 0, "host", DefaultAge / 2},
			{"", host1, ownMAC, 0, "a", 0},
		},
		"VLANs are apart": {
			{"a", ownMAC, host1, 5, "host", 0},
			{"", host1, ownMAC, 5, "a", 0},
			{"", host1, ownMAC, 0, "a b", 0},
			{"", host1, ownMAC, 6, "a b", 0},
			{"b", ownMAC, host1, 6, "host", 0},
			{"", host1, ownMAC, 6, "b", 0},
			{"", host1, ownMAC, 5, "a", 0},
		},
		"stations on our side": {
			{"", broadcast, host1, 0, "a b", 0},
			{"", host1, ownMAC, 0, "!elsewhere", 0},
			{"", ownMAC, host1, 0, "!elsewhere", 0},
			{"a", host1, macOfA, 0, "host", 0},
		},
		"our own address is never learned elsewhere": {{"a", broadcast, ownMAC, 0, "!source-mac", 0}, {"a", ownMAC, macOfA, 0, "host", 0}},
		"nor another member's": {
			{"a", broadcast, macOfB, 0, "!source-mac", 0},
			{"a", broadcast, macOfB, 7, "!source-mac", DefaultAge},
			{"a", broadcast, macOfB, 0, "!source-mac", 0},
			{"", macOfB, ownMAC, 0, "b", 0},
		},
		"a member's address does not come from our side": {{"", broadcast, macOfA, 0, "!source-mac", 0}},
		"a station does not move while it is fresh": {
			{"a", ownMAC, host1, 0, "host", DefaultAge - 1},
			{"b", ownMAC, host1, 0, "!source-moved", 0},
			{"", host1, ownMAC, 0, "a", 0},
		},
		"nor to our side":        {{"a", ownMAC, host1, 0, "host", 0}, {"", broadcast, host1, 0, "!source-moved", 0}},
		"nor away from our side": {{"", broadcast, host1, 0, "a b", 0}, {"a", broadcast, host1, 0, "!source-moved", 0}},
		"a silent station may move": {
			{"a", ownMAC, host1, 0, "host", DefaultAge}, {"b", ownMAC, host1, 0, "host", 0}, {"", host1, ownMAC, 0, "b", 0},
		},
		"a claim does not keep it fresh": {
			{"a", ownMAC, host1, 0, "host", DefaultAge / 2},
			{"b", ownMAC, host1, 0, "!source-moved", DefaultAge / 2},
			{"b", ownMAC, host1, 0, "host", 0},
		},
		"multicast source": {{"a", ownMAC, MAC{3, 0, 0, 0, 0, 1}, 0, "!source-multicast", 0}, {"", broadcast, broadcast, 0, "!source-multicast", 0}},
		"zero source":      {{"a", ownMAC, MAC{}, 0, "!source-zero", 0}, {"", broadcast, MAC{}, 0, "!source-zero", 0}},
		"link-local protocols": {
			{"a", MAC{1, 0x80, 0xc2, 0, 0, 0}, macOfA, 0, "!reserved-multicast", 0},
			{"a", MAC{1, 0x80, 0xc2, 0, 0, 0x0e}, macOfA, 3, "!reserved-multicast", 0},
			{"", MAC{1, 0x80, 0xc2, 0, 0, 1}, ownMAC, 0, "!reserved-multicast", 0},
			{"", MAC{1, 0x80, 0xc2, 0, 0, 0x0f}, ownMAC, 0, "!reserved-multicast", 0},
			{"", MAC{1, 0x80, 0xc2, 0, 0, 0x10}, ownMAC, 0, "a b", 0},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Config{})
			r.connect("a", Allow{MAC: macOfA, Hosts: true})
			r.connect("b", Allow{MAC: macOfB, Hosts: true})
			for i, s := range steps {
				if got := r.send(s.from, eth(s.dst, s.src, s.vlan)); got != s.want {
					t.Errorf("step %d: %s -> %s from %q gave %q, want %q", i, s.src, s.dst, s.from, got, s.want)
				}
				r.time = r.time.Add(s.pause)
			}
		})
	}
}

func TestSizes(t *testing.T) {
	full := func(vlan uint16, payload int) []byte {
		frame := eth(ownMAC, macOfA, vlan)
		return append(frame, make([]byte, payload-46)...)
	}
	tests := map[string]struct {
		frame []byte
		want  string
	}{
		"empty":            {nil, "!malformed"},
		"runt":             {full(0, 46)[:13], "!malformed"},
		"header only":      {full(0, 46)[:14], "host"},
		"half a tag":       {full(5, 46)[:16], "!malformed"},
		"full":             {full(0, 1500), "host"},
		"full, tagged":     {full(5, 1500), "host"},
		"full, two tags":   {serviceTag(full(5, 1500)), "host"},
		"larger than full": {full(0, 1501), "!oversize"},
		"tagged, larger":   {full(5, 1501), "!oversize"},
		"64 KiB":           {full(0, 65536), "!oversize"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Config{})
			r.connect("a", Allow{MAC: macOfA})
			if got := r.send("a", test.frame); got != test.want {
				t.Errorf("from a remote: %q, want %q", got, test.want)
			}
			want := test.want
			if want == "host" {
				want = "a"
				copy(test.frame, macOfA[:])
				copy(test.frame[6:], ownMAC[:])
			}
			if got := r.send("", test.frame); got != want {
				t.Errorf("from the host: %q, want %q", got, want)
			}
		})
	}
	r := newRig(t, Config{MTU: 9000})
	r.connect("a", Allow{MAC: macOfA})
	if got := r.send("a", full(0, 9000)); got != "host" {
		t.Errorf("9000 bytes on a segment of MTU 9000: %q", got)
	}
}

// serviceTag puts a service tag before the tag of a frame.
func serviceTag(frame []byte) []byte {
	return slices.Concat(frame[:12], []byte{0x88, 0xa8, 0, 9}, frame[12:])
}

func TestLimitOfStations(t *testing.T) {
	tests := map[string]struct {
		allow Allow
		want  int
	}{
		"member":            {Allow{}, 32},
		"fewer":             {Allow{MaxMACs: 3}, 3},
		"bridge":            {Allow{Bridge: true}, 1024},
		"bridge with limit": {Allow{Bridge: true, MaxMACs: 50}, 50},
		"no more than 1024": {Allow{MaxMACs: 5000}, 1024},
	}
	number := func(n int) MAC { return MAC{2, 1, 0, 0, byte(n >> 8), byte(n)} }
	for name, test := range tests {
		for _, from := range []string{"a", ""} {
			t.Run(name+" from "+from, func(t *testing.T) {
				r := newRig(t, Config{StormBurst: 1 << 20, Bridge: test.allow.Bridge, MaxMACs: test.allow.MaxMACs})
				test.allow.MAC = macOfA
				r.connect("a", test.allow)
				r.connect("b", Allow{MAC: macOfB})
				delivered, own := "host", macOfA
				if from == "" {
					delivered, own = "a b", ownMAC
				}
				for n := range test.want {
					if got := r.send(from, eth(broadcast, number(n), 0)); got != delivered {
						t.Fatalf("station %d: %q", n, got)
					}
				}
				if got := r.send(from, eth(broadcast, number(test.want), 0)); got != "!source-limit" {
					t.Fatalf("one more: %q", got)
				}
				if got := r.send(from, eth(broadcast, number(0), 1)); got != "!source-limit" {
					t.Fatalf("a station in another VLAN counts: %q", got)
				}
				if got := r.send(from, eth(broadcast, own, 0)); got != delivered {
					t.Fatalf("the own address does not count: %q", got)
				}
				r.time = r.time.Add(DefaultAge)
				if got := r.send(from, eth(broadcast, number(test.want), 0)); got != delivered {
					t.Fatalf("when the others have aged: %q", got)
				}
			})
		}
	}
}

// A flood of addresses leaves the table bounded and costs the others nothing.
func TestFloodOfAddresses(t *testing.T) {
	r := newRig(t, Config{StormBurst: 1 << 30})
	for n := range 40 {
		r.connect(strconv.Itoa(n), Allow{MAC: MAC{2, 0, 0, 0, 9, byte(n)}, Bridge: true})
	}
	r.connect("a", Allow{MAC: macOfA})
	if got := r.send("a", eth(broadcast, host1, 0)); got != "host" {
		t.Fatal(got)
	}
	for n := range 1100 {
		for name := range 40 {
			src := MAC{2, 2, byte(name), byte(n >> 16), byte(n >> 8), byte(n)}
			r.remotes[strconv.Itoa(name)].Receive(eth(broadcast, src, 0), 0)
			r.remotes[strconv.Itoa(name)].Flush()
		}
	}
	r.host.frames = nil
	if got := len(r.sw.hosts.hosts); got != maxStations {
		t.Errorf("%d stations after a flood of 44,000, want %d", got, maxStations)
	}
	if got := r.send("a", eth(broadcast, host1, 0)); got != "host" {
		t.Errorf("a station from before the flood: %q", got)
	}
	if got := r.send("a", eth(broadcast, host2, 0)); got != "host" {
		t.Errorf("a new station works by flooding: %q", got)
	}
	r.time = r.time.Add(DefaultAge)
	if got := r.send("a", eth(broadcast, host3, 0)); got != "host" || len(r.sw.hosts.hosts) != 1 {
		t.Errorf("after the flood: %q, %d stations, want 1", got, len(r.sw.hosts.hosts))
	}
}

// A flood beyond the limit does not buy a walk of the table for each frame.
func TestSweepsAreRare(t *testing.T) {
	r := newRig(t, Config{StormBurst: 1 << 30})
	r.connect("a", Allow{MAC: macOfA, MaxMACs: 1})
	r.send("a", eth(ownMAC, host1, 0))
	sweeps := 0
	for range 100 {
		r.time = r.time.Add(sweepEvery / 10)
		before := r.sw.hosts.swept
		if got := r.send("a", eth(ownMAC, host2, 0)); got != "!source-limit" {
			t.Fatal(got)
		}
		if r.sw.hosts.swept != before {
			sweeps++
		}
	}
	if sweeps != 10 {
		t.Errorf("%d sweeps in 10 s, want 10", sweeps)
	}
}

func TestQueueIsBounded(t *testing.T) {
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: macOfA})
	for n := range 1000 {
		r.remotes["a"].Receive(eth(ownMAC, macOfA, 0), 0)
		if waiting := n + 1 - len(r.host.frames); waiting >= 128 {
			t.Fatalf("%d frames wait for a Flush", waiting)
		}
	}
}

func TestStorm(t *testing.T) {
	count := func(r *rig, from string, dst MAC, src MAC, n int) (delivered int) {
		for range n {
			switch got := r.send(from, eth(dst, src, 0)); got {
			case "!storm":
			case "!elsewhere", "!source-mac":
				t.Fatalf("got %q", got)
			default:
				delivered++
			}
		}
		return delivered
	}
	for name, dst := range map[string]MAC{"broadcast": broadcast, "multicast": {1, 0, 0x5e, 0, 0, 1}, "unknown unicast": host3} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Config{})
			r.connect("a", Allow{MAC: macOfA})
			r.connect("b", Allow{MAC: macOfB})
			for _, end := range []struct {
				from     string
				src, mac MAC // mac is a known unicast destination
			}{{"", ownMAC, macOfA}, {"a", macOfA, ownMAC}, {"b", macOfB, ownMAC}} {
				if got := count(r, end.from, dst, end.src, 1000); got != DefaultStormBurst {
					t.Errorf("from %q: %d of a burst of 1000 passed, want 600", end.from, got)
				}
				if got := count(r, end.from, end.mac, end.src, 1000); got != 1000 {
					t.Errorf("from %q: %d of 1000 known unicast frames passed", end.from, got)
				}
			}
			for range 10 {
				r.time = r.time.Add(100 * time.Millisecond)
				for _, end := range []struct {
					from string
					src  MAC
				}{{"", ownMAC}, {"a", macOfA}} {
					if got := count(r, end.from, dst, end.src, 100); got != 30 {
						t.Errorf("from %q: %d passed in 100 ms, want 30", end.from, got)
					}
				}
			}
		})
	}
}

func TestReconnectDoesNotRefill(t *testing.T) {
	r := newRig(t, Config{StormRate: 1, StormBurst: 2})
	r.connect("a", Allow{MAC: macOfA})
	for _, want := range []string{"host", "host", "!storm"} {
		if got := r.send("a", eth(broadcast, macOfA, 0)); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	r.connect("a", Allow{MAC: macOfA})
	if got := r.send("a", eth(broadcast, macOfA, 0)); got != "!storm" {
		t.Errorf("%q after reconnecting", got)
	}
}

func TestVLANs(t *testing.T) {
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: macOfA, VLANs: []uint16{5}})
	r.connect("b", Allow{MAC: macOfB, VLANs: []uint16{}})
	r.connect("c", Allow{})
	for _, s := range []step{
		{from: "a", dst: ownMAC, src: macOfA, vlan: 5, want: "host"},
		{from: "a", dst: ownMAC, src: macOfA, vlan: 6, want: "!vlan"},
		{from: "a", dst: ownMAC, src: macOfA, vlan: 0, want: "host"},
		{from: "b", dst: ownMAC, src: macOfB, vlan: 5, want: "!vlan"},
		{from: "b", dst: ownMAC, src: macOfB, vlan: 0, want: "host"},
		{from: "", dst: broadcast, src: ownMAC, vlan: 5, want: "a c"},
		{from: "", dst: broadcast, src: ownMAC, vlan: 6, want: "c"},
		{from: "", dst: broadcast, src: ownMAC, vlan: 0, want: "a b c"},
		{from: "", dst: macOfA, src: ownMAC, vlan: 6, want: "!vlan"},
	} {
		if got := r.send(s.from, eth(s.dst, s.src, s.vlan)); got != s.want {
			t.Errorf("VLAN %d from %q to %s: %q, want %q", s.vlan, s.from, s.dst, got, s.want)
		}
	}
	hop := eth(ownMAC, macOfB, 5) // hosts strip the priority tag and find the other
	hop = slices.Concat(hop[:12], []byte{0x81, 0, 0xe0, 0}, hop[12:])
	if got := r.send("b", hop); got != "!vlan" {
		t.Errorf("a tag behind a priority tag: %q", got)
	}
	r.sw.SetOwn(Allow{MAC: ownMAC, VLANs: []uint16{6}})
	if got := r.send("", eth(broadcast, ownMAC, 5)); got != "!vlan" {
		t.Errorf("a tag that we may not use: %q", got)
	}
}

func TestConnectAndDisconnect(t *testing.T) {
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: macOfA})
	r.connect("b", Allow{MAC: macOfB, Hosts: true})
	expect := func(what, from string, frame []byte, want string) {
		t.Helper()
		if got := r.send(from, frame); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	expect("learn", "a", eth(ownMAC, host1, 0), "host")
	first := r.remotes["a"]
	r.connect("a", Allow{MAC: macOfA, VLANs: []uint16{5}})
	if r.remotes["a"] != first {
		t.Error("reconnecting made another port")
	}
	expect("reconnected: learned stays", "", eth(host1, ownMAC, 0), "a")
	expect("reconnected: new rights hold", "a", eth(ownMAC, macOfA, 6), "!vlan")

	r.disconnect("a")
	expect("from a disconnected remote", "a", eth(ownMAC, macOfA, 0), "!disconnected")
	expect("to its address", "", eth(macOfA, ownMAC, 0), "b")
	expect("to what was behind it", "", eth(host1, ownMAC, 0), "b")
	expect("its stations are free", "b", eth(ownMAC, host1, 0), "host")
	r.disconnect("a") // is nothing
	r.connect("a", Allow{MAC: macOfA})
	expect("connected anew", "", eth(broadcast, ownMAC, 0), "a b")

	r.connect("c", Allow{MAC: host1}) // an address that was learned at b
	expect("an own address replaces a learned one", "", eth(host1, ownMAC, 0), "c")
	expect("and cannot be learned", "b", eth(ownMAC, host1, 0), "!source-mac")
	r.connect("d", Allow{MAC: macOfB})
	expect("of two members with one address the first has it", "", eth(macOfB, ownMAC, 0), "b")
	expect("and the second may not use it", "d", eth(ownMAC, macOfB, 0), "!source-mac")
	r.connect("e", Allow{MAC: ownMAC})
	expect("our address is nobody else's", "e", eth(host3, ownMAC, 0), "!source-mac")
	expect("even when it is said to be", "", eth(ownMAC, host3, 0), "!elsewhere")
	r.disconnect("b")
	expect("until the first is gone", "", eth(macOfB, ownMAC, 0), "d")
}

func TestSetOwn(t *testing.T) {
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: macOfA})
	r.send("a", eth(ownMAC, host1, 0))
	r.sw.SetOwn(Allow{MAC: host1})
	for _, s := range []step{
		{from: "a", dst: broadcast, src: host1, want: "!source-mac"},
		{from: "a", dst: host1, src: macOfA, want: "host"},
		{from: "", dst: broadcast, src: host1, want: "a"},
	} {
		if got := r.send(s.from, eth(s.dst, s.src, 0)); got != s.want {
			t.Errorf("%s to %s: %q, want %q", s.src, s.dst, got, s.want)
		}
	}
}

func TestDeviceErrorIsCounted(t *testing.T) {
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: macOfA})
	r.host.err = errors.New("input/output error")
	r.remotes["a"].Receive(eth(ownMAC, macOfA, 0), 0)
	r.remotes["a"].Receive(eth(ownMAC, macOfA, 0), 0)
	r.remotes["a"].Flush()
	if got := r.sw.Counters().FromRemotes.Dropped[DropDevice]; got != 2 {
		t.Errorf("%d frames counted as refused by the host, want 2", got)
	}
}

func TestNoDevice(t *testing.T) {
	sw := NewSwitch(Config{MAC: ownMAC})
	a := sw.Connect("a", &tape{}, Allow{MAC: macOfA})
	a.Receive(eth(broadcast, host1, 0), 0)
	a.Flush()
	got := sw.Counters().FromRemotes
	if got.Frames != 0 || got.Dropped[DropDevice] != 1 {
		t.Errorf("counted %+v", got)
	}
	if hosts := sw.Hosts(); len(hosts) != 3 {
		t.Errorf("hosts %+v, want own, a's and the learned one", hosts)
	}
}

func TestHosts(t *testing.T) {
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: MAC(snoopSrc)})
	r.connect("b", Allow{MAC: macOfB})
	r.send("a", arp(snoopSrc, "10.0.0.5", 1))
	r.time = r.time.Add(time.Second)
	r.send("a", arp(snoopSrc, "10.0.0.4", 1))
	r.send("b", eth(ownMAC, host2, 7))
	r.send("", eth(broadcast, host1, 0))
	r.time = r.time.Add(time.Minute)
	want := []Host{
		{MAC(snoopSrc), 0, "a", []netip.Addr{netip.MustParseAddr("10.0.0.4"), netip.MustParseAddr("10.0.0.5")}, LearnedRecord, time.Minute},
		{macOfB, 0, "b", nil, LearnedRecord, time.Minute},
		{ownMAC, 0, "", nil, LearnedOwn, 0},
		{host1, 0, "", nil, LearnedData, time.Minute},
		{host2, 7, "b", nil, LearnedData, time.Minute},
	}
	if got := r.sw.Hosts(); !reflect.DeepEqual(got, want) {
		t.Errorf("hosts\n%+v, want\n%+v", got, want)
	}

	// A member in a VLAN is listed there once it has shown an address.
	frame := arp(snoopSrc, "10.7.0.5", 1)
	r.send("a", slices.Concat(frame[:12], []byte{0x81, 0, 0, 7}, frame[12:]))
	if got := r.sw.Hosts(); len(got) != 6 || got[4].VLAN != 7 || got[4].Learned != LearnedRecord || got[4].Port != "a" || len(got[4].IPs) != 1 {
		t.Errorf("hosts\n%+v, want a in VLAN 7 at 4", got)
	}
	r.disconnect("a")
	if n := len(r.sw.heard.hosts); n != 0 {
		t.Errorf("%d neighbours are kept of a disconnected remote", n)
	}
	r.time = r.time.Add(DefaultAge)
	if got := r.sw.Hosts(); len(got) != 2 || got[0].MAC != macOfB || got[1].MAC != ownMAC {
		t.Errorf("hosts\n%+v, want b and own", got)
	}
}

func TestHostsKeepTheLastAddresses(t *testing.T) {
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: MAC(snoopSrc)})
	for n := range 200 { // 10.0.0.1 is repeated: the others push each other out
		r.send("a", arp(snoopSrc, "10.0.0.1", 1))
		r.send("a", arp(snoopSrc, netip.AddrFrom4([4]byte{10, 0, 1, byte(n)}).String(), 1))
		r.time = r.time.Add(time.Second)
	}
	ips := r.sw.Hosts()[0].IPs
	if len(ips) != neighborIPs || !slices.Contains(ips, netip.MustParseAddr("10.0.0.1")) || !slices.Contains(ips, netip.MustParseAddr("10.0.1.199")) {
		t.Errorf("addresses %v", ips)
	}
	r.time = r.time.Add(neighborAge)
	if ips := r.sw.Hosts()[0].IPs; len(ips) != 0 {
		t.Errorf("addresses %v after an hour", ips)
	}
}

func TestNeighborsAreBounded(t *testing.T) {
	r := newRig(t, Config{StormBurst: 1 << 30})
	r.connect("a", Allow{MAC: MAC(snoopSrc)})
	frame := arp(snoopSrc, "10.0.0.1", 1)
	for vid := range 4095 {
		r.send("a", slices.Concat(frame[:12], []byte{0x81, 0, byte(vid >> 8), byte(vid)}, frame[12:]))
	}
	if got := len(r.sw.heard.hosts); got != DefaultMaxMACs+neighborMore {
		t.Errorf("%d entries of one origin, want %d", got, DefaultMaxMACs+neighborMore)
	}
}

func TestTraffic(t *testing.T) {
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: macOfA})
	r.send("a", eth(ownMAC, macOfA, 0))
	r.send("a", eth(ownMAC, ownMAC, 0)) // dropped
	r.send("", eth(macOfA, ownMAC, 0))
	r.send("", eth(broadcast, ownMAC, 0))
	if got, want := r.remotes["a"].Traffic(), (Traffic{1, 60, 2, 120}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
