package fragment

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

func start() time.Time { return time.Unix(1_800_000_000, 0) }

// pattern is a frame in which no two places look the same.
func pattern(n int, seed uint32) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((uint32(i)*2654435761 + seed*40503) >> 13)
	}
	return b
}

// cut is what a sender makes of frame.
func cut(frame []byte, id uint32, count int) [][]byte {
	bodies := make([][]byte, count)
	for i := range bodies {
		bodies[i] = Append(nil, id, i, count, Piece(frame, i, count))
	}
	return bodies
}

func TestSplitShuffleReassemble(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var r Reassembler
	id := uint32(0xfffffff0)
	now := start()
	for _, maxBody := range []int{1196, 1198, 1230, 1416, 1464, 8900} {
		for n := 60; n <= MaxFrame; n++ {
			count := Pieces(n, maxBody)
			if count == 1 {
				continue
			}
			id++
			now = now.Add(time.Millisecond)
			frame := pattern(n, id)
			bodies := cut(frame, id, count)
			rng.Shuffle(count, func(i, j int) { bodies[i], bodies[j] = bodies[j], bodies[i] })
			for i, body := range bodies {
				if len(body) > maxBody {
					t.Fatalf("frame %d, body %d: a fragment of %d bytes", n, maxBody, len(body))
				}
				got, ok := r.Add(body, now)
				if ok != (i == count-1) {
					t.Fatalf("frame %d, body %d: complete after %d of %d: %v", n, maxBody, i+1, count, ok)
				}
				if ok && !bytes.Equal(got, frame) {
					t.Fatalf("frame %d, body %d: another frame came out", n, maxBody)
				}
			}
		}
	}
	want := Stats{Frames: r.stats.Frames}
	if r.Stats() != want || want.Frames == 0 || r.waiting != 0 {
		t.Errorf("stats %+v, waiting %d", r.Stats(), r.waiting)
	}
}

// All orders of all pieces, with sizes chosen so that buffers grow on the way.
func TestEveryOrder(t *testing.T) {
	for _, n := range []int{2000, 2047, 2048, 2049, 3000, 9018} {
		for _, count := range []int{2, 3, 4, 5} {
			frame := pattern(n, 1)
			permute(count, func(order []int) {
				var r Reassembler
				bodies := cut(frame, 9, count)
				for i, at := range order {
					got, ok := r.Add(bodies[at], start())
					if ok != (i == count-1) || ok && !bytes.Equal(got, frame) {
						t.Fatalf("%d bytes in order %v: wrong after %d", n, order, i+1)
					}
				}
			})
		}
	}
}

func permute(n int, visit func([]int)) {
	order := make([]int, 0, n)
	var next func(used int)
	next = func(used int) {
		if len(order) == n {
			visit(order)
			return
		}
		for i := range n {
			if used&(1<<i) == 0 {
				order = append(order, i)
				next(used | 1<<i)
				order = order[:len(order)-1]
			}
		}
	}
	next(0)
}

