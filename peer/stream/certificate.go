package stream

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"
)

// What a server shows to everybody has no name in it: its key is the node's own,
// which a hello shows as well, and the rest is the same for all nodes.

// serverCertificates are the node's own, and one of a key made for the occasion
// for clients that do not know Ed25519, as browsers do: none of those is a node.
func serverCertificates(key ed25519.PrivateKey, now time.Time) ([]tls.Certificate, error) {
	own, err := nameless(key, now)
	if err != nil {
		return nil, err
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for TLS: %w", err)
	}
	plain, err := nameless(other, now)
	if err != nil {
		return nil, err
	}
	return []tls.Certificate{own, plain}, nil
}

// nameless is a self-signed certificate that says nothing.
func nameless(key crypto.Signer, now time.Time) (tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate for TLS: %w", err)
	}
	const day = 24 * time.Hour
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.UTC().Truncate(day).Add(-day),
		NotAfter:     now.UTC().Truncate(day).Add(365 * day),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate for TLS: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// chainOf is a node's certificate chain, node DER ‖ signer DER, as TLS wants it.
func chainOf(chain []byte, key ed25519.PrivateKey) (*tls.Certificate, error) {
	crts, err := x509.ParseCertificates(chain)
	if err != nil {
		return nil, fmt.Errorf("read own certificate: %w", err)
	}
	c := &tls.Certificate{PrivateKey: key}
	for _, crt := range crts {
		c.Certificate = append(c.Certificate, crt.Raw)
	}
	return c, nil
}

// keyOf is the Ed25519 key of a TLS peer's certificate, nil if it has none.
func keyOf(s *tls.ConnectionState) ed25519.PublicKey {
	if len(s.PeerCertificates) == 0 {
		return nil
	}
	key, _ := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	return key
}
