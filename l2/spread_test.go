package l2

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"meshd/l2/snoop"
)

// copier is a port to a remote that may take copies.
type copier struct {
	tape
	takes bool
}

func (c *copier) TakesCopies() bool { return c.takes }

// connectCopier adds a remote that takes copies.
func (r *rig) connectCopier(name string, takes bool, allow Allow) *copier {
	c := &copier{takes: takes}
	r.ports[name] = &c.tape
	r.remotes[name] = r.sw.Connect(name, c, allow)
	return c
}

func TestSpread(t *testing.T) {
	allow := func(n byte) Allow { return Allow{MAC: MAC{2, 0, 0, 0, 7, n}} }
	for _, tt := range []struct {
		name    string
		takers  int
		others  int // remotes that take no copies
		dst     MAC
		vlan    uint16
		denied  bool // one of the takers may not use the VLAN
		hosts   int  // the first so many takers may have hosts behind them
		copied  bool
		perSend int // how many remotes are sent a frame of their own
	}{
		{name: "a small mesh", takers: 4, dst: broadcast, perSend: 4},
		{name: "one more", takers: 5, dst: broadcast, copied: true},
		{name: "multicast", takers: 5, dst: MAC{1, 0, 0x5e, 1, 2, 3}, copied: true},
		{name: "unknown unicast, with hosts behind all", takers: 9, dst: host3, hosts: 9, copied: true},
		{name: "unknown unicast, with no hosts behind any", takers: 9, dst: host3},
		{name: "unknown unicast, with hosts behind a few", takers: 19, dst: host3, hosts: 4, perSend: 4},
		{name: "unknown unicast, with hosts behind a minority", takers: 19, dst: host3, hosts: 5, copied: true},
		{name: "a known one", takers: 9, dst: MAC{2, 0, 0, 0, 7, 1}, perSend: 1},
		{name: "older members beside", takers: 5, others: 3, dst: broadcast, copied: true, perSend: 3},
		{name: "many older members", takers: 4, others: 9, dst: broadcast, perSend: 13},
		{name: "a VLAN for all", takers: 5, dst: broadcast, vlan: 7, copied: true},
		{name: "a VLAN that is not for all", takers: 9, dst: broadcast, vlan: 7, denied: true, copied: true},
		{name: "a VLAN that is for few", takers: 5, dst: broadcast, vlan: 7, denied: true, perSend: 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := &tape{}
			r := newRig(t, Config{Everyone: all, SpreadAbove: 4})
			for i := range tt.takers {
				a := allow(byte(i))
				a.Bridge = i < tt.hosts
				if tt.denied && i == 3 {
					a.VLANs = []uint16{9}
				}
				r.connectCopier(fmt.Sprint("t", i), true, a)
			}
			for i := range tt.others {
				r.connectCopier(fmt.Sprint("o", i), false, allow(byte(100+i)))
			}
			f := eth(tt.dst, host1, tt.vlan)
			r.pump.batch(batchOf(f))
			got := 0
			for _, p := range r.ports {
				got += len(p.frames)
			}
			if got != tt.perSend || (len(all.frames) == 1) != tt.copied || len(all.frames) > 1 {
				t.Errorf("%d sent a frame of their own, %d to everyone", got, len(all.frames))
			}
			if all.flushed != len(all.frames) {
				t.Error("everyone was not flushed")
			}
		})
	}
}

// A group with many listeners goes by copies and is limited as these are; with few, by bytes.
func TestSpreadGroups(t *testing.T) {
	for _, tt := range []struct{ listeners, copied, straight int }{
		{4, 0, 4 * 1000}, {5, DefaultStormBurst, 0},
	} {
		all := &tape{}
		r := newRig(t, Config{Everyone: all, SpreadAbove: 4})
		for i := range 9 {
			name := fmt.Sprint("t", i)
			r.connectCopier(name, true, Allow{MAC: MAC{2, 0, 0, 0, 7, byte(i)}})
			r.remotes[name].SetGroups(wants())
			if i < tt.listeners {
				r.remotes[name].SetGroups(wants(snoop.Group{Addr: film}))
			}
		}
		for range 1000 {
			r.pump.batch(batchOf(groupFrame(film, ownMAC, 0, 500)))
		}
		straight := 0
		for _, p := range r.ports {
			straight += len(p.frames)
		}
		if len(all.frames) != tt.copied || straight != tt.straight {
			t.Errorf("%d listeners: %d frames went by copies and %d straight", tt.listeners, len(all.frames), straight)
		}
	}
}