// Against a slow model: many frames interleaved, with loss and duplicates.
func TestInterleavedAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var r Reassembler
	now := start()
	delivered := map[uint32]int{}
	for round := range 200 {
		type sent struct{ body []byte }
		var wire []sent
		frames := map[uint32][]byte{}
		lost := map[uint32]bool{}
		for i := range 20 {
			id := uint32(round*20 + i)
			frames[id] = pattern(60+rng.IntN(MaxFrame-60), id)
			count := max(2, Pieces(len(frames[id]), 1196))
			for _, body := range cut(frames[id], id, count) {
				if rng.IntN(20) == 0 {
					lost[id] = true
					continue
				}
				for range 1 + rng.IntN(2) {
					wire = append(wire, sent{body})
				}
			}
		}
		rng.Shuffle(len(wire), func(i, j int) { wire[i], wire[j] = wire[j], wire[i] })
		for _, s := range wire {
			got, ok := r.Add(s.body, now)
			if !ok {
				continue
			}
			id := binary.BigEndian.Uint32(s.body)
			delivered[id]++
			if !bytes.Equal(got, frames[id]) {
				t.Fatalf("frame %d came out changed", id)
			}
		}
		for id := range frames {
			want := 1
			if lost[id] {
				want = 0
			}
			if delivered[id] != want {
				t.Fatalf("frame %d delivered %d times, want %d", id, delivered[id], want)
			}
		}
		now = now.Add(lifetime)
	}
	if s := r.Stats(); s.Expired == 0 || s.Duplicate == 0 || s.Malformed != 0 || s.Overflow != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestContradictions(t *testing.T) {
	piece := func(index, count, n int) []byte { return Append(nil, 7, index, count, make([]byte, n)) }
	for _, tt := range []struct {
		name   string
		bodies [][]byte
		want   Stats
	}{
		{"count changes", [][]byte{piece(0, 2, 100), piece(1, 3, 100)}, Stats{Malformed: 1}},
		{"count changes for a piece that is there", [][]byte{piece(0, 2, 100), piece(0, 3, 100)}, Stats{Malformed: 1}},
		{"sizes differ", [][]byte{piece(0, 3, 100), piece(1, 3, 99)}, Stats{Malformed: 1}},
		{"last larger than the others", [][]byte{piece(0, 2, 100), piece(1, 2, 101)}, Stats{Malformed: 1}},
		{"others smaller than the last", [][]byte{piece(1, 2, 101), piece(0, 2, 100)}, Stats{Malformed: 1}},
		{"frame too large by a first", [][]byte{piece(0, 8, 1305)}, Stats{Malformed: 1}},
		{"frame too large by a last", [][]byte{piece(7, 8, 1142)}, Stats{Malformed: 1}},
		{"frame too large by the last together", [][]byte{piece(0, 8, 1280), piece(7, 8, 171)}, Stats{Malformed: 1}},
		{"frame too large by the others together", [][]byte{piece(7, 8, 171), piece(0, 8, 1280)}, Stats{Malformed: 1}},
		{"duplicate", [][]byte{piece(0, 2, 100), piece(0, 2, 100)}, Stats{Duplicate: 1}},
		{"duplicate of another size", [][]byte{piece(0, 3, 100), piece(0, 3, 90)}, Stats{Duplicate: 1}},
		{"duplicate after completion", [][]byte{piece(0, 2, 100), piece(1, 2, 100), piece(1, 2, 100)}, Stats{Frames: 1, Duplicate: 1}},
		{"no body", [][]byte{{}, {0}, piece(0, 2, 0)}, Stats{Malformed: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r Reassembler
			for _, body := range tt.bodies {
				r.Add(body, start())
			}
			if r.Stats() != tt.want {
				t.Errorf("stats %+v, want %+v", r.Stats(), tt.want)
			}
		})
	}
}

// What contradicts is dropped alone: the frame still completes.
func TestContradictionDoesNotHurt(t *testing.T) {
	frame := pattern(1514, 5)
	good := cut(frame, 7, 2)
	var r Reassembler
	r.Add(good[1], start())
	for _, bad := range [][]byte{
		Append(nil, 7, 0, 3, make([]byte, 757)),
		Append(nil, 7, 0, 2, make([]byte, 700)),
		Append(nil, 7, 0, 2, make([]byte, 9000)),
		Append(nil, 7, 1, 2, make([]byte, 10)),
	} {
		if _, ok := r.Add(bad, start()); ok {
			t.Fatal("completed")
		}
	}
	if got, ok := r.Add(good[0], start()); !ok || !bytes.Equal(got, frame) {
		t.Error("the frame did not complete")
	}
}

