package offload

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// cutAll cuts f into whole frames.
func cutAll(t testing.TB, f Frame, limit int) (frames [][]byte, ok bool) {
	t.Helper()
	var c Cutter
	if !c.Begin(f, limit) {
		return nil, false
	}
	for {
		b, more := c.Next()
		if !more {
			return frames, true
		}
		left := bytes.Clone(b)
		whole := bytes.Clone(c.Complete())
		frames = append(frames, whole)
		checkLeftOut(t, left, whole, c.CsumStart())
	}
}

// checkLeftOut holds a frame from the Cutter against the same with its checksum.
func checkLeftOut(t testing.TB, left, whole []byte, csumStart int) {
	t.Helper()
	if csumStart != 0 {
		p, ok := parse(left)
		if !ok || p.l4 != csumStart {
			t.Fatalf("a checksum is left out at %d of a frame that has none there: %x", csumStart, left)
		}
		at := csumStart + p.csumOffset()
		copy(left[at:at+2], whole[at:])
	}
	if !bytes.Equal(left, whole) {
		t.Fatalf("left out at %d, the frame is\n%x, whole\n%x", csumStart, left, whole)
	}
}

// Where a checksum can be left out it is, on its way from host to host.
func TestCutLeavesChecksumsOut(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*segment)
		want   bool
	}{
		"TCP":               {func(*segment) {}, true},
		"TCP, IPv6, tags":   {func(s *segment) { s.v6, s.tags = true, []uint16{1, 2} }, true},
		"UDP":               {func(s *segment) { s.udp = true }, true},
		"IPv4 options":      {func(s *segment) { s.ipOpts = []byte{1, 1, 1, 0} }, false},
		"extension headers": {func(s *segment) { s.v6, s.ipOpts = true, hopByHop }, false},
	} {
		for _, size := range []int{0, 300, 1400} {
			s := tcp4()
			s.payload = counting(1400)
			test.change(&s)
			var c Cutter
			f := s.super(size)
			if !c.Begin(f, 0) {
				t.Fatalf("%s: refused", name)
			}
			for b, more := c.Next(); more; b, more = c.Next() {
				if at := c.CsumStart(); (at != 0) != test.want || at != 0 && (at != int(f.CsumStart) || slowSum(s.pseudo(len(b)-at)) != uint16(b[at+int(f.CsumOffset)])<<8|uint16(b[at+int(f.CsumOffset)+1])) {
					t.Errorf("%s, segments of %d: left out at %d, want %v at %d, with the sum of the pseudo-header", name, size, at, test.want, f.CsumStart)
				}
			}
		}
	}
	s := tcp4()
	s.payload = counting(1400)
	for _, frame := range []segment{s, {udp: true, noSum: true}} {
		var c Cutter
		c.Begin(Frame{Data: frame.frame()}, 0)
		if c.Next(); c.CsumStart() != 0 {
			t.Error("a whole frame lost its checksum")
		}
	}
}

func same(t *testing.T, got, want [][]byte) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("frame %d of %d is\n%x, want\n%x", i, len(want), got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
}

func tcp4() segment {
	return segment{dst: 1, src: 2, from: 3, to: 4, sport: 5001, dport: 80, ttl: 64, df: true, id: 0xfffe, seq: 0xffffff00, ack: 7, window: 500, flags: flagACK | flagPSH}
}

var (
	timestamps = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	md5Option  = append([]byte{1, 1, 19, 18}, make([]byte, 16)...)
	aoOption   = []byte{29, 8, 1, 2, 3, 4, 5, 6}
	// Hop-by-hop options that hold PadN, then nothing but TCP.
	hopByHop = []byte{6, 0, 1, 4, 0, 0, 0, 0}
)

