package hello

import (
	"errors"
	"net/netip"
	"time"

	"github.com/flynn/noise"

	"meshd/keys"
)

// Responder answers all who ask. It keeps state only for sources that have
// shown that they receive at their address, and of that no more than connTable
// allows. It is for one goroutine at a time.
type Responder struct {
	cfg     Config
	static  noise.DHKey
	answer  answer // the same for all while the configuration lasts
	cookies cookies
	conns   connTable
}

// NewResponder makes a Responder. Without a chain it answers that it is not a
// member and accepts nobody.
func NewResponder(cfg Config, now time.Time) (*Responder, error) {
	static, err := newStatic()
	if err != nil {
		return nil, err
	}
	r := &Responder{static: static}
	r.cookies.rotate(now)
	if err := r.SetConfig(cfg); err != nil {
		return nil, err
	}
	return r, nil
}

// SetConfig replaces the configuration, after a join or a renewal. Connections
// that have shown another root key are forgotten. On error the old one stays.
func (r *Responder) SetConfig(cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	next := answer{}
	if len(cfg.Chain) > 0 {
		next.root = [keyLen]byte(cfg.Trust.Root)
		next.sign = cfg.Identity.Public().Sign
		next.signature = signStatic(cfg.Identity, cfg.Trust.NetworkID(), r.static.Public)
	}
	if next.root != r.answer.root || next.sign != r.answer.sign {
		r.conns = connTable{}
	}
	r.cfg, r.answer = cfg, next
	return nil
}

// Receive takes a datagram of step 1 or 4 from src. The reply, if there is one,
// goes back to src. The result tells whom we met; it comes once for each meeting.
func (r *Responder) Receive(src netip.AddrPort, msg []byte, now time.Time) (reply []byte, met *Result) {
	step, connection, ok := ParseHeader(msg)
	if !ok || len(msg) != paddedLen || !src.IsValid() {
		return nil, nil
	}
	src = netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
	switch step {
	case StepOpen:
		return r.receiveOpen(src, connection, msg, now), nil
	case StepProof:
		return r.receiveProof(src, connection, msg, now)
	}
	return nil, nil
}

func (r *Responder) receiveOpen(src netip.AddrPort, connection [8]byte, msg []byte, now time.Time) []byte {
	cookie, message, ok := parseOpen(msg)
	if !ok {
		return nil
	}
	if !r.cookies.valid(cookie, src, connection, now) {
		cookie = r.cookies.make(src, connection, now)
		reply := appendHeader(make([]byte, 0, cookieStep), StepCookie, connection)
		return append(reply, cookie[:]...)
	}
	r.conns.expire(now)
	if c := r.conns.find(src, connection); c != nil && c.open == [keyLen]byte(message) {
		return c.answer
	}
	if !r.conns.admit(src, connection, now) {
		return nil
	}
	c := &conn{src: src, id: connection, began: now, seed: newSeed(), open: [keyLen]byte(message)}
	if !c.begin(r.static, r.answer) {
		return nil
	}
	r.conns.all = append(r.conns.all, c)
	return c.answer
}

func (r *Responder) receiveProof(src netip.AddrPort, connection [8]byte, msg []byte, now time.Time) ([]byte, *Result) {
	r.conns.expire(now)
	c := r.conns.find(src, connection)
	switch {
	case c == nil:
		return nil, nil
	case c.result != nil:
		return c.result, nil
	case c.state == nil && !c.begin(r.static, r.answer):
		return nil, nil
	}
	payload, _, send, err := c.state.ReadMessage(nil, msg[headerLen:])
	if err != nil {
		c.state = nil // made again for the next proof
		return nil, nil
	}
	verdict, met := r.judge(payload, c.state.PeerStatic(), now)
	reply := appendHeader(make([]byte, 0, paddedLen), StepResult, connection)
	reply, err = send.Encrypt(reply, nil, verdict.append(nil))
	if err != nil {
		return nil, nil
	}
	c.state, c.result = nil, reply
	return reply, met
}

// judge decides on a proof from the holder of a Noise static key.
func (r *Responder) judge(payload, static []byte, now time.Time) (result, *Result) {
	p, ok := parseProof(payload)
	if !ok {
		return refuse("malformed proof")
	}
	if len(r.cfg.Chain) == 0 {
		return refuse("this node is not a member of a network")
	}
	met := &Result{
		Remote:     p.public,
		Root:       r.cfg.Trust.Root,
		Pending:    len(p.chain) == 0,
		HourOffset: int32(p.hour - hour(now)),
	}
	if len(p.chain) > 0 {
		cert, err := r.cfg.verify(p.chain, now)
		if err != nil {
			return refuse(reason(err))
		}
		met.Certificate, met.Remote = cert, cert.Public
	}
	if !verifyStatic(met.Remote.Sign, r.cfg.Trust.NetworkID(), static, p.signature) {
		return refuse("the signature of the proof is wrong")
	}
	if met.Remote.Sign == r.answer.sign {
		return refuse("this is the node itself")
	}
	if err := met.Remote.Check(); err != nil {
		return refuse("weak keys")
	}
	if met.Pending {
		return result{status: statusPending, hour: hour(now), public: r.cfg.Identity.Public()}, met
	}
	return result{status: statusMember, hour: hour(now), chain: r.cfg.Chain}, met
}

func refuse(why string) (result, *Result) { return result{status: statusRefused, reason: why}, nil }

// reason is why a certificate is not accepted, in words for its owner.
func reason(err error) string {
	switch {
	case errors.Is(err, keys.ErrRevoked):
		return "the certificate is revoked"
	case errors.Is(err, keys.ErrExpired):
		return "the certificate has expired"
	case errors.Is(err, keys.ErrNotYetValid):
		return "the certificate is not valid yet: one of the clocks is wrong"
	case errors.Is(err, keys.ErrUntrusted):
		return "the certificate is of another network"
	}
	return "the certificate is not accepted"
}
