package wireguard

import (
	"crypto/subtle"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/flynn/noise"
	"golang.zx2c4.com/wireguard/tai64n"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Local is what a node keeps for all its peers: its static key, the check of
// MACs and cookies, and the rate limit. Its methods are safe for concurrent use.
type Local struct {
	public wgtypes.Key
	static noise.DHKey
	suite  noise.CipherSuite
	keys   targetKeys // for messages to us
	epoch  time.Time  // Sessions count their nanoseconds from here
	random io.Reader  // of ephemeral keys; nil is crypto/rand

	mu     sync.Mutex // guards what follows
	secret cookieSecret
	limit  limiter
	latest tai64n.Timestamp // time stamp used; the clock may go back
}

// NewLocal returns the Local of a node with that private key.
func NewLocal(private wgtypes.Key, now time.Time) *Local {
	public := private.PublicKey()
	return &Local{
		public: public,
		static: noise.DHKey{Private: private[:], Public: public[:]},
		suite:  noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s),
		keys:   newTargetKeys(public),
		epoch:  now,
		limit:  limiter{buckets: make(map[netip.Addr]bucket)},
	}
}

// PublicKey returns the node's static public key.
func (l *Local) PublicKey() wgtypes.Key { return l.public }

// CheckMACs checks mac1 of a message of type 1 or 2, and mac2 if underLoad
// (paper, 5.3). src is the exact source that a cookie is bound to (address and
// port; for a relayed packet relay and origin). A cookieReply goes back there:
// the message is genuine but has to come again with the cookie.
func (l *Local) CheckMACs(msg, src []byte, underLoad bool, now time.Time) (ok bool, cookieReply []byte) {
	if _, ok := Sender(msg); !ok {
		return false, nil
	}
	mac1 := l.keys.mac1Of(msg)
	if subtle.ConstantTimeCompare(mac1[:], mac1In(msg)) != 1 {
		return false, nil
	}
	if !underLoad {
		return true, nil
	}
	l.mu.Lock()
	l.secret.refresh(now)
	cookie := l.secret.cookie(src)
	l.mu.Unlock()
	if checkMAC2(msg, cookie) {
		return true, nil
	}
	return false, l.keys.cookieReply(msg, cookie)
}

// Allow is the rate limit for handshakes that pass CheckMACs under load: 20 a
// second, 5 at once, for each IPv4 address and IPv6 /64 (paper, 5.3).
func (l *Local) Allow(addr netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit.allow(addr, now)
}

// timestamp is the time stamp for an initiation after one that said sent. It
// does not go back when the clock does.
func (l *Local) timestamp(now time.Time, sent tai64n.Timestamp) tai64n.Timestamp {
	t := timestamp(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.latest.After(t) {
		t = l.latest
	}
	if !t.After(sent) {
		t = stepAfter(sent)
	}
	l.latest = t
	return t
}

// InitiationKey decrypts a message of type 1 far enough to learn who it is
// from. It does not judge whether that peer is welcome, nor the timestamp:
// the Session of remote does.
func (l *Local) InitiationKey(msg []byte) (remote wgtypes.Key, h *Initiation, err error) {
	if t, ok := Type(msg); !ok || t != TypeInitiation {
		return remote, nil, ErrMessage
	}
	h, err = l.readInitiation(msg)
	if err != nil {
		return remote, nil, err
	}
	return h.remote, h, nil
}
