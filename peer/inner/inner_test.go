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
		kind Kind
		want string
	}{
		{KindFrame, "10000003616263"},
		{KindFragment, "12000003616263"},
		{KindControl, "16000003616263"},
	} {
		t.Run(tt.kind.String(), func(t *testing.T) {
			got := Append([]byte{0xee}, tt.kind, []byte("abc"))
			if hex.EncodeToString(got) != "ee"+tt.want {
				t.Fatalf("got %x, want ee%s", got, tt.want)
			}
			padded := append(got[1:], make([]byte, 9)...)
			kind, body, err := Parse(padded)
			if err != nil || kind != tt.kind || string(body) != "abc" {
				t.Errorf("parsed %v %q %v", kind, body, err)
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
		kind            Kind
		body            string
		err             error
	}{
		{"keepalive", "", 0, "", ErrShort},
		{"half a header", "1000", 0, "", ErrShort},
		{"empty frame", "10000000", KindFrame, "", nil},
		{"longest", "16000001aa", KindControl, "aa", nil},
		{"length beyond", "10000002aa", 0, "", ErrLength},
		{"length far beyond", "1000ffffaa", 0, "", ErrLength},
		{"bundle", "14000000", 0, "", ErrKind},
		{"kind 7", "1e000000", 0, "", ErrKind},
		{"checksum start, high bit", "11000000", 0, "", ErrChecksum},
		{"checksum start", "10010000", 0, "", ErrChecksum},
		{"version 0", "00000000", 0, "", ErrVersion},
		{"version 2", "20000000", 0, "", ErrVersion},
		{"version 15", "ff000000", 0, "", ErrVersion},
		{"IPv4", "4500", KindIP, "4500", nil},
		{"IPv6", "60", KindIP, "60", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kind, body, err := Parse(unhex(t, tt.plaintext))
			if kind != tt.kind || !bytes.Equal(body, unhex(t, tt.body)) || !errors.Is(err, tt.err) {
				t.Errorf("got %v %x %v", kind, body, err)
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
		buf = Append(buf[:0], KindFrame, frame)
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
		kind, body, err := Parse(plaintext)
		if err != nil {
			if body != nil {
				t.Fatal("a body beside an error")
			}
			return
		}
		if kind == KindIP {
			return
		}
		again := Append(nil, kind, body)
		if !bytes.HasPrefix(plaintext, again) {
			t.Fatalf("%x parses as %v %x, which is %x", plaintext, kind, body, again)
		}
	})
}
