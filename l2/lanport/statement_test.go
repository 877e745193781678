package lanport

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

func example() Statement {
	return Statement{
		From: ID{1, 2, 3}, Segment: Segment{0xaa, 0xbb}, Counter: 7<<32 | 9, State: Blocked, Fit: true, Ask: true,
		Forwarder: ID{4, 5}, Heard: []ID{{4, 5}, {6}},
	}
}

// TestStatementBytes holds the bytes of PROTOCOL.md, section 17.
func TestStatementBytes(t *testing.T) {
	s := example()
	want := "01020302" + "aabb000000000000" + "01020300000000000000000000000000" + "0000000700000009" +
		"04050000000000000000000000000000" + "04050000000000000000000000000000" + "06000000000000000000000000000000"
	if got := hex.EncodeToString(s.Append(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if from, ok := Sender(s.Append(nil)); !ok || from != s.From {
		t.Errorf("of %x", from)
	}
	if _, ok := Sender(make([]byte, headLen)); ok {
		t.Error("of nobody, and somebody is told")
	}
	parsed, rest, err := Parse(append(s.Append(nil), "sig"...))
	if err != nil || string(rest) != "sig" || !parsed.Same(&s) || parsed.Counter != s.Counter || !parsed.Ask {
		t.Errorf("%+v, %q, %v", parsed, rest, err)
	}
}

func TestParseRefuses(t *testing.T) {
	change := func(at int, to byte) []byte {
		s := example()
		b := s.Append(nil)
		b[at] = to
		return b
	}
	s := example()
	whole := s.Append(nil)
	swapped := example()
	slices.Reverse(swapped.Heard)
	twice := example()
	twice.Heard[1] = twice.Heard[0]
	nameless := example()
	nameless.Segment = Segment{}
	for what, b := range map[string][]byte{
		"nothing": nil, "cut off": whole[:51], "list cut off": whole[:len(whole)-1], "another version": change(0, 2),
		"no state": change(1, 0), "unknown state": change(1, 6), "unknown flag": change(2, 4), "too many heard": change(3, MaxHeard+1),
		"not in order": swapped.Append(nil), "one twice": twice.Append(nil), "no segment": nameless.Append(nil),
	} {
		if got, _, err := Parse(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	s := example()
	f.Add(s.Append(nil))
	f.Add([]byte{1, 3, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, rest, err := Parse(b)
		if err != nil {
			return
		}
		if again := s.Append(nil); !bytes.Equal(again, b[:len(b)-len(rest)]) {
			t.Errorf("%x comes back as %x", b, again)
		}
	})
}
