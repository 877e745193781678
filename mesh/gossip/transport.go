package gossip

import (
	"encoding/binary"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/keys"
)

// port is the port of every synthetic address. No packet ever goes there.
const port = 7946

// incoming bounds the packets that wait for memberlist.
const incoming = 256

var errNoStreams = errors.New("gossip has no streams")

// syntheticAddr is what memberlist takes for a member's address: in fd00::/8, from its id. Packets are sent by name.
func syntheticAddr(id keys.NodeID) [16]byte {
	var a [16]byte
	a[0] = 0xfd
	copy(a[1:], id[:])
	return a
}

// ownVersions is what memberlist says of its protocol: least, greatest, in use; and the same for delegates, of which we
// have none.
func ownVersions() []byte {
	return []byte{memberlist.ProtocolVersionMin, memberlist.ProtocolVersionMax, memberlist.ProtocolVersion2Compatible, 0, 0, 0}
}

// acceptVersions accepts ours and those of later memberlists that still speak our version.
func acceptVersions(v []byte) bool {
	return len(v) == 6 && v[0] == 1 && v[1] >= 4 && v[1] <= 16 && v[2] == memberlist.ProtocolVersion2Compatible &&
		binary.BigEndian.Uint16(v[3:]) == 0 && v[5] == 0
}

// transport is memberlist's way to the world: packets by name, no streams.
type transport struct {
	g       *Gossip
	packets chan *memberlist.Packet
	streams chan net.Conn // never yields
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(g *Gossip) *transport {
	return &transport{g: g, packets: make(chan *memberlist.Packet, incoming), streams: make(chan net.Conn)}
}

// FinalAdvertiseAddr returns the synthetic address.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	a := syntheticAddr(t.g.config.Self)
	return a[:], port, nil
}

// WriteTo is not used: RequireNodeNames is set.
func (t *transport) WriteTo([]byte, string) (time.Time, error) {
	return time.Time{}, errors.New("gossip sends by name only")
}

// WriteToAddress sends to the member that a.Name names; the address is ignored. A packet for anyone else is dropped.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	now := time.Now()
	t.g.send(a.Name, b, now)
	return now, nil
}

// PacketCh yields what the guard has admitted.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout fails: there are no streams.
func (t *transport) DialTimeout(string, time.Duration) (net.Conn, error) { return nil, errNoStreams }

// DialAddressTimeout fails: there are no streams.
func (t *transport) DialAddressTimeout(memberlist.Address, time.Duration) (net.Conn, error) {
	return nil, errNoStreams
}

// StreamCh never yields.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown has nothing to close: the session below belongs to others.
func (t *transport) Shutdown() error { return nil }

// address is a member as the source of a packet, for memberlist's logs.
type address string

func (a address) Network() string { return "meshd" }
func (a address) String() string  { return string(a) }
