package relay

import (
	"bytes"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"meshd/keys"
)

func TestHeader(t *testing.T) {
	for _, c := range []struct {
		from bool
		id   uint32
		want string
	}{
		{false, 0x01020304, "d301000001020304"},
		{true, 0xffffffff, "d3010100ffffffff"},
		{false, 0, "d301000000000000"},
	} {
		b := make([]byte, HeaderLen+1)
		h := NewHeader(c.from, c.id)
		h.Put(b)
		if got := hex.EncodeToString(b[:HeaderLen]); got != c.want {
			t.Errorf("%v %x: %s, want %s", c.from, c.id, got, c.want)
		}
		back, ok := ParseHeader(b)
		if !ok || back != h || back.FromRelay() != c.from || back.ID() != c.id || !h.Is(b) {
			t.Errorf("%s read as %x, %v", c.want, uint64(back), ok)
		}
		if _, ok := ParseHeader(b[:HeaderLen]); ok || h.Is(b[:HeaderLen]) {
			t.Error("a frame with nothing inside is accepted")
		}
	}
	for _, bad := range []string{"d302000001020304ff", "d301020001020304ff", "d301000101020304ff", "d201000001020304ff", "d3", ""} {
		b, _ := hex.DecodeString(bad)
		if _, ok := ParseHeader(b); ok {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func id(n byte) keys.NodeID { return keys.NodeID{n} }

func ids(ns ...byte) (list []keys.NodeID) {
	for _, n := range ns {
		list = append(list, id(n))
	}
	return list
}

func TestMessages(t *testing.T) {
	ticket := Ticket{1, 2, 3, 4, 5, 6, 7, 8}
	const node1, node2 = "01000000000000000000000000000000", "02000000000000000000000000000000"
	for _, c := range []struct {
		m    message
		want string
	}{
		{message{kind: kindOpen, ticket: ticket, other: id(1)}, "01" + "0102030405060708" + node1},
		{
			message{
				kind: kindOpened, ticket: ticket, id: 0xaabbccdd, lifetime: 2 * time.Minute, rate: 1_250_000,
				rtt: 20 * time.Millisecond, chain: ids(1, 2),
			},
			"02" + "0102030405060708" + "aabbccdd" + "0078" + "00002710" + "00004e20" + "02" + node1 + node2,
		},
		{
			message{kind: kindOffer, ticket: ticket, id: 1, lifetime: time.Minute, other: id(2)},
			"03" + "0102030405060708" + "00000001" + "003c" + node2 + "00",
		},
		{message{kind: kindAccept, ticket: ticket}, "04" + "0102030405060708"},
		{message{kind: kindEnd, ticket: ticket, reason: TooFar}, "05" + "0102030405060708" + "05"},
		{message{kind: kindTerms, ticket: ticket, rate: 1, rtt: time.Millisecond}, "06" + "0102030405060708" + "00000001" + "000003e8"},
	} {
		b := c.m.append(nil)
		if got := hex.EncodeToString(b); got != c.want {
			t.Errorf("kind %d:\n%s, want\n%s", c.m.kind, got, c.want)
		}
		for n := range b {
			if _, err := parse(b[:n]); err == nil {
				t.Errorf("kind %d is accepted with %d bytes", c.m.kind, n)
			}
		}
		if _, err := parse(append(b, 0)); err == nil {
			t.Errorf("kind %d is accepted with a byte more", c.m.kind)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add((&message{kind: kindOpened, chain: ids(1, 2, 3)}).append(nil))
	f.Add((&message{kind: kindOffer, other: id(1)}).append(nil))
	f.Add((&message{kind: kindOpen}).append(nil))
	f.Add((&message{kind: kindEnd}).append(nil))
	f.Add((&message{kind: kindTerms, rate: 1_000_000}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			return
		}
		if got := m.append(nil); !bytes.Equal(got, b) {
			t.Errorf("%x is read as %+v, which is %x", b, m, got)
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("\xd3\x01\x00\x00\x01\x02\x03\x04x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := ParseHeader(b)
		if !ok {
			return
		}
		c := slices.Clone(b)
		h.Put(c)
		if !bytes.Equal(b, c) || NewHeader(h.FromRelay(), h.ID()) != h {
			t.Errorf("%x is read as %x", b, uint64(h))
		}
	})
}

func TestFits(t *testing.T) {
	a, b := id(1), id(2)
	for _, c := range []struct {
		name  string
		chain []keys.NodeID
		want  bool
	}{
		{"direct", nil, true},
		{"three", ids(3, 4, 5), true},
		{"four", ids(3, 4, 5, 6), false},
		{"twice", ids(3, 4, 3), false},
		{"an end", ids(3, 2), false},
		{"the other", ids(1), false},
	} {
		if got := Fits(a, b, c.chain); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if Fits(a, a, nil) {
		t.Error("to itself")
	}
	if got := Join(ids(3, 4), id(5), ids(6)); !slices.Equal(got, ids(4, 3, 5, 6)) {
		t.Errorf("joined: %v", got)
	}
}
