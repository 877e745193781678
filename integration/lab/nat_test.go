//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// behaviour is what a probe sees of a NAT, in the terms of RFC 4787: 1 independent of the endpoint, 2 address-dependent,
// 3 address- and port-dependent.
type behaviour struct {
	mapping, filtering int
	portKept           bool
	private            bool // the host's own address is seen
}

func TestNATKinds(t *testing.T) {
	tests := []struct {
		nat  NAT
		want behaviour
	}{
		{None, behaviour{mapping: 1, filtering: 1, portKept: true, private: true}},
		{Home, behaviour{mapping: 1, filtering: 3}},
		{HomePortKept, behaviour{mapping: 1, filtering: 3, portKept: true}},
		{FullCone, behaviour{mapping: 1, filtering: 1}},
		{AddressRestricted, behaviour{mapping: 1, filtering: 2}},
		{Symmetric, behaviour{mapping: 3, filtering: 3}},
		{CGNAT, behaviour{mapping: 1, filtering: 3}},
	}
	l := newLab(t)
	n := l.Internet("isp")
	servers := [2]*Host{n.Host("s1", HostConfig{}), n.Host("s2", HostConfig{})}
	for _, test := range tests {
		t.Run(test.nat.String(), func(t *testing.T) {
			site := n.Site(test.nat.String(), SiteConfig{NAT: test.nat})
			host := site.Host("host-" + test.nat.String())
			got := probe(t, host, servers)
			if got != test.want {
				t.Errorf("the NAT behaves as %+v, want %+v", got, test.want)
			}
		})
	}
}

// TestNATIsPrivate shows that one site's hosts are mapped apart, also with the same inner port.
func TestNATTwoHostsOnePort(t *testing.T) {
	for _, nat := range []NAT{Home, HomePortKept, FullCone, Symmetric} {
		t.Run(nat.String(), func(t *testing.T) {
			l := newLab(t)
			n := l.Internet("isp")
			server := listen(t, n.Host("server", HostConfig{}), 4000)
			site := n.Site("site", SiteConfig{NAT: nat})
			a, b := listen(t, site.Host("a"), 5000), listen(t, site.Host("b"), 5000)
			pa, pb := server.seen(t, a), server.seen(t, b)
			if pa == pb {
				t.Fatalf("both are seen as %v", pa)
			}
			server.send(t, pa, "to a")
			server.send(t, pb, "to b")
			a.expect(t, "to a")
			b.expect(t, "to b")
		})
	}
}

func TestFirewallV6(t *testing.T) {
	for _, open := range []bool{false, true} {
		t.Run(fmt.Sprintf("open=%v", open), func(t *testing.T) {
			l := newLab(t)
			n := l.Internet("isp")
			remote := n.Host("server", HostConfig{V6: true})
			other := listen(t, remote, 4001)
			server := listen(t, remote, 4000)
			host := listen(t, n.Site("site", SiteConfig{V6: true, OpenV6: open}).Host("host"), 5000)
			if got := server.seen(t, host); got != host.addr {
				t.Fatalf("seen as %v, is %v", got, host.addr)
			}
			other.send(t, host.addr, "unsolicited")
			server.send(t, host.addr, "answer")
			if open {
				host.expect(t, "unsolicited")
			}
			host.expect(t, "answer")
		})
	}
}

func TestBlockUDP(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	server := n.Host("server", HostConfig{})
	n.SetName("server.example", server.Addrs()...)
	udp := listen(t, server, 4000)
	echo, err := server.Echo(netip.AddrPortFrom(server.Addr4(), 4000))
	if err != nil {
		t.Fatal(err)
	}
	site := n.Site("hotel", SiteConfig{NAT: Home, BlockUDP: true})
	host := site.Host("host")
	client := listen(t, host, 5000)
	client.send(t, udp.addr, "lost")
	stream, err := host.Stream(t.Context(), echo.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Alive(t.Context()); err != nil {
		t.Error(err)
	}
	if out, err := host.Command(t.Context(), "getent", "hosts", "server.example").CombinedOutput(); err != nil {
		t.Errorf("names do not resolve: %v %s", err, out)
	}
	if text, from, err := udp.receive(50 * time.Millisecond); err == nil {
		t.Errorf("%q came from %v", text, from)
	}
}

// probe finds out how a NAT behaves, from two addresses and two ports.
func probe(t *testing.T, host *Host, servers [2]*Host) behaviour {
	t.Helper()
	var at [2][2]*endpoint
	for i, s := range servers {
		at[i][0], at[i][1] = listen(t, s, 4000), listen(t, s, 4001)
		defer at[i][0].conn.Close()
		defer at[i][1].conn.Close()
	}
	var b behaviour
	c := listen(t, host, 5000)
	first := at[0][0].seen(t, c)
	b.portKept = first.Port() == c.addr.Port()
	b.private = first.Addr() == c.addr.Addr()
	samePort, otherAddr := at[0][1].seen(t, c), at[1][0].seen(t, c)
	switch {
	case samePort != first:
		b.mapping = 3
	case otherAddr != first:
		b.mapping = 2
	default:
		b.mapping = 1
	}
	fresh := listen(t, host, 5001)
	mapped := at[0][0].seen(t, fresh)
	at[1][0].send(t, mapped, "other address")
	at[0][1].send(t, mapped, "other port")
	at[0][0].send(t, mapped, "answer")
	b.filtering = 3
	for {
		text, _, err := fresh.receive(5 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		switch text {
		case "other address":
			b.filtering = 1
		case "other port":
			b.filtering = min(b.filtering, 2)
		case "answer":
			return b
		}
	}
}

// endpoint is a UDP socket on a host.
type endpoint struct {
	conn *net.UDPConn
	addr netip.AddrPort
}

func listen(t *testing.T, h *Host, port uint16) *endpoint {
	t.Helper()
	addr := h.Addr4()
	if !addr.IsValid() {
		addr = h.Addr6()
	}
	e := &endpoint{addr: netip.AddrPortFrom(addr, port)}
	err := h.Do(func() (err error) {
		e.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(e.addr))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.conn.Close() })
	return e
}

func (e *endpoint) send(t *testing.T, to netip.AddrPort, text string) {
	t.Helper()
	if _, err := e.conn.WriteToUDPAddrPort([]byte(text), to); err != nil {
		t.Fatal(err)
	}
}

func (e *endpoint) receive(wait time.Duration) (string, netip.AddrPort, error) {
	buf := make([]byte, 2000)
	if err := e.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return "", netip.AddrPort{}, err
	}
	n, from, err := e.conn.ReadFromUDPAddrPort(buf)
	return string(buf[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
}

// expect takes the next datagram, which must say this.
func (e *endpoint) expect(t *testing.T, want string) {
	t.Helper()
	got, from, err := e.receive(5 * time.Second)
	if err != nil || got != want {
		t.Fatalf("%v received %q from %v (%v), want %q", e.addr, got, from, err, want)
	}
}

// seen lets c send to e, and returns where it seems to come from.
func (e *endpoint) seen(t *testing.T, c *endpoint) netip.AddrPort {
	t.Helper()
	c.send(t, e.addr, "hello")
	text, from, err := e.receive(5 * time.Second)
	if err != nil || text != "hello" {
		t.Fatalf("%v received %q (%v) from %v", e.addr, text, err, c.addr)
	}
	return from
}

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}
