//go:build linux

package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"testing"
	"time"

	"meshd/integration/lab"
	"meshd/l2/l2test/frames"
	"meshd/mesh/meshtest"
	"meshd/peer"
	"meshd/peer/hello"
	"meshd/peer/udp"
)

// thief is a member that sends whatever frames it likes: it has what a node had, and no switch.
type thief struct {
	*world
	mac    net.HardwareAddr
	engine *peer.Engine
	hello  hello.Config
}

func (*thief) Met(*hello.Result, netip.AddrPort) {}
func (*thief) Control(*peer.Remote, []byte)      {}
func (*thief) STUN(netip.AddrPort, []byte)       {}
func (*thief) Changed(*peer.Remote)              {}

// turn makes a thief of a node, which it ends.
func (w *world) turn(n *lab.Node) *thief {
	w.Helper()
	th := &thief{world: w, mac: w.macOfLink(n.Host, "mesh0")}
	w.must(n.Terminate())
	var err error
	th.hello, err = meshtest.Turned(n.State)
	w.must(err)
	var v4, v6 udp.Conn
	w.must(n.Host.Do(func() (err error) {
		v4, v6, err = udp.ListenPort(meshPort, udp.Options{})
		return err
	}))
	th.engine, err = peer.New(peer.Config{Identity: th.hello.Identity, Conns: []udp.Conn{v4, v6}, Hello: th.hello, Observer: th, Logger: slog.New(slog.DiscardHandler)})
	w.must(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- th.engine.Run(ctx) }()
	w.Cleanup(func() { stop(); <-done })
	return th
}

// befriend makes a session with a node.
func (th *thief) befriend(n *lab.Node) *peer.Remote {
	th.Helper()
	to := netip.AddrPortFrom(n.Host.Addr4(), meshPort)
	met, err := th.engine.Meet(th.within(10*time.Second), to, th.hello)
	th.must(err)
	r, err := th.engine.SetRemote(peer.Spec{Public: met.Remote, Class: peer.Member, Candidates: []netip.AddrPort{to}})
	th.must(err)
	th.eventually(10*time.Second, "the thief has a session", func() error {
		if r.Want(); !r.Up() {
			return fmt.Errorf("with %s: none", n.Host.Name())
		}
		return nil
	})
	return r
}

// clocks are what changes in a kernel's tables by itself.
var clocks = regexp.MustCompile(`(expires|valid_lft|preferred_lft) \d+sec`)

// tables are what a kernel believes: neighbours with their states, routes and addresses.
func (w *world) tables(h *lab.Host) string {
	w.Helper()
	var text bytes.Buffer
	for _, args := range [][]string{
		{"-4", "neigh", "show", "nud", "all"}, {"-6", "neigh", "show", "nud", "all"}, {"-4", "route", "show", "table", "all"}, {"-6", "route", "show", "table", "all"}, {"addr", "show"},
	} {
		out, err := h.Command(w.within(10*time.Second), "ip", args...).Output()
		w.must(err)
		text.Write(clocks.ReplaceAll(out, []byte("$1")))
	}
	return text.String()
}

