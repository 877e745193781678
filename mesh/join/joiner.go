package join

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"meshd/keys"
)

// How often a joiner repeats itself, and how long it waits for an admin: a
// little less than the desk keeps its request, so that it gives up first.
const (
	firstRepeat  = 200 * time.Millisecond
	lastRepeat   = 2 * time.Second
	hurried      = 500 * time.Millisecond // the same when nobody has to decide anything
	joinerWindow = requestLife - 15*time.Second
)

// JoinerConfig is what a joiner starts from.
type JoinerConfig struct {
	Identity *keys.Identity
	Name     string            // as wanted; keys.ValidateName holds
	Invite   *keys.Invite      // nil: by six words
	Root     ed25519.PublicKey // the one that the other side showed in its hello
	Now      time.Time
}

// Result is what a joiner gets.
type Result struct {
	Chain       []byte
	Certificate *keys.Certificate // its Name differs from the one asked for when that was taken

	// ClockError is set when the fresh certificate is not valid by the clock
	// here: that clock is wrong.
	ClockError error

	NetworkState []byte
	Root         ed25519.PublicKey
}

// Stage says how far a joiner is.
type Stage int

// Stages in their order.
const (
	Asking   Stage = iota // no answer yet
	Waiting               // the words are known; an admin must approve
	Fetching              // admitted; parts of the answer are missing
	Joined
	Failed
)

// String is the stage for people.
func (s Stage) String() string {
	return [...]string{"asking", "waiting for an admin", "fetching", "joined", "failed"}[s]
}

// Joiner is the joining side. It is not safe for concurrent use.
type Joiner struct {
	config  JoinerConfig
	public  keys.Public
	trust   keys.Trust
	outbox  outbox
	request request
	answer  answer
	stage   Stage
	notice  Code
	err     error
}

// outbox is the message that is repeated until it is answered.
type outbox struct {
	message  []byte
	next     time.Time
	interval time.Duration
}

// request is what the joiner has asked, and by which words it goes.
type request struct {
	ref    ref
	nonce  [32]byte
	signer [32]byte // the only Ed25519 key that may answer; zero until known
	words  []string
	began  time.Time
}

// answer collects what the signer has sent so far.
type answer struct {
	certificate *keys.Certificate
	clock       error
	parts       parts
	result      *Result
}

// NewJoiner starts. Err says at once when the invite is for another network.
// Whether it has expired is for its signer to say, by whose clock it was made.
// Call Tick next.
func NewJoiner(c JoinerConfig) *Joiner {
	j := &Joiner{config: c, public: c.Identity.Public(), trust: keys.Trust{Root: bytes.Clone(c.Root)}}
	var err error
	switch {
	case len(c.Root) != ed25519.PublicKeySize:
		err = fmt.Errorf("join: %w", ErrWrongNetwork)
	case c.Invite == nil:
		err = j.commit(c.Now)
	case !c.Invite.Root.Equal(j.trust.Root):
		err = fmt.Errorf("join: %w", ErrWrongNetwork)
	default:
		err = j.ask(c.Now)
	}
	if err == nil {
		if err = keys.ValidateName(c.Name); err != nil {
			err = fmt.Errorf("join: %w", err)
		}
	}
	if err != nil {
		j.fail(err)
	}
	return j
}

// ask opens a request by invite.
func (j *Joiner) ask(now time.Time) error {
	i := j.config.Invite
	a := ask{
		Network: i.NetworkID(), Issuer: i.Issuer, Name: j.config.Name, Invite: i.ID,
		Proof: i.Prove(j.public, j.config.Name),
	}
	a.Signature = ed25519.Sign(j.config.Identity.Sign, a.signable(j.public))
	msg, err := encode(typeAsk, a)
	if err != nil {
		return err
	}
	j.request = request{ref: refOf(msg), signer: i.IssuerKey, began: now}
	j.send(msg, now)
	return nil
}

