//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Transfer is what one TCP connection has carried.
type Transfer struct {
	Bytes           int64 // that the receiver has got
	Took            time.Duration
	Retransmissions int // segments
}

// Rate is in bit/s.
func (t Transfer) Rate() float64 { return float64(8*t.Bytes) / t.Took.Seconds() }

// Transfer sends to another host, which listens at an address and can be reached at one, for so long, as fast as TCP with
// cubic does. What it takes to get going counts: time begins with the connection, and what the receiver has not got at the
// end is not counted.
func (h *Host) Transfer(ctx context.Context, to *Host, at, reached netip.AddrPort, d time.Duration) (got Transfer, err error) {
	fail := func(err error) (Transfer, error) {
		return Transfer{}, fmt.Errorf("lab: transfer from %s to %s: %w", h.name, to.name, err)
	}
	var listener net.Listener
	err = to.Do(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", at.String())
		return err
	})
	if err != nil {
		return fail(err)
	}
	defer listener.Close()
	var conn net.Conn
	err = h.Do(func() (err error) {
		// One address and no name: the dialer does not need goroutines, which would be outside.
		conn, err = (&net.Dialer{Control: useCubic}).DialContext(ctx, "tcp", reached.String())
		return err
	})
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	sink, err := listener.Accept()
	if err != nil {
		return fail(err)
	}
	defer sink.Close()
	_ = conn.(*net.TCPConn).SetLinger(0) // what is not sent at the end is not sent
	began := time.Now()
	end := began.Add(d)
	if err := errors.Join(conn.SetWriteDeadline(end), sink.SetReadDeadline(end)); err != nil {
		return fail(err)
	}
	sent := make(chan error, 1)
	go func() {
		block := make([]byte, 64<<10)
		for {
			if _, err := conn.Write(block); err != nil {
				sent <- err
				return
			}
		}
	}()
	got.Bytes, err = io.Copy(io.Discard, sink)
	got.Took = time.Since(began)
	for _, err := range []error{err, <-sent} {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return fail(fmt.Errorf("it ended after %v: %w", got.Took, err))
		}
	}
	got.Retransmissions, err = retransmissions(conn)
	return got, err
}

// useCubic has a socket use cubic, if the kernel has it: what some systems use as a rule hides loss, as on [end.setRoute].
func useCubic(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic")
	})
}

// PassOn has the kernel of a host pass TCP connections to one of its ports on to another host, as a router does: packets
// come in and go out by the same link.
func (h *Host) PassOn(at uint16, to netip.Addr) error {
	return h.lab.change(fmt.Sprintf("pass port %d of %s on", at, h.name), func() error {
		if err := h.ns.sysctl(map[string]string{"ipv4/ip_forward": "1"}); err != nil {
			return err
		}
		return flush(h.ns.fd, func(b *batch) {
			t := b.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: natTable})
			target := []expr.Any{&expr.Immediate{Register: reg1, Data: to.AsSlice()}}
			pre := b.base(t, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100, false)
			b.rule(pre, proto(unix.IPPROTO_TCP), port(dstPort, at, expr.CmpOpEq), target, []expr.Any{
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1},
			})
			post := b.base(t, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100, false)
			b.rule(post, proto(unix.IPPROTO_TCP), port(dstPort, at, expr.CmpOpEq), ctDNAT(), []expr.Any{&expr.Masq{}})
		})
	})
}
