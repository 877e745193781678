package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"meshd/keys/canon"
)

// What may be wrong with an invite's text. ErrExpired is the third.
var (
	// ErrMalformed says that the text is cut, mistyped or something else: get it again.
	ErrMalformed = errors.New("not a complete invite")
	// ErrTampered says that the text was changed on purpose: do not use it.
	ErrTampered = errors.New("invite has been tampered with")
)

const (
	invitePrefix   = "meshd1-"
	inviteVersion  = 1
	inviteChecksum = 4
	maxInviteText  = 4096
	maxEntries     = 8
	maxUses        = 10000
)

// InviteID names an invite; it is no secret.
type InviteID [16]byte

// String is the id as 26 lower-case base32 characters.
func (id InviteID) String() string { return idText(id) }

// IsZero says that this is no id.
func (id InviteID) IsZero() bool { return id == InviteID{} }

// InviteOptions are what an admin chooses about an invite.
type InviteOptions struct {
	Root    ed25519.PublicKey // the network's
	Network string            // its name, for people
	Entries []string          // host:port of members, 1 to 8
	Roles   Roles             // what the joiner will be; member when empty
	Uses    int               // how many nodes it admits; 0 is 1
	Expires time.Time
}

// Invite is a bearer paper: who holds its text may join. Its issuer signs all of
// it; of the secret only the public half. It prints, logs and marshals without
// the secret; only Text has it.
type Invite struct {
	Root      ed25519.PublicKey
	Network   string
	Issuer    NodeID // the only signer that redeems it
	IssuerKey [32]byte
	Entries   []string
	ID        InviteID
	Expires   time.Time
	Uses      int
	Roles     Roles

	// Behind a function, which fmt never calls: where a struct holds an Invite
	// unexported, fmt goes by its fields and not by its Format method.
	secret func() inviteSecret
}

// inviteSecret is the seed of the key that proves possession, and the text that
// carries it.
type inviteSecret struct {
	seed [ed25519.SeedSize]byte
	text string
}

// inviteWire is an invite as text carries it. In what the issuer signs, Secret
// is the public half of the seed and there is no signature.
type inviteWire struct {
	_         struct{} `cbor:",toarray"`
	Version   uint8
	Root      [32]byte
	Network   string
	IssuerKey [32]byte
	Entries   []string
	ID        [16]byte
	Expires   uint32 // unix time
	Uses      uint16
	Roles     string
	Secret    [32]byte
	Signature []byte
}

// NewInvite makes and signs an invite. It works once the issuer's log has it.
func NewInvite(s *Signer, o InviteOptions, now time.Time) (*Invite, error) {
	roles, err := ParseRoles(o.Roles...)
	if err != nil {
		return nil, fmt.Errorf("make invite: %w", err)
	}
	i := &Invite{
		Root: bytes.Clone(o.Root), Network: o.Network, Issuer: s.ID(), IssuerKey: [32]byte(s.public()),
		Entries: append([]string(nil), o.Entries...), Expires: o.Expires.UTC().Truncate(time.Second),
		Uses: max(o.Uses, 1), Roles: roles,
	}
	if _, err := rand.Read(i.ID[:]); err != nil {
		return nil, fmt.Errorf("make invite: %w", err)
	}
	var seed [ed25519.SeedSize]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("make invite: %w", err)
	}
	i.hide(seed, "")
	if o.Uses < 0 {
		return nil, fmt.Errorf("make invite: %d uses", o.Uses)
	}
	if err := i.check(); err != nil {
		return nil, fmt.Errorf("make invite: %w", err)
	}
	if !i.Expires.After(now) {
		return nil, fmt.Errorf("make invite: it would have %w already", ErrExpired)
	}
	message, err := i.signed()
	if err != nil {
		return nil, fmt.Errorf("make invite: %w", err)
	}
	text, err := i.write(s.Sign(message))
	if err != nil {
		return nil, fmt.Errorf("make invite: %w", err)
	}
	i.hide(seed, text)
	return i, nil
}