func TestExpiry(t *testing.T) {
	var r Reassembler
	bodies := cut(pattern(1514, 1), 1, 2)
	r.Add(bodies[0], start())
	if wake := r.Expire(start()); !wake.Equal(start().Add(lifetime)) {
		t.Errorf("wake at %v", wake)
	}
	if _, ok := r.Add(bodies[1], start().Add(lifetime)); ok {
		t.Error("completed after a second")
	}
	if s := r.Stats(); s.Expired != 1 {
		t.Errorf("stats %+v", s)
	}
	// The late piece began the frame anew and expires too.
	wake := r.Expire(start().Add(2 * lifetime))
	if s := r.Stats(); s.Expired != 2 || r.waiting != 0 {
		t.Errorf("stats %+v, waiting %d", s, r.waiting)
	}
	if r.Expire(wake); r.held() != 0 || !r.Expire(wake).IsZero() {
		t.Errorf("holds %d bytes after being idle", r.held())
	}
}

// After a second, a number may come again: a remote that restarted counts from
// the beginning.
func TestNumbersComeAgain(t *testing.T) {
	var r Reassembler
	for i := range 3 {
		now := start().Add(time.Duration(i) * lifetime)
		bodies := cut(pattern(1514, 1), 1, 2)
		r.Add(bodies[0], now)
		if _, ok := r.Add(bodies[1], now); !ok {
			t.Fatalf("round %d: not complete", i)
		}
	}
}

func TestOverflowTakesTheOldest(t *testing.T) {
	var r Reassembler
	frame := pattern(1514, 1)
	for id := range uint32(maxFrames + 1) {
		r.Add(cut(frame, id, 2)[0], start().Add(time.Duration(id)*time.Millisecond))
	}
	if s := r.Stats(); s.Overflow != 1 || r.waiting != maxFrames {
		t.Fatalf("stats %+v, waiting %d", s, r.waiting)
	}
	now := start().Add(40 * time.Millisecond)
	for id := uint32(1); id <= maxFrames; id++ {
		if _, ok := r.Add(cut(frame, id, 2)[1], now); !ok {
			t.Errorf("frame %d was lost", id)
		}
	}
	if _, ok := r.Add(cut(frame, 0, 2)[1], now); ok {
		t.Error("the oldest completed")
	}
}

// held is the memory of the buffers.
func (r *Reassembler) held() (n int) {
	for i := range r.slots {
		n += cap(r.slots[i].buf)
	}
	return n
}

// No sequence of pieces makes it hold more than 32 buffers.
func TestMemoryIsBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var r Reassembler
	now := start()
	big := make([]byte, MaxFrame)
	for range 200_000 {
		count := 2 + rng.IntN(7)
		n := 1 + rng.IntN(MaxFrame/count)
		r.Add(Append(nil, rng.Uint32()%4096, rng.IntN(count), count, big[:n]), now)
		if now = now.Add(time.Millisecond); rng.IntN(500) == 0 {
			now = now.Add(lifetime)
		}
		if r.held() > maxFrames*largeBuffer || r.waiting > maxFrames {
			t.Fatalf("holds %d bytes for %d frames", r.held(), r.waiting)
		}
	}
	s := r.Stats()
	if s.Overflow == 0 || s.Expired == 0 || s.Malformed == 0 {
		t.Errorf("stats %+v: the test does not test", s)
	}
}

