//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"meshd/integration/lab"
	"meshd/l2/snoop"
)

const videoPort = 5004

var (
	videoGroup  = netip.MustParseAddr("239.1.2.3")
	videoGroup6 = netip.MustParseAddr("ff15::4d:1")
	strayGroup  = netip.MustParseAddr("239.9.9.9")
)

// audience is a program on a host that has joined a group.
type audience struct {
	conn *net.UDPConn
	got  atomic.Int64
}

// listen joins a group on an interface of a host.
func (w *world) listen(h *lab.Host, name string, group netip.Addr) *audience {
	w.Helper()
	a := &audience{}
	w.must(h.Do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		a.conn, err = net.ListenMulticastUDP("udp", ifi, &net.UDPAddr{IP: group.AsSlice(), Port: videoPort})
		return err
	}))
	w.must(a.conn.SetReadBuffer(4 << 20))
	go func() {
		buf := make([]byte, 2048)
		for {
			if _, _, err := a.conn.ReadFrom(buf); err != nil {
				return
			}
			a.got.Add(1)
		}
	}()
	w.Cleanup(func() { a.conn.Close() })
	return a
}

// source is a program on a host that sends to groups by an interface.
type source struct {
	w    *world
	conn *net.UDPConn
	zone string
}

func (w *world) source(h *lab.Host, name string) *source {
	w.Helper()
	s := &source{w: w, zone: name}
	w.must(h.Do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if s.conn, err = net.ListenUDP("udp", nil); err != nil {
			return err
		}
		// A dual-stack socket has the options of both.
		p4, p6 := ipv4.NewPacketConn(s.conn), ipv6.NewPacketConn(s.conn)
		for _, set := range []func() error{
			func() error { return p6.SetMulticastInterface(ifi) }, func() error { return p6.SetMulticastHopLimit(4) },
			func() error { return p4.SetMulticastInterface(ifi) }, func() error { return p4.SetMulticastTTL(4) },
		} {
			if err := set(); err != nil {
				return err
			}
		}
		return nil
	}))
	w.Cleanup(func() { s.conn.Close() })
	return s
}

func (s *source) send(to netip.Addr, port int, body []byte) {
	s.w.Helper()
	addr := &net.UDPAddr{IP: to.AsSlice(), Port: port}
	if to.Is6() {
		addr.Zone = s.zone
	}
	if _, err := s.conn.WriteTo(body, addr); err != nil {
		s.w.Fatalf("send to %v: %v", to, err)
	}
}

// stream sends like a film of 10 Mbit/s and returns how many packets it were.
func (s *source) stream(to netip.Addr, d time.Duration) (sent int64) {
	s.w.Helper()
	body := make([]byte, 1250)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < d; <-tick.C {
		for due := int64(time.Since(began) / time.Millisecond); sent < due; sent++ {
			s.send(to, videoPort, body)
		}
	}
	return sent
}

// received counts frames to a group that came to an interface.
func received(c *lab.Capture, group netip.Addr) int {
	mac := snoop.MAC(group)
	return c.Count(func(f lab.Frame) bool { return !f.Out && len(f.Data) > 6 && bytes.Equal(f.Data[:6], mac[:]) })
}

func (w *world) capture(n *lab.Node) *lab.Capture {
	w.Helper()
	c, err := n.Host.Capture("mesh0")
	w.must(err)
	return c
}

// silence waits until frames to a group no longer come to any of the captures.
func (w *world) silence(limit time.Duration, from *source, group netip.Addr, captures ...*lab.Capture) {
	w.Helper()
	w.eventually(limit, fmt.Sprintf("%v reaches nobody", group), func() error {
		before := make([]int, len(captures))
		for i, c := range captures {
			before[i] = received(c, group)
		}
		for range 5 {
			from.send(group, videoPort, []byte("?"))
			time.Sleep(20 * time.Millisecond)
		}
		for i, c := range captures {
			if got := received(c, group) - before[i]; got > 0 {
				return fmt.Errorf("%d came to the %dth", got, i)
			}
		}
		return nil
	})
}

