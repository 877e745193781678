package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	serverPort = 5351 // of PCP and NAT-PMP
	// A question is repeated after 250 ms, doubling (RFC 6886, 3.1): four times,
	// 3.75 s in all. (RFC 6887 would begin with 3 s.)
	firstRepeat = 250 * time.Millisecond
	questions   = 4
)

var errSilent = errors.New("the router does not answer")

// control prepares a socket before it is bound, as net.Dialer's Control does.
type control func(network, address string, c syscall.RawConn) error

// exchange asks a router's port 5351 and hands what comes from there to accept,
// until that takes it: with nil, or with an error other than errNotAnswer.
func exchange(ctx context.Context, r Route, prepare control, question []byte, accept func([]byte) error) error {
	d := net.Dialer{
		LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.Source, 0)),
		Control:   prepare,
	}
	conn, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(r.Gateway, serverPort).String())
	if err != nil {
		return fmt.Errorf("ask the router: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // wakes Read
	defer stop()
	wait := firstRepeat
	for range questions {
		if _, err := conn.Write(question); err != nil {
			return fmt.Errorf("ask the router: %w", err)
		}
		deadline := time.Now().Add(wait)
		if done, err := receive(ctx, conn, deadline, accept); done {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait *= 2
	}
	return errSilent
}

// receive waits until deadline for what accept takes. A router that floods us
// with something else gains nothing: the deadline holds for all of it.
func receive(ctx context.Context, conn net.Conn, deadline time.Time, accept func([]byte) error) (done bool, err error) {
	if err := conn.SetReadDeadline(deadline); err != nil {
		return true, err
	}
	if err := ctx.Err(); err != nil { // whose end may have set an earlier deadline than ours
		return true, err
	}
	buf := make([]byte, pcpMax+1)
	for {
		n, err := conn.Read(buf)
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			return false, nil
		}
		if err != nil { // nobody listens there (ICMP)
			return true, fmt.Errorf("ask the router: %w", err)
		}
		if err := accept(buf[:n]); !errors.Is(err, errNotAnswer) {
			return true, err
		}
	}
}
