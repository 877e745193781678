package udptest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"meshd/peer/udp"
)

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func endpoint(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// inBubble runs a test on an internet in fake time.
func inBubble(t *testing.T, f func(t *testing.T, n *Internet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := NewInternet(1)
		n.LogOnFailure(t)
		f(t, n)
	})
}

// node is a host with a socket, of which everything is read.
type node struct {
	t    *testing.T
	host *Host
	conn udp.Conn
	got  chan message
}

func newNode(t *testing.T, p Place, port uint16, addrs ...string) *node {
	t.Helper()
	var list []netip.Addr
	for _, a := range addrs {
		list = append(list, addr(a))
	}
	return open(t, p.Host(list...), port)
}

func open(t *testing.T, h *Host, port uint16) *node {
	t.Helper()
	c, err := h.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t, h, c, make(chan message, 10000)}
	go func() {
		defer close(n.got)
		pkts := make([]udp.Packet, 4)
		for {
			k, err := c.Receive(pkts)
			if err != nil {
				return
			}
			for _, p := range pkts[:k] {
				for _, m := range split(p) {
					n.got <- m
				}
			}
		}
	}()
	t.Cleanup(func() { _ = c.Close() })
	return n
}

func (n *node) send(to netip.AddrPort, s string) {
	n.t.Helper()
	if err := n.conn.Send([]udp.Packet{{Addr: to, Data: []byte(s)}}); err != nil {
		n.t.Fatalf("send %q to %v: %v", s, to, err)
	}
}

// at is an address of the node with its port.
func (n *node) at() netip.AddrPort {
	return netip.AddrPortFrom(n.host.Addrs()[0], n.conn.LocalAddr().Port())
}

// wants waits for s and returns where it came from.
func (n *node) wants(s string) netip.AddrPort {
	n.t.Helper()
	select {
	case m := <-n.got:
		if string(m.data) != s {
			n.t.Fatalf("%v got %q, want %q", n.host, m.data, s)
		}
		return m.from
	case <-time.After(10 * time.Second):
		n.t.Fatalf("%v did not get %q", n.host, s)
	}
	return netip.AddrPort{}
}

// wantsNothing lets a second pass.
func (n *node) wantsNothing() {
	n.t.Helper()
	select {
	case m := <-n.got:
		n.t.Errorf("%v got %q from %v", n.host, m.data, m.from)
	case <-time.After(time.Second):
	}
}

func TestDelay(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := newNode(t, n, 1, "198.18.0.1"), newNode(t, n, 1, "198.18.0.2")
		a.host.SetLink(Link{Delay: 5 * time.Millisecond}, Link{Delay: 7 * time.Millisecond})
		b.host.SetLink(Link{Delay: 11 * time.Millisecond}, Link{Delay: 13 * time.Millisecond})
		begin := time.Now()
		a.send(b.at(), "ping")
		b.wants("ping")
		if d := time.Since(begin); d != 18*time.Millisecond {
			t.Errorf("there in %v, want 18 ms", d)
		}
		begin = time.Now()
		b.send(a.at(), "pong")
		a.wants("pong")
		if d := time.Since(begin); d != 18*time.Millisecond {
			t.Errorf("back in %v, want 18 ms", d)
		}
	})
}

// count sends n datagrams of size bytes and says how many arrive, how long the
// first and the last take, and how many come out of order.
func count(t *testing.T, a, b *node, n, size int) (arrived int, first, last time.Duration, disorder int) {
	t.Helper()
	begin := time.Now()
	for i := range n {
		a.send(b.at(), fmt.Sprintf("%0*d", size, i))
	}
	prev := ""
	for {
		select {
		case m := <-b.got:
			last = time.Since(begin)
			if arrived++; arrived == 1 {
				first = last
			}
			if string(m.data) < prev {
				disorder++
			}
			prev = string(m.data)
		case <-time.After(30 * time.Second):
			return arrived, first, last, disorder
		}
	}
}

