package lan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Port is the UDP port of the groups.
const Port = 51831

// group4 is of the range for local use (RFC 2365), sent with a TTL of 1; group6
// is of link-local scope. The switch never carries them (l2, frame.go).
func group4() netip.Addr { return netip.AddrFrom4([4]byte{239, 255, 51, 83}) }

func group6() netip.Addr { return netip.MustParseAddr("ff02::5183") }

// Conn speaks and listens on the links of this host.
type Conn struct {
	v4 *ipv4.PacketConn // nil: there is no IPv4
	v6 *ipv6.PacketConn

	mu    sync.Mutex
	links []net.Interface
}

// Listen opens the groups' port, which several nodes of one host can share.
func Listen(ctx context.Context) (*Conn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = share(fd) })
		return errors.Join(err, failed)
	}}
	c := new(Conn)
	v4, err4 := lc.ListenPacket(ctx, "udp4", netip.AddrPortFrom(group4(), Port).String())
	if err4 == nil {
		c.v4 = ipv4.NewPacketConn(v4)
		err4 = errors.Join(c.v4.SetMulticastTTL(1), c.v4.SetMulticastLoopback(true))
		_ = c.v4.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true)
	}
	v6, err6 := lc.ListenPacket(ctx, "udp6", netip.AddrPortFrom(netip.IPv6Unspecified(), Port).String())
	if err6 == nil {
		c.v6 = ipv6.NewPacketConn(v6)
		err6 = errors.Join(c.v6.SetMulticastHopLimit(1), c.v6.SetMulticastLoopback(true))
		_ = c.v6.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true)
	}
	if c.v4 == nil && c.v6 == nil {
		return nil, fmt.Errorf("listen on the links: %w", errors.Join(err4, err6))
	}
	return c, nil
}

// Close ends what receives.
func (c *Conn) Close() error {
	var errs []error
	if c.v4 != nil {
		errs = append(errs, c.v4.Close())
	}
	if c.v6 != nil {
		errs = append(errs, c.v6.Close())
	}
	return errors.Join(errs...)
}

// Refresh joins the groups on the links that there are now, but for those that
// exclude names: the mesh's own TAP.
func (c *Conn) Refresh(exclude func(ifname string) bool) error {
	all, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var links []net.Interface
	const want, not = net.FlagUp | net.FlagMulticast, net.FlagLoopback
	for _, l := range all {
		if l.Flags&want != want || l.Flags&not != 0 || exclude(l.Name) {
			continue
		}
		links = append(links, l)
		// Joined already is an error that means nothing.
		if c.v4 != nil {
			_ = c.v4.JoinGroup(&l, &net.UDPAddr{IP: group4().AsSlice()})
		}
		if c.v6 != nil {
			_ = c.v6.JoinGroup(&l, &net.UDPAddr{IP: group6().AsSlice()})
		}
	}
	c.mu.Lock()
	c.links = links
	c.mu.Unlock()
	return nil
}

// Send says something on every link. One that does not take it is passed over.
func (c *Conn) Send(msg []byte) {
	c.mu.Lock()
	links := c.links
	c.mu.Unlock()
	for _, l := range links {
		if c.v4 != nil {
			_, _ = c.v4.WriteTo(msg, &ipv4.ControlMessage{IfIndex: l.Index}, &net.UDPAddr{IP: group4().AsSlice(), Port: Port})
		}
		if c.v6 != nil {
			_, _ = c.v6.WriteTo(msg, &ipv6.ControlMessage{IfIndex: l.Index}, &net.UDPAddr{IP: group6().AsSlice(), Port: Port, Zone: l.Name})
		}
	}
}

// Receive hands what comes to f, from a goroutine for each family, until Close.
// The bytes are borrowed. It returns when both have ended.
func (c *Conn) Receive(f func(from netip.AddrPort, msg []byte)) {
	var group sync.WaitGroup
	var one sync.Mutex // f is called by one at a time
	if c.v4 != nil {
		group.Go(func() {
			pump(&one, f, func(b []byte) (int, int, net.Addr, error) {
				n, cm, from, err := c.v4.ReadFrom(b)
				if cm == nil || !cm.Dst.IsMulticast() { // only what every neighbour could have heard
					return 0, -1, from, err
				}
				return n, cm.IfIndex, from, err
			}, c.listens)
		})
	}
	if c.v6 != nil {
		group.Go(func() {
			pump(&one, f, func(b []byte) (int, int, net.Addr, error) {
				n, cm, from, err := c.v6.ReadFrom(b)
				if cm == nil || !cm.Dst.IsMulticast() {
					return 0, -1, from, err
				}
				return n, cm.IfIndex, from, err
			}, c.listens)
		})
	}
	group.Wait()
}

// listens reports whether a link is one of ours; 0 is one that the system does not tell.
func (c *Conn) listens(link int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if link == 0 {
		return true
	}
	for _, l := range c.links {
		if l.Index == link {
			return true
		}
	}
	return false
}

func pump(one *sync.Mutex, f func(netip.AddrPort, []byte), read func([]byte) (int, int, net.Addr, error), listens func(int) bool) {
	buf := make([]byte, Size+1)
	for {
		n, link, from, err := read(buf)
		if err != nil {
			return
		}
		u, ok := from.(*net.UDPAddr)
		if !ok || !listens(link) {
			continue
		}
		ap := u.AddrPort()
		a := ap.Addr().Unmap()
		if a.Is6() && a.Zone() != "" && link > 0 {
			a = a.WithZone(zone(link, a.Zone()))
		}
		one.Lock()
		f(netip.AddrPortFrom(a, ap.Port()), buf[:n])
		one.Unlock()
	}
}
