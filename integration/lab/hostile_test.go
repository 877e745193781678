//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestHairpin sends between hosts behind one NAT at their outer addresses, and a neighbour must see the outer address.
func TestHairpin(t *testing.T) {
	for _, nat := range []NAT{Home, AddressRestricted, FullCone} {
		for _, hairpin := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/%v", nat, hairpin), func(t *testing.T) {
				l := newLab(t)
				n := l.Internet("isp")
				server := listen(t, n.Host("server", HostConfig{}), 4000)
				site := n.Site("site", SiteConfig{NAT: nat, Hairpin: hairpin})
				a, b, c := listen(t, site.Host("a"), 5000), listen(t, site.Host("b"), 5000), listen(t, site.Host("c"), 5000)
				atA, atB := server.seen(t, a), server.seen(t, b)
				a.send(t, atB, "by the outer address")
				if !hairpin {
					a.send(t, b.addr, "by the inner address")
					b.expect(t, "by the inner address")
					return
				}
				text, from, err := b.receive(5 * time.Second)
				if err != nil || text != "by the outer address" || from != atA {
					t.Fatalf("received %q from %v (%v), want it from %v", text, from, err, atA)
				}
				b.send(t, from, "answer")
				a.expect(t, "answer")
				// One that has had no mapping gets one, and keeps it.
				c.send(t, atB, "new")
				text, atC, err := b.receive(5 * time.Second)
				if err != nil || text != "new" {
					t.Fatalf("received %q (%v)", text, err)
				}
				if got := server.seen(t, c); got != atC {
					t.Errorf("a neighbour sees %v, the internet %v", atC, got)
				}
			})
		}
	}
}

// TestCustomers shows what customers of one carrier can do: all have one public address; they reach each other there when the
// carrier can turn a hairpin.
func TestCustomers(t *testing.T) {
	for _, hairpin := range []bool{false, true} {
		t.Run(fmt.Sprint(hairpin), func(t *testing.T) {
			l := newLab(t)
			n := l.Internet("isp")
			servers := [2]*Host{n.Host("s1", HostConfig{}), n.Host("s2", HostConfig{})}
			carrier := n.Site("carrier", SiteConfig{V4: true, NAT: Home, Carrier: true, Hairpin: hairpin})
			x, y := carrier.Customer("x", SiteConfig{NAT: Home}), carrier.Customer("y", SiteConfig{NAT: Home})
			hx, hy := x.Host("hx"), y.Host("hy")
			if got, want := probe(t, hx, servers), (behaviour{mapping: 1, filtering: 3}); got != want {
				t.Errorf("behaves as %+v, want %+v", got, want)
			}
			server := listen(t, servers[0], 4100)
			a, b := listen(t, hx, 5100), listen(t, hy, 5100)
			atA, atB := server.seen(t, a), server.seen(t, b)
			if atA.Addr() != atB.Addr() || atA.Addr() != x.Public() || atA.Addr() != carrier.Public() {
				t.Fatalf("seen as %v and %v, public %v and %v", atA, atB, x.Public(), carrier.Public())
			}
			a.send(t, atB, "punch") // both must: the inner NATs filter
			b.send(t, atA, "punch")
			if hairpin {
				a.expect(t, "punch")
				a.send(t, atB, "answer")
				b.expectOne(t, "answer", "punch")
				return
			}
			server.send(t, atA, "from outside")
			server.send(t, atB, "from outside")
			a.expect(t, "from outside")
			b.expect(t, "from outside")
		})
	}
}

// expectOne takes datagrams until one says this, and allows for others before it.
func (e *endpoint) expectOne(t *testing.T, want string, others ...string) {
	t.Helper()
	for range len(others) + 1 {
		if got, _, err := e.receive(5 * time.Second); err != nil {
			t.Fatalf("%v received %q (%v), want %q", e.addr, got, err, want)
		} else if got == want {
			return
		}
	}
	t.Fatalf("%v did not receive %q", e.addr, want)
}

