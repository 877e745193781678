package wireguard

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"testing"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// paper is section 5.4 written down again, line by line and without Noise, to
// have exact bytes to compare with.
type paper struct {
	t    *testing.T
	c, h []byte
	key  []byte
}

func paperHash(b ...[]byte) []byte {
	h, _ := blake2s.New256(nil)
	for _, p := range b {
		h.Write(p)
	}
	return h.Sum(nil)
}

func paperHMAC(key []byte, b ...[]byte) []byte {
	m := hmac.New(func() hash.Hash { h, _ := blake2s.New256(nil); return h }, key)
	for _, p := range b {
		m.Write(p)
	}
	return m.Sum(nil)
}

func paperKDF(key, input []byte) (t1, t2, t3 []byte) {
	t0 := paperHMAC(key, input)
	t1 = paperHMAC(t0, []byte{1})
	t2 = paperHMAC(t0, t1, []byte{2})
	t3 = paperHMAC(t0, t2, []byte{3})
	return t1, t2, t3
}

func (p *paper) aead(plain []byte) []byte {
	a, err := chacha20poly1305.New(p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	sealed := a.Seal(nil, make([]byte, 12), plain, p.h)
	p.h = paperHash(p.h, sealed)
	return sealed
}

func (p *paper) dh(private, public wgtypes.Key) []byte {
	s, err := curve25519.X25519(private[:], public[:])
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *paper) mixEphemeral(e wgtypes.Key) {
	p.c, _, _ = paperKDF(p.c, e[:])
	p.h = paperHash(p.h, e[:])
}

func (p *paper) initiation(static, ephemeral, remote wgtypes.Key, sender uint32, stamp []byte) []byte {
	p.c = paperHash([]byte("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"))
	p.h = paperHash(paperHash(p.c, []byte("WireGuard v1 zx2c4 Jason@zx2c4.com")), remote[:])
	msg := binary.LittleEndian.AppendUint32([]byte{1, 0, 0, 0}, sender)
	ePub, sPub := ephemeral.PublicKey(), static.PublicKey()
	p.mixEphemeral(ePub)
	msg = append(msg, ePub[:]...)
	p.c, p.key, _ = paperKDF(p.c, p.dh(ephemeral, remote))
	msg = append(msg, p.aead(sPub[:])...)
	p.c, p.key, _ = paperKDF(p.c, p.dh(static, remote))
	return append(msg, p.aead(stamp)...)
}

func (p *paper) response(ephemeral, remoteEphemeral, remote wgtypes.Key, psk [32]byte, sender, receiver uint32) []byte {
	msg := binary.LittleEndian.AppendUint32([]byte{2, 0, 0, 0}, sender)
	msg = binary.LittleEndian.AppendUint32(msg, receiver)
	ePub := ephemeral.PublicKey()
	p.mixEphemeral(ePub)
	msg = append(msg, ePub[:]...)
	p.c, _, _ = paperKDF(p.c, p.dh(ephemeral, remoteEphemeral))
	p.c, _, _ = paperKDF(p.c, p.dh(ephemeral, remote))
	var tau []byte
	p.c, tau, p.key = paperKDF(p.c, psk[:])
	p.h = paperHash(p.h, tau)
	return append(msg, p.aead(nil)...)
}

func (p *paper) macs(msg []byte, remote wgtypes.Key, cookie []byte) []byte {
	mac := func(key, b []byte) []byte {
		h, err := blake2s.New128(key)
		if err != nil {
			p.t.Fatal(err)
		}
		h.Write(b)
		return h.Sum(nil)
	}
	msg = append(msg, mac(paperHash([]byte("mac1----"), remote[:]), msg)...)
	if cookie == nil {
		return append(msg, make([]byte, 16)...)
	}
	return append(msg, mac(cookie, msg)...)
}

// One handshake and one packet, byte by byte.
func TestExactBytes(t *testing.T) {
	psk := [32]byte{7: 7}
	a, b := newPair(t, Options{PSK: psk}, Options{PSK: psk})
	eA, eB := testKey(11), testKey(12)
	a.local.random, b.local.random = bytes.NewReader(eA[:]), bytes.NewReader(eB[:])
	sA, sB := wgtypes.Key(a.local.static.Private), wgtypes.Key(b.local.static.Private)
	pA, pB := sA.PublicKey(), sB.PublicKey()
	p := &paper{t: t}

	a.initiate(testStart)
	got := a.messages()[0]
	stamp, _ := hex.DecodeString("4000000069a42a4a" + "00000000") // 2026-03-01 12:00:00 UTC, TAI
	want := p.macs(p.initiation(sA, eA, pB, a.index, stamp), pB, nil)
	if !bytes.Equal(got, want) {
		t.Fatalf("initiation\n%x, want\n%x", got, want)
	}
	if err := b.handshake(got, testStart); err != nil {
		t.Fatal(err)
	}
	got = b.messages()[0]
	want = p.macs(p.response(eB, eA.PublicKey(), pA, psk, b.index, a.index), pA, nil)
	if !bytes.Equal(got, want) {
		t.Fatalf("response\n%x, want\n%x", got, want)
	}
	if err := a.handshake(got, testStart); err != nil {
		t.Fatal(err)
	}
	toB, toA, _ := paperKDF(p.c, nil)
	for _, tc := range []struct {
		name     string
		from, to *end
		key      []byte
	}{{"to the responder", a, b, toB}, {"to the initiator", b, a, toA}} {
		for counter := range uint64(3) {
			got := tc.from.seal("some bytes", testStart)
			aead, _ := chacha20poly1305.New(tc.key)
			nonce := binary.LittleEndian.AppendUint64(make([]byte, 4), counter)
			want := binary.LittleEndian.AppendUint32([]byte{4, 0, 0, 0}, tc.to.index)
			want = binary.LittleEndian.AppendUint64(want, counter)
			want = aead.Seal(want, nonce, []byte("some bytes"), nil)
			if !bytes.Equal(got, want) {
				t.Fatalf("packet %d %s\n%x, want\n%x", counter, tc.name, got, want)
			}
			if _, err := tc.to.open(got, testStart); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestPeek(t *testing.T) {
	sized := func(n int, first ...byte) []byte { return append(first, make([]byte, n-len(first))...) }
	index := []byte{9, 8, 7, 6, 5, 4, 3, 2}
	for _, tc := range []struct {
		name             string
		b                []byte
		t                MessageType
		sender, receiver uint32
	}{
		{"initiation", sized(148, append([]byte{1, 0, 0, 0}, index...)...), 1, 0x06070809, 0},
		{"response", sized(92, append([]byte{2, 0, 0, 0}, index...)...), 2, 0x06070809, 0x02030405},
		{"cookie", sized(64, append([]byte{3, 0, 0, 0}, index...)...), 3, 0, 0x06070809},
		{"transport", sized(32, append([]byte{4, 0, 0, 0}, index...)...), 4, 0, 0x06070809},
		{"short transport", sized(31, 4), 0, 0, 0},
		{"largest transport", sized(65535, 4), 4, 0, 0},
		{"wrapped size", sized(65536, 4), 0, 0, 0},
		{"long initiation", sized(149, 1), 0, 0, 0},
		{"short response", sized(91, 2), 0, 0, 0},
		{"short cookie", sized(63, 3), 0, 0, 0},
		{"reserved bytes", sized(148, 1, 0, 0, 1), 0, 0, 0},
		{"type 0", sized(148), 0, 0, 0},
		{"type 5", sized(148, 5), 0, 0, 0},
		{"empty", nil, 0, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, ok := Type(tc.b); ok != (tc.t != 0) || ok && got != tc.t {
				t.Errorf("type %d, %v", got, ok)
			}
			if got, ok := Sender(tc.b); ok != (tc.t == 1 || tc.t == 2) || got != tc.sender {
				t.Errorf("sender %x, %v", got, ok)
			}
			if got, ok := Receiver(tc.b); ok != (tc.t > 1) || got != tc.receiver {
				t.Errorf("receiver %x, %v", got, ok)
			}
		})
	}
}
