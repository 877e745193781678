package udp_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/peer/udp"
)

// enterNamespace moves the calling test to a network namespace of its own. The
// test must start no subtests and must not call t.Parallel: its thread stays in
// the namespace and ends with it.
func enterNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
}

func up(t *testing.T, name string, mtu int, addrs ...string) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(link, addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(netlink.LinkSetMTU(link, mtu), netlink.LinkSetUp(link)); err != nil {
		t.Fatal(err)
	}
	return link
}

func TestNoAllocations(t *testing.T) {
	for name, addr := range map[string]netip.AddrPort{"ipv4": loopback(false), "ipv6": loopback(true)} {
		for mode, opts := range map[string]udp.Options{"all": {}, "none": {NoGRO: true, NoGSO: true, NoBatch: true}} {
			a, b := listen(t, addr, opts), listen(t, addr, opts)
			const size = 1200
			out := []udp.Packet{
				{Addr: b.LocalAddr(), Data: make([]byte, 20*size), Seg: size},
				{Addr: b.LocalAddr(), Data: make([]byte, size)},
				{Addr: b.LocalAddr(), Data: make([]byte, 3*size+1), Seg: size},
			}
			in := make([]udp.Packet, 8)
			const total = 24*size + 1
			allocs := testing.AllocsPerRun(500, func() {
				if err := a.Send(out); err != nil {
					t.Error(err)
				}
				for got := 0; got < total; {
					n, err := b.Receive(in)
					if err != nil {
						t.Fatal(err)
					}
					for _, p := range in[:n] {
						got += len(p.Data)
					}
				}
			})
			if allocs != 0 {
				t.Errorf("%s, %s: %v allocations for 25 datagrams", name, mode, allocs)
			}
		}
	}
}