// TestHostileMember has a member without roles send every attack on the segment a thousand
// times to each of two others, by its sessions with them. Nothing reaches their kernels, which
// would believe it, and their tables stay as they are, to the byte.
func TestHostileMember(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := lab.HostConfig{V4: true}
	home := w.found(w.net.Host("home", cfg))
	invite := w.invite(home, "--uses", "2")
	friend, evil := w.join(w.net.Host("friend", cfg), invite), w.join(w.net.Host("evil", cfg), invite)
	w.waitPeers(home, friend, evil)
	free := w.addr(evil).As16()
	free[15] ^= 1
	thief := w.turn(evil)

	mac := func(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 1, last} }
	type victim struct {
		node  *lab.Node
		ip4   string
		hosts map[string]net.HardwareAddr // behind it, by their addresses
		cast  frames.Cast
		at    *peer.Remote // of the thief
		seen  *lab.Capture
		was   string // its tables
	}
	victims := []*victim{
		{node: home, ip4: "10.0.0.255", hosts: map[string]net.HardwareAddr{"10.0.0.50": mac(1), "10.0.0.1": mac(3)}},
		{node: friend, ip4: "10.0.0.11", hosts: map[string]net.HardwareAddr{"10.0.0.27": mac(2)}},
	}
	homes, friends := w.macOfLink(home.Host, "mesh0"), w.macOfLink(friend.Host, "mesh0")
	everywhere := frames.Cast{Thief: thief.mac, Router: homes, RoutersHost: mac(3), Router4: "10.0.0.1", Free6: netip.AddrFrom16(free).String()}
	for i, v := range victims {
		v.cast = everywhere
		v.cast.Own, v.cast.OwnHost, v.cast.Member, v.cast.MembersHost = homes, mac(1), friends, mac(2)
		v.cast.Own4, v.cast.OwnHost4, v.cast.Member4, v.cast.MembersHost4 = "10.0.0.255", "10.0.0.50", "10.0.0.11", "10.0.0.27"
		v.cast.Own6, v.cast.Member6 = w.addr(home).String(), w.addr(friend).String()
		if i == 1 {
			c := &v.cast
			c.Own, c.OwnHost, c.Member, c.MembersHost = c.Member, c.MembersHost, c.Own, c.OwnHost
			c.Own4, c.OwnHost4, c.Member4, c.MembersHost4 = c.Member4, c.MembersHost4, c.Own4, c.OwnHost4
			c.Own6, c.Member6 = c.Member6, c.Own6
		}
		v.at = thief.befriend(v.node)
		w.shell(v.node.Host, "cd /proc/sys/net; echo 2 >ipv6/conf/mesh0/accept_ra; echo 1 >ipv6/conf/mesh0/autoconf; echo 1 >ipv6/conf/mesh0/accept_redirects; echo 1 >ipv4/conf/mesh0/accept_redirects; "+
			"ip addr add "+v.ip4+"/16 dev mesh0")
		for ip, mac := range v.hosts {
			w.must(v.node.Host.SendFrame("mesh0", frames.Speaking(mac, ip)))
		}
	}
	// Each has spoken with the others, a while ago. What nobody has is there too, so that an
	// honest frame can change something.
	const nobodys = "10.0.0.99"
	for _, v := range victims {
		known := map[string]net.HardwareAddr{v.cast.Member4: v.cast.Member, v.cast.Member6: v.cast.Member, v.cast.MembersHost4: v.cast.MembersHost, v.cast.Router4: v.cast.RoutersHost, nobodys: mac(9)}
		for ip, mac := range known {
			w.run(v.node.Host, "ip", "neigh", "replace", ip, "lladdr", mac.String(), "dev", "mesh0", "nud", "stale")
		}
		var err error
		v.seen, err = v.node.Host.Capture("mesh0")
		w.must(err)
	}
	w.eventually(30*time.Second, "the tables rest", func() error {
		for _, v := range victims {
			v.was = w.tables(v.node.Host)
		}
		time.Sleep(2 * time.Second)
		for _, v := range victims {
			if is := w.tables(v.node.Host); is != v.was {
				return fmt.Errorf("%s: was\n%s\nis\n%s", v.node.Host.Name(), v.was, is)
			}
		}
		return nil
	})

	const times = 1000
	for _, v := range victims {
		attacks := v.cast.Attacks()
		if len(attacks) < 30 {
			t.Fatalf("%d attacks", len(attacks))
		}
		for n, name := range slices.Sorted(maps.Keys(attacks)) {
			for i := range times {
				v.at.Send(attacks[name], 0)
				if i%50 == 49 { // what a queue takes
					v.at.Flush()
					time.Sleep(2 * time.Millisecond)
				}
			}
			// An honest frame comes after each attack: it shows that the others have come as well.
			honest := ethernet(v.cast.Own, thief.mac, binary.BigEndian.AppendUint32([]byte{0x88, 0xb5, 'h', 'o', 'n', 'e', 's', 't'}, uint32(n)))
			v.at.Send(honest, 0)
			v.at.Flush()
			if _, err := v.seen.Wait(w.within(5*time.Second), func(f lab.Frame) bool { return !f.Out && bytes.Equal(f.Data, honest) }); err != nil {
				t.Errorf("%s: what follows %q: %v", v.node.Host.Name(), name, err)
			}
			for _, f := range v.seen.Frames() {
				if !f.Out && bytes.Equal(f.Data, attacks[name]) {
					t.Errorf("%s: %q was delivered: %x", v.node.Host.Name(), name, f.Data)
					break
				}
			}
		}
		if lost := v.seen.Lost(); lost > 0 {
			t.Errorf("the capture has lost %d frames", lost)
		}
	}
	for _, v := range victims {
		if is := w.tables(v.node.Host); is != v.was {
			t.Errorf("%s: the tables were\n%s\nand are\n%s", v.node.Host.Name(), v.was, is)
		}
		v.at.Send(frames.From(thief.mac, frames.ARP(thief.mac, nobodys, 2)), 0)
		v.at.Flush()
		w.eventually(5*time.Second, "an honest frame changes a table", func() error {
			if w.tables(v.node.Host) == v.was {
				return fmt.Errorf("%s: it does not: the test proves nothing", v.node.Host.Name())
			}
			return nil
		})
	}
}
