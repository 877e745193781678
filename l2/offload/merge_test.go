package offload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// mergeAll passes frames through a Merger, which is used again when it is full.
func mergeAll(m *Merger, frames [][]byte) (out []Frame) {
	return mergePartial(m, frames, make([]int, len(frames)))
}

// mergePartial is mergeAll for frames some of which lack their checksums: starts has
// where, or 0. What the Merger refuses is missing in what comes out.
func mergePartial(m *Merger, frames [][]byte, starts []int) (out []Frame) {
	take := func() {
		for _, f := range m.Frames() {
			out = append(out, Frame{bytes.Clone(f.Data), f.Header})
		}
		m.Reset()
	}
	for i, b := range frames {
		if m.Add(b, starts[i]); m.Full() {
			take()
		}
	}
	take()
	return out
}

func TestMerge(t *testing.T) {
	type edit func(i int, s *segment)
	for name, test := range map[string]struct {
		first func(*segment)
		each  edit
		sizes []int
		want  int // frames that come out
	}{
		"IPv4":                  {nil, nil, []int{1000, 1000, 1000, 1000}, 1},
		"IPv6":                  {func(s *segment) { s.v6 = true }, nil, []int{1000, 1000, 1000}, 1},
		"tags and timestamps":   {func(s *segment) { s.tags, s.tcpOpts = []uint16{5, 6}, timestamps }, nil, []int{1000, 1000, 1000}, 1},
		"the last is shorter":   {nil, nil, []int{1000, 1000, 10}, 1},
		"after a shorter one":   {nil, nil, []int{1000, 10, 1000, 1000}, 2},
		"a longer one":          {nil, nil, []int{1000, 1001, 1001}, 2},
		"more than 64 KB":       {nil, nil, []int{30000, 30000, 30000}, 2},
		"exactly 65535":         {nil, nil, []int{32747, 32748, 1}, 2},
		"pure ACK between":      {nil, nil, []int{1000, 0, 1000, 1000}, 3},
		"PSH ends":              {nil, func(i int, s *segment) { s.flags |= flagPSH * byte(i&1) }, []int{1000, 1000, 1000, 1000}, 2},
		"FIN":                   {nil, func(i int, s *segment) { s.flags |= flagFIN * byte(i/2) }, []int{1000, 1000, 1000}, 2},
		"CWR":                   {nil, func(i int, s *segment) { s.flags |= flagCWR }, []int{1000, 1000}, 2},
		"ECE in all":            {func(s *segment) { s.flags |= flagECE }, nil, []int{1000, 1000}, 1},
		"ECE in one":            {nil, func(i int, s *segment) { s.flags |= flagECE * byte(i) }, []int{1000, 1000}, 2},
		"congestion marks":      {func(s *segment) { s.tos = 2 }, func(i int, s *segment) { s.tos |= byte(i & 1) }, []int{1000, 1000, 1000}, 3},
		"class of IPv6":         {func(s *segment) { s.v6 = true }, func(i int, s *segment) { s.tos = byte(i) }, []int{1000, 1000}, 2},
		"hop limit":             {func(s *segment) { s.v6 = true }, func(i int, s *segment) { s.ttl -= byte(i) }, []int{1000, 1000}, 2},
		"time to live":          {nil, func(i int, s *segment) { s.ttl -= byte(i) }, []int{1000, 1000}, 2},
		"window":                {nil, func(i int, s *segment) { s.window += uint16(i) }, []int{1000, 1000}, 2},
		"acknowledgement":       {nil, func(i int, s *segment) { s.ack += uint32(i) }, []int{1000, 1000}, 2},
		"timestamp":             {nil, func(i int, s *segment) { s.tcpOpts = append(timestamps[:11:11], byte(i)) }, []int{1000, 1000}, 2},
		"TCP-MD5":               {func(s *segment) { s.tcpOpts = md5Option }, nil, []int{1000, 1000}, 2},
		"URG":                   {func(s *segment) { s.flags |= flagURG }, nil, []int{1000, 1000}, 2},
		"a hole":                {nil, func(i int, s *segment) { s.seq += uint32(i / 2) }, []int{1000, 1000, 1000, 1000}, 2},
		"another MAC":           {nil, func(i int, s *segment) { s.src += byte(i) }, []int{1000, 1000}, 2},
		"another tag":           {func(s *segment) { s.tags = []uint16{1} }, func(i int, s *segment) { s.tags = []uint16{uint16(i)} }, []int{1000, 1000}, 2},
		"another priority":      {nil, func(i int, s *segment) { s.tags = []uint16{uint16(i) << 13} }, []int{1000, 1000}, 2},
		"tagged and untagged":   {nil, func(i int, s *segment) { s.tags = make([]uint16, i) }, []int{1000, 1000}, 2},
		"IPv4 options":          {func(s *segment) { s.ipOpts = []byte{1, 1, 1, 0} }, nil, []int{1000, 1000}, 2},
		"extension headers":     {func(s *segment) { s.v6, s.ipOpts = true, hopByHop }, nil, []int{1000, 1000}, 2},
		"constant id with DF":   {nil, func(i int, s *segment) { s.id = 0 }, []int{1000, 1000, 1000}, 1},
		"ids without DF":        {func(s *segment) { s.df = false }, nil, []int{1000, 1000, 1000}, 1},
		"id missing without DF": {func(s *segment) { s.df = false }, func(i int, s *segment) { s.id += uint16(i) }, []int{1000, 1000}, 2},
		"UDP":                   {func(s *segment) { s.udp = true }, nil, []int{1000, 1000, 10}, 1},
		"UDP, IPv6":             {func(s *segment) { s.udp, s.v6 = true, true }, nil, []int{1000, 1000, 1000}, 1},
		"UDP after a shorter":   {func(s *segment) { s.udp = true }, nil, []int{1000, 10, 10}, 2},
		"UDP without checksum":  {func(s *segment) { s.udp, s.noSum = true, true }, nil, []int{1000, 1000}, 2},
		"UDP, first without":    {func(s *segment) { s.udp = true }, func(i int, s *segment) { s.noSum = i == 0 }, []int{1000, 1000, 1000}, 2},
		"UDP, empty":            {func(s *segment) { s.udp = true }, nil, []int{0, 0}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := tcp4()
			s.flags = flagACK
			if test.first != nil {
				test.first(&s)
			}
			var frames [][]byte
			for i, size := range test.sizes {
				next := s
				next.payload = counting(size)
				if test.each != nil {
					test.each(i, &next)
				}
				frames = append(frames, next.frame())
				s.seq += uint32(size)
				s.id++
			}
			out := mergeAll(&Merger{Features: All}, frames)
			if len(out) != test.want {
				t.Errorf("%d frames came out, want %d", len(out), test.want)
			}
			if len(s.ipOpts) == 0 {
				same(t, atomicIDs(recut(t, out)), atomicIDs(frames))
			}
			if alone := mergeAll(&Merger{}, frames); len(alone) != len(frames) || alone[0].Header != (Header{}) {
				t.Error("merged for a device that takes no super-frames")
			}
		})
	}
}

