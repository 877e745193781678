package l2

import (
	"fmt"
	"testing"
	"time"
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
		hosts   bool // there may be hosts behind each
		copied  bool
		perSend int // how many remotes are sent a frame of their own
	}{
		{name: "a small mesh", takers: 4, dst: broadcast, perSend: 4},
		{name: "one more", takers: 5, dst: broadcast, copied: true},
		{name: "multicast", takers: 5, dst: MAC{1, 0, 0x5e, 1, 2, 3}, copied: true},
		{name: "unknown unicast, with hosts behind all", takers: 9, dst: host3, hosts: true, copied: true},
		{name: "unknown unicast, with no hosts behind any", takers: 9, dst: host3},
		{name: "a known one", takers: 9, dst: MAC{2, 0, 0, 0, 7, 1}, perSend: 1},
		{name: "older members beside", takers: 5, others: 3, dst: broadcast, copied: true, perSend: 3},
		{name: "many older members", takers: 4, others: 9, dst: broadcast, perSend: 13},
		{name: "a VLAN for all", takers: 5, dst: broadcast, vlan: 7, copied: true},
		{name: "a VLAN that is not for all", takers: 9, dst: broadcast, vlan: 7, denied: true, perSend: 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := &tape{}
			r := newRig(t, Config{Everyone: all, SpreadAbove: 4})
			for i := range tt.takers {
				a := allow(byte(i))
				a.Bridge = tt.hosts
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