// TestAccepts shows the trap: who comes before he is called takes the port.
func TestAccepts(t *testing.T) {
	for _, accepts := range []bool{false, true} {
		t.Run(fmt.Sprint(accepts), func(t *testing.T) {
			l := newLab(t)
			n := l.Internet("isp")
			server := n.Host("server", HostConfig{})
			first, second := listen(t, server, 4000), listen(t, server, 4001)
			c := listen(t, n.Site("site", SiteConfig{NAT: HomePortKept, Accepts: accepts}).Host("host"), 5000)
			at := first.seen(t, c)
			second.send(t, at, "unasked")
			first.send(t, at, "asked") // on the same way, so that the other has come before
			c.expect(t, "asked")
			if moved := second.seen(t, c) != at; moved != accepts {
				t.Errorf("accepts: %v, port moved: %v", accepts, moved)
			}
		})
	}
}

func TestOnlyTCP(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	server := n.Host("server", HostConfig{})
	n.SetName("server.example", server.Addrs()...)
	udp := listen(t, server, 443)
	host := n.Site("hotel", SiteConfig{NAT: Home, OnlyTCP: 443}).Host("host")
	client := listen(t, host, 5000)
	client.send(t, udp.addr, "lost")
	for port, open := range map[uint16]bool{443: true, 80: false} {
		echo, err := server.Echo(netip.AddrPortFrom(server.Addr4(), port))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), map[bool]time.Duration{true: 5 * time.Second, false: 300 * time.Millisecond}[open])
		defer cancel()
		stream, err := host.Stream(ctx, echo.Addr())
		if err == nil {
			err = stream.Alive(ctx)
		}
		if (err == nil) != open {
			t.Errorf("port %d: %v", port, err)
		}
	}
	if out, err := host.Command(t.Context(), "getent", "hosts", "server.example").CombinedOutput(); err != nil {
		t.Errorf("names do not resolve: %v %s", err, out)
	}
	if text, from, err := udp.receive(50 * time.Millisecond); err == nil {
		t.Errorf("%q came from %v", text, from)
	}
}

// TestUDPTimeout lets a flow be silent for longer than the router remembers it.
func TestUDPTimeout(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a few seconds")
	}
	const memory = 2 * time.Second
	l := newLab(t)
	n := l.Internet("isp")
	server := listen(t, n.Host("server", HostConfig{}), 4000)
	site := n.Site("site", SiteConfig{NAT: Home, UDPTimeout: memory})
	kept, forgotten := listen(t, site.Host("a"), 5000), listen(t, site.Host("b"), 5000)
	atKept, atForgotten := server.seen(t, kept), server.seen(t, forgotten)
	for end := time.Now().Add(2*memory + time.Second); time.Now().Before(end); time.Sleep(memory / 8) {
		if got := server.seen(t, kept); got != atKept {
			t.Fatalf("seen as %v, then %v", atKept, got)
		}
	}
	server.send(t, atForgotten, "too late")
	if got := server.seen(t, forgotten); got == atForgotten {
		t.Errorf("still seen as %v", got)
	}
	server.send(t, atKept, "in time")
	kept.expect(t, "in time")
	if text, from, err := forgotten.receive(50 * time.Millisecond); err == nil {
		t.Errorf("%q came from %v", text, from)
	}
}

func TestFlows(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	server := listen(t, n.Host("server", HostConfig{}), 4000)
	mobile := listen(t, n.Site("mobile", SiteConfig{V4: true, NAT: CGNAT, Link: Link{Delay: time.Millisecond}}).Host("phone"), 4000)
	home := listen(t, n.Site("home", SiteConfig{V4: true, NAT: Home}).Host("pc"), 4000)
	for _, want := range []uint64{2, 1} {
		if err := n.CountFlows(); err != nil {
			t.Fatal(err)
		}
		for range want {
			server.seen(t, mobile)
			server.send(t, server.seen(t, home), "answer")
			home.expect(t, "answer")
		}
		flows, err := n.Flows()
		if err != nil {
			t.Fatal(err)
		}
		for f, packets := range map[Flow]uint64{{"mobile", "server"}: want, {"home", "server"}: want, {"server", "home"}: want, {"server", "mobile"}: 0, {"home", "mobile"}: 0} {
			if got := flows[f]; got.Packets != packets {
				t.Errorf("%v: %d packets, want %d", f, got.Packets, packets)
			}
		}
	}
}

