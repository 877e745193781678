package join

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"meshd/keys"
	"meshd/keys/canon"
)

// A message is a byte for its type and a body in canon's form (PROTOCOL.md,
// section 6). Sizes leave room for what carries it: a control datagram holds
// 1,100 bytes, of which up to two say what it is.
const (
	MaxMessage = 1060 // of a joiner or a desk
	MaxCarried = 1098 // the same on its way between introducer and signer

	maxPart  = 900 // bytes of network state in one message
	maxParts = 16
)

// Types of messages. 1 to 3 come from joiners, 4 to 8 from desks, the others
// pass between members.
const (
	typeAsk       = 1
	typeCommit    = 2
	typeReveal    = 3
	typeChallenge = 4
	typeWaiting   = 5
	typeGrant     = 6
	typeState     = 7
	typeRefusal   = 8
	typeCarry     = 16
	typeBack      = 17
)

// ErrMessage says that bytes are no message that belongs here. Count it and drop
// them.
var ErrMessage = errors.New("not a join message")

// ref names a request: a hash of the message that opened it.
type ref [16]byte

type ask struct {
	_         struct{} `cbor:",toarray"`
	Network   [16]byte
	Issuer    [16]byte // the signer that must redeem
	Name      string
	Invite    [16]byte
	Proof     []byte // keys.Invite.Prove
	Signature []byte // of the node key
}

type commit struct {
	_          struct{} `cbor:",toarray"`
	Network    [16]byte
	Name       string
	Commitment [32]byte
	Signature  []byte // of the node key, so that nobody else replaces its request
}

type reveal struct {
	_         struct{} `cbor:",toarray"`
	Ref       ref
	Signer    [16]byte // the one whose nonce is in the words
	Nonce     [32]byte
	Signature []byte // of the node key
}

type challenge struct {
	_         struct{} `cbor:",toarray"`
	Ref       ref
	Nonce     [32]byte
	SignerDER []byte
	Signature []byte // of the signer
}

type waiting struct {
	_   struct{} `cbor:",toarray"`
	Ref ref
}

type grant struct {
	_     struct{} `cbor:",toarray"`
	Ref   ref
	Chain []byte
}

type state struct {
	_         struct{} `cbor:",toarray"`
	Ref       ref
	Part      uint8 // from 0
	Parts     uint8
	Hash      [32]byte // SHA-256 of all parts together
	Signature []byte   // of the signer
	Bytes     []byte
}

type refusal struct {
	_    struct{} `cbor:",toarray"`
	Ref  ref
	Code Code
}

// encode puts the type before the body.
func encode(kind byte, body any) ([]byte, error) {
	b, err := canon.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode join message: %w", err)
	}
	return append([]byte{kind}, b...), nil
}

// decode reads the body of a message whose type has been looked at.
func decode(msg []byte, body any) error {
	if err := canon.Unmarshal(msg[1:], body); err != nil {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return nil
}

// kindOf is the type of a joiner's or desk's message, 0 for none.
func kindOf(msg []byte) byte {
	if len(msg) < 2 || len(msg) > MaxMessage || msg[0] < typeAsk || msg[0] > typeRefusal {
		return 0
	}
	return msg[0]
}

// refOf names the request that an ask or a commit opens.
func refOf(msg []byte) ref {
	sum := labelled("meshd/1/join-ref", msg)
	return ref(sum[:16])
}

// labelled is SHA-256 over a label and parts, each of fixed length but the last.
func labelled(label string, parts ...[]byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(label + "\x00"))
	for _, part := range parts {
		h.Write(part)
	}
	return [32]byte(h.Sum(nil))
}

// signable is what is signed for a label: the label itself and the hash.
func signable(label string, parts ...[]byte) []byte {
	sum := labelled(label, parts...)
	return append([]byte(label+"\x00"), sum[:]...)
}

// signable is what the node key signs: everything in the message, and its keys.
func (a ask) signable(pub keys.Public) []byte {
	return signable("meshd/1/join-ask", a.Network[:], a.Issuer[:], a.Invite[:], pub.Bytes(), []byte(a.Name))
}

func (c commit) signable(pub keys.Public) []byte {
	return signable("meshd/1/join-commit", c.Network[:], c.Commitment[:], pub.Bytes(), []byte(c.Name))
}

func (r reveal) signable(network keys.NetworkID, pub keys.Public, nonceSigner [32]byte) []byte {
	return signable("meshd/1/join-reveal", network[:], r.Signer[:], r.Ref[:], r.Nonce[:], nonceSigner[:], pub.Bytes())
}

func (c challenge) signable(network keys.NetworkID, pub keys.Public) []byte {
	return signable("meshd/1/join-challenge", network[:], c.Ref[:], c.Nonce[:], pub.Bytes())
}

func (s state) signable(network keys.NetworkID, pub keys.Public) []byte {
	return signable("meshd/1/join-state", network[:], s.Ref[:], s.Hash[:], []byte{s.Parts}, pub.Bytes())
}

// Signer tells the introducer which signer a joiner's message is for; a zero id
// is any. It is false for what is no joiner's message.
func Signer(msg []byte) (id keys.NodeID, ok bool) {
	switch kindOf(msg) {
	case typeAsk:
		var a ask
		err := decode(msg, &a)
		return a.Issuer, err == nil
	case typeCommit:
		var c commit
		return id, decode(msg, &c) == nil
	case typeReveal:
		var r reveal
		err := decode(msg, &r)
		return r.Signer, err == nil
	}
	return id, false
}

// Unreachable is what an introducer answers a joiner while it finds no signer
// for its message. The joiner keeps asking and says why it waits. It is nil for
// what is no joiner's message.
func Unreachable(msg []byte) []byte {
	if _, ok := Signer(msg); !ok {
		return nil
	}
	r := refOf(msg)
	if kindOf(msg) == typeReveal {
		var v reveal
		if decode(msg, &v) != nil {
			return nil
		}
		r = v.Ref
	}
	return refuse(r, CodeUnreachable)
}

// refuse encodes a refusal; its fields cannot fail to encode.
func refuse(r ref, code Code) []byte {
	b, err := encode(typeRefusal, refusal{Ref: r, Code: code})
	if err != nil {
		return nil
	}
	return b
}
