package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// group is of link-local scope (RFC 4291, 2.7), with "mesh" in it.
var group = net.ParseIP("ff02::6d65:7368")

// sockets are one for each family.
type sockets struct {
	links []net.Interface
	conns []net.PacketConn
	v4    *ipv4.PacketConn
	v6    *ipv6.PacketConn
}

// open opens both, at a port or at any. The one at a port listens to the group.
func open(links []net.Interface, at int) (*sockets, error) {
	s := &sockets{links: links}
	var lc net.ListenConfig
	c4, err4 := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf(":%d", at))
	if err4 == nil {
		s.conns, s.v4 = append(s.conns, c4), ipv4.NewPacketConn(c4)
	}
	c6, err6 := lc.ListenPacket(context.Background(), "udp6", fmt.Sprintf(":%d", at))
	if err6 == nil {
		s.conns, s.v6 = append(s.conns, c6), ipv6.NewPacketConn(c6)
	}
	if len(s.conns) == 0 {
		return nil, errors.Join(err4, err6)
	}
	if at == 0 || s.v6 == nil {
		return s, nil
	}
	for _, link := range links {
		if err := s.v6.JoinGroup(&link, &net.UDPAddr{IP: group}); err != nil {
			s.Close()
			return nil, fmt.Errorf("join %v on %s: %w", group, link.Name, err)
		}
	}
	return s, nil
}

// Close ends receive.
func (s *sockets) Close() {
	for _, c := range s.conns {
		_ = c.Close() // nothing to be lost
	}
}

// askAll sends to everybody on every interface. One that has no address of a family does not send by it.
func (s *sockets) askAll(b []byte) {
	for _, link := range s.links {
		if s.v4 != nil {
			_, _ = s.v4.WriteTo(b, &ipv4.ControlMessage{IfIndex: link.Index}, &net.UDPAddr{IP: net.IPv4bcast, Port: port})
		}
		if s.v6 != nil {
			_, _ = s.v6.WriteTo(b, &ipv6.ControlMessage{IfIndex: link.Index}, &net.UDPAddr{IP: group, Zone: link.Name, Port: port})
		}
	}
}

// receive hands on what comes, one datagram at a time, until the sockets are closed.
func (s *sockets) receive(take func(b []byte, from net.Addr, answer func([]byte) error)) error {
	var mu sync.Mutex
	var group sync.WaitGroup
	errs := make([]error, len(s.conns))
	for i, c := range s.conns {
		group.Go(func() {
			buf := make([]byte, 1500)
			for {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						errs[i] = err
					}
					return
				}
				mu.Lock()
				take(buf[:n], from, func(b []byte) error { _, err := c.WriteTo(b, from); return err })
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}