// recut makes frames of super-frames again, as the kernel would.
func recut(t testing.TB, out []Frame) (frames [][]byte) {
	t.Helper()
	for _, f := range out {
		if f.Header == (Header{}) {
			frames = append(frames, f.Data)
			continue
		}
		if f.GSOType == GSONone { // nothing else is to be done
			if !complete(f) {
				t.Fatalf("a checksum is left out where there is none: %+v\n%x", f.Header, f.Data[:60])
			}
			frames = append(frames, f.Data)
			continue
		}
		if len(f.Data)-14 > 65535+8 {
			t.Fatalf("a super-frame of %d bytes", len(f.Data))
		}
		s, ok := slowParse(f)
		if !ok {
			t.Fatalf("a super-frame is not what it should be: %+v\n%x", f.Header, f.Data[:60])
		}
		frames = append(frames, s.slowCut(int(f.GSOSize))...)
	}
	return frames
}

// atomicIDs clears the identification of IPv4 packets with DF, which means nothing (RFC 6864).
func atomicIDs(frames [][]byte) (out [][]byte) {
	for _, b := range frames {
		b = bytes.Clone(b)
		if l3, v6 := network(b); l3 > 0 && !v6 && b[l3+6] == ip4DF {
			ip := b[l3:]
			if slowSum(ip[:20]) == 0xffff {
				ip[4], ip[5], ip[10], ip[11] = 0, 0, 0, 0
			}
		}
		out = append(out, b)
	}
	return out
}