func TestLinks(t *testing.T) {
	for _, c := range []struct {
		name        string
		link        Link
		n, size     int
		least, most int           // that arrive
		first, last time.Duration // at most; 0: any
		disorder    bool
	}{
		{"perfect", Link{}, 1000, 100, 1000, 1000, time.Nanosecond, time.Nanosecond, false},
		{"loss", Link{Loss: 0.1}, 5000, 100, 4350, 4650, 0, 0, false},
		{"total loss", Link{Loss: 1}, 100, 100, 0, 0, 0, 0, false},
		{"duplicates", Link{Duplicate: 0.5}, 1000, 100, 1400, 1600, 0, 0, false},
		{"jitter", Link{Delay: time.Second, Jitter: time.Second}, 1000, 100, 1000, 1000, 1100 * time.Millisecond, 2 * time.Second, true},
		{"rate", Link{Rate: 1e6}, 100, 972, 100, 100, 8 * time.Millisecond, 800 * time.Millisecond, false}, // 1000 bytes with the headers
		{"queue", Link{Rate: 1e6, Queue: 10000}, 100, 972, 10, 10, 8 * time.Millisecond, 80 * time.Millisecond, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *Internet) {
				a, b := newNode(t, n, 1, "198.18.0.1"), newNode(t, n, 1, "198.18.0.2")
				a.host.SetLink(c.link, Link{})
				arrived, first, last, disorder := count(t, a, b, c.n, c.size)
				if arrived < c.least || arrived > c.most {
					t.Errorf("%d of %d arrived, want %d to %d", arrived, c.n, c.least, c.most)
				}
				if c.first > 0 && first > c.first || c.last > 0 && (last > c.last || last < c.last*9/10-time.Nanosecond) {
					t.Errorf("first after %v, last after %v", first, last)
				}
				if disorder > 0 != c.disorder {
					t.Errorf("%d out of order", disorder)
				}
			})
		})
	}
}

func TestMTU(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := newNode(t, n, 1, "198.18.0.1", "2001:db8::1"), newNode(t, n, 1, "198.18.0.2", "2001:db8::2")
		for _, c := range []struct {
			to   string
			head int
		}{{"198.18.0.2:1", 28}, {"[2001:db8::2]:1", 48}} {
			fits := strings.Repeat("x", 1400-c.head)
			a.host.SetLink(Link{MTU: 1400}, Link{})
			a.send(endpoint(c.to), fits)
			b.wants(fits)
			err := a.conn.Send([]udp.Packet{{Addr: endpoint(c.to), Data: []byte(fits + "x")}})
			if !errors.Is(err, syscall.EMSGSIZE) {
				t.Errorf("too large for the own line: %v", err)
			}
			a.host.SetLink(Link{}, Link{})
			b.host.SetLink(Link{}, Link{MTU: 1400})
			a.send(endpoint(c.to), fits+"x") // a black hole: no error
			b.wantsNothing()
			a.send(endpoint(c.to), fits)
			b.wants(fits)
			b.host.SetLink(Link{}, Link{})
		}
	})
}

func TestErrors(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a := newNode(t, n, 1, "198.18.0.1")
		for to, want := range map[string]error{
			"[2001:db8::2]:1": syscall.ENETUNREACH, // no address of this family
			"198.18.0.2:0":    syscall.EINVAL,
		} {
			if err := a.conn.Send([]udp.Packet{{Addr: endpoint(to), Data: []byte("x")}}); !errors.Is(err, want) {
				t.Errorf("send to %s: %v, want %v", to, err, want)
			}
		}
		a.send(endpoint("198.18.0.77:1"), "to nobody")
		a.send(a.at(), "to myself")
		if from := a.wants("to myself"); from != a.at() {
			t.Errorf("from %v", from)
		}
		if _, err := a.host.Listen(1); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("Listen on a port in use: %v", err)
		}
		v4, v6, err := a.host.ListenPort(0)
		if err != nil || v4.LocalAddr().Port() != v6.LocalAddr().Port() {
			t.Fatalf("ListenPort = %v, %v, %v", v4, v6, err)
		}
		if _, _, err := a.host.ListenPort(v4.LocalAddr().Port()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("ListenPort on a port in use: %v", err)
		}
		if err := errors.Join(v4.Close(), v6.Close()); err != nil {
			t.Error(err)
		}
		if _, err := a.host.Listen(v4.LocalAddr().Port()); err != nil {
			t.Errorf("Listen on a port that was closed: %v", err)
		}
		if _, err := v4.Receive(make([]udp.Packet, 1)); err != net.ErrClosed {
			t.Errorf("Receive after Close: %v", err)
		}
	})
}

