package l2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"meshd/l2"
	"meshd/l2/l2test"
)

func siteAddrs(i int) []netip.Prefix {
	return prefixes(fmt.Sprintf("fd00:6d::%d/64", i+1), fmt.Sprintf("10.66.0.%d/24", i+1))
}

// openSites makes one namespace with a persistent TAP for each of count sites, with
// the MACs that mesh gives them.
func openSites(t *testing.T, networks []*network) (taps []*l2.TAP) {
	t.Helper()
	for i, n := range networks {
		tap := openTAP(t, n, l2.TAPConfig{Name: "mesh0", MAC: l2.MAC{2, 0x11, 0, 0, 0, byte(10 + i)}, Persist: true})
		if err := tap.SetAddresses(siteAddrs(i)); err != nil {
			t.Fatal(err)
		}
		taps = append(taps, tap)
	}
	return taps
}

func newNetworks(t *testing.T, count int) (networks []*network) {
	for range count {
		networks = append(networks, newNetwork(t))
	}
	return networks
}

// ping sends count echo requests of size bytes of IP from n, never fragmented, and
// returns how many were answered.
func ping(t *testing.T, n *network, to netip.Addr, size, count int) (answered int) {
	t.Helper()
	proto, local, header := "ip6:ipv6-icmp", "::", ipv6.HeaderLen
	kind, answer, protocol := icmp.Type(ipv6.ICMPTypeEchoRequest), icmp.Type(ipv6.ICMPTypeEchoReply), 58
	unfragmented := func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1) }
	if to.Is4() {
		proto, local, header = "ip4:icmp", "0.0.0.0", ipv4.HeaderLen
		kind, answer, protocol = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply, 1
		unfragmented = func(fd int) error {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}
	}
	var conn net.PacketConn
	n.do(func() (err error) {
		if conn, err = net.ListenPacket(proto, local); err != nil {
			return err
		}
		raw, err := conn.(syscall.Conn).SyscallConn()
		if err != nil {
			return err
		}
		return errors.Join(raw.Control(func(fd uintptr) { err = unfragmented(int(fd)) }), err)
	})
	defer conn.Close()
	data := bytes.Repeat([]byte{0x5a}, size-header-8)
	buf := make([]byte, 9000)
	for seq := range count {
		request := icmp.Message{Type: kind, Body: &icmp.Echo{ID: 7, Seq: seq, Data: data}}
		packet, err := request.Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()}); err != nil {
			t.Fatalf("ping %v with %d bytes: %v", to, size, err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for {
			got, _, err := conn.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			reply, err := icmp.ParseMessage(protocol, buf[:got])
			if err != nil || reply.Type != answer {
				continue // what others ask of us
			}
			if echo := reply.Body.(*icmp.Echo); echo.Seq == seq && bytes.Equal(echo.Data, data) {
				answered++
				break
			}
		}
	}
	return answered
}

func TestTAPsPing(t *testing.T) {
	networks := newNetworks(t, 3)
	sites, stop := mesh(openSites(t, networks)...)
	defer stop()
	for i, n := range networks {
		for j := range networks {
			if i == j {
				continue
			}
			for _, p := range siteAddrs(j) {
				for size, count := range map[int]int{100: 50, 1500: 10} {
					if got := ping(t, n, p.Addr(), size, count); got != count {
						t.Errorf("site %d to %v, %d bytes: %d of %d answered", i, p.Addr(), size, got, count)
					}
				}
			}
		}
	}
	// The switch has read who has which address from the kernels' own ARP and ND.
	for _, h := range sites[0].sw.Hosts() {
		for j, s := range sites {
			if h.MAC != s.mac {
				continue
			}
			for _, p := range siteAddrs(j) {
				if !slices.Contains(h.IPs, p.Addr()) {
					t.Errorf("host %v has %v, not %v", h.MAC, h.IPs, p.Addr())
				}
			}
		}
	}
	for i, s := range sites {
		if c := s.sw.Counters(); c.FromRemotes.Dropped[l2.DropSourceMAC]+c.FromRemotes.Dropped[l2.DropMalformed]+c.FromDevice.Dropped[l2.DropOversize] != 0 {
			t.Errorf("site %d dropped honest frames: %+v", i, c)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestTAPsCarryRawFrames(t *testing.T) {
	networks := newNetworks(t, 3)
	var wires []*wire
	taps := openSites(t, networks)
	for _, n := range networks {
		wires = append(wires, newWire(t, n, "mesh0", ofTest))
	}
	sites, stop := mesh(taps...)
	defer stop()
	a, b := sites[0].mac, sites[1].mac
	for name, test := range map[string]struct {
		frame []byte
		to    []int
	}{
		"unknown ethertype": {l2test.Frame(b, a, 1, 60), []int{1}},
		"full":              {l2test.Frame(b, a, 2, 1514), []int{1}},
		"tagged":            {l2test.Tagged(l2test.Frame(b, a, 3, 60), 0x8100, 0xa00c), []int{1}},
		"tagged, full":      {l2test.Tagged(l2test.Frame(b, a, 4, 1514), 0x8100, 12), []int{1}},
		"two tags":          {l2test.Tagged(l2test.Tagged(l2test.Frame(b, a, 5, 60), 0x8100, 9), 0x88a8, 8), []int{1}},
		"broadcast":         {l2test.Frame(broadcast, a, 6, 60), []int{1, 2}},
		"tagged broadcast":  {l2test.Tagged(l2test.Frame(broadcast, a, 7, 60), 0x8100, 5), []int{1, 2}},
	} {
		wires[0].Inject(test.frame)
		for _, i := range test.to {
			if got := receive(t, wires[i]); !bytes.Equal(got, test.frame) {
				t.Errorf("%s: site %d received\n%x, want\n%x", name, i, got, test.frame)
			}
		}
	}
	// A last frame to everyone: whatever a second copy or a stray was, it came before it.
	last := l2test.Frame(broadcast, a, 99, 60)
	wires[0].Inject(last)
	for _, i := range []int{1, 2} {
		if got := receive(t, wires[i]); !bytes.Equal(got, last) {
			t.Errorf("site %d received more than it should have:\n%x", i, got)
		}
	}
	if frames := drain(wires[0].Frames()); len(frames) != 0 {
		t.Errorf("site 0 got its own frames back: %x", frames)
	}
}

// A TCP connection over the TAPs outlives a restart of one side.
func TestTAPRestartKeepsTCP(t *testing.T) {
	networks := newNetworks(t, 2)
	taps := openSites(t, networks)
	_, stop := mesh(taps...)
	defer func() { stop() }()
	server := siteAddrs(1)[0].Addr()
	var listener net.Listener
	networks[1].do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(server, 7).String())
		return err
	})
	echoed := make(chan struct{})
	go func() {
		defer close(echoed)
		if c, err := listener.Accept(); err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	defer func() { <-echoed }()
	defer listener.Close()
	var conn net.Conn
	networks[0].do(func() (err error) {
		conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(server, 7).String(), patience)
		return err
	})
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	echo := func(when string) {
		t.Helper()
		sent, got := bytes.Repeat([]byte(when), 1000), make([]byte, 1000*len(when))
		if _, err := conn.Write(sent); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%s: %v", when, err)
		}
	}
	echo("before")
	if err := stop(); err != nil { // closes the TAPs
		t.Fatal(err)
	}
	_, stop = mesh(openSites(t, networks)...)
	echo("after")
}
