package udp

import (
	"errors"
	"net/netip"
)

// Socket is the Conn of this system.
type Socket struct{}

func listen(addr netip.AddrPort, opts Options) (*Socket, error) {
	return nil, errors.ErrUnsupported
}

// Receive implements Conn.
func (s *Socket) Receive(pkts []Packet) (n int, err error) { return 0, errors.ErrUnsupported }

// Send implements Conn.
func (s *Socket) Send(pkts []Packet) error { return errors.ErrUnsupported }

// LocalAddr implements Conn.
func (s *Socket) LocalAddr() netip.AddrPort { return netip.AddrPort{} }

// Status says what the socket got of what it asked for.
func (s *Socket) Status() Status { return Status{} }

// Buffers is the size in bytes of the socket's receive and send buffers.
func (s *Socket) Buffers() (rcv, snd int) { return 0, 0 }

// Close implements Conn.
func (s *Socket) Close() error { return nil }
