package inner

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAppendExactBytes(t *testing.T) {
	for _, tt := range []struct {
		header Header
		want   string
	}{
		{Header{Kind: KindFrame}, "10000003616263"},
		{Header{Kind: KindFragment}, "12000003616263"},
		{Header{Kind: KindControl}, "16000003616263"},
		{Header{Kind: KindCopy}, "18000003616263"},
		{Header{Kind: KindCopyPart}, "1a000003616263"},
		{Header{KindFrame, 34}, "10220003616263"},
		{Header{KindFragment, 62}, "123e0003616263"},
		{Header{KindFrame, MaxCsumStart}, "11ff0003616263"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			got := Append([]byte{0xee}, tt.header, []byte("abc"))
			if hex.EncodeToString(got) != "ee"+tt.want {
				t.Fatalf("got %x, want ee%s", got, tt.want)
			}
			padded := append(got[1:], make([]byte, 9)...)
			h, body, err := Parse(padded)
			if err != nil || h != tt.header || string(body) != "abc" {
				t.Errorf("parsed %v %q %v", h, body, err)
			}
			if cap(body) != len(body) {
				t.Error("appending to the body would overwrite the padding")
			}
		})
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, plaintext string
		header          Header
		body            string
		err             error
	}{
		{"keepalive", "", Header{}, "", ErrShort},
		{"half a header", "1000", Header{}, "", ErrShort},
		{"empty frame", "10000000", Header{Kind: KindFrame}, "", nil},
		{"longest", "16000001aa", Header{Kind: KindControl}, "aa", nil},
		{"length beyond", "10000002aa", Header{}, "", ErrLength},
		{"length far beyond", "1000ffffaa", Header{}, "", ErrLength},
		{"bundle", "14000000", Header{}, "", ErrKind},
		{"kind 7", "1e000000", Header{}, "", ErrKind},
		{"checksum start, high bit", "11000000", Header{KindFrame, 256}, "", nil},
		{"checksum start in a piece", "12010000", Header{KindFragment, 1}, "", nil},
		{"checksum start in control", "16010000", Header{}, "", ErrChecksum},
		{"checksum start in control, high bit", "17000000", Header{}, "", ErrChecksum},
		{"copy", "18000001aa", Header{Kind: KindCopy}, "aa", nil},
		{"piece of a copy", "1a000001aa", Header{Kind: KindCopyPart}, "aa", nil},
		{"kind 6", "1c000000", Header{}, "", ErrKind},
		{"checksum start in a copy", "18010000", Header{}, "", ErrChecksum},
		{"checksum start in a piece of a copy", "1b000000", Header{}, "", ErrChecksum},
		{"version 0", "00000000", Header{}, "", ErrVersion},
		{"version 2", "20000000", Header{}, "", ErrVersion},
		{"version 15", "ff000000", Header{}, "", ErrVersion},
		{"IPv4", "4500", Header{Kind: KindIP}, "4500", nil},
		{"IPv6", "60", Header{Kind: KindIP}, "60", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, body, err := Parse(unhex(t, tt.plaintext))
			if h != tt.header || !bytes.Equal(body, unhex(t, tt.body)) || !errors.Is(err, tt.err) {
				t.Errorf("got %v %x %v", h, body, err)
			}
		})
	}
}

// For every path and body: what fits is sealed within the path, is padded as
// WireGuard does where there is room, and MaxBody is exact.
func TestSizes(t *testing.T) {
	for payload := 0; payload <= 1600; payload++ {
		most := MaxBody(payload)
		if most == 0 {
			if payload > TransportHeader+TransportTag+HeaderLen {
				t.Fatalf("nothing fits %d", payload)
			}
			continue
		}
		for _, n := range []int{0, 1, most / 2, most - 1, most} {
			sealed := Sealed(n, payload)
			plain := sealed - TransportHeader - TransportTag
			switch {
			case sealed > payload:
				t.Fatalf("a body of %d has %d bytes on a path of %d", n, sealed, payload)
			case plain < HeaderLen+n || plain > HeaderLen+n+15:
				t.Fatalf("a body of %d is padded to %d", n, plain)
			case plain%16 != 0 && sealed != payload:
				t.Fatalf("a body of %d on a path of %d is not padded: %d", n, payload, plain)
			}
		}
		if Sealed(most+1, payload) <= payload {
			t.Fatalf("more than MaxBody fits %d", payload)
		}
	}
}

func TestSizesOfKnownPaths(t *testing.T) {
	for _, tt := range []struct {
		name      string
		mtu       int
		is6       bool
		body, sum int
	}{
		{"smallest IPv6", 1280, true, 1196, 84},
		{"smallest over IPv4", 1280, false, 1216, 64},
		{"Ethernet IPv4", 1500, false, 1436, 64},
		{"Ethernet IPv6", 1500, true, 1416, 84},
		{"jumbo IPv4", 9000, false, 8936, 64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			payload := UDPPayload(tt.mtu, tt.is6)
			if got := MaxBody(payload); got != tt.body {
				t.Errorf("MaxBody = %d, want %d", got, tt.body)
			}
			if got := Overhead(tt.is6); got != tt.sum || tt.body+got != tt.mtu {
				t.Errorf("Overhead = %d, want %d", got, tt.sum)
			}
			if got := IPPacket(payload, tt.is6); got != tt.mtu {
				t.Errorf("IPPacket = %d, want %d", got, tt.mtu)
			}
		})
	}
	if UDPPayload(20, true) != 0 {
		t.Error("a payload in less than a header")
	}
}

func TestPadTo(t *testing.T) {
	for _, tt := range []struct{ n, limit, want int }{
		{0, 100, 0},
		{1, 100, 16},
		{16, 100, 16},
		{17, 100, 32},
		{97, 100, 100},
		{100, 100, 100},
		{101, 100, 101},
		{1200, 1200, 1200},
		{1199, 1204, 1200},
		{1201, 1204, 1204},
	} {
		if got := PadTo(tt.n, tt.limit); got != tt.want {
			t.Errorf("PadTo(%d, %d) = %d, want %d", tt.n, tt.limit, got, tt.want)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	buf, frame := make([]byte, 0, 2048), make([]byte, 1400)
	if n := testing.AllocsPerRun(100, func() {
		buf = Append(buf[:0], Header{KindFrame, 34}, frame)
		if _, _, err := Parse(buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "10000003616263", "1000ffff", "4500001c", "60"} {
		b, _ := hex.DecodeString(seed)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, plaintext []byte) {
		h, body, err := Parse(plaintext)
		if err != nil {
			if body != nil {
				t.Fatal("a body beside an error")
			}
			return
		}
		if h.Kind == KindIP {
			return
		}
		again := Append(nil, h, body)
		if !bytes.HasPrefix(plaintext, again) {
			t.Fatalf("%x parses as %v %x, which is %x", plaintext, h, body, again)
		}
	})
}
