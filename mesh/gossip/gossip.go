package gossip

import (
	"context"
	"errors"
	"log/slog"

	"meshd/keys"
)

// MaxPacket bounds a packet in either direction, so that it fits a control datagram of 1,100 bytes with its kind.
const MaxPacket = 1099

// Link carries packets to members, inside their sessions.
type Link interface {
	// SendControl sends a packet of at most MaxPacket bytes, which is borrowed for the call. It must not block: a packet
	// that cannot be sent now is lost, and the error is only counted.
	SendControl(to keys.NodeID, packet []byte) error
}

// Config is what New needs.
type Config struct {
	// Self is this node.
	Self keys.NodeID
	// Network labels packets, so that two networks never mix.
	Network keys.NetworkID
	// Link carries packets.
	Link Link
	// Logger receives memberlist's log lines at debug level, rate limited. Nil discards them.
	Logger *slog.Logger
}

// Gossip is a memberlist behind a guard. All methods may be called from any goroutine and none blocks but Run and Leave.
type Gossip struct{ c Config }

// New returns a Gossip that does nothing until Run.
func New(c Config) (*Gossip, error) { return &Gossip{c}, errors.ErrUnsupported }

// Run gossips until the context ends.
func (g *Gossip) Run(ctx context.Context) error { return nil }

// Receive takes a packet from the member at the other end of the session it came in. The packet is borrowed.
func (g *Gossip) Receive(from keys.NodeID, packet []byte) {}

// SetMembers says who is a member now. Self may be among them.
func (g *Gossip) SetMembers(ids []keys.NodeID) {}

// Reachable sets the function that says whether a member is known to be reachable by better evidence, such as a live
// session. It is called often, from several goroutines, and must not call back.
func (g *Gossip) Reachable(f func(keys.NodeID) bool) {}

// Alive says whether a member is thought to be alive. It is a hint.
func (g *Gossip) Alive(id keys.NodeID) bool { return false }

// Changed yields after hints have changed.
func (g *Gossip) Changed() <-chan struct{} { return nil }

// Leave says goodbye to the others. Run still has to be ended.
func (g *Gossip) Leave() {}
