package gateway

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/socket"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Link is the uplink as the neighbour proxy sees it: neighbour discovery comes in,
// frames go out. (The kernel's proxy_ndp wants an entry for each address, and one that
// was not heard of before is never found; here the segment is asked.)
type Link struct {
	conn *socket.Conn
	to   unix.SockaddrLinklayer
}

// neighbours lets neighbour solicitations and advertisements through, which no
// extension header may precede (RFC 6980).
func neighbours() ([]bpf.RawInstruction, error) {
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 14 + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMPV6, SkipFalse: 4},
		bpf.LoadAbsolute{Off: 14 + 40, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 135, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 136, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
}

// OpenLink opens an uplink. It needs CAP_NET_RAW.
func OpenLink(u Uplink) (*Link, error) {
	fail := func(err error) (*Link, error) { return nil, fmt.Errorf("listen on uplink %q: %w", u.Name, err) }
	proto := binary.NativeEndian.Uint16([]byte{unix.ETH_P_IPV6 >> 8, unix.ETH_P_IPV6 & 0xff})
	conn, err := socket.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0, "packet", nil) // 0: nothing before the filter is there
	if err != nil {
		return fail(err)
	}
	filter, err := neighbours()
	if err == nil {
		err = conn.SetBPF(filter)
	}
	to := unix.SockaddrLinklayer{Protocol: proto, Ifindex: u.Index}
	if err == nil {
		err = conn.Bind(&to)
	}
	if err == nil {
		raw, e := conn.SyscallConn()
		if err = e; err == nil {
			e = raw.Control(func(fd uintptr) { // solicited-node groups of others
				err = unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
					&unix.PacketMreq{Ifindex: int32(u.Index), Type: unix.PACKET_MR_ALLMULTI})
			})
			if err == nil {
				err = e
			}
		}
	}
	if err != nil {
		conn.Close()
		return fail(err)
	}
	return &Link{conn, to}, nil
}

// Receive waits for neighbour discovery. It ends with an error after Close.
func (l *Link) Receive(ctx context.Context, frame []byte) (int, error) {
	for {
		n, from, err := l.conn.Recvfrom(ctx, frame, 0)
		if err != nil {
			return 0, err
		}
		if sa, ok := from.(*unix.SockaddrLinklayer); ok && sa.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		return n, nil
	}
}

// Send sends a frame.
func (l *Link) Send(frame []byte) error {
	return l.conn.Sendto(context.Background(), frame, 0, &l.to)
}

// Close ends it.
func (l *Link) Close() error { return l.conn.Close() }
