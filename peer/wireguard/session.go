package wireguard

import (
	"time"

	"golang.zx2c4.com/wireguard/tai64n"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Options of a Session.
type Options struct {
	PSK                 [32]byte
	Member              bool                 // fast repetition of the first session's initiations, PROTOCOL.md section 4
	PersistentKeepalive time.Duration        // 0 for none; the caller then calls Tick once to start it
	NewIndex            func() uint32        // draws and registers an unused index; see the package comment
	Jitter              func() time.Duration // random, less than MaxJitter; nil for the usual
	LastTimestamp       tai64n.Timestamp     // of a former Session of this peer, so that its initiations cannot be replayed
}

// Output is what the caller has to do after a call, in this order.
type Output struct {
	Removed     []uint32   // forget these indexes; a Keypair under one of them is dead
	Added       []*Keypair // receive with these from now on
	Messages    [][]byte   // handshake messages to Stamp and send
	Keepalive   bool       // send a transport packet: what waits in the queue, or else SendKey().Seal(buf, nil), then MarkKeepaliveSent
	Established bool       // a handshake has completed: SendKey has a fresh key
	GaveUp      bool       // RekeyAttemptTime without an answer: drop what waits; a new Initiate starts again
	Wake        time.Time  // call Tick then; zero: no need. Replaces the Wake of all Outputs before
}

// Stats are the counters of a Session since it was made.
type Stats struct {
	LastHandshake    time.Time // zero: none yet
	TxBytes, RxBytes uint64    // of transport messages, with their overhead
}

// Session is the state machine of one remote peer. Its methods are called by
// one goroutine at a time, but for SendKey, Remote and Stats.
type Session struct{ remote wgtypes.Key }

// NewSession returns the Session of remote, without a key. It takes remote
// even if it is not a ValidKey, but then never gets to a key.
func NewSession(l *Local, remote wgtypes.Key, opts Options) *Session { panic("todo") }

// Remote returns the peer's public key.
func (s *Session) Remote() wgtypes.Key { return s.remote }

// Stats may be called at any time.
func (s *Session) Stats() Stats { panic("todo") }

// LastTimestamp is the time stamp of the last initiation that was accepted.
func (s *Session) LastTimestamp() tai64n.Timestamp { panic("todo") }

// SendKey returns the key to send with, nil when there is none (call
// Initiate). It is one atomic load and may be called at any time.
func (s *Session) SendKey() *Keypair { panic("todo") }

// Initiate says that somebody wants to send and SendKey was nil. It does
// nothing if there is a key by now, or a handshake already on its way.
func (s *Session) Initiate(now time.Time) Output { panic("todo") }

// Rekey starts a handshake although there may be a good key, which stays in
// use meanwhile.
func (s *Session) Rekey(now time.Time) Output { panic("todo") }

// HandleInitiation answers an initiation of this peer.
func (s *Session) HandleInitiation(h *Initiation, now time.Time) (Output, error) { panic("todo") }

// HandleResponse takes the answer to our initiation.
func (s *Session) HandleResponse(msg []byte, now time.Time) (Output, error) { panic("todo") }

// HandleCookie takes a cookie reply that came over path: any comparable value
// that names the path in Stamp as well.
func (s *Session) HandleCookie(msg []byte, path any, now time.Time) error { panic("todo") }

// Stamp sets mac1 and mac2 of a message of Output.Messages, in place, for the
// path that it is about to take.
func (s *Session) Stamp(msg []byte, path any, now time.Time) { panic("todo") }

// Tick does what is due. It may be called at any time.
func (s *Session) Tick(now time.Time) Output { panic("todo") }

// Expire forgets all keys and the handshake that is on its way: after resume
// from suspend (then call Initiate), or on close.
func (s *Session) Expire(now time.Time) Output { panic("todo") }
