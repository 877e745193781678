package netcheck

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"syscall"
	"time"

	"meshd/nat-traversal"
)

// socket is one of our own, used by one goroutine.
type socket struct {
	*net.UDPConn
	buf  [2048]byte
	fail error // of the last packet that could not be sent
}

func open(ctx context.Context, v6 bool, mark uint32) (*socket, error) {
	network := "udp4"
	if v6 {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { prepare(fd, v6, mark) })
	}}
	conn, err := lc.ListenPacket(ctx, network, ":0")
	if err != nil {
		return nil, err
	}
	return &socket{UDPConn: conn.(*net.UDPConn)}, nil
}

func (s *socket) local() netip.AddrPort { return s.LocalAddr().(*net.UDPAddr).AddrPort() }

func (s *socket) send(to netip.AddrPort, b []byte) {
	if _, err := s.WriteToUDPAddrPort(b, to); err != nil {
		s.fail = err
	}
}

// problem is why packets could not even be sent.
func (s *socket) problem() string {
	if s.fail == nil {
		return ""
	}
	return s.fail.Error()
}

// receive returns the next datagram until a time; the bytes are borrowed.
func (s *socket) receive(ctx context.Context, until time.Time) (from netip.AddrPort, b []byte, ok bool) {
	if d, limited := ctx.Deadline(); limited && d.Before(until) {
		until = d
	}
	for ctx.Err() == nil && time.Now().Before(until) {
		// In short pieces, so that the end of ctx is noticed.
		if s.SetReadDeadline(earlier(until, time.Now().Add(200*time.Millisecond))) != nil {
			return from, nil, false
		}
		n, at, err := s.ReadFromUDPAddrPort(s.buf[:])
		if err == nil {
			return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), s.buf[:n], true
		}
	}
	return from, nil, false
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// ask sends a request up to so many times, until its answer comes.
func (s *socket) ask(ctx context.Context, server netip.AddrPort, req []byte, txid traversal.TxID, times int) (a answer, ok bool) {
	wait := 400 * time.Millisecond
	for range times {
		sent := time.Now()
		s.send(server, req)
		for {
			from, b, got := s.receive(ctx, sent.Add(wait))
			if !got {
				break
			}
			mapped, err := traversal.ParseAnswer(b, txid)
			if err == nil && from == server {
				return answer{server: server, mapped: mapped, rtt: time.Since(sent)}, true
			}
		}
		wait *= 2
	}
	return a, false
}

func newTxID() (id traversal.TxID) {
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return id
}
