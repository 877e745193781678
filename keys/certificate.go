package keys

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// How long what is signed holds, and how far back it begins, for clocks that
// are slow.
const (
	rootLifetime   = 30 * 365 * 24 * time.Hour
	signerLifetime = 10 * 365 * 24 * time.Hour
	nodeLifetime   = 90 * 24 * time.Hour
	backdate       = time.Hour
)

// MaxChain is the longest chain in bytes: a hello carries it in one datagram.
const MaxChain = 1000

// serialLength is the length of a serial number: milliseconds since 1970 (6),
// random (6). So certificates of one node are ordered by their serials.
const serialLength = 12

// Certificate is what a verified chain says of a node.
type Certificate struct {
	Public
	ID                  NodeID
	Name                string
	Roles               Roles
	NotBefore, NotAfter time.Time
	Serial              string // 24 hex digits; later certificates compare greater
	Signer              NodeID
	SignerKey           [32]byte // the signer's Ed25519 key
	Raw                 []byte   // the chain as it travels: node DER ‖ signer DER
}

// IssuedAt is the time in the serial.
func (c *Certificate) IssuedAt() time.Time {
	b, err := parseSerial(c.Serial)
	if err != nil {
		return time.Time{}
	}
	return issuedAt(b).UTC()
}

// oidNode marks the extension that binds a node's X25519 keys and roles to its
// certificate (in the experimental arc of RFC 1155).
func oidNode() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 3, 51830, 1} }

// nodeExtension is the value under oidNode.
type nodeExtension struct {
	WireGuard []byte
	Probe     []byte
	Roles     string `asn1:"utf8"`
}

// span is a time for which something is valid, in whole seconds.
type span struct{ from, to time.Time }

func spanFrom(now time.Time, lifetime time.Duration) span {
	now = now.UTC().Truncate(time.Second)
	return span{now.Add(-backdate), now.Add(lifetime)}
}

// newSerial makes the serial of something signed now.
func newSerial(now time.Time) ([serialLength]byte, error) {
	var b [serialLength + 2]byte
	ms := max(now.UnixMilli(), 1)
	binary.BigEndian.PutUint64(b[:8], uint64(ms))
	if _, err := rand.Read(b[8:]); err != nil {
		return [serialLength]byte{}, fmt.Errorf("make serial: %w", err)
	}
	return [serialLength]byte(b[2:]), nil
}

func serialText(b [serialLength]byte) string { return hex.EncodeToString(b[:]) }

// parseSerial reads what serialText writes.
func parseSerial(s string) (b [serialLength]byte, err error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != serialLength || hex.EncodeToString(raw) != s {
		return b, fmt.Errorf("parse serial %.40q: want 24 hex digits", s)
	}
	return [serialLength]byte(raw), nil
}

// issuedAt is the time inside a serial.
func issuedAt(b [serialLength]byte) time.Time {
	var ms [8]byte
	copy(ms[2:], b[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:])))
}

// body is what makes one certificate differ from others of its kind. Its DER
// follows from it alone, so that a receiver can make it again and compare.
type body struct {
	serial [serialLength]byte
	valid  span
	key    ed25519.PublicKey
	issuer string // common name
}

// commonName is the subject of whoever holds an Ed25519 key.
func commonName(key ed25519.PublicKey) string { return nodeID(key).String() }

func (b body) template() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(b.serial[:]),
		Subject:      pkix.Name{CommonName: commonName(b.key)},
		NotBefore:    b.valid.from,
		NotAfter:     b.valid.to,
		SubjectKeyId: nil,
	}
}

// root is the self-signed certificate of a network. Its name is an alternative
// name, not in the subject, because each signer repeats its issuer's subject.
func (b body) root(network string) *x509.Certificate {
	t := b.template()
	id := nodeID(b.key)
	t.SubjectKeyId = id[:]
	t.BasicConstraintsValid, t.IsCA, t.MaxPathLen = true, true, 1
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	t.DNSNames = []string{network}
	return t
}

func (b body) signer() *x509.Certificate {
	t := b.template()
	id := nodeID(b.key)
	t.SubjectKeyId = id[:]
	t.BasicConstraintsValid, t.IsCA, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	return t
}

func (b body) node(name string, wireguard, probe wgtypes.Key, roles Roles) (*x509.Certificate, error) {
	extension, err := asn1.Marshal(nodeExtension{wireguard[:], probe[:], roles.String()})
	if err != nil {
		return nil, fmt.Errorf("encode keys and roles: %w", err)
	}
	t := b.template()
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	t.DNSNames = []string{name + "." + Domain}
	t.ExtraExtensions = []pkix.Extension{{Id: oidNode(), Value: extension}}
	return t, nil
}

// sign makes DER of a template. The parent is named by its common name and by
// its key, whose id is the authority key identifier.
func (b body) sign(t *x509.Certificate, key crypto.Signer) ([]byte, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("sign certificate: key is no Ed25519 key")
	}
	id := nodeID(public)
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: b.issuer}, SubjectKeyId: id[:]}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, b.key, key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return der, nil
}

// replay is a signer that gives a signature made earlier. With it, sign shows
// what the holder of the key would have written.
type replay struct {
	key       ed25519.PublicKey
	signature []byte
}

func (r replay) Public() crypto.PublicKey { return r.key }

func (r replay) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return r.signature, nil
}
