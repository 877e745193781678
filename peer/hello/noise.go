package hello

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	"github.com/flynn/noise"

	"meshd/keys"
)

const (
	prologue    = "meshd/1/hello"
	staticLabel = "meshd/1/hello-static\x00"
)

func suite() noise.CipherSuite {
	return noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s)
}

func newStatic() (noise.DHKey, error) {
	static, err := noise.DH25519.GenerateKeypair(rand.Reader)
	if err != nil {
		return noise.DHKey{}, fmt.Errorf("make noise key: %w", err)
	}
	return static, nil
}

// newHandshake begins Noise_XX. All its randomness is seed: a HandshakeState
// does not survive every message that it refuses (only a part is rolled back), so
// both machines make it again from the seed then, and arrive where they were.
func newHandshake(static noise.DHKey, seed [keyLen]byte, initiator bool) (*noise.HandshakeState, error) {
	hs, err := noise.NewHandshakeState(noise.Config{
		CipherSuite:   suite(),
		Random:        bytes.NewReader(seed[:]),
		Pattern:       noise.HandshakeXX,
		Initiator:     initiator,
		Prologue:      []byte(prologue),
		StaticKeypair: static,
	})
	if err != nil {
		return nil, fmt.Errorf("begin noise handshake: %w", err)
	}
	return hs, nil
}

func newSeed() (seed [keyLen]byte) {
	_, _ = rand.Read(seed[:]) // never fails
	return seed
}

// signStatic says that the holder of an identity made a Noise static key, for
// one network.
func signStatic(identity *keys.Identity, network keys.NetworkID, static []byte) [sigLen]byte {
	return [sigLen]byte(ed25519.Sign(identity.Sign, signedStatic(network, static)))
}

func verifyStatic(sign [keyLen]byte, network keys.NetworkID, static []byte, signature [sigLen]byte) bool {
	return ed25519.Verify(sign[:], signedStatic(network, static), signature[:])
}

func signedStatic(network keys.NetworkID, static []byte) []byte {
	b := append([]byte(staticLabel), network[:]...)
	return append(b, static...)
}
