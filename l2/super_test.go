package l2

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"meshd/l2/offload"
)

// superFrame makes a super-frame of TCP over IPv4 as a host hands it over: its
// checksum is left out, and the cutter is what fills it in.
func superFrame(dst, src MAC, vlan uint16, payload, size int) Frame {
	b := eth(dst, src, vlan)
	b = b[:len(b)-48]
	b = append(b, 8, 0)
	start := len(b) + 20
	ip := make([]byte, 40+payload)
	ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, 64, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	ip[20+12], ip[20+13] = 0x50, 0x10
	for i := range payload {
		ip[40+i] = byte(i * 3)
	}
	return Frame{Data: append(b, ip...), Header: offload.Header{
		Flags: offload.FlagNeedsCsum, GSOType: offload.GSOTCPv4, GSOSize: uint16(size),
		CsumStart: uint16(start), CsumOffset: 16,
	}}
}

// narrow is a port to a path that takes frames up to a size.
type narrow struct {
	tape
	size int
}

func (n *narrow) MaxFrame() int { return n.size }

func TestSuperFramesAreCutToThePath(t *testing.T) {
	for name, test := range map[string]struct {
		dst         MAC
		sizes       map[string]int // by remote: what its path takes
		want        map[string]int // frames
		wantLargest int
	}{
		"to one":                        {macOfA, map[string]int{"a": 1440, "b": 800}, map[string]int{"a": 8, "b": 0}, 1440},
		"to one, path unknown":          {macOfA, map[string]int{"a": 0, "b": 800}, map[string]int{"a": 7, "b": 0}, 1514},
		"flooded: the smallest path":    {host1, map[string]int{"a": 1440, "b": 1200}, map[string]int{"a": 9, "b": 9}, 1200},
		"flooded: one path is unknown":  {host1, map[string]int{"a": 0, "b": 1200}, map[string]int{"a": 9, "b": 9}, 1200},
		"flooded: no path is known yet": {host1, map[string]int{"a": 0, "b": 0}, map[string]int{"a": 7, "b": 7}, 1514},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Config{})
			ports := map[string]*narrow{}
			for member, mac := range map[string]MAC{"a": macOfA, "b": macOfB} {
				ports[member] = &narrow{size: test.sizes[member]}
				r.sw.Connect(member, ports[member], Allow{MAC: mac, Hosts: true})
			}
			f := superFrame(test.dst, ownMAC, 0, 10000, 1460)
			payload := bytes.Clone(f.Data[54:])
			r.pump.batch([]Frame{f})
			for member, port := range ports {
				var got []byte
				largest := 0
				for _, b := range port.frames {
					got = append(got, b[54:]...)
					largest = max(largest, len(b))
				}
				if len(port.frames) != test.want[member] || port.flushed != len(port.frames) {
					t.Errorf("%s got %d frames, %d flushed, want %d", member, len(port.frames), port.flushed, test.want[member])
				}
				if len(port.frames) > 0 && (!bytes.Equal(got, payload) || largest != test.wantLargest) {
					t.Errorf("%s got %d bytes, the largest frame has %d, want %d and %d", member, len(got), largest, len(payload), test.wantLargest)
				}
			}
			c := r.sw.Counters().FromDevice
			if c.Frames != 1 || c.Bytes != 10054 {
				t.Errorf("counted %d frames, %d bytes from the device: a super-frame is one", c.Frames, c.Bytes)
			}
		})
	}
}

// Every guard judges a super-frame, once.
func TestGuardsOnSuperFrames(t *testing.T) {
	for name, test := range map[string]struct {
		frame Frame
		want  string
	}{
		"stolen source":       {superFrame(macOfA, macOfB, 0, 5000, 1460), DropSourceMAC},
		"multicast source":    {superFrame(macOfA, MAC{1, 1, 1, 1, 1, 1}, 0, 5000, 1460), DropSourceMulticast},
		"no source":           {superFrame(macOfA, MAC{}, 0, 5000, 1460), DropSourceZero},
		"VLAN not allowed":    {superFrame(macOfA, ownMAC, 7, 5000, 1460), DropVLAN},
		"to ourselves":        {superFrame(ownMAC, ownMAC, 0, 5000, 1460), DropElsewhere},
		"segments too large":  {superFrame(macOfA, ownMAC, 0, 5000, 1461), DropOversize},
		"header that is none": {Frame{Data: superFrame(macOfA, ownMAC, 0, 5000, 1460).Data, Header: offload.Header{GSOType: 3, GSOSize: 1000}}, DropMalformed},
		"no header at all":    {Frame{Data: superFrame(macOfA, ownMAC, 0, 5000, 1460).Data}, DropOversize},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Config{})
			r.connect("a", Allow{MAC: macOfA, VLANs: []uint16{5}})
			r.connect("b", Allow{MAC: macOfB})
			r.pump.batch([]Frame{test.frame})
			c := r.sw.Counters().FromDevice
			if c.Dropped[test.want] != 1 || c.Frames != 0 {
				t.Errorf("counters %+v, want one %s", c, test.want)
			}
			if n := len(r.ports["a"].frames) + len(r.ports["b"].frames); n != 0 {
				t.Errorf("%d frames went out", n)
			}
		})
	}
	t.Run("storm", func(t *testing.T) {
		r := newRig(t, Config{StormBurst: 3, StormRate: 1})
		r.connect("a", Allow{MAC: macOfA})
		for range 5 {
			r.pump.batch([]Frame{superFrame(host1, ownMAC, 0, 5000, 1460)})
		}
		if c := r.sw.Counters().FromDevice; c.Dropped[DropStorm] != 2 || c.Frames != 3 {
			t.Errorf("counters %+v, want 3 of 5 super-frames to pass", c)
		}
	})
}

