package udp_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/pion/stun/v3"

	traversal "meshd/nat-traversal"
	"meshd/peer/udp"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func stunMessage(t testing.TB, typ stun.MessageType, setters ...stun.Setter) []byte {
	t.Helper()
	m, err := stun.Build(append([]stun.Setter{stun.TransactionID, typ}, setters...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

func TestClassify(t *testing.T) {
	transport := make([]byte, 32)
	transport[0] = 4
	cookieIndex := bytes.Clone(transport)
	binary.BigEndian.PutUint32(cookieIndex[4:], 0x2112a442)
	request := stunMessage(t, stun.BindingRequest)
	with := func(b []byte, i int, v byte) []byte {
		b = bytes.Clone(b)
		b[i] = v
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		want udp.Kind
	}{
		{"empty", nil, udp.KindUnknown},
		{"initiation", append([]byte{1, 0, 0, 0}, make([]byte, 144)...), udp.KindWireGuard},
		{"response", append([]byte{2, 0, 0, 0}, make([]byte, 88)...), udp.KindWireGuard},
		{"cookie reply", append([]byte{3, 0, 0, 0}, make([]byte, 60)...), udp.KindWireGuard},
		{"transport", transport, udp.KindWireGuard},
		{"transport with STUN's cookie as receiver", cookieIndex, udp.KindWireGuard},
		{"initiation with STUN's cookie as sender", with(cookieIndex, 0, 1), udp.KindWireGuard},
		{"reserved byte set", with(transport, 2, 1), udp.KindUnknown},
		{"type 0", with(transport, 0, 0), udp.KindUnknown},
		{"type 5", with(transport, 0, 5), udp.KindUnknown},
		{"type cut off", []byte{1, 0, 0}, udp.KindUnknown},
		{"binding request", request, udp.KindSTUN},
		{"binding success", stunMessage(t, stun.BindingSuccess, stun.Fingerprint), udp.KindSTUN},
		{"binding error", stunMessage(t, stun.BindingError, stun.CodeTryAlternate), udp.KindSTUN},
		{"binding indication", stunMessage(t, stun.NewType(stun.MethodBinding, stun.ClassIndication)), udp.KindUnknown},
		{"TURN", stunMessage(t, stun.NewType(stun.MethodAllocate, stun.ClassRequest)), udp.KindUnknown},
		{"wrong cookie", with(request, 4, 0), udp.KindUnknown},
		{"length beyond the end", with(request, 3, 4), udp.KindUnknown},
		{"trailing byte", append(bytes.Clone(request), 0), udp.KindUnknown},
		{"length not of four", append(with(request, 3, 1), 0), udp.KindUnknown},
		{"header cut off", request[:19], udp.KindUnknown},
		{"hello", unhex("d101"), udp.KindHello},
		{"probe", unhex("d2"), udp.KindProbe},
		{"relay", unhex("d3000000"), udp.KindRelay},
		{"DNS", unhex("1234010000010000"), udp.KindUnknown},
		{"QUIC", unhex("c000000001"), udp.KindUnknown},
		{"DTLS", unhex("16fefd0000"), udp.KindUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := udp.Classify(c.b); got != c.want {
				t.Errorf("Classify(%x) = %v, want %v", c.b, got, c.want)
			}
		})
	}
}

// TestClassifyOurSTUN: what we send is what we recognise.
func TestClassifyOurSTUN(t *testing.T) {
	req := traversal.Request(traversal.TxID{1})
	answer, ok := traversal.Answer(req, netip.MustParseAddrPort("[2001:db8::1]:9"))
	if !ok || udp.Classify(req) != udp.KindSTUN || udp.Classify(answer) != udp.KindSTUN {
		t.Errorf("request %x, answer %x", req, answer)
	}
}

// claims is the table of PROTOCOL.md, row by row and each by itself: which kinds
// could b be?
func claims(b []byte) []udp.Kind {
	var kinds []udp.Kind
	for t := byte(1); t <= 4; t++ {
		if bytes.HasPrefix(b, []byte{t, 0, 0, 0}) {
			kinds = append(kinds, udp.KindWireGuard)
		}
	}
	for _, t := range []string{"0001", "0101", "0111"} {
		if bytes.HasPrefix(b, unhex(t)) && len(b) >= 20 && bytes.Equal(b[4:8], unhex("2112a442")) &&
			len(b) == 20+int(b[2])*256+int(b[3]) && len(b)%4 == 0 {
			kinds = append(kinds, udp.KindSTUN)
		}
	}
	for i, k := range []udp.Kind{udp.KindHello, udp.KindProbe, udp.KindRelay} {
		if bytes.HasPrefix(b, []byte{0xd1 + byte(i)}) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// checkClassify: at most one row claims a datagram, and Classify agrees with it.
func checkClassify(t *testing.T, b []byte) {
	t.Helper()
	want := udp.KindUnknown
	switch kinds := claims(b); len(kinds) {
	case 0:
	case 1:
		want = kinds[0]
	default:
		t.Fatalf("%x is claimed by %v", b, kinds)
	}
	if got := udp.Classify(b); got != want {
		t.Fatalf("Classify(%x) = %v, want %v", b, got, want)
	}
}

// TestClassifyIsUnambiguous goes through all first four bytes that matter, with
// and without STUN's cookie behind them, in lengths that fit either.
func TestClassifyIsUnambiguous(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	bytesThatMatter := []byte{0, 1, 2, 3, 4, 5, 0x11, 0x21, 0x80, 0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xff}
	for _, b0 := range bytesThatMatter {
		for _, b1 := range bytesThatMatter {
			for range 200 {
				b := make([]byte, rng.IntN(160))
				for i := range b {
					b[i] = byte(rng.Uint32())
				}
				copy(b, []byte{b0, b1, 0, 0})
				if len(b) >= 20 && rng.IntN(2) == 0 {
					binary.BigEndian.PutUint16(b[2:], uint16(len(b)-20))
				}
				if len(b) >= 8 && rng.IntN(2) == 0 {
					binary.BigEndian.PutUint32(b[4:], 0x2112a442)
				}
				checkClassify(t, b)
			}
		}
	}
}

// TestClassifyWireGuard: no content makes a WireGuard message anything else.
func TestClassifyWireGuard(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for typ := byte(1); typ <= 4; typ++ {
		for size := 4; size < 1500; size += 1 + rng.IntN(7) {
			b := make([]byte, size)
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			copy(b, []byte{typ, 0, 0, 0})
			if size >= 8 && rng.IntN(2) == 0 {
				copy(b[4:], unhex("2112a442"))
			}
			if got := udp.Classify(b); got != udp.KindWireGuard {
				t.Fatalf("Classify(%x) = %v", b, got)
			}
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add([]byte{})
	f.Add(stunMessage(f, stun.BindingRequest, stun.Fingerprint))
	f.Add(unhex("040000002112a4420000000000000000000000000000000000000000"))
	f.Add(unhex("010000002112a442"))
	f.Add(unhex("d10101"))
	f.Fuzz(func(t *testing.T, b []byte) { checkClassify(t, b) })
}
