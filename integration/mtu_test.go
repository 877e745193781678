//go:build linux

package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshd/integration/lab"
)

// smallMember is a member on a small underlay: with IPv4 behind a home router whose uplink is small, with IPv6 by a small
// link of its own.
type smallMember struct {
	at    lab.Customer
	mtu   int
	want  int // path_mtu: the largest of the sizes that meshd tries (peer/path/mtu.go) that passes
	later int // its MTU under way; 0: it stays
	node  *lab.Node
	addr4 netip.Addr // on the segment
	seen  *lab.Capture
}

// TestSmallUnderlay has members reach a home over small underlays, where routers say that a packet is too big and where
// nobody does: packets of 1500 bytes pass in both directions, TCP carries what it is given, status shows how large packets
// may be, and none of meshd's is broken on the way. Where a path becomes smaller, what it carries goes on soon.
func TestSmallUnderlay(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{true, false} {
		t.Run(map[bool]string{true: "with ICMP", false: "without ICMP"}[told], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			home := w.node(w.net.Host("home", lab.HostConfig{}))
			members := w.smallMembers(told)
			w.must(home.Up())
			w.must(home.Ready(w.within(10 * time.Second)))
			invite := w.invite(home, "--uses", strconv.Itoa(len(members)))
			nodes := []*lab.Node{home}
			for _, m := range members {
				w.must(m.node.UpWithInput(strings.NewReader(invite+"\n"), "--join", "-"))
				nodes = append(nodes, m.node)
			}
			w.all(nodes, func(n *lab.Node) error { return n.Ready(w.within(20 * time.Second)) })
			addr4 := netip.MustParseAddr("10.9.0.1")
			w.giveIPv4(home, addr4)
			for _, m := range members {
				m.addr4 = addr4.Next()
				addr4 = m.addr4
				w.giveIPv4(m.node, m.addr4)
			}
			atHome, err := home.Host.Capture("eth0")
			w.must(err)
			echo, err := home.Host.Echo(netip.AddrPortFrom(w.addr(home), 0))
			w.must(err)
			t.Run("members", func(t *testing.T) {
				for _, m := range members {
					t.Run(m.node.Host.Name(), func(t *testing.T) {
						t.Parallel()
						m.check(w.under(t), home, echo)
					})
				}
			})
			for _, m := range members { // later, when nothing larger is tried any more
				m.waitPathMTU(w, home, m.last())
				w.unbroken(m.node.Host, m.seen)
			}
			w.unbroken(home.Host, atHome)
		})
	}
}

// smallMembers are those of the test; nothing runs yet.
func (w *world) smallMembers(told bool) (members []*smallMember) {
	w.Helper()
	add := func(h *lab.Host, at lab.Customer, m smallMember) {
		var err error
		m.at, m.node = at, w.node(h)
		m.seen, err = h.Capture("eth0")
		w.must(err)
		members = append(members, &m)
	}
	for _, m := range []smallMember{
		{mtu: 1500, want: 1500, later: 1300}, {mtu: 1492, want: 1492}, {mtu: 1300, want: 1280}, {mtu: 1280, want: 1280},
	} {
		link := lab.Link{MTU: m.mtu}
		site := w.net.Site(fmt.Sprintf("site-%d", m.mtu), lab.SiteConfig{NAT: lab.Home, V4: true, Link: link})
		add(site.Host(fmt.Sprintf("v4-%d", m.mtu)), site, m)
		host := w.net.Host(fmt.Sprintf("v6-%d", m.mtu), lab.HostConfig{V6: true, Link: link})
		add(host, host, m)
		if !told {
			w.nft(site, "add table inet quiet\nadd chain inet quiet out { type filter hook output priority 0; }\n"+
				"add rule inet quiet out icmp type destination-unreachable drop")
		}
	}
	if !told {
		w.must(w.net.DropTooBig())
	}
	return members
}