// heard waits until somebody who has joined gets something.
func (w *world) heard(limit time.Duration, from *source, group netip.Addr, a *audience) time.Duration {
	w.Helper()
	began := time.Now()
	w.eventually(limit, fmt.Sprintf("%v is heard", group), func() error {
		from.send(group, videoPort, []byte("?"))
		if a.got.Load() == 0 {
			return fmt.Errorf("nothing")
		}
		return nil
	})
	return time.Since(began)
}

// numbered gives the TAPs IPv4 addresses.
func (w *world) numbered(nodes ...*lab.Node) {
	w.Helper()
	for i, n := range nodes {
		w.up(n.Host, "mesh0", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), 24))
	}
}

// TestGroupsGoToListeners: a film goes to the member where a program has joined its group, and to no other; broadcasts are limited meanwhile; and
// what hosts find each other by goes to all.
func TestGroupsGoToListeners(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home, laptop, office := w.threeSites(lab.HostConfig{})
	w.numbered(home, laptop, office)
	from := w.source(home.Host, "mesh0")
	atLaptop, atOffice := w.capture(laptop), w.capture(office)
	w.silence(20*time.Second, from, strayGroup, atLaptop, atOffice)

	for _, group := range []netip.Addr{videoGroup, videoGroup6} {
		w.silence(5*time.Second, from, group, atLaptop, atOffice)
		before := received(atOffice, group)
		a := w.listen(laptop.Host, "mesh0", group)
		t.Logf("%v is heard after %v", group, w.heard(5*time.Second, from, group, a))
		w.film(from, group, a, atOffice)
		if got := received(atOffice, group) - before; got != 0 {
			t.Errorf("%d frames to %v came to office, where nobody listens", got, group)
		}
		began := time.Now()
		a.conn.Close()
		w.silence(10*time.Second, from, group, atLaptop)
		t.Logf("%v stops within %v of the leave", group, time.Since(began))
	}
	w.discovery(from, atLaptop, atOffice)
	w.pingAll(20, home, laptop, office)
	for _, c := range []*lab.Capture{atLaptop, atOffice} {
		if n := c.Count(foreignControl); n > 0 {
			t.Errorf("%d frames of IGMP or MLD of other members", n)
		}
	}
}

// TestTooManyGroups has programs at a member join more groups than its record holds. It wants everything then: nothing is missed, and what others
// send to groups that nobody is known to listen to is limited like broadcasts.
func TestTooManyGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home, laptop, office := w.threeSites(lab.HostConfig{})
	w.numbered(home, laptop, office)
	from, atLaptop, atOffice := w.source(home.Host, "mesh0"), w.capture(laptop), w.capture(office)
	w.silence(20*time.Second, from, strayGroup, atLaptop, atOffice)
	group := netip.MustParseAddr("239.20.0.0")
	var last *audience
	for range 200 {
		group = group.Next()
		last = w.listen(office.Host, "mesh0", group)
	}
	w.heard(20*time.Second, from, group, last)
	w.eventually(20*time.Second, "office wants everything", func() error {
		before := received(atOffice, strayGroup)
		from.send(strayGroup, videoPort, []byte("?"))
		time.Sleep(50 * time.Millisecond)
		if received(atOffice, strayGroup) == before {
			return fmt.Errorf("nothing came")
		}
		return nil
	})
	marks := func() (got int) {
		for _, f := range atOffice.Frames() {
			got += bytes.Count(f.Data, []byte("stray group!"))
		}
		return got
	}
	time.Sleep(3 * time.Second) // the burst is there again
	began := time.Now()
	for range 300 {
		for range 10 {
			from.send(strayGroup, videoPort, []byte("stray group!"))
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond)
	if got, most := marks(), 600+int(300*time.Since(began).Seconds()); got < 500 || got > most {
		t.Errorf("%d of 3000 frames came, want the burst of 600 and at most %d", got, most)
	} else {
		t.Logf("%d of 3000 frames of a stray group passed in %v", got, time.Since(began))
	}
	if got := bytes.Count(bytes.Join(dataOf(atLaptop), nil), []byte("stray group!")); got != 0 {
		t.Errorf("%d came to laptop, which is snooped", got)
	}
}

// dataOf is what a capture holds.
func dataOf(c *lab.Capture) (list [][]byte) {
	for _, f := range c.Frames() {
		list = append(list, f.Data)
	}
	return list
}