// commit opens a request by words.
func (j *Joiner) commit(now time.Time) error {
	r := request{began: now}
	if _, err := rand.Read(r.nonce[:]); err != nil {
		return fmt.Errorf("make nonce: %w", err)
	}
	c := commit{Network: j.trust.NetworkID(), Name: j.config.Name, Commitment: keys.Commitment(r.nonce, j.public)}
	c.Signature = ed25519.Sign(j.config.Identity.Sign, c.signable(j.public))
	msg, err := encode(typeCommit, c)
	if err != nil {
		return err
	}
	r.ref = refOf(msg)
	j.request = r
	j.send(msg, now)
	return nil
}

// send makes msg the message to repeat, starting now.
func (j *Joiner) send(msg []byte, now time.Time) {
	j.outbox = outbox{message: msg, next: now, interval: firstRepeat}
}

func (j *Joiner) fail(err error) { j.stage, j.err = Failed, err }

// Tick returns the message to send now, or nil, and when to call again; the zero
// time means never. Call it also after each Receive.
func (j *Joiner) Tick(now time.Time) (out []byte, wake time.Time) {
	if j.stage == Asking && j.config.Invite == nil || j.stage == Waiting {
		if end := j.request.began.Add(joinerWindow); !now.Before(end) {
			j.giveUp()
		}
	}
	switch {
	case j.stage == Joined || j.stage == Failed:
		return nil, time.Time{}
	case now.Before(j.outbox.next):
		return nil, j.outbox.next
	}
	j.outbox.next = now.Add(j.outbox.interval)
	last := lastRepeat
	if j.config.Invite != nil || j.stage == Fetching {
		last = hurried
	}
	j.outbox.interval = min(2*j.outbox.interval, last)
	return j.outbox.message, j.outbox.next
}

func (j *Joiner) giveUp() {
	if j.stage == Asking {
		j.fail(fmt.Errorf("join: %w", ErrNoSigner))
		return
	}
	j.fail(fmt.Errorf("join: %w", ErrNotApproved))
}

// Receive takes a message from the desk. An error says that it was none for this
// joiner: count it and go on. Whether joining has failed, Err says.
func (j *Joiner) Receive(msg []byte, now time.Time) error {
	if j.stage == Joined || j.stage == Failed {
		return nil
	}
	switch kindOf(msg) {
	case typeChallenge:
		return receiveAs(msg, now, j.challenged)
	case typeWaiting:
		return receiveAs(msg, now, j.told)
	case typeGrant:
		return receiveAs(msg, now, j.granted)
	case typeState:
		return receiveAs(msg, now, j.stated)
	case typeRefusal:
		return receiveAs(msg, now, j.refused)
	}
	return fmt.Errorf("receive: %w", ErrMessage)
}

func receiveAs[T any](msg []byte, now time.Time, handle func(T, time.Time) error) error {
	var v T
	if err := decode(msg, &v); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if err := handle(v, now); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return nil
}

// errForeign says that a message is of another request or another signer: late,
// repeated or forged.
var errForeign = fmt.Errorf("%w: of another request or signer", ErrMessage)

// challenged takes the signer's nonce. The first signer stays.
func (j *Joiner) challenged(c challenge, now time.Time) error {
	if c.Ref != j.request.ref || j.request.words != nil || j.config.Invite != nil {
		return errForeign
	}
	signer, err := j.trust.VerifySigner(c.SignerDER, now)
	if err != nil && !clockMayBeWrong(err) {
		return err
	}
	if !verify(signer, c.signable(j.trust.NetworkID(), j.public), c.Signature) {
		return errForeign
	}
	j.request.signer = [32]byte(signer)
	r := reveal{Ref: j.request.ref, Signer: keys.Public{Sign: j.request.signer}.ID(), Nonce: j.request.nonce}
	r.Signature = ed25519.Sign(j.config.Identity.Sign, r.signable(j.trust.NetworkID(), j.public, c.Nonce))
	msg, err := encode(typeReveal, r)
	if err != nil {
		return err
	}
	j.request.words = keys.Words(j.trust.Root, j.public, j.request.nonce, c.Nonce)
	j.stage, j.notice = Waiting, 0
	j.send(msg, now)
	return nil
}