// A damaged segment ends what was open, and is not merged whatever follows.
func TestMergeVerifies(t *testing.T) {
	for bad := range 3 {
		for _, at := range []int{14 + 8, 14 + 10, 14 + 20 + 16, 500} {
			s := tcp4()
			s.flags = flagACK
			var frames [][]byte
			for i := range 3 {
				s.payload = counting(1000)
				b := s.frame()
				if i == bad {
					b[at] ^= 1
				}
				frames = append(frames, b)
				s.seq += 1000
				s.id++
			}
			out := mergeAll(&Merger{Features: All}, frames)
			if want := []int{2, 3, 2}[bad]; len(out) != want {
				t.Errorf("frame %d, byte %d damaged: %d frames, want %d", bad, at, len(out), want)
			}
			same(t, atomicIDs(recut(t, out)), atomicIDs(frames))
		}
	}
}

// What is of no flow that can be told ends all merging; what a device does not take
// ends none but is not merged.
func TestMergeKeepsOrderAround(t *testing.T) {
	s := tcp4()
	s.flags, s.payload = flagACK, counting(1000)
	next := s
	next.seq, next.id = s.seq+1000, s.id+1
	u := s
	u.udp = true
	for name, test := range map[string]struct {
		between  []byte
		features Features
		want     int
	}{
		"nothing known":         {counting(60), All, 3},
		"a fragment":            {func() []byte { b := s.frame(); b[14+6] = 0x20; return b }(), All, 3},
		"too short":             {s.frame()[:20], All, 3},
		"padding of Ethernet":   {append(s.frame(), 0), All, 3},
		"UDP without USO":       {u.frame(), All &^ USO, 2},
		"another flow":          {u.frame(), All, 2},
		"TCP without TSO4":      {u.frame(), Checksum | USO, 3},
		"nothing of all":        {u.frame(), None, 3},
		"checksums are no part": {u.frame(), TSO4, 3},
	} {
		out := mergeAll(&Merger{Features: test.features}, [][]byte{s.frame(), test.between, next.frame()})
		if len(out) != test.want {
			t.Errorf("%s: %d frames, want %d", name, len(out), test.want)
		}
	}
}

// The property: for any mix of flows, through loss and reordering, the frames of
// every flow and their order are the same with every offload on or off. The way is
// host, Cutter, network, Merger, host; "off" is the slow model in place of both.
func TestOffloadsChangeNothing(t *testing.T) {
	merged, total := 0, 0
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var fast, slow [][]byte
		flows := newFlows(rng)
		for range 30 {
			s, size, limit := flows.next(rng)
			f := Frame{Data: s.frame()}
			if size > 0 || !s.noSum && rng.IntN(2) == 0 {
				f = s.super(size)
			}
			head := len(f.Data) - len(s.payload)
			cut, ok := cutAll(t, f, limit)
			if !ok {
				t.Fatalf("seed %d: refused", seed)
			}
			fast = append(fast, cut...)
			super := size > 0
			if !super {
				size = max(1, len(s.payload))
			}
			if fit := limit - head; limit > 0 && !s.udp && fit >= minSegment && sizableModel(s) && (super || len(s.ipOpts) == 0) {
				size = min(size, fit)
			}
			slow = append(slow, s.slowCut(size)...)
		}
		same(t, fast, slow)

		fast = disturb(rng, fast)
		m := &Merger{Features: []Features{All, All, All &^ USO, Checksum | TSO6, None}[rng.IntN(5)]}
		sent, starts := leaveOut(rng, fast)
		out := mergePartial(m, sent, starts)
		merged, total = merged+len(out), total+len(fast)
		got, want := byFlow(recut(t, out)), byFlow(fast)
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d flows, want %d", seed, len(got), len(want))
		}
		for key := range want {
			same(t, atomicIDs(got[key]), atomicIDs(want[key]))
		}
	}
	if merged*5 > total*4 { // a third has nothing that merges, or is for devices that take little
		t.Errorf("%d frames became %d: hardly anything was merged", total, merged)
	}
}

