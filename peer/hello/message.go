package hello

import (
	"bytes"
	"encoding/binary"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"meshd/keys"
)

// Step is the kind of a hello datagram.
type Step uint8

// The steps, in their order.
const (
	StepOpen Step = 1 + iota
	StepCookie
	StepAnswer
	StepProof
	StepResult
)

// Sizes, in bytes.
const (
	// First is the first byte of every hello.
	First   = 0xd1
	version = 1

	headerLen  = 12
	paddedLen  = 1200 // of every datagram from the initiator
	cookieLen  = 16
	keyLen     = 32
	sigLen     = 64
	sealTag    = 16
	hourLen    = 4
	openEnd    = headerLen + cookieLen + keyLen // where the padding of an open begins
	cookieStep = headerLen + cookieLen

	answerPayload = keyLen + keyLen + sigLen
	answerLen     = headerLen + keyLen + keyLen + sealTag + answerPayload + sealTag

	// A proof's padding is inside Noise message 3, so that it fills the datagram.
	proofPayload = paddedLen - headerLen - (keyLen + sealTag) - sealTag
	proofFixed   = 1 + sigLen + hourLen
	maxChain     = proofPayload - proofFixed - 2

	resultMin = headerLen + 1 + sealTag
	maxReason = 120
)

// A chain that may be issued also fits.
var _ [maxChain - keys.MaxChain]struct{}

// FromInitiator says who sends a step: if true it is for the Responder, else
// for the Initiator of its connection.
func (s Step) FromInitiator() bool { return s == StepOpen || s == StepProof }

// ParseHeader returns what routes a datagram. It vouches for the header only.
func ParseHeader(msg []byte) (step Step, connection [8]byte, ok bool) {
	if len(msg) < headerLen || msg[0] != First || msg[1] != version || msg[3] != 0 {
		return 0, connection, false
	}
	step = Step(msg[2])
	if step < StepOpen || step > StepResult {
		return 0, connection, false
	}
	return step, [8]byte(msg[4:headerLen]), true
}

func appendHeader(dst []byte, step Step, connection [8]byte) []byte {
	dst = append(dst, First, version, byte(step), 0)
	return append(dst, connection[:]...)
}

// openMessage is a whole step 1.
func openMessage(connection [8]byte, cookie [cookieLen]byte, noise []byte) []byte {
	msg := make([]byte, 0, paddedLen)
	msg = appendHeader(msg, StepOpen, connection)
	msg = append(msg, cookie[:]...)
	msg = append(msg, noise...)
	return msg[:paddedLen] // the rest is zero
}

// parseOpen takes a whole step 1 apart.
func parseOpen(msg []byte) (cookie [cookieLen]byte, noise []byte, ok bool) {
	if len(msg) != paddedLen || !allZero(msg[openEnd:]) {
		return cookie, nil, false
	}
	return [cookieLen]byte(msg[headerLen:]), msg[headerLen+cookieLen : openEnd], true
}

// answer is the payload of step 3. A root of zeros means that the responder is
// no member of a network; the rest is zero then.
type answer struct {
	root, sign [keyLen]byte
	signature  [sigLen]byte
}

func (a answer) append(dst []byte) []byte {
	dst = append(dst, a.root[:]...)
	dst = append(dst, a.sign[:]...)
	return append(dst, a.signature[:]...)
}

func parseAnswer(b []byte) (a answer, ok bool) {
	if len(b) != answerPayload {
		return a, false
	}
	copy(a.root[:], b)
	copy(a.sign[:], b[keyLen:])
	copy(a.signature[:], b[2*keyLen:])
	return a, true
}

// proof is the payload of step 4: with a chain, or with the keys of somebody
// who has none.
type proof struct {
	signature [sigLen]byte
	hour      uint32
	chain     []byte
	public    keys.Public
}

const flagChain = 1

func (p proof) append(dst []byte) []byte {
	flags := byte(0)
	if len(p.chain) > 0 {
		flags = flagChain
	}
	end := len(dst) + proofPayload
	dst = append(dst, flags)
	dst = append(dst, p.signature[:]...)
	dst = binary.BigEndian.AppendUint32(dst, p.hour)
	if len(p.chain) > 0 {
		dst = appendChain(dst, p.chain)
	} else {
		dst = append(dst, p.public.Sign[:]...)
		dst = appendKeys(dst, p.public)
	}
	return append(dst, make([]byte, end-len(dst))...)
}

func parseProof(b []byte) (p proof, ok bool) {
	if len(b) != proofPayload || b[0]&^flagChain != 0 {
		return p, false
	}
	p.signature = [sigLen]byte(b[1:])
	p.hour = binary.BigEndian.Uint32(b[1+sigLen:])
	rest := b[proofFixed:]
	if b[0] == flagChain {
		p.chain, rest, ok = parseChain(rest)
	} else {
		copy(p.public.Sign[:], rest)
		p.public, rest = parseKeys(p.public, rest[keyLen:])
		ok = true
	}
	if !ok || !allZero(rest) {
		return proof{}, false
	}
	return p, true
}

type status uint8

const (
	statusMember status = iota
	statusPending
	statusRefused
)

// result is the payload of step 5: for a member the responder's chain, for
// somebody pending its keys, else a reason.
type result struct {
	status status
	hour   uint32
	chain  []byte
	public keys.Public // without Sign: the answer had it
	reason string
}

func (r result) append(dst []byte) []byte {
	dst = append(dst, byte(r.status))
	if r.status == statusRefused {
		return append(dst, printable(r.reason)...)
	}
	dst = binary.BigEndian.AppendUint32(dst, r.hour)
	if r.status == statusMember {
		return appendChain(dst, r.chain)
	}
	return appendKeys(dst, r.public)
}

func parseResult(b []byte) (r result, ok bool) {
	if len(b) < 1 {
		return r, false
	}
	r.status = status(b[0])
	rest := b[1:]
	if r.status == statusRefused {
		r.reason = printable(string(rest))
		return r, true
	}
	if len(rest) < hourLen {
		return result{}, false
	}
	r.hour, rest = binary.BigEndian.Uint32(rest), rest[hourLen:]
	switch r.status {
	case statusMember:
		r.chain, rest, ok = parseChain(rest)
	case statusPending:
		if ok = len(rest) == 2*keyLen; ok {
			r.public, rest = parseKeys(r.public, rest)
		}
	}
	if !ok || len(rest) != 0 {
		return result{}, false
	}
	return r, true
}

func appendChain(dst, chain []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(chain)))
	return append(dst, chain...)
}

func parseChain(b []byte) (chain, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; n == 0 || n > len(b) || n > maxChain {
		return nil, nil, false
	}
	return bytes.Clone(b[:n]), b[n:], true
}

func appendKeys(dst []byte, p keys.Public) []byte {
	dst = append(dst, p.WireGuard[:]...)
	return append(dst, p.Probe[:]...)
}

// parseKeys adds two keys to p; b has room for them.
func parseKeys(p keys.Public, b []byte) (keys.Public, []byte) {
	p.WireGuard = wgtypes.Key(b[:keyLen])
	p.Probe = wgtypes.Key(b[keyLen : 2*keyLen])
	return p, b[2*keyLen:]
}

// printable makes text from the network fit for a terminal, and bounds it.
func printable(s string) string {
	b := []byte(s[:min(len(s), maxReason)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

func allZero(b []byte) bool {
	var or byte
	for _, c := range b {
		or |= c
	}
	return or == 0
}
