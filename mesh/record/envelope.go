package record

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"meshd/keys"
	"meshd/keys/canon"
)

// Record is a parsed record. Exactly one of Node, Network, Groups, Chain, Revocation and Stations is set, as Key.Type says. The key's owner and
// the version of a certificate or revocation are known once VerifyCertificate or VerifyRevocation has succeeded, since
// only keys reads those. After that a record is immutable.
type Record struct {
	Key     Key
	Version Version
	Hash    Hash

	Node       *Node
	Network    *Network
	Groups     *Groups
	Chain      []byte // a certificate chain, for keys.Trust
	Revocation []byte // for keys
	Stations   *Stations

	raw       []byte
	payload   []byte
	signature []byte
}

// Raw returns the record's bytes, which must not be changed.
func (r *Record) Raw() []byte { return r.raw }

type wireRecord struct {
	_         struct{} `cbor:",toarray"`
	Type      Type
	Payload   []byte
	Signature []byte
}

type wirePayload struct {
	_       struct{} `cbor:",toarray"`
	Owner   [16]byte
	Epoch   uint32
	Counter uint32
	Body    []byte
}

// Parse reads one record, without judging its signature: Verify does, or keys.Trust for certificates and revocations.
// What it accepts has exactly this encoding. It copies raw.
func Parse(raw []byte) (*Record, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("parse record of %d bytes: %w", len(raw), ErrTooLarge)
	}
	raw = append([]byte(nil), raw...)
	var w wireRecord
	if err := canon.Unmarshal(raw, &w); err != nil {
		return nil, fmt.Errorf("parse record: %w: %w", ErrMalformed, err)
	}
	if w.Payload == nil || w.Signature == nil {
		return nil, fmt.Errorf("parse record: %w: null field", ErrMalformed)
	}
	r := &Record{Hash: HashOf(raw), raw: raw, payload: w.Payload, signature: w.Signature}
	r.Key.Type = w.Type
	if err := r.parsePayload(); err != nil {
		return nil, fmt.Errorf("parse %v record: %w", w.Type, err)
	}
	return r, nil
}

func (r *Record) parsePayload() error {
	switch r.Key.Type {
	case TypeNode, TypeNetwork, TypeGroups, TypeStations:
		return r.parseSigned()
	case TypeCertificate, TypeRevocation:
		if len(r.signature) != 0 {
			return fmt.Errorf("%w: a signature of %d bytes beside its own", ErrMalformed, len(r.signature))
		}
		if r.Key.Type == TypeCertificate {
			return r.parseCertificate()
		}
		return r.parseRevocation()
	}
	return fmt.Errorf("%w: unknown type", ErrMalformed)
}

func (r *Record) parseSigned() (err error) {
	if len(r.signature) != ed25519.SignatureSize {
		return fmt.Errorf("%w: a signature of %d bytes", ErrMalformed, len(r.signature))
	}
	var p wirePayload
	if err := canon.Unmarshal(r.payload, &p); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	r.Key.Owner = p.Owner
	r.Version = Version{p.Epoch, p.Counter}
	if r.Key.Owner.IsZero() {
		return fmt.Errorf("%w: no owner", ErrInvalid)
	}
	switch r.Key.Type {
	case TypeNode:
		r.Node, err = parseNode(p.Body)
	case TypeGroups:
		r.Groups, err = parseGroups(p.Body)
	case TypeNetwork:
		r.Network, err = parseNetwork(p.Body)
	case TypeStations:
		if r.Stations, err = parseStations(p.Body); err == nil {
			r.Key.Page = r.Stations.Page
		}
	}
	return err
}

// Verify checks that the owner signed the record for the network. The key must be the one that the owner's certificate
// binds; Verify checks that it is the owner's. Certificates and revocations are judged by keys instead.
func (r *Record) Verify(network keys.NetworkID, owner keys.Public) error {
	if r.Node == nil && r.Network == nil && r.Groups == nil && r.Stations == nil {
		return fmt.Errorf("verify %v record: %w", r.Key.Type, errors.ErrUnsupported)
	}
	if owner.ID() != r.Key.Owner || !ed25519.Verify(owner.Sign[:], signedBytes(r.Key.Type, network, r.payload), r.signature) {
		return fmt.Errorf("verify %v record of %v: %w", r.Key.Type, r.Key.Owner, ErrSignature)
	}
	return nil
}

// SignNode makes id's node record. The body is normalised first: sorted, without duplicates.
func SignNode(id *keys.Identity, network keys.NetworkID, v Version, body Node) ([]byte, error) {
	body = body.Normal()
	if err := body.check(); err != nil {
		return nil, fmt.Errorf("sign node record: %w", err)
	}
	b, err := canon.Marshal(body.wire())
	if err != nil {
		return nil, fmt.Errorf("sign node record: %w", err)
	}
	return sign(id, network, TypeNode, v, b)
}

// SignNetwork makes an admin's network record.
func SignNetwork(id *keys.Identity, network keys.NetworkID, v Version, body Network) ([]byte, error) {
	if err := body.check(); err != nil {
		return nil, fmt.Errorf("sign network record: %w", err)
	}
	b, err := canon.Marshal(body.wire())
	if err != nil {
		return nil, fmt.Errorf("sign network record: %w", err)
	}
	return sign(id, network, TypeNetwork, v, b)
}

func sign(id *keys.Identity, network keys.NetworkID, t Type, v Version, body []byte) ([]byte, error) {
	payload, err := canon.Marshal(wirePayload{Owner: id.ID(), Epoch: v.Epoch, Counter: v.Counter, Body: body})
	if err != nil {
		return nil, fmt.Errorf("sign %v record: %w", t, err)
	}
	return envelope(t, payload, ed25519.Sign(id.Sign, signedBytes(t, network, payload)))
}

func envelope(t Type, payload, signature []byte) ([]byte, error) {
	raw, err := canon.Marshal(wireRecord{Type: t, Payload: payload, Signature: signature})
	if err != nil {
		return nil, fmt.Errorf("encode %v record: %w", t, err)
	}
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("encode %v record of %d bytes: %w", t, len(raw), ErrTooLarge)
	}
	return raw, nil
}

// signedBytes is what a signature covers: the type and the network are in it, so that a record of one kind or network
// never passes for one of another.
func signedBytes(t Type, network keys.NetworkID, payload []byte) []byte {
	b := append([]byte("meshd/1/"), t.String()...)
	b = append(b, 0)
	b = append(b, network[:]...)
	return append(b, payload...)
}
