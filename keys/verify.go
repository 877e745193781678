package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// What may be wrong with a chain. ErrExpired and ErrNotYetValid come together
// with a certificate that is good but for the time.
var (
	ErrExpired     = errors.New("expired")
	ErrNotYetValid = errors.New("not yet valid") // often a clock that is wrong
	ErrUntrusted   = errors.New("not signed for this network")

	errForm = errors.New("not in the form that meshd issues")
)

// Trust is the root that a member believes in.
type Trust struct{ Root ed25519.PublicKey }

// NetworkID is the id of the root's network.
func (t Trust) NetworkID() NetworkID { return networkID(t.Root) }

// Verify checks a chain, node and signer, up to the root. It accepts exactly
// the bytes that Issue and IssueSigner write: each certificate is made again
// from what was read of it and compared, so that no other extension, constraint
// or encoding gets through.
//
// When only the time is wrong, the certificate comes along with ErrExpired or
// ErrNotYetValid.
func (t Trust) Verify(chain []byte, now time.Time) (*Certificate, error) {
	if len(chain) > MaxChain {
		return nil, fmt.Errorf("verify chain: %d bytes, at most %d", len(chain), MaxChain)
	}
	crts, err := x509.ParseCertificates(chain)
	if err != nil {
		return nil, fmt.Errorf("verify chain: %w", err)
	}
	if len(crts) != 2 {
		return nil, fmt.Errorf("verify chain: %d certificates, want node and signer", len(crts))
	}
	signer, err := checkSigner(crts[1], t.Root)
	if err != nil {
		return nil, fmt.Errorf("verify signer: %w", err)
	}
	crt, err := checkNode(crts[0], signer.key)
	if err != nil {
		return nil, fmt.Errorf("verify node: %w", err)
	}
	crt.Raw = bytes.Clone(chain)
	if err := signer.valid.check(now); err != nil {
		return crt, fmt.Errorf("signer %s: %w", nodeID(signer.key), err)
	}
	if err := (span{crt.NotBefore, crt.NotAfter}).check(now); err != nil {
		return crt, fmt.Errorf("certificate of %s: %w", crt.Name, err)
	}
	return crt, nil
}

// VerifySigner checks a signer's certificate alone and returns its key, with
// ErrExpired or ErrNotYetValid also when only the time is wrong.
func (t Trust) VerifySigner(signerDER []byte, now time.Time) (ed25519.PublicKey, error) {
	b, err := t.signer(signerDER)
	if err != nil {
		return nil, err
	}
	if err := b.valid.check(now); err != nil {
		return b.key, fmt.Errorf("signer %s: %w", nodeID(b.key), err)
	}
	return b.key, nil
}

// signer reads a signer's certificate under the root, without looking at the time.
func (t Trust) signer(signerDER []byte) (body, error) {
	if len(signerDER) > MaxChain {
		return body{}, fmt.Errorf("verify signer: %d bytes, at most %d", len(signerDER), MaxChain)
	}
	crt, err := x509.ParseCertificate(signerDER)
	if err != nil {
		return body{}, fmt.Errorf("verify signer: %w", err)
	}
	b, err := checkSigner(crt, t.Root)
	if err != nil {
		return body{}, fmt.Errorf("verify signer: %w", err)
	}
	return b, nil
}

// check says whether now is within the span, both ends included.
func (s span) check(now time.Time) error {
	switch {
	case now.Before(s.from):
		return fmt.Errorf("%w: from %s", ErrNotYetValid, s.from.UTC().Format(time.RFC3339))
	case now.After(s.to):
		return fmt.Errorf("%w on %s", ErrExpired, s.to.UTC().Format(time.RFC3339))
	}
	return nil
}

