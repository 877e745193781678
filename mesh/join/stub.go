// Package join is stubbed.
package join

import (
	"crypto/ed25519"
	"net/netip"
	"time"

	"meshd/keys"
)

// MaxMessage bounds a joiner's or desk's message, MaxCarried one between members.
const (
	MaxMessage = 1060
	MaxCarried = 1099
)

// JoinerConfig is what a joiner starts from.
type JoinerConfig struct {
	Identity *keys.Identity
	Name     string            // as wanted; ValidateName holds
	Invite   *keys.Invite      // nil: by six words
	Root     ed25519.PublicKey // from the hello
	Now      time.Time
}

// Result is what joining gives.
type Result struct {
	Chain        []byte
	Certificate  *keys.Certificate // its Name may differ from the one asked for
	NetworkState []byte
	Root         ed25519.PublicKey
}

// Joiner is the joining side.
type Joiner struct{}

// NewJoiner starts.
func NewJoiner(c JoinerConfig) *Joiner { return nil }

// Tick returns what to send now, if anything, and when to call again.
func (j *Joiner) Tick(now time.Time) (out []byte, wake time.Time) { return nil, now }

// Receive takes a message of the desk.
func (j *Joiner) Receive(msg []byte, now time.Time) error { return nil }

// Words are the six to show; nil before they are known.
func (j *Joiner) Words() []string { return nil }

// Result is nil until joined.
func (j *Joiner) Result() *Result { return nil }

// Err is why joining is over; nil while it is not.
func (j *Joiner) Err() error { return nil }

// DeskConfig is what a desk needs.
type DeskConfig struct {
	Signer       *keys.Signer
	Trust        keys.Trust
	Log          *keys.IssueLog
	TakenName    func(string) bool
	Revoked      func(keys.Public) bool // nil: nobody
	NetworkState func() []byte
}

// Desk is the signer's side.
type Desk struct{}

// Request waits for an admin.
type Request struct {
	Words []string
	Name  string
	ID    keys.NodeID
	Since time.Time
	From  netip.AddrPort
}

// NewDesk starts.
func NewDesk(c DeskConfig) *Desk { return nil }

// Receive takes a joiner's message.
func (d *Desk) Receive(joiner keys.Public, msg []byte, now time.Time) (reply [][]byte) { return nil }

// ReceiveFrom is Receive with the joiner's address as its introducer sees it.
func (d *Desk) ReceiveFrom(joiner keys.Public, from netip.AddrPort, msg []byte, now time.Time) (reply [][]byte) {
	return nil
}

// Requests lists.
func (d *Desk) Requests(now time.Time) []Request { return nil }

// Approve admits the request with exactly these words.
func (d *Desk) Approve(words string, roles keys.Roles, now time.Time) (Request, error) {
	return Request{}, nil
}

// Deny refuses it.
func (d *Desk) Deny(words string, now time.Time) (Request, error) { return Request{}, nil }

// Answers is what a joiner would be told now: to send at once after Approve or Deny.
func (d *Desk) Answers(joiner keys.NodeID, now time.Time) [][]byte { return nil }

// Signer tells to which signer a joiner's message must go; zero: to any.
func Signer(msg []byte) (id keys.NodeID, ok bool) { return id, false }

// Unreachable is what an introducer answers when it finds no signer.
func Unreachable(msg []byte) []byte { return nil }

// Carry is a joiner's message on its way from introducer to signer.
type Carry struct {
	Joiner  keys.Public // as authenticated by the introducer's hello
	From    netip.AddrPort
	Payload []byte
}

// Back is the answer on its way from signer to introducer.
type Back struct {
	Joiner  keys.NodeID
	Payload []byte
}

// Marshal encodes.
func (c Carry) Marshal() ([]byte, error) { return nil, nil }

// Marshal encodes.
func (b Back) Marshal() ([]byte, error) { return nil, nil }

// ParseCarry decodes.
func ParseCarry(msg []byte) (Carry, error) { return Carry{}, nil }

// ParseBack decodes.
func ParseBack(msg []byte) (Back, error) { return Back{}, nil }