// What a remote sends is judged frame by frame, then merged; the device gets whole
// frames where it takes no others.
func TestReceivedSegmentsAreMerged(t *testing.T) {
	var c offload.Cutter
	var frames [][]byte
	if !c.Begin(superFrame(ownMAC, macOfA, 5, 20000, 1460), 1440) {
		t.Fatal("refused")
	}
	for b, more := c.Next(); more; b, more = c.Next() {
		frames = append(frames, bytes.Clone(b))
	}
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: macOfA})
	for i, b := range frames {
		if i == 5 {
			r.remotes["a"].Receive(eth(ownMAC, macOfB, 5), 0) // refused or not, it is none of the flow's
		}
		r.remotes["a"].Receive(b, c.CsumStart())
	}
	r.remotes["a"].Flush()
	n := uint64(len(frames))
	if c := r.sw.Counters().FromRemotes; c.Frames < n || c.Frames > n+1 {
		t.Errorf("counted %d frames, want each of %d", c.Frames, n)
	}
	total := 0
	for _, b := range r.host.frames {
		total += len(b)
	}
	if len(r.host.frames) > 3 || total < 20000 {
		t.Errorf("the host got %d frames with %d bytes", len(r.host.frames), total)
	}
}

// A checksum is left out towards those that take that, and whole towards the others,
// whoever comes first.
func TestChecksumsLeftOutByPort(t *testing.T) {
	for _, dst := range []MAC{broadcast, macOfA, macOfB} {
		for _, size := range []int{0, 1000} { // a frame, a super-frame
			for _, first := range []string{"a", "b"} {
				r := newRig(t, Config{})
				for _, name := range map[string][]string{"a": {"a", "b", "c"}, "b": {"b", "a", "c"}}[first] {
					mac := map[string]MAC{"a": macOfA, "b": macOfB, "c": host3}[name]
					r.connect(name, Allow{MAC: mac})
					r.ports[name].partial = name != "b"
				}
				f := superFrame(dst, ownMAC, 7, 1400, size)
				if size == 0 {
					m := offload.Merger{Features: offload.All} // puts in the sum of the pseudo-header
					m.Add(f.Data, int(f.CsumStart))
					f = m.Frames()[0]
				}
				r.pump.batch([]Frame{f})
				whole := map[string][][]byte{}
				for name, port := range r.ports {
					m := offload.Merger{} // for a device that wants whole frames
					for i, b := range port.frames {
						if at := port.starts[i]; at != 0 && !port.partial || at == 0 && port.partial && (name == first || dst != broadcast) {
							t.Errorf("to %v, %s got a checksum start of %d", dst, name, port.starts[i])
						}
						if !m.Add(b, port.starts[i]) {
							t.Errorf("to %v, %s got a frame without a checksum to complete", dst, name)
						}
					}
					for _, f := range m.Frames() {
						whole[name] = append(whole[name], f.Data)
					}
				}
				if dst != broadcast {
					continue
				}
				if len(whole["b"]) == 0 || !slices.EqualFunc(whole["a"], whole["b"], bytes.Equal) || !slices.EqualFunc(whole["c"], whole["b"], bytes.Equal) {
					t.Errorf("segments of %d, %s first: not all got the same frames", size, first)
				}
			}
		}
	}
}

// A remote that speaks of a checksum where there is none is not believed.
func TestWrongChecksumStart(t *testing.T) {
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: macOfA})
	for _, frame := range [][]byte{eth(ownMAC, macOfA, 0), superFrame(ownMAC, macOfA, 0, 100, 0).Data} {
		r.remotes["a"].Receive(frame, 38)
		r.remotes["a"].Receive(frame, 511)
	}
	r.remotes["a"].Flush()
	if c := r.sw.Counters().FromRemotes; c.Frames != 0 || c.Dropped[DropMalformed] != 4 || len(r.host.frames) != 0 {
		t.Errorf("counters %+v, and %d frames for the host", c, len(r.host.frames))
	}
}