// TestMTU: a datagram that the interface cannot carry is refused, alone as in a
// group, and takes nothing else with it.
func TestMTU(t *testing.T) {
	enterNamespace(t)
	up(t, "lo", 1400)
	for _, l := range []struct {
		addr netip.AddrPort
		fits int
	}{{loopback(false), 1400 - 28}, {loopback(true), 1400 - 48}} {
		a, b := listen(t, l.addr, udp.Options{}), listen(t, l.addr, udp.Options{})
		to := b.LocalAddr()
		err := a.Send([]udp.Packet{
			{Addr: to, Data: make([]byte, l.fits)},
			{Addr: to, Data: make([]byte, l.fits+1)},
			{Addr: to, Data: make([]byte, 3*l.fits+9), Seg: l.fits},
			{Addr: to, Data: make([]byte, 2*(l.fits+1)+10), Seg: l.fits + 1}, // only the last 10 bytes fit
			{Addr: to, Data: make([]byte, 11)},
		})
		if !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("%v: Send = %v, want EMSGSIZE", to, err)
		}
		want := []int{l.fits, l.fits, l.fits, l.fits, 9, 10, 11}
		if got := sizes(t, b, len(want)); !equal(got, want) {
			t.Errorf("%v: received %v, want %v", to, got, want)
		}
		if !a.Status().GSO {
			t.Errorf("%v: GSO was turned off by a datagram beyond the MTU", to)
		}
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// sizes receives n datagrams.
func sizes(t *testing.T, c udp.Conn, n int) (got []int) {
	t.Helper()
	stop := time.AfterFunc(10*time.Second, func() { _ = c.Close() })
	defer stop.Stop()
	pkts := make([]udp.Packet, 8)
	for len(got) < n {
		k, err := c.Receive(pkts)
		if err != nil {
			t.Fatalf("received %v, then: %v", got, err)
		}
		for _, p := range pkts[:k] {
			data, seg := p.Data, p.Seg
			if seg <= 0 {
				seg = len(data)
			}
			for ; len(data) > seg; data = data[seg:] {
				got = append(got, seg)
			}
			got = append(got, len(data))
		}
	}
	return got
}

// TestGroupRefused: the kernel refuses groups on a socket without checksums,
// as devices without checksum offload make it do. What was sent arrives.
func TestGroupRefused(t *testing.T) {
	a, b := listen(t, loopback(false), udp.Options{}), listen(t, loopback(false), udp.Options{})
	setNoCheck(t, a)
	for range 2 {
		if err := a.Send([]udp.Packet{{Addr: b.LocalAddr(), Data: make([]byte, 2500), Seg: 1000}}); err != nil {
			t.Fatal(err)
		}
		if got, want := sizes(t, b, 3), []int{1000, 1000, 500}; !equal(got, want) {
			t.Fatalf("received %v, want %v", got, want)
		}
		if a.Status().GSO {
			t.Error("GSO is still on after a refused group")
		}
	}
}

// TestGroupsAgain: after a pause groups are tried again.
func TestGroupsAgain(t *testing.T) {
	a, b := listen(t, loopback(false), udp.Options{}), listen(t, loopback(false), udp.Options{})
	setNoCheck(t, a)
	pkts := []udp.Packet{{Addr: b.LocalAddr(), Data: make([]byte, 2), Seg: 1}}
	if err := a.Send(pkts); err != nil {
		t.Fatal(err)
	}
	clearNoCheck(t, a)
	for i := 0; !a.Status().GSO; i++ {
		if i > 10000 {
			t.Fatal("groups are never tried again")
		}
		if err := a.Send(pkts); err != nil {
			t.Fatal(err)
		}
	}
	sizes(t, b, 2)
}

func setNoCheck(t *testing.T, s *udp.Socket)   { noCheck(t, s, 1) }
func clearNoCheck(t *testing.T, s *udp.Socket) { noCheck(t, s, 0) }

func noCheck(t *testing.T, s *udp.Socket, v int) {
	t.Helper()
	if err := s.SetSockopt(unix.SOL_SOCKET, unix.SO_NO_CHECK, v); err != nil {
		t.Fatal(err)
	}
}

// TestICMPErrors: a port without a socket, and an address without a host, cost
// nobody else a datagram.
func TestICMPErrors(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		a, b := listen(t, loopback(v6), udp.Options{}), listen(t, loopback(v6), udp.Options{})
		gone := listen(t, loopback(v6), udp.Options{})
		nobody := gone.LocalAddr()
		_ = gone.Close()
		for range 20 {
			err := a.Send([]udp.Packet{{Addr: nobody, Data: []byte("x")}, {Addr: b.LocalAddr(), Data: []byte("yy")}})
			if err != nil {
				t.Errorf("Send = %v", err)
			}
			if err := b.Send([]udp.Packet{{Addr: a.LocalAddr(), Data: []byte("zzz")}}); err != nil {
				t.Errorf("Send = %v", err)
			}
		}
		sizes(t, a, 20)
		sizes(t, b, 20)
	}
}

// TestFullQueue: when nothing leaves, Send gives up after a moment, and works
// again when the queue has emptied.
func TestFullQueue(t *testing.T) {
	enterNamespace(t)
	la := netlink.NewLinkAttrs()
	la.Name = "x0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: "x1"}); err != nil {
		t.Fatal(err)
	}
	up(t, "lo", 65536)
	up(t, "x1", 1500)
	up(t, "x0", 1500, "198.18.0.1/24")
	s := listen(t, netip.MustParseAddrPort("0.0.0.0:0"), udp.Options{})
	if err := s.SetSockopt(unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil { // the kernel's minimum, in fact
		t.Fatal(err)
	}
	var pkts []udp.Packet
	for range 20 { // nobody answers ARP for this address, so that packets wait in the neighbour's queue
		pkts = append(pkts, udp.Packet{Addr: netip.MustParseAddrPort("198.18.0.2:9"), Data: make([]byte, 1400)})
	}
	begin := time.Now()
	err := s.Send(pkts)
	if took := time.Since(begin); !errors.Is(err, syscall.EAGAIN) || took > time.Second {
		t.Errorf("Send = %v after %v, want EAGAIN soon", err, took)
	}
}