func TestCutSuperFrames(t *testing.T) {
	for name, test := range map[string]struct {
		change     func(*segment)
		payload    int
		size, fit  int // segment of the host, and what the limit leaves of it (0: no limit)
		wantFrames int
	}{
		"IPv4":                      {func(*segment) {}, 10000, 1448, 0, 7},
		"to a smaller path":         {func(*segment) {}, 65000, 1448, 1374, 48},
		"more than a batch":         {func(*segment) {}, 65000, 500, 0, 130},
		"segments below the header": {func(*segment) {}, 1000, 10, 0, 100},
		"exact multiple":            {func(*segment) {}, 2896, 1448, 0, 2},
		"one segment":               {func(*segment) {}, 100, 1448, 0, 1},
		"no payload":                {func(*segment) {}, 0, 1448, 0, 1},
		"IPv6":                      {func(s *segment) { s.v6 = true }, 10000, 1428, 1300, 8},
		"timestamps":                {func(s *segment) { s.tcpOpts = timestamps }, 10000, 1448, 1300, 8},
		"a tag":                     {func(s *segment) { s.tags = []uint16{5} }, 10000, 1448, 1300, 8},
		"two tags, IPv6":            {func(s *segment) { s.tags, s.v6 = []uint16{5, 6}, true }, 10000, 1428, 1300, 8},
		"IPv4 options":              {func(s *segment) { s.ipOpts = []byte{1, 1, 1, 0} }, 10000, 1448, 1300, 8},
		"extension header":          {func(s *segment) { s.v6, s.ext, s.ipOpts = true, 0, hopByHop }, 10000, 1420, 1300, 8},
		"CWR and FIN":               {func(s *segment) { s.flags |= flagCWR | flagECE | flagFIN; s.tos = 2 }, 10000, 1448, 1300, 8},
		"URG is not made smaller":   {func(s *segment) { s.flags |= flagURG }, 10000, 1448, 0, 7},
		"UDP":                       {func(s *segment) { s.udp = true }, 10000, 1472, 0, 7},
		"UDP, IPv6, tagged":         {func(s *segment) { s.udp, s.v6, s.tags = true, true, []uint16{9} }, 10000, 1200, 0, 9},
		"UDP, IPv4 without DF":      {func(s *segment) { s.udp, s.df = true, false }, 10000, 1200, 0, 9},
	} {
		t.Run(name, func(t *testing.T) {
			s := tcp4()
			test.change(&s)
			s.payload = counting(test.payload)
			f := s.super(test.size)
			size, limit := test.size, 0
			if test.fit > 0 {
				size, limit = test.fit, len(f.Data)-test.payload+test.fit
			}
			if s.flags&flagCWR != 0 {
				f.GSOType |= GSOECN
			}
			got, ok := cutAll(t, f, limit)
			if !ok {
				t.Fatal("refused")
			}
			want := s.slowCut(size)
			same(t, got, want)
			if len(want) != test.wantFrames {
				t.Errorf("%d frames, want %d", len(want), test.wantFrames)
			}
		})
	}
}

