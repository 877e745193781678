package wireguard

import (
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Local is what a node keeps for all its peers: its static key, the check of
// MACs and cookies, and the rate limit. Its methods are safe for concurrent use.
type Local struct {
	public wgtypes.Key
}

// Initiation is a message of type 1 that has been decrypted and authenticated.
type Initiation struct {
	remote wgtypes.Key
}

// NewLocal returns the Local of a node with that private key.
func NewLocal(private wgtypes.Key, now time.Time) *Local { panic("todo") }

// PublicKey returns the node's static public key.
func (l *Local) PublicKey() wgtypes.Key { return l.public }

// CheckMACs checks mac1 of a message of type 1 or 2, and mac2 if underLoad.
// src is the exact source that a cookie is bound to (address and port; for a
// relayed packet relay and origin). A cookieReply goes back there: the message
// is genuine but has to come again with the cookie.
func (l *Local) CheckMACs(msg, src []byte, underLoad bool, now time.Time) (ok bool, cookieReply []byte) {
	panic("todo")
}

// Allow is the rate limit for handshakes that pass CheckMACs under load: 20 a
// second, 5 at once, for each IPv4 address and IPv6 /64 (paper, 5.3).
func (l *Local) Allow(addr netip.Addr, now time.Time) bool { panic("todo") }

// InitiationKey decrypts a message of type 1 far enough to learn who it is
// from. It does not judge whether that peer is welcome, nor the timestamp:
// the Session of remote does.
func (l *Local) InitiationKey(msg []byte) (remote wgtypes.Key, h *Initiation, err error) {
	panic("todo")
}

// ValidKey reports whether k can be a peer's public key: not zero and not of
// low order.
func ValidKey(k wgtypes.Key) bool { panic("todo") }
