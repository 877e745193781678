//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// nameTTL is how long answers are valid, in seconds: names move in a lab.
const nameTTL = 1

// nameServer answers for a network's names, on the core.
type nameServer struct {
	mu      sync.Mutex
	names   map[string][]netip.Addr
	servers []*dns.Server
	group   sync.WaitGroup
}

func serveNames(core *namespace) (*nameServer, error) {
	s := &nameServer{names: make(map[string][]netip.Addr)}
	err := core.do(func() error {
		for _, addr := range []netip.Addr{dns4, dns6} {
			at := netip.AddrPortFrom(addr, 53).String()
			// Addresses of IPv6 are usable at once here: detection of duplicates is off by the address.
			packets, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", at)
			if err != nil {
				return fmt.Errorf("serve names: %w", err)
			}
			s.servers = append(s.servers, &dns.Server{PacketConn: packets, Handler: s})
			streams, err := new(net.ListenConfig).Listen(context.Background(), "tcp", at)
			if err != nil {
				return fmt.Errorf("serve names: %w", err)
			}
			s.servers = append(s.servers, &dns.Server{Listener: streams, Handler: s})
		}
		return nil
	})
	if err != nil {
		for _, server := range s.servers {
			err = errors.Join(err, closeListener(server))
		}
		return nil, err
	}
	for _, server := range s.servers {
		s.group.Go(func() { _ = server.ActivateAndServe() }) // returns when its socket is closed
	}
	return s, nil
}

// Close ends the server and waits for it.
func (s *nameServer) Close() error {
	var err error
	for _, server := range s.servers {
		// Shutdown fails when the server has not got so far yet as to be one; its socket is closed all the same.
		if server.Shutdown() != nil {
			err = errors.Join(err, closeListener(server))
		}
	}
	s.group.Wait()
	return err
}

func closeListener(s *dns.Server) error {
	if s.Listener != nil {
		return s.Listener.Close()
	}
	return s.PacketConn.Close()
}

func (s *nameServer) set(name string, addrs []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name = strings.ToLower(dns.Fqdn(name))
	if len(addrs) == 0 {
		delete(s.names, name)
		return
	}
	s.names[name] = slices.Clone(addrs)
}

// ServeDNS answers one question.
func (s *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(q)
	answer.Authoritative, answer.RecursionAvailable = true, true
	if len(q.Question) == 1 {
		s.answer(answer, q.Question[0])
	} else {
		answer.Rcode = dns.RcodeFormatError
	}
	_ = w.WriteMsg(answer) // who asks will ask again
}

func (s *nameServer) answer(m *dns.Msg, q dns.Question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs, ok := s.names[strings.ToLower(q.Name)]
	if !ok {
		m.Rcode = dns.RcodeNameError
		return
	}
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: nameTTL}
	for _, a := range addrs {
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			m.Answer = append(m.Answer, &dns.A{Hdr: header, A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header, AAAA: a.AsSlice()})
		}
	}
}