// told hears that the request is in front of an admin; from here on it is only
// polled.
func (j *Joiner) told(w waiting, now time.Time) error {
	if w.Ref != j.request.ref {
		return errForeign
	}
	j.notice = 0
	if j.outbox.interval != lastRepeat {
		j.outbox.interval, j.outbox.next = lastRepeat, now.Add(lastRepeat)
	}
	return nil
}

// granted takes the certificate.
func (j *Joiner) granted(g grant, now time.Time) error {
	if g.Ref != j.request.ref {
		return errForeign
	}
	crt, err := j.trust.Verify(g.Chain, now)
	if err != nil && !clockMayBeWrong(err) {
		return err
	}
	if crt.Public != j.public || crt.SignerKey != j.request.signer {
		return errForeign
	}
	j.answer.certificate, j.answer.clock = crt, err
	j.collect(now)
	return nil
}

// stated takes a part of the network's state.
func (j *Joiner) stated(s state, now time.Time) error {
	if s.Ref != j.request.ref || j.request.signer == [32]byte{} ||
		!verify(j.request.signer[:], s.signable(j.trust.NetworkID(), j.public), s.Signature) {
		return errForeign
	}
	if err := j.answer.parts.add(s); err != nil {
		return err
	}
	j.collect(now)
	return nil
}

// collect ends joining when everything is there.
func (j *Joiner) collect(now time.Time) {
	whole, ok := j.answer.parts.whole()
	if !ok || j.answer.certificate == nil {
		if j.stage != Fetching {
			j.stage, j.notice = Fetching, 0
			j.outbox.interval, j.outbox.next = firstRepeat, now.Add(firstRepeat)
		}
		return
	}
	j.stage, j.notice = Joined, 0
	j.answer.result = &Result{
		Chain: j.answer.certificate.Raw, Certificate: j.answer.certificate, ClockError: j.answer.clock,
		NetworkState: whole, Root: j.trust.Root,
	}
}

// refused takes a refusal. Nobody signs it: an introducer could as well be silent.
func (j *Joiner) refused(r refusal, now time.Time) error {
	if r.Ref != j.request.ref {
		return errForeign
	}
	if err := r.Code.err(); err != nil {
		j.fail(fmt.Errorf("join: %w", err))
		return nil
	}
	if r.Code != CodeAgain {
		j.notice = r.Code
		return nil
	}
	if j.config.Invite != nil || j.stage != Waiting {
		return nil
	}
	began := j.request.began
	if err := j.commit(now); err != nil {
		j.fail(err)
		return nil
	}
	j.request.began = began
	j.outbox.next = now.Add(firstRepeat) // no faster than anything else is repeated
	j.stage, j.answer = Asking, answer{}
	return nil
}

// Words are the six to show and to tell an admin; nil while they are not known.
// They change when the signer has forgotten the request.
func (j *Joiner) Words() []string { return j.request.words }

// Result is nil until the joiner has joined.
func (j *Joiner) Result() *Result { return j.answer.result }

// Err is why joining has failed; nil as long as it has not.
func (j *Joiner) Err() error { return j.err }

// Stage says how far the joiner is.
func (j *Joiner) Stage() Stage { return j.stage }

// Notice says why nothing moves on, for people; empty when it does.
func (j *Joiner) Notice() string { return j.notice.notice() }

func verify(key ed25519.PublicKey, message, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize && len(signature) == ed25519.SignatureSize &&
		ed25519.Verify(key, message, signature)
}

// clockMayBeWrong says that only the time speaks against a certificate that was
// made a moment ago.
func clockMayBeWrong(err error) bool {
	return errors.Is(err, keys.ErrExpired) || errors.Is(err, keys.ErrNotYetValid)
}
