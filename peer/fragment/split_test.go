package fragment

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestPieces(t *testing.T) {
	for _, tt := range []struct {
		name            string
		frame, body, is int
	}{
		{"nothing", 0, 1196, 0},
		{"fits", 1196, 1196, 1},
		{"one byte more", 1197, 1196, 2},
		{"full frame on the smallest path", 1518, 1196, 2},
		{"two full pieces", 2380, 1196, 2},
		{"three", 2381, 1196, 3},
		{"jumbo on the smallest path", MaxFrame, 1196, 8},
		{"jumbo on a path of 1500", MaxFrame, 1416, 7},
		{"eight full pieces", 8 * 100, 106, 8},
		{"nine", 8*100 + 1, 106, 0},
		{"too large for any path", MaxFrame + 1, 60000, 0},
		{"no room for a header", 60, 6, 0},
		{"negative room", 60, -50, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Pieces(tt.frame, tt.body); got != tt.is {
				t.Errorf("Pieces(%d, %d) = %d, want %d", tt.frame, tt.body, got, tt.is)
			}
		})
	}
}

// Every frame is cut without gap or overlap, into pieces that fit, equal but for
// the last, which is not larger.
func TestPieceCoversFrame(t *testing.T) {
	frame := make([]byte, MaxFrame)
	for _, body := range []int{70, 300, 1196, 1198, 1416, 1464, 4000} {
		for n := 1; n <= MaxFrame; n++ {
			count := Pieces(n, body)
			if count < 2 {
				continue
			}
			sum, first := 0, len(Piece(frame[:n], 0, count))
			for i := range count {
				size := len(Piece(frame[:n], i, count))
				if size == 0 || size > body-HeaderLen || i < count-1 && size != first || size > first {
					t.Fatalf("frame %d, body %d: piece %d of %d has %d bytes, the first %d", n, body, i, count, size, first)
				}
				sum += size
			}
			if sum != n {
				t.Fatalf("frame %d, body %d: the pieces have %d bytes", n, body, sum)
			}
		}
	}
}

func TestAppendExactBytes(t *testing.T) {
	got := Append([]byte{0xee}, 0x01020304, 1, 3, []byte("abc"))
	want := "ee" + "01020304" + "01" + "03" + hex.EncodeToString([]byte("abc"))
	if hex.EncodeToString(got) != want {
		t.Errorf("got %x, want %s", got, want)
	}
	id, index, count, piece, ok := Parse(got[1:])
	if !ok || id != 0x01020304 || index != 1 || count != 3 || !bytes.Equal(piece, []byte("abc")) {
		t.Errorf("parsed %x %d %d %q %v", id, index, count, piece, ok)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, body string }{
		{"empty", ""},
		{"header only", "010203040002"},
		{"one piece", "01020304000141"},
		{"no pieces", "01020304000041"},
		{"nine pieces", "01020304000941"},
		{"index beyond", "01020304020241"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body, _ := hex.DecodeString(tt.body)
			if _, _, _, _, ok := Parse(body); ok {
				t.Error("accepted")
			}
		})
	}
	if _, _, _, _, ok := Parse(make([]byte, 70000)); ok {
		t.Error("accepted 70000 bytes")
	}
}

func TestSplitDoesNotAllocate(t *testing.T) {
	frame, buf := make([]byte, 1514), make([]byte, 0, 2048)
	if n := testing.AllocsPerRun(100, func() {
		count := Pieces(len(frame), 1196)
		for i := range count {
			buf = Append(buf[:0], 7, i, count, Piece(frame, i, count))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSplit(b *testing.B) {
	for name, size := range map[string]int{"1514": 1514, "9018": 9018} {
		b.Run(name, func(b *testing.B) {
			frame, buf := make([]byte, size), make([]byte, 0, 2048)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			id := uint32(0)
			for b.Loop() {
				id++
				count := Pieces(len(frame), 1416)
				for i := range count {
					buf = Append(buf[:0], id, i, count, Piece(frame, i, count))
				}
			}
		})
	}
}
