package keys

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"meshd/keys/canon"
)

// Revocation ends a node's membership. It names the node's key, never a
// certificate's bytes, and carries what is needed to check it.
type Revocation struct {
	Network NetworkID
	Key     [32]byte  // the node's Ed25519 key
	Serial  string    // certificates up to and including this serial; empty: all, for ever
	Cascade time.Time // for a signer: what it signed from here on ends too; zero: nothing does
	Issued  time.Time
	Signer  NodeID // zero: the root
	Raw     []byte // as it travels
}

// revocationWire is a revocation as it travels. The signature covers the rest.
type revocationWire struct {
	_         struct{} `cbor:",toarray"`
	Version   uint8
	Network   [16]byte
	Key       [32]byte
	Serial    string
	Cascade   int64 // unix time; -1: none
	Issued    int64
	SignerDER []byte // empty: the root
	Signature []byte
}

const (
	revocationVersion = 1
	maxRevocation     = MaxChain
	noCascade         = -1
)

// Revoke signs a revocation as a signer of the network. Key, Serial, Cascade
// and Issued are taken from r.
func (s *Signer) Revoke(network NetworkID, r Revocation) (*Revocation, error) {
	return sealRevocation(network, r, s.key, s.der)
}

// Revoke signs a revocation with the root key, which may end a signer when no
// other signer is left.
func (r *Root) Revoke(v Revocation) (*Revocation, error) {
	return sealRevocation(networkID(r.Public()), v, r.Key, nil)
}

func sealRevocation(network NetworkID, r Revocation, key ed25519.PrivateKey, signerDER []byte) (*Revocation, error) {
	w := revocationWire{
		Version: revocationVersion, Network: network, Key: r.Key, Serial: r.Serial,
		Cascade: noCascade, Issued: r.Issued.Unix(), SignerDER: signerDER,
	}
	if !r.Cascade.IsZero() {
		w.Cascade = max(r.Cascade.Unix(), 0)
	}
	message, err := w.message()
	if err != nil {
		return nil, fmt.Errorf("sign revocation: %w", err)
	}
	w.Signature = ed25519.Sign(key, message)
	raw, err := canon.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("sign revocation: %w", err)
	}
	signer := NodeID{}
	if len(signerDER) > 0 {
		signer = nodeID(key.Public().(ed25519.PublicKey))
	}
	out, err := w.revocation(signer, raw)
	if err != nil {
		return nil, fmt.Errorf("sign revocation: %w", err)
	}
	return out, nil
}

func (w revocationWire) message() ([]byte, error) {
	w.Signature = nil
	b, err := canon.Marshal(w)
	return append([]byte("meshd/1/revocation\x00"), b...), err
}

// revocation checks the fields and gives them their types.
func (w revocationWire) revocation(signer NodeID, raw []byte) (*Revocation, error) {
	if w.Version != revocationVersion || w.Cascade < noCascade || w.Issued < 0 {
		return nil, errForm
	}
	if err := checkSigningKey(w.Key[:]); err != nil {
		return nil, err
	}
	if w.Serial != "" {
		if _, err := parseSerial(w.Serial); err != nil {
			return nil, err
		}
	}
	r := &Revocation{
		Network: w.Network, Key: w.Key, Serial: w.Serial,
		Issued: time.Unix(w.Issued, 0).UTC(), Signer: signer, Raw: raw,
	}
	if w.Cascade != noCascade {
		r.Cascade = time.Unix(w.Cascade, 0).UTC()
	}
	return r, nil
}

// VerifyRevocation reads and checks a revocation. It holds for ever: a signer's
// certificate must have been valid when the revocation was issued, not now.
// Whether that signer has been revoked itself, the caller decides.
func (t Trust) VerifyRevocation(raw []byte) (*Revocation, error) {
	if len(raw) > maxRevocation {
		return nil, fmt.Errorf("verify revocation: %d bytes, at most %d", len(raw), maxRevocation)
	}
	var w revocationWire
	if err := canon.Unmarshal(raw, &w); err != nil {
		return nil, fmt.Errorf("verify revocation: %w", err)
	}
	if w.Network != t.NetworkID() {
		return nil, fmt.Errorf("verify revocation: %w", ErrUntrusted)
	}
	key, signer := t.Root, NodeID{}
	if len(w.SignerDER) > 0 {
		b, err := t.signer(w.SignerDER)
		if err != nil {
			return nil, fmt.Errorf("verify revocation: %w", err)
		}
		if err := b.valid.check(time.Unix(w.Issued, 0)); err != nil {
			return nil, fmt.Errorf("verify revocation: signer at the time: %w", err)
		}
		key, signer = b.key, nodeID(b.key)
	}
	message, err := w.message()
	if err != nil {
		return nil, fmt.Errorf("verify revocation: %w", err)
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, message, w.Signature) {
		return nil, fmt.Errorf("verify revocation: %w", ErrUntrusted)
	}
	r, err := w.revocation(signer, append([]byte(nil), raw...))
	if err != nil {
		return nil, fmt.Errorf("verify revocation: %w", err)
	}
	return r, nil
}

// Covers says whether the revocation ends this certificate: because of its key,
// or because of who signed it when. One who has stolen a signer's key can write
// any time, so a theft whose time is not known calls for a Cascade of unix time 0.
func (r *Revocation) Covers(c *Certificate) bool {
	if c.Sign == r.Key && (r.Serial == "" || c.Serial <= r.Serial) {
		return true
	}
	if r.Cascade.IsZero() || c.Signer != nodeID(r.Key[:]) {
		return false
	}
	serial, err := parseSerial(c.Serial)
	if err != nil {
		return true
	}
	return !issuedAt(serial).Before(r.Cascade)
}
