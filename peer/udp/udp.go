package udp

import "net/netip"

// Packet is a run of UDP datagrams that share one remote address.
//
// Data holds them back to back. Each is Seg bytes long but for the last, which
// may be shorter; Seg of 0, or of at least len(Data), means a single datagram.
// This is the shape of UDP_GRO on receive and of UDP_SEGMENT on send (Linux
// udp(7)), so that a batch needs one system call and no copy.
type Packet struct {
	Addr netip.AddrPort // the source when received, the destination when sent; IPv4 is never IPv4-mapped
	Data []byte
	Seg  int // bytes in each datagram
}

// Conn is a UDP socket, or the in-memory twin of one (udptest).
//
// One goroutine calls Receive; any number may call Send.
type Conn interface {
	// Receive blocks until at least one packet is there and fills pkts from the
	// front. The Data that it puts there is valid, and may be written to, until
	// the next call of Receive. It returns net.ErrClosed after Close; errors
	// that the socket survives (ICMP errors, a full queue) are never returned.
	Receive(pkts []Packet) (n int, err error)

	// Send transmits pkts in order. A packet that cannot be sent does not keep
	// the others back; the first error is returned after all were tried.
	// EMSGSIZE means that a datagram is larger than the path or interface.
	Send(pkts []Packet) error

	// LocalAddr is the address the socket is bound to.
	LocalAddr() netip.AddrPort

	Close() error
}

// Server is a Conn that hands over what it receives, from within its wait for more: one system call less each time that there
// is no more.
type Server interface {
	// Serve calls handle with what it has put into pkts, which is valid until handle returns. It returns as Receive does.
	Serve(pkts []Packet, handle func([]Packet)) error
}