func TestNoRoute(t *testing.T) {
	enterNamespace(t)
	up(t, "lo", 65536)
	s, b := listen(t, netip.MustParseAddrPort("0.0.0.0:0"), udp.Options{}), listen(t, loopback(false), udp.Options{})
	err := s.Send([]udp.Packet{
		{Addr: netip.MustParseAddrPort("198.18.0.2:9"), Data: []byte("x")},
		{Addr: b.LocalAddr(), Data: []byte("yy")},
	})
	if !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("Send = %v, want ENETUNREACH", err)
	}
	if got := sizes(t, b, 1); !equal(got, []int{2}) {
		t.Errorf("received %v", got)
	}
}

// TestNoBroadcast: an address that somebody names cannot become a broadcast.
func TestNoBroadcast(t *testing.T) {
	enterNamespace(t)
	la := netlink.NewLinkAttrs()
	la.Name = "x0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: "x1"}); err != nil {
		t.Fatal(err)
	}
	up(t, "x1", 1500)
	up(t, "x0", 1500, "198.18.0.1/24")
	s := listen(t, netip.MustParseAddrPort("0.0.0.0:0"), udp.Options{})
	for _, a := range []string{"198.18.0.255:9", "255.255.255.255:9"} {
		if err := s.Send([]udp.Packet{{Addr: netip.MustParseAddrPort(a), Data: []byte("x")}}); err == nil {
			t.Errorf("a broadcast to %s was sent", a)
		}
	}
}

// TestLinkLocal: the zone of a source is one that Send takes, as is the name.
func TestLinkLocal(t *testing.T) {
	enterNamespace(t)
	la := netlink.NewLinkAttrs()
	la.Name = "x0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: "x1"}); err != nil {
		t.Fatal(err)
	}
	up(t, "lo", 65536) // by which the kernel sends to its own addresses
	up(t, "x1", 1500)
	link := up(t, "x0", 1500, "fe80::1:1/64")
	s := listen(t, netip.MustParseAddrPort("[::]:0"), udp.Options{})
	stop := time.AfterFunc(10*time.Second, func() { _ = s.Close() })
	defer stop.Stop()
	to := netip.AddrPortFrom(netip.MustParseAddr("fe80::1:1").WithZone("x0"), s.LocalAddr().Port())
	pkts := []udp.Packet{{Addr: to, Data: []byte("x")}}
	for range 2 {
		if err := s.Send(pkts); err != nil {
			t.Fatal(err)
		}
		// Again: the kernel may not have finished with the interface yet. By
		// number, since another thread does not know the name.
		again := udp.Packet{Addr: netip.AddrPortFrom(to.Addr().WithZone(strconv.Itoa(link.Attrs().Index)), to.Port()), Data: []byte("x")}
		received := sendUntilClosed(t, s, again)
		n, err := s.Receive(pkts)
		close(received)
		if n != 1 || err != nil {
			t.Fatalf("Receive = %d, %v", n, err)
		}
		if a := pkts[0].Addr.Addr(); a.WithZone("") != to.Addr().WithZone("") || a.Zone() == "" {
			t.Fatalf("received from %v", a)
		}
	}
	pkts[0].Addr = netip.AddrPortFrom(to.Addr().WithZone("nosuch"), 9)
	if err := s.Send(pkts); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("Send to an unknown zone = %v", err)
	}
}

// sendUntilClosed repeats a packet until the channel that it returns is closed.
func sendUntilClosed(t *testing.T, s udp.Conn, p udp.Packet) chan struct{} {
	t.Helper()
	stop := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
			if err := s.Send([]udp.Packet{p}); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Errorf("Send: %v", err)
			}
		}
	})
	t.Cleanup(sender.Wait)
	return stop
}

