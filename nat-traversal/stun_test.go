package traversal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

func endpoint(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var testID = TxID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}

func TestRequestAndAnswer(t *testing.T) {
	req := Request(testID)
	for _, s := range []string{"198.18.0.1:51830", "[2001:db8::1]:1", "127.0.0.1:65535", "[fe80::1%2]:9"} {
		from := endpoint(s)
		answer, ok := Answer(req, from)
		if !ok {
			t.Errorf("%s gets no answer", s)
			continue
		}
		if len(answer) > len(req) {
			t.Errorf("%s: %d bytes are answered with %d", s, len(req), len(answer))
		}
		m := &stun.Message{Raw: answer}
		if err := m.Decode(); err != nil {
			t.Fatal(err)
		}
		if len(m.Attributes) != 2 || m.Attributes[0].Type != stun.AttrXORMappedAddress || m.Attributes[1].Type != stun.AttrFingerprint {
			t.Errorf("%s: attributes %v", s, m.Attributes)
		}
		got, err := ParseAnswer(answer, testID)
		if err != nil || got != netip.AddrPortFrom(from.Addr().WithZone(""), from.Port()) {
			t.Errorf("ParseAnswer = %v, %v; want %v", got, err, from)
		}
	}
}

// TestRequestBytes holds the wire format.
func TestRequestBytes(t *testing.T) {
	got := Request(testID)
	want := append([]byte{0, 1, 0, 32, 0x21, 0x12, 0xa4, 0x42}, testID[:]...)
	want = append(want, 0x80, 0x22, 0, 20)
	want = append(want, bytes.Repeat([]byte{' '}, 20)...)
	want = append(want, 0x80, 0x28, 0, 4)
	if !bytes.HasPrefix(got, want) || len(got) != requestSize {
		t.Errorf("request\n%x\nwant\n%x and a CRC", got, want)
	}
}

