package wireguard

import (
	"crypto/cipher"
	"encoding/binary"

	"github.com/flynn/noise"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.zx2c4.com/wireguard/tai64n"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// The handshake is Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (paper, 5.4):
//
//	type 1, initiation                     type 2, response
//	  0  01 00 00 00                         0  02 00 00 00
//	  4  sender index                        4  sender index
//	  8  ephemeral (32)                      8  receiver index
//	 40  encrypted static (32+16)           12  ephemeral (32)
//	 88  encrypted TAI64N (12+16)           44  encrypted nothing (0+16)
//	116  mac1, mac2 (32)                    60  mac1, mac2 (32)
const (
	initiationNoise = 8 // where Noise's part begins; it ends at the MACs
	responseNoise   = 12
	prologue        = "WireGuard v1 zx2c4 Jason@zx2c4.com"
)

// Initiation is a message of type 1 that has been decrypted and authenticated.
// It is good for one HandleInitiation.
type Initiation struct {
	remote    wgtypes.Key
	sender    uint32
	timestamp tai64n.Timestamp
	state     *noise.HandshakeState
}

// newHandshake starts a Noise handshake; remote and psk are for initiators.
func (l *Local) newHandshake(remote, psk []byte) (*noise.HandshakeState, error) {
	return noise.NewHandshakeState(noise.Config{
		CipherSuite:           l.suite,
		Random:                l.random,
		Pattern:               noise.HandshakeIK,
		Initiator:             remote != nil,
		Prologue:              []byte(prologue),
		PresharedKey:          psk,
		PresharedKeyPlacement: 2,
		StaticKeypair:         l.static,
		PeerStatic:            remote,
	})
}

// writeInitiation makes a message of type 1 with zero MACs.
func (l *Local) writeInitiation(remote wgtypes.Key, psk [32]byte, sender uint32, t tai64n.Timestamp) ([]byte, *noise.HandshakeState, error) {
	state, err := l.newHandshake(remote[:], psk[:])
	if err != nil {
		return nil, nil, err
	}
	msg := make([]byte, initiationNoise, InitiationSize)
	msg[0] = byte(TypeInitiation)
	binary.LittleEndian.PutUint32(msg[4:], sender)
	msg, _, _, err = state.WriteMessage(msg, t[:])
	if err != nil {
		return nil, nil, err
	}
	return msg[:InitiationSize], state, nil
}

// readInitiation takes a message of type 1 of the right size.
func (l *Local) readInitiation(msg []byte) (*Initiation, error) {
	state, err := l.newHandshake(nil, nil)
	if err != nil {
		return nil, err
	}
	t, _, _, err := state.ReadMessage(nil, msg[initiationNoise:InitiationSize-2*macSize])
	if err != nil {
		return nil, ErrAuth
	}
	h := &Initiation{sender: senderOf(msg), state: state}
	copy(h.timestamp[:], t)
	copy(h.remote[:], state.PeerStatic())
	return h, nil
}

// writeResponse makes a message of type 2 with zero MACs, and the transport keys.
func (h *Initiation) writeResponse(psk [32]byte, sender uint32) ([]byte, *transportKeys, error) {
	if err := h.state.SetPresharedKey(psk[:]); err != nil { // not with 32 bytes
		return nil, nil, err
	}
	msg := make([]byte, responseNoise, ResponseSize)
	msg[0] = byte(TypeResponse)
	binary.LittleEndian.PutUint32(msg[4:], sender)
	binary.LittleEndian.PutUint32(msg[8:], h.sender)
	msg, toResponder, toInitiator, err := h.state.WriteMessage(msg, nil)
	if err != nil {
		return nil, nil, err
	}
	return msg[:ResponseSize], newTransportKeys(toInitiator, toResponder), nil
}

// readResponse takes a message of type 2 of the right size. After an error
// state can still take the true response.
func readResponse(state *noise.HandshakeState, msg []byte) (*transportKeys, error) {
	// Noise does not roll back when a Diffie-Hellman result is zero, so
	// anybody on the path could end our handshake with such a point.
	if !ValidKey(wgtypes.Key(msg[responseNoise : responseNoise+wgtypes.KeyLen])) {
		return nil, ErrKey
	}
	_, toResponder, toInitiator, err := state.ReadMessage(nil, msg[responseNoise:ResponseSize-2*macSize])
	if err != nil {
		return nil, ErrAuth
	}
	return newTransportKeys(toResponder, toInitiator), nil
}

// transportKeys are the ciphers of a completed handshake (paper, 5.4.5).
type transportKeys struct{ send, receive cipher.AEAD }

func newTransportKeys(send, receive *noise.CipherState) *transportKeys {
	return &transportKeys{newAEAD(send.UnsafeKey()), newAEAD(receive.UnsafeKey())}
}

func newAEAD(key [32]byte) cipher.AEAD {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic(err) // only for a wrong key size
	}
	return aead
}

// ValidKey reports whether k can be a peer's public key: not zero, nor another
// of the points of low order, with which every shared secret is zero.
func ValidKey(k wgtypes.Key) bool {
	k[31] &= 0x7f // X25519 ignores this bit, RFC 7748 section 5
	for _, low := range lowOrderPoints {
		if k == low {
			return false
		}
	}
	return true
}

// lowOrderPoints are all u-coordinates below 2^255 of points of order 1, 2, 4
// and 8 on Curve25519 and its twist: 0, 1, two of order 8, and p-1, p, p+1.
var lowOrderPoints = [...]wgtypes.Key{
	{},
	{1},
	{
		0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
		0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
	},
	{
		0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
		0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
	},
	nearPrime(0xec),
	nearPrime(0xed),
	nearPrime(0xee),
}

// nearPrime is 2^255 - 19 with another last byte, little-endian.
func nearPrime(lowest byte) (k wgtypes.Key) {
	for i := range k {
		k[i] = 0xff
	}
	k[0], k[31] = lowest, 0x7f
	return k
}
