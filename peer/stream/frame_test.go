package stream

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func TestFrameBytes(t *testing.T) {
	b := appendFrame(nil, []byte{0xd1, 2, 3})
	b = appendFrame(b, nil)
	if got := hex.EncodeToString(b); got != "0003d102030000" {
		t.Fatalf("frames are %s", got)
	}
	first, rest, ok, err := nextFrame(b)
	if err != nil || !ok || !bytes.Equal(first, []byte{0xd1, 2, 3}) {
		t.Fatalf("got %x, %v, %v", first, ok, err)
	}
	alive, rest, ok, err := nextFrame(rest)
	if err != nil || !ok || len(alive) != 0 || len(rest) != 0 {
		t.Fatalf("got %x, %x, %v, %v", alive, rest, ok, err)
	}
	if _, _, _, err := nextFrame([]byte{0x08, 0x01}); !errors.Is(err, errFrame) {
		t.Errorf("2049 bytes are taken: %v", err)
	}
}

// FuzzFrames holds that what comes is taken apart the same in whatever pieces it
// comes, that nothing larger than a datagram comes of it, and that putting it
// together again gives the same bytes.
func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, []byte("hello")), nil), uint8(1))
	f.Add([]byte{0x08, 0x01, 0}, uint8(2))
	f.Add([]byte{0, 5, 1, 2}, uint8(3))
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		whole, left, wholeErr := split(stream)
		var again []byte
		for _, d := range whole {
			if len(d) > maxDatagram {
				t.Fatalf("a datagram of %d bytes", len(d))
			}
			again = appendFrame(again, d)
		}
		if again = append(again, left...); !bytes.Equal(again, stream) {
			t.Fatalf("put together again: %x, was %x", again, stream)
		}
		var pieces [][]byte
		var buf []byte
		var err error
		for at := 0; at < len(stream) && err == nil; {
			end := min(at+int(step)+1, len(stream))
			var got [][]byte
			got, buf, err = split(append(buf, stream[at:end]...))
			pieces = append(pieces, got...)
			buf = bytes.Clone(buf)
			at = end
		}
		if (err == nil) != (wholeErr == nil) || len(pieces) != len(whole) {
			t.Fatalf("in pieces of %d: %d datagrams, %v; whole: %d, %v", int(step)+1, len(pieces), err, len(whole), wholeErr)
		}
		for i := range whole {
			if !bytes.Equal(pieces[i], whole[i]) {
				t.Fatalf("datagram %d differs", i)
			}
		}
	})
}

// split takes all whole frames from b.
func split(b []byte) (datagrams [][]byte, rest []byte, err error) {
	for {
		d, after, ok, err := nextFrame(b)
		if err != nil || !ok {
			return datagrams, b, err
		}
		datagrams = append(datagrams, bytes.Clone(d))
		b = after
	}
}