func TestRoaming(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := newNode(t, n, 1, "198.18.0.1"), newNode(t, n, 1, "198.18.0.2")
		a.host.SetLink(Link{}, Link{Delay: time.Second})
		b.send(endpoint("198.18.0.1:1"), "on its way")
		a.host.SetAddr(addr("198.18.0.9"))
		a.wantsNothing()
		b.send(endpoint("198.18.0.1:1"), "to the old address")
		a.wantsNothing()
		a.send(b.at(), "moved")
		if from := b.wants("moved"); from != endpoint("198.18.0.9:1") {
			t.Errorf("from %v", from)
		}
		a.host.SetAddr()
		if err := a.conn.Send([]udp.Packet{{Addr: b.at(), Data: []byte("x")}}); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("send without an address: %v", err)
		}
		nat := n.NAT(NATConfig{}, addr("203.0.113.1"))
		a.host.Move(nat, addr("192.168.0.2"))
		a.send(b.at(), "behind a NAT")
		from := b.wants("behind a NAT")
		if from.Addr() != addr("203.0.113.1") {
			t.Errorf("from %v", from)
		}
		b.send(from, "back")
		a.wants("back")
	})
}

func TestBlockPartitionInject(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b, c := newNode(t, n, 1, "198.18.0.1"), newNode(t, n, 1, "198.18.0.2"), newNode(t, n, 1, "198.18.0.3")
		heal := n.Partition([]*Host{a.host}, []*Host{b.host})
		a.send(b.at(), "cut")
		b.wantsNothing()
		a.send(c.at(), "c is in no group")
		c.wants("c is in no group")
		heal()
		a.send(b.at(), "healed")
		b.wants("healed")

		var tapped []string
		n.Tap(func(d Datagram) { tapped = append(tapped, string(d.Data)) })
		unblock := n.Block(func(d Datagram) bool {
			if d.From != a.host || d.To != b.host {
				return false
			}
			n.Inject(d.Src, d.Dst, []byte("changed "+string(d.Data)))
			return true
		})
		a.send(b.at(), "on the way")
		if from := b.wants("changed on the way"); from != a.at() {
			t.Errorf("from %v", from)
		}
		unblock()
		a.send(b.at(), "as it is")
		b.wants("as it is")
		if got := strings.Join(tapped, "|"); got != "on the way|changed on the way|as it is" {
			t.Errorf("tapped %s", got)
		}
	})
}

// TestDeterministic: the same seed gives the same story, another one another.
func TestDeterministic(t *testing.T) {
	story := func(seed uint64) (log string) {
		synctest.Test(t, func(t *testing.T) {
			n := NewInternet(seed)
			a, b := newNode(t, n, 1, "198.18.0.1"), newNode(t, n, 1, "198.18.0.2")
			a.host.SetLink(Link{Delay: time.Second, Jitter: time.Second, Loss: 0.3, Duplicate: 0.1}, Link{})
			count(t, a, b, 200, 10)
			log = n.Log()
		})
		return log
	}
	one := story(1)
	if one != story(1) {
		t.Error("the same seed tells another story")
	}
	if one == story(2) {
		t.Error("another seed tells the same story")
	}
}

func TestLog(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		nat := n.NAT(NATConfig{PreservePorts: true}, addr("203.0.113.1"))
		a, b := newNode(t, nat, 1, "192.168.0.2"), newNode(t, n, 1, "198.18.0.2")
		b.host.SetLink(Link{}, Link{Delay: 3 * time.Millisecond})
		a.send(b.at(), "\xd1hello")
		b.wants("\xd1hello")
		a.send(endpoint("198.18.0.2:2"), "\xd2")
		a.wantsNothing()
		log := n.Log()
		for _, want := range []string{
			"0s 192.168.0.2:1 -> 198.18.0.2:1 (then 203.0.113.1:1 -> 198.18.0.2:1) hello 6 B: delivered after 3ms\n",
			"3ms 192.168.0.2:1 -> 198.18.0.2:2 (then 203.0.113.1:1 -> 198.18.0.2:2) probe 1 B: dropped after 3ms: no socket at this port\n",
			"  192.168.0.2:1 -> 198.18.0.2:2 probe: 0 delivered, 1 no socket at this port\n",
		} {
			if !strings.Contains(log, want) {
				t.Errorf("the log does not say %q:\n%s", want, log)
			}
		}
	})
}

// TestRealTime: it also works outside a bubble.
func TestRealTime(t *testing.T) {
	n := NewInternet(1)
	a, b := newNode(t, n, 1, "198.18.0.1"), newNode(t, n, 1, "198.18.0.2")
	a.host.SetLink(Link{Delay: time.Millisecond, Jitter: time.Millisecond}, Link{})
	for i := range 50 {
		a.send(b.at(), fmt.Sprint(i))
		b.wants(fmt.Sprint(i))
	}
}
