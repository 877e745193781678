package flood

import (
	"bytes"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/keys"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sampleCopy() Copy {
	c := Copy{
		Name: Name{keys.NodeID{1, 2, 3, 15: 16}, 0x01020304, 0x0102030405060708},
		Part: Part{0x1111111111111111, 0x2222222222222222}, Frame: []byte("an Ethernet frame"),
	}
	for i := range c.Signature {
		c.Signature[i] = 0xaa
	}
	return c
}

const sampleBytes = "01020300000000000000000000000010" + "01020304" + "0102030405060708" + "1111111111111111" + "2222222222222222"

func TestCopyExactBytes(t *testing.T) {
	c := sampleCopy()
	frame := hex.EncodeToString(c.Frame)
	want := sampleBytes + strings.Repeat("aa", 64) + frame
	got := c.Append([]byte("before"))[6:]
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
	back, err := Parse(got)
	if err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("%+v, %v", back, err)
	}
	SetPart(got, Part{1, 0})
	if back, err := Parse(got); err != nil || back.Part != nowhere || back.Name != c.Name || back.Signature != c.Signature {
		t.Errorf("%+v, %v", back, err)
	}
	signed := "6d657368642f312f666c6f6f6400" + "07000000000000000000000000000000" + sampleBytes[:56] + frame
	if got := c.AppendSigned(nil, keys.NetworkID{7}); hex.EncodeToString(got) != signed {
		t.Errorf("signed %x\nwant   %s", got, signed)
	}
}

