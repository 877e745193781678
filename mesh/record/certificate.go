package record

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"meshd/keys"
)

// FromCertificate wraps a certificate chain. The chain proves itself; its version is the beginning of the certificate's
// serial, which holds the time of issue as its signer saw it, so that a renewal replaces what it renews.
func FromCertificate(chain []byte) ([]byte, error) { return envelope(TypeCertificate, chain, []byte{}) }

// FromRevocation wraps keys.Revocation's Raw, which proves itself too.
func FromRevocation(raw []byte) ([]byte, error) { return envelope(TypeRevocation, raw, []byte{}) }

func (r *Record) parseCertificate() error {
	if len(r.payload) == 0 || len(r.payload) > keys.MaxChain {
		return fmt.Errorf("%w: a chain of %d bytes", ErrMalformed, len(r.payload))
	}
	r.Chain = r.payload
	return nil
}

func (r *Record) parseRevocation() error {
	if len(r.payload) == 0 {
		return fmt.Errorf("%w: empty", ErrMalformed)
	}
	r.Revocation = r.payload
	return nil
}

// VerifyCertificate checks the chain and completes Key and Version. An expired certificate is returned together with
// keys.ErrExpired.
func (r *Record) VerifyCertificate(trust keys.Trust, now time.Time) (*keys.Certificate, error) {
	if r.Key.Type != TypeCertificate {
		return nil, fmt.Errorf("verify %v record as certificate: %w", r.Key.Type, errors.ErrUnsupported)
	}
	c, err := trust.Verify(r.Chain, now)
	if c == nil {
		return nil, fmt.Errorf("verify certificate record: %w", err)
	}
	version, bad := versionOf(c.Serial)
	if bad != nil {
		return nil, fmt.Errorf("verify certificate record: %w", bad)
	}
	r.Key.Owner, r.Key.By, r.Version = c.ID, c.Signer, version
	return c, err
}

// versionOf takes the first eight bytes of a serial as the version: certificates of one node are ordered by their serials.
func versionOf(serial string) (Version, error) {
	b, err := hex.DecodeString(serial)
	if err != nil || len(b) < 8 {
		return Version{}, fmt.Errorf("%w: serial %.40q", ErrMalformed, serial)
	}
	return Version{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}, nil
}

// VerifyRevocation checks the revocation and completes Key and Version. Whether its signer may still revoke is for the
// directory to judge, from all revocations together.
func (r *Record) VerifyRevocation(trust keys.Trust) (*keys.Revocation, error) {
	if r.Key.Type != TypeRevocation {
		return nil, fmt.Errorf("verify %v record as revocation: %w", r.Key.Type, errors.ErrUnsupported)
	}
	v, err := trust.VerifyRevocation(r.Revocation)
	if err != nil {
		return nil, fmt.Errorf("verify revocation record: %w", err)
	}
	r.Key.Owner, r.Key.By = keys.Public{Sign: v.Key}.ID(), v.Signer
	r.Version = Version{uint32(v.Issued.Unix() >> 32), uint32(v.Issued.Unix())}
	return v, nil
}