// check holds one member to what the test is about.
func (m *smallMember) check(w *world, home *lab.Node, echo *lab.Echo) {
	w.Helper()
	w.waitDirect(m.node, "home")
	crosses := func() {
		w.Helper()
		w.pingWhole(m.node, netip.MustParseAddr("10.9.0.1"), w.addr(home))
		w.pingWhole(home, m.addr4, w.addr(m.node))
		w.must(carry(m.node.Host, echo, 2<<20))
	}
	crosses() // also while it is not known yet how much passes
	m.waitPathMTU(w, home, m.want)
	crosses()
	m.waitPathMTU(w, home, m.want) // it has not changed
	if m.later != 0 {
		m.shrink(w, echo)
		m.waitPathMTU(w, home, m.last())
		crosses()
	}
}

// last is what path_mtu must be in the end.
func (m *smallMember) last() int {
	if m.later != 0 {
		return 1280
	}
	return m.want
}

// shrink makes the path smaller while a connection is in use, and nobody says so.
func (m *smallMember) shrink(w *world, echo *lab.Echo) {
	w.Helper()
	const soon = 10 * time.Second
	s, err := m.node.Host.Stream(w.Context(), echo.Addr(), lab.StreamOptions{Size: 16 << 10})
	w.must(err)
	defer s.Close()
	w.must(s.Alive(w.within(5 * time.Second)))
	w.must(w.net.SetMTU(m.at, m.later))
	start := time.Now()
	w.must(s.Alive(w.within(soon)))
	w.Logf("%d bytes in place of %d: the connection goes on after %v", m.later, m.mtu, round(time.Since(start)))
}

// waitPathMTU waits until the member and home see each other over a path for packets of so many bytes.
func (m *smallMember) waitPathMTU(w *world, home *lab.Node, want int) {
	w.Helper()
	for _, pair := range [][2]*lab.Node{{m.node, home}, {home, m.node}} {
		from, to := pair[0], pair[1].Host.Name()
		w.eventually(20*time.Second, fmt.Sprintf("%s sees a path of %d bytes to %s", from.Host.Name(), want, to), func() error {
			for _, p := range w.status(from).Peers {
				if p.Name == to && p.State == "direct" && p.PathMTU == want {
					return nil
				}
			}
			return fmt.Errorf("%+v", w.status(from).Peers)
		})
	}
}

// carry sends so many bytes by TCP, and wants the same ones back.
func carry(from *lab.Host, echo *lab.Echo, size int) error {
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", echo.Addr().String(), 10*time.Second)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", from.Name(), err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		if err == nil {
			err = c.(*net.TCPConn).CloseWrite()
		}
		sent <- err
	}()
	back, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("%s: %d of %d bytes are back: %w", from.Name(), len(back), size, err)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("%s: %w", from.Name(), err)
	}
	if !bytes.Equal(back, data) {
		return fmt.Errorf("%s: the %d bytes that are back are not the %d that were sent", from.Name(), len(back), size)
	}
	return nil
}

// unbroken wants no fragment among the packets of a host, and none of UDP that a router might break.
func (w *world) unbroken(h *lab.Host, c *lab.Capture) {
	w.Helper()
	const dontFragment, inPieces = 0x4000, 0x3fff // of IPv4's flags and offset
	packets := 0
	for _, f := range c.Frames() {
		if len(f.Data) < 14+20 {
			continue
		}
		p, broken := f.Data[14:], false
		switch binary.BigEndian.Uint16(f.Data[12:]) {
		case unix.ETH_P_IP:
			word := binary.BigEndian.Uint16(p[6:])
			broken = word&inPieces != 0 || p[9] == unix.IPPROTO_UDP && word&dontFragment == 0
		case unix.ETH_P_IPV6:
			broken = p[6] == unix.IPPROTO_FRAGMENT
		default:
			continue
		}
		if packets++; broken {
			w.Errorf("%s: a packet that is a fragment, or may become some (sent by it: %v): %x", h.Name(), f.Out, p[:20])
			return
		}
	}
	if packets == 0 || c.Lost() > 0 {
		w.Errorf("%s: %d packets were seen, and %d more not kept", h.Name(), packets, c.Lost())
	}
}