// check holds an invite to its bounds.
func (i *Invite) check() error {
	if err := checkSigningKey(i.Root); err != nil {
		return fmt.Errorf("root key: %w", err)
	}
	if err := checkSigningKey(i.IssuerKey[:]); err != nil {
		return fmt.Errorf("issuer's key: %w", err)
	}
	if err := ValidateName(i.Network); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if i.Uses < 1 || i.Uses > maxUses {
		return fmt.Errorf("%d uses; want 1 to %d", i.Uses, maxUses)
	}
	if unix := i.Expires.Unix(); unix < 0 || unix != int64(uint32(unix)) {
		return fmt.Errorf("end %v is out of range", i.Expires)
	}
	if len(i.Entries) < 1 || len(i.Entries) > maxEntries {
		return fmt.Errorf("%d entry points; want 1 to %d", len(i.Entries), maxEntries)
	}
	for _, entry := range i.Entries {
		if err := checkEntry(entry); err != nil {
			return err
		}
	}
	return nil
}

// checkEntry accepts NAME:PORT, IPv4:PORT and [IPv6]:PORT.
func checkEntry(entry string) error {
	host, port, err := net.SplitHostPort(entry)
	if err != nil {
		return fmt.Errorf("entry point %.80q: want HOST:PORT", entry)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("entry point %.80q: no such port", entry)
	}
	if address, err := netip.ParseAddr(host); err == nil {
		if address.Zone() != "" || address.IsUnspecified() || address.IsMulticast() {
			return fmt.Errorf("entry point %.80q: others cannot reach this address", entry)
		}
		return nil
	}
	if host == "" || len(host) > 253 {
		return fmt.Errorf("entry point %.80q: no host", entry)
	}
	for i := range len(host) {
		c := host[i]
		if !labelByte(c) && c != '.' && c != '_' && (c < 'A' || c > 'Z') {
			return fmt.Errorf("entry point %.80q: no host name", entry)
		}
	}
	return nil
}

func (i *Invite) wire() inviteWire {
	return inviteWire{
		Version: inviteVersion, Root: [32]byte(i.Root), Network: i.Network, IssuerKey: i.IssuerKey,
		Entries: i.Entries, ID: i.ID, Expires: uint32(i.Expires.Unix()), Uses: uint16(i.Uses), Roles: i.Roles.String(),
	}
}

// signed is what the issuer signs.
func (i *Invite) signed() ([]byte, error) {
	w := i.wire()
	w.Secret = [32]byte(i.proofKey())
	b, err := canon.Marshal(w)
	return append([]byte("meshd/1/invite\x00"), b...), err
}

func (i *Invite) key() ed25519.PrivateKey {
	seed := i.secret().seed
	return ed25519.NewKeyFromSeed(seed[:])
}

// proofKey is the public half of the secret.
func (i *Invite) proofKey() ed25519.PublicKey { return i.key().Public().(ed25519.PublicKey) }

// NetworkID is the id of the invite's network.
func (i *Invite) NetworkID() NetworkID { return networkID(i.Root) }

func (i *Invite) hide(seed [ed25519.SeedSize]byte, text string) {
	i.secret = func() inviteSecret { return inviteSecret{seed, text} }
}

// write makes the text form.
func (i *Invite) write(signature []byte) (string, error) {
	w := i.wire()
	w.Secret, w.Signature = i.secret().seed, signature
	b, err := canon.Marshal(w)
	if err != nil {
		return "", err
	}
	return invitePrefix + base64.RawURLEncoding.EncodeToString(append(b, checksum(b)...)), nil
}

// checksum tells a mistyped text from one that was changed.
func checksum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:inviteChecksum]
}

// Text is the invite as one line, with the secret: for the one who is invited
// and for nobody else.
func (i *Invite) Text() string { return i.secret().text }

// IsInvite says whether a text is meant as an invite, so that it is neither
// shown nor looked up as a host.
func IsInvite(text string) bool {
	text = strings.TrimSpace(text)
	return len(text) >= len(invitePrefix) && strings.EqualFold(text[:len(invitePrefix)], invitePrefix)
}