// TestDeafListener has a firewall at the listener that lets no queries in, and another host leave the group.
func TestDeafListener(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home, laptop, office := w.threeSites(lab.HostConfig{})
	w.numbered(home, laptop, office)
	for _, rules := range []string{
		"add table inet deaf", "add chain inet deaf in { type filter hook input priority 0; }",
		"add rule inet deaf in iifname mesh0 ip protocol igmp drop", "add rule inet deaf in iifname mesh0 icmpv6 type mld-listener-query drop",
	} {
		if out, err := laptop.Host.Command(w.within(5*time.Second), "nft", rules).CombinedOutput(); err != nil {
			t.Fatalf("nft %s: %v: %s", rules, err, out)
		}
	}
	from, atLaptop, atOffice := w.source(home.Host, "mesh0"), w.capture(laptop), w.capture(office)
	w.silence(20*time.Second, from, strayGroup, atLaptop, atOffice)
	a := w.listen(laptop.Host, "mesh0", videoGroup)
	w.heard(5*time.Second, from, videoGroup, a)
	time.Sleep(3 * time.Second) // the kernel says a second time that it joins
	leave := []byte{
		0x46, 0xc0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0, 10, 9, 0, 77, 224, 0, 0, 2, 0x94, 4, 0, 0, 0x17, 0, 0xf7, 0xfa, 239, 1, 2, 3,
	}
	w.must(laptop.Host.SendFrame("mesh0", ethernet(net.HardwareAddr{1, 0, 0x5e, 0, 0, 2}, w.mac(laptop), append([]byte{8, 0}, leave...))))
	time.Sleep(4 * time.Second) // it would be forgotten in 2.5
	before := a.got.Load()
	sent := from.stream(videoGroup, time.Second)
	w.eventually(2*time.Second, "all of the film has come", func() error {
		if got := a.got.Load() - before; got != sent {
			return fmt.Errorf("%d of %d packets", got, sent)
		}
		return nil
	})
}

// film streams for three seconds, with a storm of broadcasts in between.
func (w *world) film(from *source, group netip.Addr, a *audience, other *lab.Capture) {
	w.Helper()
	time.Sleep(200 * time.Millisecond) // what heard has sent arrives
	before, storm := a.got.Load(), []byte("storm "+group.String())
	storms := func() (got int) {
		for _, f := range other.Frames() { // a super-frame holds many
			got += bytes.Count(f.Data, storm)
		}
		return got
	}
	began := time.Now()
	done := make(chan int64)
	go func() { done <- from.stream(group, 3*time.Second) }()
	for range 200 { // at a pace at which the TAP's own queue does not overflow
		for range 25 {
			from.send(netip.MustParseAddr("10.9.0.255"), 9, storm)
		}
		time.Sleep(10 * time.Millisecond)
	}
	sent := <-done
	w.eventually(2*time.Second, "all of the film has come", func() error {
		if got := a.got.Load() - before; got != sent {
			return fmt.Errorf("%d of %d packets", got, sent)
		}
		return nil
	})
	most := 600 + int(300*time.Since(began).Seconds())
	if got := storms(); got < 500 || got > most {
		w.Errorf("%d of 5000 broadcasts came to another member, want the burst of 600 and at most %d", got, most)
	} else {
		w.Logf("%d packets of %v, none lost; %d of 5000 broadcasts passed", sent, group, got)
	}
}

// discovery sends what everybody must get, whoever has joined what.
func (w *world) discovery(from *source, captures ...*lab.Capture) {
	w.Helper()
	for name, m := range map[string]struct {
		to   string
		port int
	}{
		"mDNS": {"224.0.0.251", 5353}, "mDNS over IPv6": {"ff02::fb", 5353}, "LLMNR": {"224.0.0.252", 5355},
		"SSDP": {"239.255.255.250", 1900}, "SSDP over IPv6": {"ff02::c", 1900}, "site's SSDP": {"ff05::c", 1900},
		"all nodes": {"ff02::1", 9}, "all routers": {"ff02::2", 9}, "all systems": {"224.0.0.1", 9}, "solicited node": {"ff02::1:ff12:3456", 9},
	} {
		body := []byte("M-SEARCH * HTTP/1.1 " + name + ".")
		from.send(netip.MustParseAddr(m.to), m.port, body)
		for i, c := range captures {
			if _, err := c.Wait(w.within(5*time.Second), func(f lab.Frame) bool { return !f.Out && bytes.Contains(f.Data, body) }); err != nil {
				w.Errorf("%s did not come to the %dth: %v", name, i, err)
			}
		}
	}
}