func build(t testing.TB, setters ...stun.Setter) []byte {
	t.Helper()
	m, err := stun.Build(append([]stun.Setter{stun.NewTransactionIDSetter(testID)}, setters...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// filler pads a message with an attribute that nobody has to understand.
func filler(n int) stun.Setter {
	return stun.RawAttribute{Type: 0xc001, Value: make([]byte, n)}
}

func TestNoAnswer(t *testing.T) {
	v4, v6 := endpoint("198.18.0.1:9"), endpoint("[2001:db8::1]:9")
	broken := Request(testID)
	broken[len(broken)-1] ^= 1
	for _, c := range []struct {
		name string
		req  []byte
		from netip.AddrPort
		ok   bool
	}{
		{"ours", Request(testID), v4, true},
		{"without a fingerprint", build(t, stun.BindingRequest, filler(28)), v6, true},
		{"bare", build(t, stun.BindingRequest), v4, false},
		{"exactly the answer's size", build(t, stun.BindingRequest, filler(16)), v4, true},
		{"a little smaller than the answer", build(t, stun.BindingRequest, filler(12)), v4, false},
		{"padded for IPv4 only", build(t, stun.BindingRequest, filler(16)), v6, false},
		{"padded for IPv4 only, from IPv4 as IPv6", build(t, stun.BindingRequest, filler(16)), endpoint("[::ffff:198.18.0.1]:9"), true},
		{"wrong fingerprint", broken, v4, false},
		{"fingerprint not last", build(t, stun.BindingRequest, stun.Fingerprint, filler(28)), v4, false},
		{"an answer", build(t, stun.BindingSuccess, filler(28)), v4, false},
		{"an indication", build(t, stun.NewType(stun.MethodBinding, stun.ClassIndication), filler(28)), v4, false},
		{"TURN", build(t, stun.NewType(stun.MethodAllocate, stun.ClassRequest), filler(28)), v4, false},
		{"too long", build(t, stun.BindingRequest, filler(1480)), v4, false},
		{"cut", Request(testID)[:48], v4, false},
		{"one more byte", append(Request(testID), 0), v4, false},
		{"nothing", nil, v4, false},
		{"no source", Request(testID), netip.AddrPort{}, false},
		{"port 0", Request(testID), endpoint("198.18.0.1:0"), false},
		{"from multicast", Request(testID), endpoint("224.0.0.1:9"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, ok := Answer(c.req, c.from)
			if ok != c.ok {
				t.Errorf("answered: %v", ok)
			}
			if len(answer) > len(c.req) {
				t.Errorf("%d bytes are answered with %d", len(c.req), len(answer))
			}
		})
	}
}

func TestParseAnswerRefuses(t *testing.T) {
	mapped := &stun.XORMappedAddress{IP: []byte{198, 18, 0, 1}, Port: 9}
	if _, err := ParseAnswer(build(t, stun.BindingSuccess, mapped), testID); err != nil {
		t.Fatalf("an answer without a fingerprint: %v", err)
	}
	broken := build(t, stun.BindingSuccess, mapped, stun.Fingerprint)
	broken[25] ^= 1
	raw := func(v ...byte) stun.Setter { return stun.RawAttribute{Type: stun.AttrXORMappedAddress, Value: v} }
	for name, b := range map[string][]byte{
		"another id":        build(t, stun.NewTransactionIDSetter(TxID{}), stun.BindingSuccess, mapped),
		"an error":          build(t, stun.BindingError, mapped),
		"a request":         build(t, stun.BindingRequest, mapped),
		"wrong fingerprint": broken,
		"no address":        build(t, stun.BindingSuccess),
		"empty address":     build(t, stun.BindingSuccess, raw()),
		"short address":     build(t, stun.BindingSuccess, raw(0, 1, 0, 0, 1)), // GHSA-34rh-wp3j-6cxc
		"long address":      build(t, stun.BindingSuccess, raw(make([]byte, 40)...)),
		"short IPv6":        build(t, stun.BindingSuccess, raw(0, 2, 0, 0, 1, 2, 3, 4)),
		"unknown family":    build(t, stun.BindingSuccess, raw(0, 3, 0, 0, 1, 2, 3, 4)),
		"port 0":            build(t, stun.BindingSuccess, raw(0, 1, 0x21, 0x12, 1, 2, 3, 4)),
		"only the header":   build(t, stun.BindingSuccess)[:20],
	} {
		if ap, err := ParseAnswer(b, testID); err == nil {
			t.Errorf("%s: %v", name, ap)
		}
	}
	if _, err := ParseAnswer(Request(testID), testID); !errors.Is(err, ErrNotAnswer) {
		t.Errorf("a request as answer: %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(Request(testID), true)
	f.Add(build(f, stun.BindingRequest, filler(16)), false)
	f.Add(build(f, stun.BindingRequest, stun.Fingerprint, filler(28)), false)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		from := endpoint("198.18.0.1:51830")
		if v6 {
			from = endpoint("[2001:db8::1]:51830")
		}
		answer, ok := Answer(b, from)
		if !ok {
			if answer != nil {
				t.Fatal("refused, and yet an answer")
			}
			return
		}
		if len(answer) > len(b) {
			t.Fatalf("%d bytes are answered with %d", len(b), len(answer))
		}
		if got, err := ParseAnswer(answer, TxID(b[8:20])); err != nil || got != from {
			t.Fatalf("our own answer to %x: %v, %v", b, got, err)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{"198.18.0.1:51830", "[2001:db8::1]:51830"} {
		b, _ := Answer(Request(testID), endpoint(s))
		f.Add(b)
	}
	f.Add(build(f, stun.BindingSuccess, stun.RawAttribute{Type: stun.AttrXORMappedAddress, Value: []byte{0, 1, 0, 0, 1}}))
	f.Add(build(f, stun.BindingSuccess, stun.RawAttribute{Type: 0x8020, Value: []byte{0, 2, 0, 0}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var id TxID
		if len(b) >= 20 {
			id = TxID(b[8:20])
		}
		ap, err := ParseAnswer(b, id)
		if err != nil {
			return
		}
		if !ap.IsValid() || ap.Port() == 0 || ap.Addr().Is4In6() || binary.BigEndian.Uint16(b) != 0x0101 {
			t.Fatalf("%x: %v", b, ap)
		}
	})
}

func TestResponderLimits(t *testing.T) {
	now := time.Unix(1e9, 0)
	r := NewResponder()
	req := Request(testID)
	count := func(n int, from func(i int) netip.AddrPort) (answered int) {
		for i := range n {
			if _, ok := r.Answer(now, req, from(i)); ok {
				answered++
			}
		}
		return answered
	}
	same := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(addr("198.18.0.1"), uint16(1+i)) // other ports do not help
	}
	if got := count(100, same); got != sourceBurst {
		t.Errorf("one source: %d answers at once, want %d", got, sourceBurst)
	}
	now = now.Add(3 * time.Second)
	if got := count(100, same); got != 3*sourceRate {
		t.Errorf("after 3 s: %d answers, want %d", got, 3*sourceRate)
	}
	now = now.Add(time.Minute)
	one64 := func(i int) netip.AddrPort {
		a := addr("2001:db8::").As16()
		binary.BigEndian.PutUint64(a[8:], uint64(i+1))
		return netip.AddrPortFrom(netip.AddrFrom16(a), 9)
	}
	if got := count(1000, one64); got != sourceBurst {
		t.Errorf("one /64: %d answers, want %d", got, sourceBurst)
	}
	now = now.Add(time.Minute)
	spoofed := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 9)
	}
	if got := count(65000, spoofed); got != totalBurst {
		t.Errorf("65000 sources: %d answers, want %d", got, totalBurst)
	}
	now = now.Add(time.Minute)
	if got := count(1, same); got != 1 {
		t.Error("no answer after the flood")
	}
	now = now.Add(-time.Hour) // a clock that goes back neither opens nor shuts
	if got := count(100, same); got >= sourceBurst {
		t.Errorf("after a clock jump back: %d answers", got)
	}
	if _, ok := r.Answer(now, req[:20], endpoint("198.18.9.9:9")); ok {
		t.Error("a request that is not padded is answered")
	}
}
