package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Root is the key that a network is named by. It signs signers and nothing
// else, and is meant to be taken off the machine. It prints as its id only.
type Root struct {
	Name        string // the network's
	Certificate []byte // self-signed, DER
	Key         ed25519.PrivateKey
}

// NewRoot founds a network.
func NewRoot(network string, now time.Time) (*Root, error) {
	if err := ValidateName(network); err != nil {
		return nil, fmt.Errorf("found network: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make root key: %w", err)
	}
	serial, err := newSerial(now)
	if err != nil {
		return nil, err
	}
	b := body{serial, spanFrom(now, rootLifetime), public, commonName(public)}
	der, err := b.sign(b.root(network), private)
	if err != nil {
		return nil, fmt.Errorf("found network: %w", err)
	}
	return &Root{Name: network, Certificate: der, Key: private}, nil
}

// Public is the key that members pin.
func (r *Root) Public() ed25519.PublicKey { return r.Key.Public().(ed25519.PublicKey) }

// IssueSigner makes an admin's node a signer: a certificate over its Ed25519 key.
func (r *Root) IssueSigner(pub Public, now time.Time) ([]byte, error) {
	if err := pub.Check(); err != nil {
		return nil, fmt.Errorf("issue signer: %w", err)
	}
	serial, err := newSerial(now)
	if err != nil {
		return nil, err
	}
	b := body{serial, spanFrom(now, signerLifetime), pub.Sign[:], commonName(r.Public())}
	der, err := b.sign(b.signer(), r.Key)
	if err != nil {
		return nil, fmt.Errorf("issue signer: %w", err)
	}
	return der, nil
}

// PEM blocks of a root as text.
const (
	pemCertificate = "CERTIFICATE"
	pemPrivateKey  = "PRIVATE KEY"
)

// Marshal is the root as PEM, certificate and private key, for openssl too.
func (r *Root) Marshal() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(r.Key)
	if err != nil {
		return nil, fmt.Errorf("encode root key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: r.Certificate})
	return append(text, pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: key})...), nil
}

// ParseRoot reads what Marshal wrote.
func ParseRoot(text []byte) (*Root, error) {
	certificate, rest := pem.Decode(text)
	if certificate == nil || certificate.Type != pemCertificate {
		return nil, errors.New("parse root: no certificate in it")
	}
	block, _ := pem.Decode(rest)
	if block == nil || block.Type != pemPrivateKey {
		return nil, errors.New("parse root: no private key in it")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse root key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("parse root: key is no Ed25519 key")
	}
	name, err := parseRootCertificate(certificate.Bytes, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("parse root certificate: %w", err)
	}
	return &Root{Name: name, Certificate: certificate.Bytes, Key: key}, nil
}

// Format prints the network's id under every verb, never the key.
func (r Root) Format(s fmt.State, _ rune) { redact(s, "root "+r.redacted()) }

// LogValue is the network's id.
func (r Root) LogValue() slog.Value { return slog.StringValue(r.redacted()) }

// MarshalText is the network's id, so that no encoder writes the key.
func (r Root) MarshalText() ([]byte, error) { return []byte(r.redacted()), nil }

func (r Root) redacted() string {
	if len(r.Key) != ed25519.PrivateKeySize {
		return "(none)"
	}
	return networkID(r.Public()).String()
}

// Signer is an admin's node in its power to admit and revoke.
type Signer struct {
	key     ed25519.PrivateKey
	der     []byte
	expires time.Time
}

// NewSigner joins an identity with the certificate that a root issued for it.
// Whether that root is the right one, Trust.VerifySigner says.
func NewSigner(identity *Identity, signerDER []byte) (*Signer, error) {
	crt, err := x509.ParseCertificate(signerDER)
	if err != nil {
		return nil, fmt.Errorf("read signer certificate: %w", err)
	}
	public := identity.Sign.Public().(ed25519.PublicKey)
	if !public.Equal(crt.PublicKey) || !crt.IsCA {
		return nil, errors.New("read signer certificate: it is not over this node's key")
	}
	return &Signer{key: identity.Sign, der: signerDER, expires: crt.NotAfter}, nil
}

// ID is the signer's node id.
func (s *Signer) ID() NodeID { return nodeID(s.public()) }

// Certificate is the signer's certificate, DER.
func (s *Signer) Certificate() []byte { return s.der }

// Sign signs a message, which begins with a label of its own ("meshd/1/…\0"), so
// that a signature for one purpose is none for another.
func (s *Signer) Sign(message []byte) []byte { return ed25519.Sign(s.key, message) }

// Format prints the id under every verb, never the key.
func (s Signer) Format(f fmt.State, _ rune) { redact(f, "signer "+nodeID(s.public()).String()) }

func (s Signer) public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Issue admits a node: a chain for 90 days, or to the signer's own end.
func (s *Signer) Issue(pub Public, name string, roles Roles, now time.Time) ([]byte, error) {
	if err := pub.Check(); err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if err := ValidateName(name); err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	roles, err := ParseRoles(roles...)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	valid := spanFrom(now, nodeLifetime)
	if s.expires.Before(valid.to) {
		valid.to = s.expires
	}
	if now.After(valid.to) {
		return nil, fmt.Errorf("issue certificate: this signer's own certificate has %w on %s",
			ErrExpired, valid.to.UTC().Format(time.DateOnly))
	}
	serial, err := newSerial(now)
	if err != nil {
		return nil, err
	}
	b := body{serial, valid, pub.Sign[:], commonName(s.public())}
	template, err := b.node(name, pub.WireGuard, pub.Probe, roles)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	der, err := b.sign(template, s.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	chain := append(der, s.der...)
	if len(chain) > MaxChain {
		return nil, fmt.Errorf("issue certificate: %d bytes do not fit into %d", len(chain), MaxChain)
	}
	return chain, nil
}