func TestReassemblyDoesNotAllocate(t *testing.T) {
	var r Reassembler
	id, now := uint32(0), start()
	small, large := pattern(1514, 1), pattern(9014, 1)
	buf := make([]byte, 0, 2048)
	run := func() {
		for _, frame := range [][]byte{small, large} {
			id++
			now = now.Add(time.Millisecond)
			count := Pieces(len(frame), 1196)
			for i := range count {
				buf = Append(buf[:0], id, count-1-i, count, Piece(frame, count-1-i, count))
				r.Add(buf, now)
			}
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzReassembler cuts frames of all sizes and hands over their pieces as the script says, some of them damaged, among others
// that are what the fuzzer likes. Of a frame none of whose pieces was damaged nothing else comes out, and it comes out as
// soon as all have come within a second.
//
// Three bytes of sizes are a frame: its length (2) and number of pieces. Three bytes of script are a piece: which frame (1),
// its index and above that what is done to it (1), and how many times 8 ms have passed (1).
func FuzzReassembler(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 2, 0}, []byte{0x01, 0x2c, 1}, []byte(nil))                                      // 300 bytes in three
	f.Add([]byte{0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0}, []byte{0x05, 0xea, 0, 0x05, 0xea, 0}, []byte(nil))              // two of 1514, mixed
	f.Add([]byte{0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0}, []byte{0x23, 0x3a, 1}, []byte(nil))                             // 9018, the last first
	f.Add([]byte{0, 0, 0, 0, 1, 200, 0, 0, 0, 0, 1, 0}, []byte{0x05, 0xea, 0}, []byte(nil))                           // late, then again
	f.Add([]byte{0, 0x10, 0, 0, 0x21, 0, 0, 0x30, 0, 0, 0x40, 0}, []byte{0x05, 0xea, 0}, []byte{0, 0, 0, 0, 0, 2, 1}) // damaged
	f.Fuzz(func(t *testing.T, script, sizes, raw []byte) {
		type sent struct {
			frame  []byte
			pieces [][]byte
			have   map[int]bool
			began  time.Time // of the first piece that counts
			done   time.Time // until when pieces of it are late
			spoilt bool      // a damaged piece was among them
		}
		var all []*sent
		for ; len(sizes) >= 3 && len(all) < maxFrames-1; sizes = sizes[3:] {
			count := 2 + int(sizes[2])%(MaxPieces-1)
			n := max(count*count, int(binary.BigEndian.Uint16(sizes))%(MaxFrame+1)) // no piece is empty
			frame := pattern(n, uint32(len(all)))
			all = append(all, &sent{frame: frame, pieces: cut(frame, uint32(len(all)), count), have: map[int]bool{}})
		}
		if len(all) == 0 {
			return
		}
		var r Reassembler
		now := start()
		for ; len(script) >= 3; script = script[3:] {
			s := all[int(script[0])%len(all)]
			index := int(script[1]&0xf) % len(s.pieces)
			now = now.Add(time.Duration(script[2]) * 8 * time.Millisecond)
			body := bytes.Clone(s.pieces[index])
			switch script[1] >> 4 {
			case 1:
				body, s.spoilt = body[:len(body)-1], true
			case 2:
				body, s.spoilt = append(body, 0), true
			case 3:
				body[5], s.spoilt = 2+(body[5]-1)%(MaxPieces-1), true
			case 4:
				body = raw
				if id, _, _, _, ok := Parse(raw); ok && id < uint32(len(all)) {
					all[id].spoilt = true
				}
			}
			got, ok := r.Add(body, now)
			if ok && len(got) > MaxFrame || r.held() > maxFrames*largeBuffer || r.waiting < 0 || r.waiting > maxFrames {
				t.Fatalf("a frame of %d bytes; holds %d bytes, %d frames", len(got), r.held(), r.waiting)
			}
			if script[1]>>4 == 4 || s.spoilt {
				continue
			}
			whole := false
			if !now.Before(s.done) {
				if len(s.have) == 0 || !now.Before(s.began.Add(lifetime)) {
					clear(s.have)
					s.began = now
				}
				s.have[index] = true
				whole = len(s.have) == len(s.pieces)
			}
			if ok != whole || ok && !bytes.Equal(got, s.frame) {
				t.Fatalf("piece %d of %d of a frame of %d: %d bytes come out (%v), want it whole: %v", index, len(s.pieces), len(s.frame), len(got), ok, whole)
			}
			if whole {
				clear(s.have)
				s.done = now.Add(lifetime)
			}
		}
	})
}

func BenchmarkReassemble(b *testing.B) {
	var r Reassembler
	frame := pattern(1514, 1)
	bodies := cut(frame, 0, 2)
	now := start()
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint32(bodies[0], uint32(i))
		binary.BigEndian.PutUint32(bodies[1], uint32(i))
		r.Add(bodies[0], now)
		if _, ok := r.Add(bodies[1], now.Add(time.Duration(i))); !ok {
			b.Fatal("not complete")
		}
	}
}