// What the host has made smaller than it wanted, and what must not be cut.
func TestCutLimits(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*segment)
		super  int
		limit  int
		want   int // frames
	}{
		"whole, fits":                     {func(*segment) {}, 0, 1514, 1},
		"whole, no limit":                 {func(*segment) {}, 0, 0, 1},
		"whole, too large":                {func(*segment) {}, 0, 1440, 2},
		"whole, too large, IPv6 and tag":  {func(s *segment) { s.v6, s.tags = true, []uint16{7} }, 0, 1440, 2},
		"whole, SYN":                      {func(s *segment) { s.flags = flagSYN | flagACK }, 0, 1440, 1},
		"whole, RST":                      {func(s *segment) { s.flags |= flagRST }, 0, 1440, 1},
		"whole, URG":                      {func(s *segment) { s.flags |= flagURG }, 0, 1440, 1},
		"whole, TCP-MD5":                  {func(s *segment) { s.tcpOpts = md5Option }, 0, 1440, 1},
		"whole, TCP-AO":                   {func(s *segment) { s.tcpOpts = aoOption }, 0, 1440, 1},
		"whole, options that do not end":  {func(s *segment) { s.tcpOpts = []byte{1, 1, 8, 10} }, 0, 1440, 1},
		"whole, without DF":               {func(s *segment) { s.df = false }, 0, 1440, 1},
		"whole, IPv4 options":             {func(s *segment) { s.ipOpts = []byte{1, 1, 1, 0} }, 0, 1440, 1},
		"whole, UDP":                      {func(s *segment) { s.udp = true }, 0, 1440, 1},
		"super, UDP keeps its boundaries": {func(s *segment) { s.udp = true }, 700, 300, 2},
		"super, without DF":               {func(s *segment) { s.df = false }, 700, 300, 2},
		"super, TCP-MD5":                  {func(s *segment) { s.tcpOpts = md5Option }, 700, 300, 2},
		"super, path too small":           {func(*segment) {}, 700, 60, 2},
		"super":                           {func(*segment) {}, 700, 300, 6},
	} {
		t.Run(name, func(t *testing.T) {
			s := tcp4()
			s.payload = counting(1400)
			test.change(&s)
			size := test.super
			if size == 0 {
				size = 1400
			}
			for _, partial := range []bool{true, false} {
				f := Frame{Data: s.frame()}
				if test.super > 0 || partial {
					f = s.super(test.super)
				}
				got, ok := cutAll(t, f, test.limit)
				if !ok {
					t.Fatal("refused")
				}
				if test.want > 2 || test.want == 2 && test.super == 0 {
					size = test.limit - (len(f.Data) - 1400)
				}
				same(t, got, s.slowCut(size))
				if len(got) != test.want {
					t.Errorf("%d frames, want %d", len(got), test.want)
				}
			}
		})
	}
}

// A damaged segment must not become a sound one: it goes as it is.
func TestCutLeavesDamageAlone(t *testing.T) {
	s := tcp4()
	s.payload = counting(1400)
	for _, at := range []int{14 + 1, 14 + 10, 14 + 20 + 5, 900} {
		b := s.frame()
		b[at] ^= 4
		got, ok := cutAll(t, Frame{Data: bytes.Clone(b)}, 1000)
		if !ok || len(got) != 1 || !bytes.Equal(got[0], b) {
			t.Errorf("byte %d: %d frames", at, len(got))
		}
	}
}

func TestCompletesChecksums(t *testing.T) {
	s := tcp4()
	s.udp = true
	// A payload whose checksum comes out as zero, which UDP writes as ffff.
	s.payload = []byte{0, 0}
	body := s.transport(0)
	zero := ^slowSum(s.pseudo(len(body)), body)
	s.payload = []byte{byte(zero >> 8), byte(zero)}
	if b := s.frame(); b[len(b)-4] != 0xff || b[len(b)-3] != 0xff {
		t.Fatalf("the payload does not do what it should: %x", b)
	}
	got, ok := cutAll(t, s.super(0), 0)
	if !ok {
		t.Fatal("refused")
	}
	same(t, got, [][]byte{s.frame()})
	s.payload = append(s.payload, s.payload...)
	got, _ = cutAll(t, s.super(2), 0)
	same(t, got, s.slowCut(2))
}

func TestCutRefuses(t *testing.T) {
	s := tcp4()
	s.payload = counting(3000)
	for name, change := range map[string]func(*Frame){
		"unknown type":              func(f *Frame) { f.GSOType = 3 },
		"wrong family":              func(f *Frame) { f.GSOType = GSOTCPv6 },
		"wrong protocol":            func(f *Frame) { f.GSOType, f.CsumOffset = GSOUDP, csumOfUDP },
		"no size":                   func(f *Frame) { f.GSOSize = 0 },
		"no checksum":               func(f *Frame) { f.Flags = 0 },
		"start in the IP header":    func(f *Frame) { f.CsumStart -= 4 },
		"start behind the frame":    func(f *Frame) { f.CsumStart = 60000 },
		"another checksum":          func(f *Frame) { f.CsumOffset = 4 },
		"TCP header cut off":        func(f *Frame) { f.Data = f.Data[:14+20+19] },
		"TCP options cut off":       func(f *Frame) { f.Data[14+20+12] = 0xf0; f.Data = f.Data[:14+20+30] },
		"TCP header too short":      func(f *Frame) { f.Data[14+20+12] = 0x40 },
		"IP header cut off":         func(f *Frame) { f.Data = f.Data[:30] },
		"not IP":                    func(f *Frame) { f.Data[12] = 0x99 },
		"nothing":                   func(f *Frame) { f.Data = nil },
		"checksum behind the end":   func(f *Frame) { f.GSOType, f.CsumStart, f.CsumOffset = 0, 3000, 65535 },
		"checksum in the addresses": func(f *Frame) { f.GSOType, f.CsumStart, f.CsumOffset = 0, 2, 4 },
	} {
		f := s.super(1000)
		change(&f)
		if got, ok := cutAll(t, f, 0); ok {
			t.Errorf("%s: %d frames", name, len(got))
		}
	}
}

func TestSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 300 {
		b := make([]byte, n)
		for _, fill := range []func(int) byte{func(int) byte { return 0xff }, func(int) byte { return byte(rng.Uint32()) }, func(int) byte { return 0 }} {
			for i := range b {
				b[i] = fill(i)
			}
			var got [2]byte
			putSum(got[:], fold(sum(b, word(0xfffe))))
			want := slowSum([]byte{0xff, 0xfe}, b)
			if g := uint16(got[0])<<8 | uint16(got[1]); g != want {
				t.Fatalf("%d bytes: %04x, want %04x", n, g, want)
			}
		}
	}
}

func TestHeader(t *testing.T) {
	want := Header{1, 4, 66, 1448, 34, 16}
	var b [HeaderLen]byte
	want.Put(b[:])
	if got, ok := ParseHeader(b[:]); !ok || got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, ok := ParseHeader(b[:9]); ok {
		t.Error("half a header is one")
	}
	if got := (TSO4 | USO).String(); got != "tso4 uso" {
		t.Error(got)
	}
}

func TestWireSize(t *testing.T) {
	s := tcp4()
	s.payload = counting(5000)
	if got := s.super(1448).WireSize(); got != 14+40+1448 {
		t.Errorf("TCP: %d", got)
	}
	s.tags, s.tcpOpts = []uint16{4}, timestamps
	if got := s.super(1448).WireSize(); got != 18+52+1448 {
		t.Errorf("TCP, tag, options: %d", got)
	}
	if got := (Frame{Data: s.frame()}).WireSize(); got != 18+52+5000 {
		t.Errorf("whole: %d", got)
	}
	s.udp = true
	if got := s.super(1448).WireSize(); got != 18+28+1448 {
		t.Errorf("UDP: %d", got)
	}
}

// Any header before any frame: no crash, an end, and no more bytes than there can be.
func FuzzCutter(f *testing.F) {
	for _, s := range []segment{tcp4(), {v6: true}, {udp: true, tags: []uint16{1}}, {v6: true, ext: 0, ipOpts: hopByHop}} {
		s.payload = counting(300)
		for _, size := range []int{100, 0} {
			frame := s.super(size)
			var b [HeaderLen]byte
			frame.Put(b[:])
			f.Add(slices.Concat(b[:], frame.Data), uint16(250))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, limit uint16) {
		h, ok := ParseHeader(b)
		if !ok {
			return
		}
		frame := Frame{slices.Clone(b[HeaderLen:]), h}
		size, wire := len(frame.Data), frame.WireSize()
		var c Cutter
		if !c.Begin(frame, int(limit)) {
			return
		}
		payload, count := 0, 0
		for {
			seg, more := c.Next()
			if !more {
				break
			}
			if count++; len(seg) > wire || count > size+1 {
				t.Fatalf("frame %d has %d of %d bytes, of a super-frame of %d", count, len(seg), wire, size)
			}
			checkLeftOut(t, slices.Clone(seg), slices.Clone(c.Complete()), c.CsumStart())
			if c.cut {
				payload += len(seg) - c.pkt.end
			}
		}
		if count == 0 || c.cut && payload != size-c.pkt.end {
			t.Fatalf("%d frames with %d bytes of payload, of %d bytes", count, payload, size)
		}
	})
}