func TestStatus(t *testing.T) {
	s := listen(t, loopback(false), udp.Options{NoGRO: true, NoGSO: true, NoBatch: true, BufferBytes: 300 << 10})
	st := s.Status()
	if st.GRO || st.GSO || st.Batch {
		t.Errorf("what was turned off is on: %+v", st)
	}
	if rcv, snd := s.Buffers(); rcv != st.RcvBuf || snd != st.SndBuf || rcv <= 0 || snd <= 0 {
		t.Errorf("Buffers = %d, %d; status %+v", rcv, snd, st)
	}
	if os.Geteuid() == 0 && st.RcvBuf < 300<<10 {
		t.Errorf("root got %d bytes", st.RcvBuf)
	}
}

// TestMark: what the socket sends carries the mark; without the right for it the
// socket works all the same.
func TestMark(t *testing.T) {
	s := listen(t, loopback(false), udp.Options{Mark: 0x6d657368})
	err := s.Status().MarkErr
	if os.Geteuid() != 0 {
		if err == nil {
			t.Skip("not root, and yet allowed to set marks")
		}
		if !errors.Is(err, syscall.EPERM) {
			t.Errorf("MarkErr = %v, want EPERM", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Sockopt(unix.SOL_SOCKET, unix.SO_MARK); err != nil || got != 0x6d657368 {
		t.Errorf("mark = %#x, %v", got, err)
	}
}

func TestCloseWhileSending(t *testing.T) {
	a, b := listen(t, loopback(false), udp.Options{}), listen(t, loopback(false), udp.Options{})
	done := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		pkts := []udp.Packet{{Addr: b.LocalAddr(), Data: make([]byte, 5000), Seg: 1000}}
		for i := 0; ; i++ {
			if err := a.Send(pkts); err != nil {
				done <- err
				return
			}
			if i == 10 {
				close(started)
			}
		}
	}()
	<-started
	_ = a.Close()
	if err := <-done; err != net.ErrClosed {
		t.Errorf("Send = %v, want net.ErrClosed", err)
	}
}

// TestShortages: a device or kernel that is short of memory for a moment, or longer
// than Send waits, costs at most what could not be sent meanwhile.
func TestShortages(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.ENOBUFS, unix.ENOMEM, unix.EAGAIN, unix.EINTR} {
		for name, opts := range map[string]udp.Options{"batches": {}, "single messages": {NoBatch: true}} {
			a, b := listen(t, loopback(false), opts), listen(t, loopback(false), udp.Options{})
			var calls, failures int
			a.Fail(func(uintptr) syscall.Errno {
				if calls++; calls%2 == 1 {
					failures++
					return errno
				}
				return 0
			})
			to := b.LocalAddr()
			err := a.Send([]udp.Packet{{Addr: to, Data: make([]byte, 1)}, {Addr: to, Data: make([]byte, 25), Seg: 10}, {Addr: to, Data: make([]byte, 3)}})
			if err != nil {
				t.Errorf("%v, %s: Send = %v", errno, name, err)
			}
			if got, want := sizes(t, b, 5), []int{1, 10, 10, 5, 3}; !equal(got, want) || failures == 0 {
				t.Errorf("%v, %s: received %v, want %v; %d failures", errno, name, got, want, failures)
			}
			if !a.Status().GSO {
				t.Errorf("%v, %s: groups were given up", errno, name)
			}
		}
	}
	a, b := listen(t, loopback(false), udp.Options{}), listen(t, loopback(false), udp.Options{})
	short := true
	a.Fail(func(uintptr) syscall.Errno {
		if short {
			return unix.ENOBUFS
		}
		return 0
	})
	one := []udp.Packet{{Addr: b.LocalAddr(), Data: make([]byte, 1)}}
	begin := time.Now()
	if err := a.Send(slices.Repeat(one, 100)); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("Send = %v, want ENOBUFS", err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("Send of 100 packets took %v: its patience is for all of them", took)
	}
	short = false
	if err := a.Send(one); err != nil {
		t.Errorf("after the shortage: %v", err)
	}
	sizes(t, b, 1)
}

// TestOldKernel: calls and options that the kernel turns out not to have are done
// without, for good or for a while, and nothing is lost on the way.
func TestOldKernel(t *testing.T) {
	for name, missing := range map[string]map[uintptr]syscall.Errno{
		"sendmmsg":        {unix.SYS_SENDMMSG: unix.ENOSYS},
		"recvmmsg":        {unix.SYS_RECVMMSG: unix.ENOSYS},
		"both":            {unix.SYS_RECVMMSG: unix.ENOSYS, unix.SYS_SENDMMSG: unix.ENOSYS},
		"groups (EIO)":    {0: unix.EIO},
		"groups (EINVAL)": {0: unix.EINVAL},
	} {
		a, b := listen(t, loopback(false), udp.Options{}), listen(t, loopback(false), udp.Options{})
		grouped := false
		fail := func(call uintptr) syscall.Errno {
			if errno := missing[0]; errno != 0 && (call == unix.SYS_SENDMMSG) && !grouped {
				grouped = true // the first message, which is a group
				return errno
			}
			return missing[call]
		}
		a.Fail(fail)
		b.Fail(fail)
		to := b.LocalAddr()
		if err := a.Send([]udp.Packet{{Addr: to, Data: make([]byte, 25), Seg: 10}, {Addr: to, Data: make([]byte, 3)}}); err != nil {
			t.Errorf("without %s: Send = %v", name, err)
		}
		if got, want := sizes(t, b, 4), []int{10, 10, 5, 3}; !equal(got, want) {
			t.Errorf("without %s: received %v, want %v", name, got, want)
		}
		if a.Status().Batch != (missing[unix.SYS_SENDMMSG] == 0) || b.Status().Batch != (missing[unix.SYS_RECVMMSG] == 0) || a.Status().GSO != (missing[0] == 0) {
			t.Errorf("without %s: %+v, %+v", name, a.Status(), b.Status())
		}
	}
}

// TestBuffers: what was granted is known, also where the system's limit holds.
func TestBuffers(t *testing.T) {
	limit := func(name string) int {
		b, err := os.ReadFile("/proc/sys/net/core/" + name)
		if err != nil {
			t.Skip("needs /proc/sys/net/core: ", err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	rmem, wmem := limit("rmem_max"), limit("wmem_max")
	want := max(rmem, wmem) + 1<<20
	s := listen(t, loopback(false), udp.Options{BufferBytes: want, NoForce: true})
	if rcv, snd := s.Buffers(); rcv > rmem || snd > wmem || rcv < rmem/2 || snd < wmem/2 {
		t.Errorf("buffers of %d and %d, the system's limits are %d and %d", rcv, snd, rmem, wmem)
	}
	if os.Geteuid() == 0 {
		s = listen(t, loopback(false), udp.Options{BufferBytes: want})
		if rcv, snd := s.Buffers(); (rcv < want || snd < want) && rcv > rmem { // a container's root may not
			t.Errorf("buffers of %d and %d beyond the limit, want %d", rcv, snd, want)
		}
	}
}

// TestSpare: a spare socket takes what nodes send each other, in little memory.
func TestSpare(t *testing.T) {
	a, b := listen(t, loopback(false), udp.Options{}), listen(t, loopback(false), udp.Options{Spare: true})
	if b.Status().GRO {
		t.Error("a spare socket merges what comes")
	}
	for _, size := range []int{1, 100, 1500} {
		if err := a.Send([]udp.Packet{{Addr: b.LocalAddr(), Data: make([]byte, size)}}); err != nil {
			t.Fatal(err)
		}
		pkts := make([]udp.Packet, 4)
		n, err := b.Receive(pkts)
		if err != nil || n != 1 || len(pkts[0].Data) != size || pkts[0].Addr != a.LocalAddr() {
			t.Fatalf("%d bytes: %d packets, %v, %v", size, n, pkts[0], err)
		}
	}
}
