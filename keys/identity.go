package keys

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"sync"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// ErrWeakKey says that a public key is zero, of low order or not canonical:
// what is agreed or signed with it proves nothing.
var ErrWeakKey = errors.New("weak public key")

// Identity is what makes a node itself: three private keys that never leave it.
// It prints as its id only.
type Identity struct {
	Sign      ed25519.PrivateKey // names the node, signs what it says
	WireGuard wgtypes.Key        // sessions
	Probe     wgtypes.Key        // probes of paths; never used for another purpose

	public *Public // Public's answer, where it is known: it costs two scalar multiplications
}

// Public is the public half of an Identity. It can be compared with ==.
type Public struct {
	Sign             [32]byte
	WireGuard, Probe wgtypes.Key
}

// NewIdentity makes fresh keys.
func NewIdentity() (*Identity, error) {
	_, sign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	wireguard, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return nil, fmt.Errorf("make wireguard key: %w", err)
	}
	probe, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return nil, fmt.Errorf("make probe key: %w", err)
	}
	return withPublic(&Identity{Sign: sign, WireGuard: wireguard, Probe: probe}), nil
}

// withPublic keeps the public half. The keys must not change from then on.
func withPublic(i *Identity) *Identity {
	public := i.Public()
	i.public = &public
	return i
}

// Public is what others may know of the identity.
func (i *Identity) Public() Public {
	if i.public != nil {
		return *i.public
	}
	return Public{
		Sign:      [32]byte(i.Sign.Public().(ed25519.PublicKey)),
		WireGuard: i.WireGuard.PublicKey(),
		Probe:     i.Probe.PublicKey(),
	}
}

// ID is the node's id.
func (i *Identity) ID() NodeID { return i.Public().ID() }

// Format prints the id under every verb, never a key.
func (i Identity) Format(s fmt.State, _ rune) { redact(s, "identity "+i.redacted()) }

// LogValue is the id.
func (i Identity) LogValue() slog.Value { return slog.StringValue(i.redacted()) }

// MarshalText is the id, so that no encoder writes the keys.
func (i Identity) MarshalText() ([]byte, error) { return []byte(i.redacted()), nil }

func (i Identity) redacted() string {
	if len(i.Sign) != ed25519.PrivateKeySize {
		return "(none)"
	}
	return i.ID().String()
}

// redact writes what may be known of a value that holds a secret.
func redact(s fmt.State, text string) { _, _ = io.WriteString(s, text) }

// ID is the id that belongs to the signing key.
func (p Public) ID() NodeID { return nodeID(p.Sign[:]) }

// Check refuses keys with which nothing can be proved or agreed.
func (p Public) Check() error {
	if err := checkSigningKey(p.Sign[:]); err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	if lowOrder(p.WireGuard[:]) {
		return fmt.Errorf("wireguard key: %w", ErrWeakKey)
	}
	if lowOrder(p.Probe[:]) {
		return fmt.Errorf("probe key: %w", ErrWeakKey)
	}
	return nil
}

// Bytes is the fixed encoding that signatures and hashes cover: the signing,
// WireGuard and probe keys, 96 bytes.
func (p Public) Bytes() []byte {
	b := make([]byte, 0, 96)
	b = append(b, p.Sign[:]...)
	b = append(b, p.WireGuard[:]...)
	return append(b, p.Probe[:]...)
}

// lowOrder says that agreement with an X25519 key always gives zero. That holds
// for one scalar exactly when it holds for all: scalars are multiples of 8.
func lowOrder(key []byte) bool {
	public, err := ecdh.X25519().NewPublicKey(key)
	if err != nil {
		return true
	}
	_, err = anyScalar().ECDH(public)
	return err != nil
}

// anyScalar is a private key that is none: it is the same for everybody. It is made
// once, for making one costs as much as using it.
var anyScalar = sync.OnceValue(func() *ecdh.PrivateKey {
	private, err := ecdh.X25519().NewPrivateKey(append([]byte{9}, make([]byte, 31)...))
	if err != nil {
		panic(err) // it is 32 bytes long
	}
	return private
})

// checkSigningKey refuses Ed25519 keys of low order and encodings that are not
// canonical. A point of low order stays one under the map to Montgomery form,
// u = (1+y)/(1-y) (RFC 7748, section 4.1), where lowOrder tells.
func checkSigningKey(key []byte) error {
	if len(key) != ed25519.PublicKeySize {
		return ErrWeakKey
	}
	field := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	be := make([]byte, 32)
	for i, b := range key {
		be[31-i] = b
	}
	be[0] &= 0x7f // the sign of x
	y := new(big.Int).SetBytes(be)
	one := big.NewInt(1)
	if y.Cmp(field) >= 0 || y.Cmp(one) == 0 {
		return ErrWeakKey
	}
	u := new(big.Int).Sub(one, y)
	u.ModInverse(u.Mod(u, field), field)
	u.Mul(u, new(big.Int).Add(one, y)).Mod(u, field)
	u.FillBytes(be)
	for i, j := 0, 31; i < j; i, j = i+1, j-1 {
		be[i], be[j] = be[j], be[i]
	}
	if lowOrder(be) {
		return ErrWeakKey
	}
	return nil
}

// identityVersion begins an identity on disk: version (1), signing seed (32),
// WireGuard key (32), probe key (32).
const identityVersion = 1

func (i *Identity) marshal() []byte {
	b := append([]byte{identityVersion}, i.Sign.Seed()...)
	return append(append(b, i.WireGuard[:]...), i.Probe[:]...)
}

func parseIdentity(b []byte) (*Identity, error) {
	if len(b) != 97 || b[0] != identityVersion {
		return nil, fmt.Errorf("parse identity: %w", ErrCorrupt)
	}
	return withPublic(&Identity{
		Sign:      ed25519.NewKeyFromSeed(b[1:33]),
		WireGuard: wgtypes.Key(b[33:65]),
		Probe:     wgtypes.Key(b[65:97]),
	}), nil
}
