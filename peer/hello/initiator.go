package hello

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/flynn/noise"

	"meshd/keys"
)

const (
	firstRepeat = 300 * time.Millisecond
	lastRepeat  = 2 * time.Second
	patience    = 10 * time.Second // of an initiator, and a responder's for a connection

	// maxProofs is how often a proof is sent before the attempt begins anew: the
	// responder has restarted, or somebody behind the same address displaced us.
	maxProofs = 3
)

// Initiator is one attempt to meet whoever answers at one address. Whoever owns
// it calls Tick at the times it asks for, and Receive with the answers of its
// connection, until Result or Err tells the end. It is for one goroutine at a time.
type Initiator struct {
	cfg        Config
	connection [8]byte
	static     noise.DHKey
	deadline   time.Time
	repeat     repeat

	cookie [cookieLen]byte
	opens  int  // sent before a cookie came back
	prompt bool // whether a cookie may be answered at once: one for each open that Tick sent

	handshake initiatorNoise
	proof     []byte // once there was an answer: what is repeated
	proofs    int
	answer    answer

	result *Result
	err    error
}

// initiatorNoise is the Noise side of an attempt.
type initiatorNoise struct {
	seed    [keyLen]byte
	state   *noise.HandshakeState
	message []byte             // Noise message 1
	receive *noise.CipherState // for the result
}

// NewInitiator prepares an attempt that lasts ten seconds from now. The first
// Tick returns its first datagram.
func NewInitiator(cfg Config, now time.Time) (*Initiator, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	static, err := newStatic()
	if err != nil {
		return nil, err
	}
	i := &Initiator{cfg: cfg, static: static, deadline: now.Add(patience)}
	_, _ = rand.Read(i.connection[:])
	i.repeat.reset(now)
	if err := i.begin(newSeed()); err != nil {
		return nil, err
	}
	return i, nil
}

// begin makes the Noise state from a seed: a new one to begin anew, the old one
// to come back to where a refused message was read.
func (i *Initiator) begin(seed [keyLen]byte) error {
	state, err := newHandshake(i.static, seed, true)
	if err != nil {
		return err
	}
	message, _, _, err := state.WriteMessage(nil, nil)
	if err != nil {
		return fmt.Errorf("write noise message 1: %w", err)
	}
	i.handshake = initiatorNoise{seed: seed, state: state, message: message}
	i.proof, i.proofs = nil, 0
	return nil
}

// Connection is what the answers to this attempt carry in their header.
func (i *Initiator) Connection() [8]byte { return i.connection }

// Result is whom we met; nil while the attempt lasts or when it failed.
func (i *Initiator) Result() *Result { return i.result }

// Err is why the attempt failed; nil while it lasts or when it succeeded.
func (i *Initiator) Err() error { return i.err }

func (i *Initiator) done() bool { return i.result != nil || i.err != nil }

// Tick returns the datagram that is due, if one is, and when to call it again;
// the zero time once the attempt has ended.
func (i *Initiator) Tick(now time.Time) (out []byte, wake time.Time) {
	if i.done() {
		return nil, time.Time{}
	}
	if !now.Before(i.deadline) {
		i.err = ErrNoAnswer
		return nil, time.Time{}
	}
	if i.repeat.due(now) {
		out = i.current(now)
		i.repeat.sent(now)
	}
	if i.repeat.next.After(i.deadline) {
		return out, i.deadline
	}
	return out, i.repeat.next
}

// current is what is to be sent now, in either phase.
func (i *Initiator) current(now time.Time) []byte {
	if i.proof != nil && i.proofs >= maxProofs {
		if err := i.begin(newSeed()); err != nil {
			i.err = err
			return nil
		}
		i.repeat.reset(now)
	}
	if i.proof != nil {
		i.proofs++
		return i.proof
	}
	if i.cfg.Opens > 0 && i.opens >= i.cfg.Opens && i.cookie == ([cookieLen]byte{}) {
		return nil
	}
	i.opens++
	i.prompt = true
	return openMessage(i.connection, i.cookie, i.handshake.message)
}

// Receive takes a datagram from the address of the attempt, and returns what is
// to be sent at once, if anything. It ignores what does not belong to it.
func (i *Initiator) Receive(msg []byte, now time.Time) (out []byte) {
	step, connection, ok := ParseHeader(msg)
	if !ok || connection != i.connection || i.done() || !now.Before(i.deadline) {
		return nil
	}
	switch {
	case step == StepCookie && i.proof == nil:
		out = i.receiveCookie(msg)
	case step == StepAnswer && i.proof == nil:
		out = i.receiveAnswer(msg, now)
	case step == StepResult && i.proof != nil:
		i.receiveResult(msg, now)
	}
	if out != nil {
		i.repeat.reset(now)
		i.repeat.sent(now)
	}
	return out
}