// foreignControl finds IGMP and MLD that came to a host from others than its own meshd.
func foreignControl(f lab.Frame) bool {
	var m snoop.Message
	if f.Out || len(f.Data) < 14 || snoop.Parse(&m, uint16(f.Data[12])<<8|uint16(f.Data[13]), f.Data[14:]) != snoop.Control {
		return false
	}
	return m.Kind == snoop.Report && len(m.Records) > 0 && (m.Source.Is4() && !m.Source.IsUnspecified() || m.Source.Is6() && !strings.HasPrefix(m.Source.String(), "fe80::ffff:"))
}

// ip runs the program ip on a host with each of these lines.
func (w *world) ip(h *lab.Host, lines ...string) {
	w.Helper()
	for _, line := range lines {
		if out, err := h.Command(w.within(5*time.Second), "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			w.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}

// TestGroupsBehindBridge has the listener, and then the source, on a LAN behind a kernel bridge that snoops itself.
func TestGroupsBehindBridge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home, laptop, office := w.threeSites(lab.HostConfig{})
	lan := w.net.Site("lan", lab.SiteConfig{NAT: lab.Home})
	pc := lan.Host("pc")
	port, err := laptop.Host.Plug(lan)
	w.must(err)
	w.ip(laptop.Host, "link add br0 type bridge mcast_snooping 1 stp_state 0 forward_delay 0", "link set br0 up",
		"link set mesh0 master br0", "link set "+port+" master br0")
	w.numbered(home)
	w.up(office.Host, "mesh0", netip.MustParsePrefix("10.9.0.3/24"))
	w.up(pc, "eth0", netip.MustParsePrefix("10.9.0.9/24"))
	from, atOffice, atLaptop := w.source(home.Host, "mesh0"), w.capture(office), w.capture(laptop)
	w.silence(20*time.Second, from, strayGroup, atOffice, atLaptop)
	strays := received(atOffice, strayGroup)

	for _, group := range []netip.Addr{videoGroup, videoGroup6} {
		a := w.listen(pc, "eth0", group)
		t.Logf("%v is heard behind the bridge after %v", group, w.heard(10*time.Second, from, group, a))
		time.Sleep(200 * time.Millisecond)
		before := a.got.Load()
		sent := from.stream(group, time.Second)
		w.eventually(2*time.Second, "all of the film has come", func() error {
			if got := a.got.Load() - before; got != sent {
				return fmt.Errorf("%d of %d packets", got, sent)
			}
			return nil
		})
		if got := received(atOffice, group); got != 0 {
			t.Errorf("%d frames to %v came to office", got, group)
		}
		a.conn.Close()
		w.silence(10*time.Second, from, group, atLaptop)

		// The other way: the source is behind the bridge.
		a = w.listen(home.Host, "mesh0", group)
		at := w.source(pc, "eth0")
		t.Logf("%v from behind the bridge is heard after %v", group, w.heard(10*time.Second, at, group, a))
		if got := received(atOffice, group); got != 0 {
			t.Errorf("%d frames to %v from behind the bridge came to office", got, group)
		}
		a.conn.Close()
	}

	// A bridge that asks for itself may stand for a router, which wants everything; and it goes before us.
	w.silence(10*time.Second, from, strayGroup, atLaptop)
	w.ip(laptop.Host, "link set mesh0 nomaster", "link set "+port+" nomaster", "link add br1 type bridge mcast_querier 1 forward_delay 0", "link set br1 up",
		"link set "+port+" master br1", "link set mesh0 master br1")
	before := received(atLaptop, strayGroup)
	w.eventually(60*time.Second, "who asks gets everything", func() error {
		from.send(strayGroup, videoPort, []byte("?"))
		if received(atLaptop, strayGroup) == before {
			return fmt.Errorf("nothing")
		}
		return nil
	})
	if got := received(atOffice, strayGroup) - strays; got != 0 {
		t.Errorf("%d frames to %v came to office", got, strayGroup)
	}
}
