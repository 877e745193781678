package udp

import (
	"errors"
	"fmt"
	"net/netip"
)

// Options change how a socket is opened. The zero value is right for a node.
type Options struct {
	Mark        uint32 // SO_MARK on what is sent (Linux), so that a routing rule can tell our packets; 0: none
	BufferBytes int    // size of each socket buffer; 0: DefaultBuffer
	Spare       bool   // one of many that see a few packets each, of 2 KB at most: little memory (Linux)

	// Features that a test, or an operator with a broken driver, turns off.
	NoGRO   bool // receive single datagrams only (UDP_GRO)
	NoGSO   bool // send single datagrams only (UDP_SEGMENT)
	NoBatch bool // one system call for each message (recvmmsg, sendmmsg)
	NoForce bool // no buffer beyond the system's limit (SO_RCVBUFFORCE, SO_SNDBUFFORCE)

	shared bool // another of our sockets has the port
}

// DefaultBuffer holds about 50 ms at 1 Gbit/s. With the usual 208 KB a burst of
// super-packets overflows the queue while the receiver decrypts the one before.
const DefaultBuffer = 7 << 20

func (o Options) bufferBytes() int {
	if o.BufferBytes > 0 {
		return o.BufferBytes
	}
	return DefaultBuffer
}

// Status is what a socket got of what it asked for.
type Status struct {
	RcvBuf, SndBuf int   // bytes granted; the kernel counts its own overhead in them
	GRO, GSO       bool  // segmentation offload on receive, on send
	Batch          bool  // several messages per system call
	MarkErr        error // why Options.Mark could not be set; the socket works without it
}

// Listen opens a UDP socket bound to addr; port 0 picks a free one. An IPv6
// socket takes no IPv4. The Conn is a *Socket.
//
// Fragmentation by IP is off, and what the kernel believes about the path's MTU
// is ignored: Send says EMSGSIZE only for what the interface cannot carry.
func Listen(addr netip.AddrPort, opts Options) (Conn, error) {
	if !addr.Addr().IsValid() {
		return nil, fmt.Errorf("listen udp: no address")
	}
	s, err := listen(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), opts)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// More opens up to n further sockets on the address of one that Listen has opened, where
// the system spreads what comes over all of them (Linux). What one source sends from
// one port comes by one socket, in order, as long as their number does not change.
// There may be fewer.
func More(first Conn, n int, opts Options) []Conn {
	s, ok := first.(*Socket)
	if !ok {
		return nil
	}
	var conns []Conn
	for range n {
		c, err := more(s, opts)
		if err != nil {
			break // one does what several do
		}
		conns = append(conns, c)
	}
	return conns
}

// ListenPort opens one socket for each IP family, both on the same port; port 0
// picks one that is free in both. On a host that has only one of the families
// the other Conn is nil. Both Conns are nil if and only if err is not.
func ListenPort(port uint16, opts Options) (v4, v6 Conn, err error) {
	const tries = 16 // for port 0: the port that one family got may be taken in the other
	for range tries {
		v4, v6, err = listenBoth(port, opts)
		if err == nil || port != 0 || !errors.Is(err, errInUse) {
			break
		}
	}
	return v4, v6, err
}

func listenBoth(port uint16, opts Options) (v4, v6 Conn, err error) {
	v6, err6 := Listen(netip.AddrPortFrom(netip.IPv6Unspecified(), port), opts)
	if err6 != nil && !noFamily(err6) {
		return nil, nil, err6
	}
	if err6 == nil {
		port = v6.LocalAddr().Port()
	}
	v4, err4 := Listen(netip.AddrPortFrom(netip.IPv4Unspecified(), port), opts)
	switch {
	case err4 == nil:
		return v4, v6, nil
	case noFamily(err4) && err6 == nil:
		return nil, v6, nil
	case err6 == nil:
		_ = v6.Close() // never used
	}
	return nil, nil, err4
}

// noFamily reports that the host has no such address family, for example
// because of ipv6.disable=1.
func noFamily(err error) bool {
	return errors.Is(err, errNoFamily) || errors.Is(err, errNoAddress)
}