func (i *Initiator) receiveCookie(msg []byte) []byte {
	if len(msg) != cookieStep || [cookieLen]byte(msg[headerLen:]) == i.cookie {
		return nil
	}
	i.cookie = [cookieLen]byte(msg[headerLen:])
	if !i.prompt {
		return nil // the next repetition carries it
	}
	i.prompt = false
	return openMessage(i.connection, i.cookie, i.handshake.message)
}

func (i *Initiator) receiveAnswer(msg []byte, now time.Time) []byte {
	if len(msg) != answerLen {
		return nil
	}
	payload, _, _, err := i.handshake.state.ReadMessage(nil, msg[headerLen:])
	if err != nil {
		if err := i.begin(i.handshake.seed); err != nil {
			i.err = err
		}
		return nil
	}
	a, ok := parseAnswer(payload)
	if !ok {
		i.err = ErrMalformed
		return nil
	}
	if i.err = i.checkAnswer(a); i.err != nil {
		return nil
	}
	i.answer = a
	return i.makeProof(now)
}

// checkAnswer decides, before anything of ours is shown, whether the responder
// is one to show it to.
func (i *Initiator) checkAnswer(a answer) error {
	if allZero(a.root[:]) {
		return ErrRefused{Reason: "it is not a member of a network itself"}
	}
	if i.cfg.Trust != nil && [keyLen]byte(i.cfg.Trust.Root) != a.root {
		return ErrWrongNetwork
	}
	if a.sign == i.cfg.Identity.Public().Sign {
		return ErrSelf
	}
	network := keys.Trust{Root: a.root[:]}.NetworkID()
	if !verifyStatic(a.sign, network, i.handshake.state.PeerStatic(), a.signature) {
		return ErrBadSignature
	}
	return nil
}

func (i *Initiator) makeProof(now time.Time) []byte {
	network := keys.Trust{Root: i.answer.root[:]}.NetworkID()
	payload := proof{
		signature: signStatic(i.cfg.Identity, network, i.static.Public),
		hour:      hour(now),
		chain:     i.cfg.Chain,
		public:    i.cfg.Identity.Public(),
	}.append(nil)
	msg := appendHeader(make([]byte, 0, paddedLen), StepProof, i.connection)
	msg, _, receive, err := i.handshake.state.WriteMessage(msg, payload)
	if err != nil {
		i.err = fmt.Errorf("write noise message 3: %w", err)
		return nil
	}
	i.handshake.receive = receive
	i.proof, i.proofs = msg, 1
	return msg
}

func (i *Initiator) receiveResult(msg []byte, now time.Time) {
	if len(msg) < resultMin || len(msg) > paddedLen {
		return
	}
	payload, err := i.handshake.receive.Decrypt(nil, nil, msg[headerLen:])
	if err != nil {
		return
	}
	r, ok := parseResult(payload)
	if !ok || (r.status == statusMember) != (len(i.cfg.Chain) > 0) && r.status != statusRefused {
		i.err = ErrMalformed
		return
	}
	i.result, i.err = i.met(r, now)
}

// met is whom the attempt has found.
func (i *Initiator) met(r result, now time.Time) (*Result, error) {
	met := &Result{
		Root:       ed25519.PublicKey(bytes.Clone(i.answer.root[:])),
		HourOffset: int32(r.hour - hour(now)),
	}
	switch r.status {
	case statusRefused:
		return nil, ErrRefused{Reason: r.reason}
	case statusPending:
		met.Pending = true
		met.Remote = r.public
		met.Remote.Sign = i.answer.sign
		if err := met.Remote.Check(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		return met, nil
	}
	cert, err := i.cfg.verify(r.chain, now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadCertificate, err)
	}
	if cert.Sign != i.answer.sign {
		return nil, fmt.Errorf("%w: it is another node's", ErrBadCertificate)
	}
	met.Certificate, met.Remote = cert, cert.Public
	return met, nil
}

// repeat is when to send again: after 300 ms, doubling to 2 s.
type repeat struct {
	next     time.Time
	interval time.Duration
}

// reset makes the next message due now, as the first of a series.
func (r *repeat) reset(now time.Time) { *r = repeat{next: now, interval: firstRepeat} }

func (r *repeat) due(now time.Time) bool { return !now.Before(r.next) }

func (r *repeat) sent(now time.Time) {
	r.next = now.Add(r.interval)
	r.interval = min(2*r.interval, lastRepeat)
}