// Who passes copies on knows whom they are for.
func TestWants(t *testing.T) {
	group, tagged := groupFrame(film, host1, 0, 100), eth(broadcast, host1, 7)
	for _, tt := range []struct {
		name   string
		allow  Allow
		groups *snoop.Set
		frame  []byte
		want   bool
	}{
		{"a broadcast", Allow{}, wants(), eth(broadcast, host1, 0), true},
		{"half a header", Allow{}, nil, eth(broadcast, host1, 0)[:13], false},
		{"a VLAN", Allow{}, nil, tagged, true},
		{"a VLAN that it may use", Allow{VLANs: []uint16{7}}, nil, tagged, true},
		{"a VLAN that it may not use", Allow{VLANs: []uint16{8}}, nil, tagged, false},
		{"unknown unicast", Allow{}, nil, eth(host3, host1, 0), false},
		{"unknown unicast, where hosts may be", Allow{Hosts: true}, nil, eth(host3, host1, 0), true},
		{"a group, when nothing is said", Allow{}, nil, group, true},
		{"a group that it listens to", Allow{}, wants(snoop.Group{Addr: film}), group, true},
		{"another group", Allow{}, wants(snoop.Group{Addr: film6}), group, false},
		{"a group for everybody", Allow{}, wants(), groupFrame(netip.MustParseAddr("224.0.0.251"), host1, 0, 100), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Config{})
			r.connect("a", tt.allow)
			port := r.remotes["a"]
			port.SetGroups(tt.groups)
			if got := port.Wants(tt.frame); got != tt.want {
				t.Errorf("wanted: %v", got)
			}
			if r.disconnect("a"); port.Wants(tt.frame) {
				t.Error("wanted by who is gone")
			}
		})
	}
}

// What comes in a VLAN that this node may not use goes no further.
func TestCopyOfForbiddenVLAN(t *testing.T) {
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: macOfA})
	if got := r.send("a", eth(broadcast, macOfA, 7)); got != "host" {
		t.Error(got)
	}
	r.sw.SetOwn(Allow{MAC: ownMAC, VLANs: []uint16{8}})
	if got := r.send("a", eth(broadcast, macOfA, 7)); got != "!"+DropVLAN {
		t.Error(got)
	}
}

// batchOf is a batch of one frame.
func batchOf(f []byte) []Frame { return []Frame{{Data: f}} }

// What is spread is within the limit of broadcasts too, and judged like any other frame.
func TestSpreadIsGuarded(t *testing.T) {
	all := &tape{}
	r := newRig(t, Config{Everyone: all, SpreadAbove: 1})
	r.connectCopier("a", true, Allow{MAC: macOfA})
	r.connectCopier("b", true, Allow{MAC: macOfB})
	r.pump.batch(batchOf(eth(broadcast, macOfA, 0)))                                // another's address
	r.pump.batch(batchOf(eth(MAC{1, 0x80, 0xc2, 0, 0, 0}, ownMAC, 0)))              // spanning tree
	r.pump.batch(batchOf(append(eth(broadcast, ownMAC, 0), make([]byte, 2000)...))) // too large
	if len(all.frames) != 0 {
		t.Fatalf("%d frames passed", len(all.frames))
	}
	for range 2 * DefaultStormBurst {
		r.pump.batch(batchOf(eth(broadcast, ownMAC, 0)))
	}
	if len(all.frames) != DefaultStormBurst {
		t.Errorf("%d frames of a storm passed", len(all.frames))
	}
	r.time = r.time.Add(time.Second)
	if got := r.send("", eth(macOfA, ownMAC, 0)); got != "a" {
		t.Errorf("to one: %s", got)
	}
}