func sizableModel(s segment) bool {
	return s.flags&(flagSYN|flagURG|flagRST) == 0 && len(s.tcpOpts) < 16 && (s.df || s.v6)
}

// leaveOut takes sound checksums out of some, or none, or all of the frames.
func leaveOut(rng *rand.Rand, frames [][]byte) (sent [][]byte, starts []int) {
	mode := rng.IntN(4)
	for _, b := range frames {
		start := 0
		if p, ok := parse(b); ok && mode > 0 && p.sound(b, false) && (mode > 1 || rng.IntN(3) > 0) {
			b, start = bytes.Clone(b), p.l4
			binary.BigEndian.PutUint16(b[p.l4+p.csumOffset():], uint16(rng.Uint32()*uint32(mode&1)))
		}
		sent, starts = append(sent, b), append(starts, start)
	}
	return sent, starts
}

// disturb loses, swaps, repeats and damages frames.
func disturb(rng *rand.Rand, frames [][]byte) (out [][]byte) {
	rate := []int{1 << 30, 50, 8}[rng.IntN(3)]
	for _, b := range frames {
		switch rng.IntN(rate) {
		case 0:
			continue
		case 1:
			out = append(out, b)
		case 2:
			if n := len(out); n > 0 {
				out = append(out[:n-1:n-1], b, out[n-1])
				continue
			}
		case 3:
			b = bytes.Clone(b)
			b[12+rng.IntN(len(b)-12)] ^= 1 << rng.IntN(8)
		}
		out = append(out, b)
	}
	return out
}