// readBody takes out of a parsed certificate what all kinds have, and checks
// the issuer's signature.
func readBody(crt *x509.Certificate, issuer ed25519.PublicKey, lifetime time.Duration) (body, error) {
	key, ok := crt.PublicKey.(ed25519.PublicKey)
	if !ok || checkSigningKey(key) != nil {
		return body{}, fmt.Errorf("signing key: %w", ErrWeakKey)
	}
	if len(issuer) != ed25519.PublicKeySize || !ed25519.Verify(issuer, crt.RawTBSCertificate, crt.Signature) {
		return body{}, ErrUntrusted
	}
	if crt.SerialNumber.Sign() <= 0 || crt.SerialNumber.BitLen() > 8*serialLength {
		return body{}, fmt.Errorf("serial number: %w", errForm)
	}
	b := body{
		valid:  span{crt.NotBefore, crt.NotAfter},
		key:    key,
		issuer: commonName(issuer),
	}
	crt.SerialNumber.FillBytes(b.serial[:])
	if b.valid.to.Before(b.valid.from) || b.valid.to.Sub(b.valid.from) > lifetime+backdate {
		return body{}, fmt.Errorf("lifetime: %w", errForm)
	}
	return b, nil
}

// same makes a certificate again and compares.
func (b body) same(crt, template *x509.Certificate, issuer ed25519.PublicKey) error {
	again, err := b.sign(template, replay{issuer, crt.Signature})
	if err != nil || !bytes.Equal(again, crt.Raw) {
		return errForm
	}
	return nil
}

func checkSigner(crt *x509.Certificate, root ed25519.PublicKey) (body, error) {
	b, err := readBody(crt, root, signerLifetime)
	if err != nil {
		return body{}, err
	}
	return b, b.same(crt, b.signer(), root)
}

// parseRootCertificate checks that a certificate is a root's over this key, and
// returns the network's name.
func parseRootCertificate(der []byte, key ed25519.PublicKey) (name string, err error) {
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		return "", err
	}
	b, err := readBody(crt, key, rootLifetime)
	if err != nil {
		return "", err
	}
	if len(crt.DNSNames) != 1 || ValidateName(crt.DNSNames[0]) != nil {
		return "", errForm
	}
	return crt.DNSNames[0], b.same(crt, b.root(crt.DNSNames[0]), key)
}

func checkNode(crt *x509.Certificate, signer ed25519.PublicKey) (*Certificate, error) {
	b, err := readBody(crt, signer, nodeLifetime)
	if err != nil {
		return nil, err
	}
	if len(crt.DNSNames) != 1 {
		return nil, fmt.Errorf("alternative name: %w", errForm)
	}
	name, ok := strings.CutSuffix(crt.DNSNames[0], "."+Domain)
	if !ok {
		return nil, fmt.Errorf("alternative name: %w", errForm)
	}
	if err := ValidateName(name); err != nil {
		return nil, err
	}
	wireguard, probe, roles, err := readNodeExtension(crt)
	if err != nil {
		return nil, err
	}
	public := Public{[32]byte(b.key), wireguard, probe}
	if err := public.Check(); err != nil {
		return nil, err
	}
	template, err := b.node(name, wireguard, probe, roles)
	if err != nil {
		return nil, err
	}
	if err := b.same(crt, template, signer); err != nil {
		return nil, err
	}
	return &Certificate{
		Public: public, ID: public.ID(), Name: name, Roles: roles,
		NotBefore: b.valid.from, NotAfter: b.valid.to,
		Serial: serialText(b.serial), Signer: nodeID(signer), SignerKey: [32]byte(signer),
	}, nil
}

func readNodeExtension(crt *x509.Certificate) (wireguard, probe wgtypes.Key, roles Roles, err error) {
	for _, extension := range crt.Extensions {
		if !extension.Id.Equal(oidNode()) {
			continue
		}
		var v nodeExtension
		rest, err := asn1.Unmarshal(extension.Value, &v)
		if err != nil || len(rest) > 0 || len(v.WireGuard) != wgtypes.KeyLen || len(v.Probe) != wgtypes.KeyLen {
			return wireguard, probe, nil, fmt.Errorf("keys and roles: %w", errForm)
		}
		roles, err := ParseRoles(v.Roles)
		if err != nil {
			return wireguard, probe, nil, err
		}
		return wgtypes.Key(v.WireGuard), wgtypes.Key(v.Probe), roles, nil
	}
	return wireguard, probe, nil, fmt.Errorf("keys and roles: %w", errForm)
}
