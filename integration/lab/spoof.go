//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Spoof sends a UDP datagram over IPv4 with a source that need not be the host's. The lab's routers on the internet do
// not check sources (they are providers without BCP 38).
func (h *Host) Spoof(from, to netip.AddrPort, payload []byte) error {
	if !from.Addr().Is4() || !to.Addr().Is4() || len(payload) > 1472 {
		return errors.New("lab: spoof: IPv4 only, and no more than a frame")
	}
	return h.Do(func() error {
		conn, err := new(net.ListenConfig).ListenPacket(context.Background(), "ip4:udp", "0.0.0.0")
		if err != nil {
			return fmt.Errorf("lab: spoof: %w", err)
		}
		defer conn.Close()
		raw, err := ipv4.NewRawConn(conn)
		if err != nil {
			return fmt.Errorf("lab: spoof: %w", err)
		}
		datagram := binary.BigEndian.AppendUint16(nil, from.Port())
		datagram = binary.BigEndian.AppendUint16(datagram, to.Port())
		datagram = binary.BigEndian.AppendUint16(datagram, uint16(udpHeader+len(payload)))
		datagram = append(datagram, 0, 0) // no checksum
		datagram = append(datagram, payload...)
		header := &ipv4.Header{
			Version: ipv4.Version, Len: ipv4.HeaderLen, TotalLen: ipv4.HeaderLen + len(datagram), TTL: 64,
			Protocol: unix.IPPROTO_UDP, Src: from.Addr().AsSlice(), Dst: to.Addr().AsSlice(),
		}
		if err := raw.WriteTo(header, datagram, nil); err != nil {
			return fmt.Errorf("lab: spoof: %w", err)
		}
		return nil
	})
}