// byFlow sorts frames by addresses, tags, protocol and ports. What cannot be told is a flow of its own.
func byFlow(frames [][]byte) map[string][][]byte {
	flows := map[string][][]byte{}
	for _, b := range frames {
		key := "?"
		if p, ok := parse(b); ok {
			key = string(b[:p.l3]) + string(b[p.l3+8*b2i(p.v6)+12*b2i(!p.v6):p.l4]) + fmt.Sprint(p.proto) + string(b[p.l4:p.l4+4])
		}
		flows[key] = append(flows[key], b)
	}
	return flows
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// flows is a mix of senders.
type flows []segment

func newFlows(rng *rand.Rand) (list flows) {
	for i := range 1 + rng.IntN(20) {
		s := segment{
			dst: byte(rng.IntN(2)), src: 9, from: 3, to: byte(4 + rng.IntN(2)), sport: uint16(5000 + i), dport: 80, ttl: 64,
			v6: rng.IntN(2) == 0, udp: rng.IntN(3) == 0, df: rng.IntN(4) > 0, tos: byte(rng.IntN(4)),
			seq: rng.Uint32(), id: uint16(rng.Uint32()), window: 100, flags: flagACK,
		}
		s.tags = make([]uint16, rng.IntN(3))
		s.tcpOpts = [][]byte{nil, timestamps, timestamps, md5Option}[rng.IntN(4)]
		if rng.IntN(8) == 0 {
			s.v6, s.ipOpts, s.ext = true, hopByHop, 0
			s.ipOpts = append([]byte{s.proto()}, hopByHop[1:]...)
		}
		s.noSum = s.udp && !s.v6 && rng.IntN(3) == 0
		list = append(list, s)
	}
	return list
}

// next is what one of the flows sends next: a super-frame (size not 0) or a frame.
func (list flows) next(rng *rand.Rand) (s segment, size, limit int) {
	f := &list[rng.IntN(len(list))]
	s = *f
	s.payload = counting(rng.IntN(1400))
	if !s.noSum && rng.IntN(2) == 0 {
		s.payload = counting(rng.IntN(20000))
		size = 1 + rng.IntN(1400)
		if rng.IntN(2) == 0 {
			size = 1000
		}
	}
	if !s.udp {
		for _, flag := range []byte{flagPSH, flagFIN, flagCWR, flagECE, flagSYN, flagURG} {
			if rng.IntN(12) == 0 {
				s.flags |= flag
			}
		}
		if rng.IntN(10) == 0 {
			f.ack++
			f.tcpOpts = append([]byte(nil), f.tcpOpts...)
		}
	}
	f.seq += uint32(len(s.payload))
	f.id += uint16(1 + len(s.payload)/max(1, size, 1400*b2i(size == 0)))
	return s, size, []int{0, 1440, 1200, 800}[rng.IntN(4)]
}

// Any frames: what comes out is the same, flow by flow.
func FuzzMerger(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 4 {
		var seed []byte
		list := newFlows(rng)
		for range 3 {
			s, size, _ := list.next(rng)
			s.payload = s.payload[:min(len(s.payload), 40)]
			for i, b := range s.slowCut(min(max(size, 1), 10)) {
				start := byte(0)
				if p, ok := parse(b); ok && i%3 > 0 {
					start = byte(p.l4)
				}
				seed = append(append(seed, byte(len(b)), start), b...)
			}
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var frames, whole [][]byte // as they are sent, and as they are meant
		var starts []int
		for len(data) > 2 {
			n, start := min(int(data[0]), len(data)-2), int(data[1])
			b := data[2 : 2+n]
			data = data[2+n:]
			frames, starts = append(frames, b), append(starts, start)
			if start != 0 {
				p, ok := parse(b)
				if !ok || p.l4 != start {
					continue // it has to be refused
				}
				b = bytes.Clone(b)
				p.leaveOut(b)
				p.complete(b)
			}
			whole = append(whole, b)
		}
		var again [][]byte
		for _, g := range mergePartial(&Merger{Features: features(len(frames))}, frames, starts) {
			cut, ok := cutAll(t, g, 0)
			if !ok {
				t.Fatalf("the Cutter refuses what the Merger made: %+v %x", g.Header, g.Data)
			}
			again = append(again, cut...)
		}
		got, want := byFlow(again), byFlow(whole)
		for key := range want {
			same(t, atomicIDs(got[key]), atomicIDs(want[key]))
		}
		if len(again) != len(whole) {
			t.Fatalf("%d frames, want %d", len(again), len(whole))
		}
	})
}

// features are those of some device.
func features(n int) Features {
	return []Features{All, All &^ USO, Checksum, None}[n%4]
}

// Frames whose checksums were left out merge like whole ones and with them. Alone
// they become what the device takes. Where there is no such checksum they are refused.
func TestMergeLeftOut(t *testing.T) {
	s := tcp4()
	s.flags, s.payload = flagACK, counting(1000)
	next, last := s, s
	next.seq, next.id = s.seq+1000, s.id+1
	last.seq, last.id = s.seq+2000, s.id+2
	frames := [][]byte{s.frame(), next.frame(), last.frame()}
	for _, b := range frames {
		b[34+csumOfTCP] ^= 0x55 // whatever: it is left out
	}
	for _, features := range []Features{All, Checksum, None} {
		starts := []int{34, 34, 34}
		out := mergePartial(&Merger{Features: features}, frames, starts)
		if want := map[Features]int{All: 1}[features] + 3*b2i(features != All); len(out) != want {
			t.Errorf("%v: %d frames, want %d", features, len(out), want)
		}
		if features == None && out[0].Header != (Header{}) {
			t.Error("the device was left with a checksum")
		}
		same(t, atomicIDs(recut(t, out)), [][]byte{atomicIDs([][]byte{s.frame()})[0], atomicIDs([][]byte{next.frame()})[0], atomicIDs([][]byte{last.frame()})[0]})
	}
	mixed := [][]byte{frames[0], next.frame(), frames[2]}
	if out := mergePartial(&Merger{Features: All}, mixed, []int{34, 0, 34}); len(out) != 1 {
		t.Errorf("left out and whole: %d frames", len(out))
	}
	if out := mergePartial(&Merger{Features: All}, mixed, []int{34, 0, 0}); len(out) != 2 {
		t.Errorf("a wrong checksum was merged: %d frames", len(out))
	}
	for _, start := range []int{1, 14, 33, 35, 54, 1 << 9, 1 << 20, -1} {
		m := &Merger{Features: All}
		if m.Add(frames[0], start) || m.Len() != 0 {
			t.Errorf("a checksum at %d", start)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "half": frames[0][:40], "padded": append(s.frame(), 0)} {
		if (&Merger{Features: All}).Add(b, 34) {
			t.Errorf("%s: accepted", name)
		}
	}
}