func TestCopyRefused(t *testing.T) {
	c := sampleCopy()
	good := c.Append(nil)
	c.Number = 0
	for name, b := range map[string][]byte{
		"nothing": nil, "a header alone": good[:HeaderLen], "half a frame": good[:HeaderLen+minFrame-1],
		"number 0": c.Append(nil), "too large": append(bytes.Clone(good), make([]byte, maxFrame)...),
	} {
		if got, err := Parse(b); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestMessageExactBytes(t *testing.T) {
	id := keys.NodeID{1, 2, 3, 15: 16}
	m := Message{Want, []Name{{id, 2, 7}, {id, 2, 8}, {id, 2, 39}, {id, 2, 40}, {id, 3, 1}}}
	want := "02" +
		"01020300000000000000000000000010" + "00000002" + "0000000000000007" + "80000001" +
		"01020300000000000000000000000010" + "00000002" + "0000000000000028" + "00000000" +
		"01020300000000000000000000000010" + "00000003" + "0000000000000001" + "00000000"
	got, left := m.Append(nil)
	if hex.EncodeToString(got) != want || len(left) != 0 {
		t.Errorf("got  %x\nwant %s, %d left", got, want, len(left))
	}
	back, err := ParseMessage(got)
	sortNames(back.Names)
	if err != nil || !reflect.DeepEqual(back, m) {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestMessageRefused(t *testing.T) {
	good, _ := Message{Have, []Name{{keys.NodeID{1}, 2, 7}}}.Append(nil)
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "a step alone": good[:1], "half a run": good[:20], "a byte more": append(bytes.Clone(good), 0),
		"step 0": change(0, 0), "step 3": change(0, 3), "number 0": change(28, 0),
		"35 runs": append(bytes.Clone(good), make([]byte, 34*runLen)...),
	} {
		if got, err := ParseMessage(b); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	beyond := append(unhex(t, "01"+strings.Repeat("00", 20)), bytes.Repeat([]byte{0xff}, 12)...)
	if m, err := ParseMessage(beyond); err != nil || len(m.Names) != 1 || m.Names[0].Number != math.MaxUint64 {
		t.Errorf("the greatest number: %+v, %v", m, err)
	}
}

// A message that does not hold all says what is left, and fits a control message.
func TestMessagesHoldAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var names []Name
	for range 500 {
		names = append(names, Name{keys.NodeID{byte(rng.IntN(60))}, 1, 1 + rng.Uint64N(100)})
	}
	sortNames(names)
	want := slices.Compact(slices.Clone(names))
	var got []Name
	for left := names; len(left) > 0; {
		var b []byte
		b, left = Message{Have, left}.Append(nil)
		if len(b) > 1099 {
			t.Fatalf("%d bytes", len(b))
		}
		m, err := ParseMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Names...)
	}
	sortNames(got)
	if !slices.Equal(slices.Compact(got), want) {
		t.Errorf("%d names became %d", len(want), len(got))
	}
}

func FuzzParse(f *testing.F) {
	c := sampleCopy()
	f.Add(c.Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err == nil && !bytes.Equal(c.Append(nil), b) {
			t.Fatalf("%x became %x", b, c.Append(nil))
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	b, _ := Message{Have, []Name{{keys.NodeID{1}, 2, 7}, {keys.NodeID{1}, 2, 9}, {keys.NodeID{2}, 2, math.MaxUint64}}}.Append(nil)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		sortNames(m.Names)
		want := slices.Compact(slices.Clone(m.Names))
		var got []Name
		for left := want; len(left) > 0; {
			b, left = Message{m.Step, left}.Append(nil)
			again, err := ParseMessage(b)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, again.Names...)
		}
		sortNames(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%v became %v", want, got)
		}
	})
}

// FuzzMachine hands copies and messages of two members to a machine: each frame is
// delivered once and what is sent is bounded.
func FuzzMachine(f *testing.F) {
	f.Add(uint64(1), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		s := newSim(t, 12, seed)
		n := s.nodes[0]
		fresh, sent := map[Name]int{}, map[Name]int{}
		for i := 0; i+3 < len(script); i += 4 {
			from := s.nodes[1+script[i]%11]
			name := Name{s.nodes[script[i+1]%12].id, uint32(script[i+1] >> 6), uint64(script[i+2])%40 + 1}
			s.now = s.now.Add(time.Duration(script[i+3]) * time.Millisecond)
			switch script[i] >> 4 % 4 {
			case 0:
				for _, a := range n.m.Hear(from.id, Message{Step(script[i+3]%2 + 1), []Name{name}}, s.now) {
					c, err := Parse(a.Body)
					if err != nil || c.Part != nowhere {
						t.Fatal(err, c.Part)
					}
					sent[c.Name]++
				}
			case 1:
				n.m.Tick(s.now)
			default:
				c := Copy{Name: name, Part: everywhere, Frame: make([]byte, 60)}
				if n.m.Judge(from.id, &c, s.now) != Verify {
					continue
				}
				if sends, v := n.m.Accept(from.id, &c, c.Append(nil), s.now); v == Fresh {
					fresh[name]++
					sent[name] += len(sends)
				}
			}
		}
		for name, count := range fresh {
			if count > 1 || sent[name] > Fanout {
				t.Fatalf("%v was delivered %d times and sent %d times", name, count, sent[name])
			}
		}
	})
}

// The window agrees with a set of all numbers.
func TestWindow(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		var w window
		all := map[uint64]bool{}
		top, first := uint64(0), uint64(0)
		at := 1 + rng.Uint64N(3000)
		for range 3000 {
			n := at + rng.Uint64N(2000)
			if rng.IntN(20) == 0 {
				at += rng.Uint64N(1500)
			}
			want := all[n] || n <= top && (top-n >= windowSize || first > firstReach && n < first-firstReach)
			if got := w.seen(n); got != want {
				t.Fatalf("%d: seen %v, want %v; top %d, first %d", n, got, want, top, first)
			}
			if !want {
				w.mark(n)
				all[n], top = true, max(top, n)
				if first == 0 {
					first = n
				}
			}
		}
	}
}

func TestMeter(t *testing.T) {
	var m meter
	now := time.Unix(1e9, 0)
	terms := terms{100 * time.Millisecond, 5}
	passed := 0
	for range 1000 { // 10 s
		if m.take(now, terms) {
			passed++
		}
		now = now.Add(10 * time.Millisecond)
	}
	if passed < 5+99 || passed > 5+100 {
		t.Errorf("%d have passed", passed)
	}
}