func TestLose(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	host := n.Host("b", HostConfig{})
	a, b := listen(t, n.Host("a", HostConfig{}), 4000), listen(t, host, 4000)
	sent := []string{"short", "longer than that", "data", "xdata"}
	tests := []struct {
		name string
		loss []Loss
		want []string
	}{
		{"none", nil, sent},
		{"all", []Loss{{}}, nil},
		{"longer", []Loss{{Longer: 5}}, []string{"short", "data", "xdata"}},
		{"bytes", []Loss{{Payload: []PayloadByte{{1, 'a'}, {0, 'd'}}}}, []string{"short", "longer than that", "xdata"}},
		{"bytes and length", []Loss{{Longer: 4, Payload: []PayloadByte{{0, 'd'}}}}, sent},
		{"from there", []Loss{{From: a.addr.Addr()}}, nil},
		{"from elsewhere", []Loss{{From: b.addr.Addr()}}, sent},
		{"from there, and longer", []Loss{{From: a.addr.Addr(), Longer: 5}}, []string{"short", "data", "xdata"}},
		{"either", []Loss{{Longer: 5}, {Payload: []PayloadByte{{4, 't'}}}}, []string{"data", "xdata"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := host.Lose(test.loss...); err != nil {
				t.Fatal(err)
			}
			for _, text := range sent {
				a.send(t, b.addr, text)
			}
			if err := host.Lose(); err != nil {
				t.Fatal(err)
			}
			a.send(t, b.addr, "end")
			for _, want := range append(test.want, "end") {
				b.expect(t, want)
			}
		})
	}
	if err := host.Lose(Loss{Percent: 30}); err != nil {
		t.Fatal(err)
	}
	if err := b.conn.SetReadBuffer(2 << 20); err != nil { // all of them
		t.Fatal(err)
	}
	const count = 1000
	for range count {
		a.send(t, b.addr, "x")
	}
	if err := host.Lose(); err != nil {
		t.Fatal(err)
	}
	a.send(t, b.addr, "end")
	got := 0
	for text := ""; text != "end"; got++ {
		var err error
		if text, _, err = b.receive(5 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if got < 600 || got > 800 {
		t.Errorf("%d of %d arrive, want 70 %%", got, count)
	}
}

func TestSpoof(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	attacker, victim := n.Host("attacker", HostConfig{}), listen(t, n.Host("victim", HostConfig{}), 4000)
	claimed := netip.AddrPortFrom(n.Host("other", HostConfig{}).Addr4(), 5000)
	if err := attacker.Spoof(claimed, victim.addr, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if text, from, err := victim.receive(5 * time.Second); err != nil || text != "hello" || from != claimed {
		t.Errorf("received %q from %v (%v), want it from %v", text, from, err, claimed)
	}
}

// TestRetransmissions counts none on a link that loses nothing, and some on one that does.
func TestRetransmissions(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	server, client := n.Host("server", HostConfig{}), n.Host("client", HostConfig{Link: Link{Adjustable: true}})
	echo, err := server.Echo(netip.AddrPortFrom(server.Addr4(), 0))
	if err != nil {
		t.Fatal(err)
	}
	s, err := client.Stream(t.Context(), echo.Addr(), StreamOptions{Interval: time.Millisecond, Size: 1000})
	if err != nil {
		t.Fatal(err)
	}
	retransmitted := func() int {
		t.Helper()
		for range 20 {
			if err := s.Alive(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		n, err := s.Retransmissions()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := retransmitted(); n != 0 {
		t.Errorf("%d retransmissions on a good link", n)
	}
	if err := client.SetLink(Link{Loss: 0.1}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); retransmitted() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no retransmissions on a bad link")
		}
	}
}