// ParseInvite reads what Text wrote; white space inside, as mail puts it there,
// does no harm. With ErrExpired comes the invite. Errors never hold the text.
func ParseInvite(text string, now time.Time) (*Invite, error) {
	w, err := parseInviteText(text)
	if err != nil {
		return nil, fmt.Errorf("read invite: %w", err)
	}
	roles, err := ParseRoles(w.Roles)
	if err != nil || roles.String() != w.Roles || w.Version != inviteVersion || len(w.Signature) != ed25519.SignatureSize {
		return nil, fmt.Errorf("read invite: %w", ErrMalformed)
	}
	i := &Invite{
		Root: w.Root[:], Network: w.Network, Issuer: nodeID(w.IssuerKey[:]), IssuerKey: w.IssuerKey,
		Entries: w.Entries, ID: w.ID, Expires: time.Unix(int64(w.Expires), 0).UTC(), Uses: int(w.Uses), Roles: roles,
	}
	i.hide(w.Secret, "")
	text, err = i.write(w.Signature)
	if err != nil {
		return nil, fmt.Errorf("read invite: %w", ErrMalformed)
	}
	i.hide(w.Secret, text)
	message, err := i.signed()
	if err != nil {
		return nil, fmt.Errorf("read invite: %w", ErrMalformed)
	}
	if !ed25519.Verify(i.IssuerKey[:], message, w.Signature) {
		return nil, fmt.Errorf("read invite: %w", ErrTampered)
	}
	if err := i.check(); err != nil {
		return nil, fmt.Errorf("read invite: %w: %w", ErrMalformed, err)
	}
	if !now.Before(i.Expires) {
		return i, fmt.Errorf("invite has %w on %s (the clock here says %s)", ErrExpired,
			i.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return i, nil
}

// parseInviteText undoes the text form and holds it to the checksum.
func parseInviteText(text string) (w inviteWire, err error) {
	if len(text) > maxInviteText {
		return w, ErrMalformed
	}
	text = strings.Join(strings.Fields(text), "")
	if !IsInvite(text) {
		return w, fmt.Errorf("%w: it begins with %q", ErrMalformed, invitePrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text[len(invitePrefix):])
	if err != nil || len(b) < inviteChecksum {
		return w, ErrMalformed
	}
	b, sum := b[:len(b)-inviteChecksum], b[len(b)-inviteChecksum:]
	if !bytes.Equal(checksum(b), sum) {
		return w, fmt.Errorf("%w: a character is missing or mistyped", ErrMalformed)
	}
	if canon.Unmarshal(b, &w) != nil {
		return w, ErrMalformed
	}
	return w, nil
}

// Prove shows that the one who holds these keys holds the invite, for this
// network, this name and nobody else. The secret stays here.
func (i *Invite) Prove(pub Public, name string) []byte {
	return ed25519.Sign(i.key(), proofMessage(i.NetworkID(), i.ID, pub, name))
}

// VerifyProof checks what Prove made, against the record that the issuer keeps.
func (r InviteRecord) VerifyProof(network NetworkID, pub Public, name string, proof []byte) bool {
	return len(proof) == ed25519.SignatureSize &&
		ed25519.Verify(r.ProofKey[:], proofMessage(network, r.ID, pub, name), proof)
}

func proofMessage(network NetworkID, id InviteID, pub Public, name string) []byte {
	sum := digest("meshd/1/invite-proof", network[:], id[:], pub.Bytes(), []byte(name))
	return append([]byte("meshd/1/invite-proof\x00"), sum[:]...)
}

// Format prints what is no secret, under every verb.
func (i Invite) Format(s fmt.State, _ rune) { redact(s, "invite "+i.redacted()) }

// LogValue is what is no secret.
func (i Invite) LogValue() slog.Value { return slog.StringValue(i.redacted()) }

// MarshalText is what is no secret: encoders do not write the rest.
func (i Invite) MarshalText() ([]byte, error) { return []byte(i.redacted()), nil }

func (i Invite) redacted() string { return i.ID.String() + " to " + i.Network }
