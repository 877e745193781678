package l2_test

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshd/l2"
	"meshd/l2/l2test"
	"meshd/l2/offload"
)

// path is a cable that takes frames up to a size and loses some. What is larger is
// counted, and passes if it is no TCP: fragments are not this package's.
type path struct {
	to       *l2.RemotePort
	size     int
	loseEach int
	whole    bool // checksums must not be left out
	passed   atomic.Int64
	tagged   atomic.Int64
	oversize atomic.Int64
}

func (p *path) MaxFrame() int { return p.size }
func (p *path) Flush()        { p.to.Flush() }

func (p *path) Send(frame []byte, csumStart int) bool {
	if csumStart != 0 && p.whole {
		return false
	}
	if len(frame) > p.size && p.size > 0 {
		p.oversize.Add(1)
	}
	if frame[12] == 0x81 && frame[13] == 0 {
		p.tagged.Add(1)
	}
	if n := p.passed.Add(1); p.loseEach > 0 && n%int64(p.loseEach) == 0 {
		return true
	}
	p.to.Receive(bytes.Clone(frame), csumStart)
	return true
}

// pair is two hosts behind TAPs with a path between them.
type pair struct {
	hosts [2]*network
	taps  [2]*l2.TAP
	paths [2]*path // towards host 1 and host 0
	sw    [2]*l2.Switch
}

// pairing says what the hosts and the path have.
type pairing struct {
	without        [2]offload.Features
	header         [2]bool // which host has no virtio_net_hdr
	size, loseEach int
	mtu            int  // 0: the default
	queues         int  // of the TAPs
	whole          bool // checksums are not left out on the way
}

func newPair(t *testing.T, with pairing) *pair {
	p := &pair{}
	for i := range 2 {
		p.hosts[i] = newNetwork(t)
		p.taps[i] = openTAP(t, p.hosts[i], l2.TAPConfig{
			Name: "mesh0", MAC: siteMAC(i), MTU: with.mtu, Queues: with.queues, WithoutOffloads: with.without[i], WithoutHeader: with.header[i],
		})
		if err := p.taps[i].SetAddresses(siteAddrs(i)); err != nil {
			t.Fatal(err)
		}
		p.sw[i] = l2.NewSwitch(l2.Config{Device: p.taps[i], MAC: siteMAC(i), MTU: with.mtu})
		p.paths[i] = &path{size: with.size, loseEach: with.loseEach, whole: with.whole}
	}
	for i := range 2 {
		p.paths[1-i].to = p.sw[i].Connect("other", p.paths[i], l2.Allow{MAC: siteMAC(1 - i)})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, sw := range p.sw {
		running.Go(func() {
			if err := sw.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return p
}

func siteMAC(i int) l2.MAC { return l2.MAC{2, 0x11, 0, 0, 0, byte(10 + i)} }

// stream sends size bytes by TCP from host 0 to an address of host 1.
func (p *pair) stream(t *testing.T, to netip.Addr, size int) {
	t.Helper()
	var listener net.Listener
	p.hosts[1].do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(to, 7).String())
		return err
	})
	defer listener.Close()
	type result struct {
		n   int64
		sum uint32
		err error
	}
	received := make(chan result, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			received <- result{err: err}
			return
		}
		defer c.Close()
		h := crc32.NewIEEE()
		n, err := io.Copy(h, c)
		received <- result{n, h.Sum32(), err}
	}()
	var conn net.Conn
	p.hosts[0].do(func() (err error) {
		conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, 7).String(), patience)
		return err
	})
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	err := errors.Join(conn.SetDeadline(time.Now().Add(6*patience)), write(conn, data), conn.Close())
	got := <-received
	if err != nil || got.err != nil || got.n != int64(size) || got.sum != crc32.ChecksumIEEE(data) {
		t.Errorf("to %v: received %d of %d bytes, sum %08x, want %08x: %v %v", to, got.n, size, got.sum, crc32.ChecksumIEEE(data), err, got.err)
	}
}

func write(w io.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}

// datagrams sends a run of datagrams that the kernel may hand over as one
// (UDP_SEGMENT), and checks that each arrives by itself.
func (p *pair) datagrams(t *testing.T, to netip.Addr) {
	t.Helper()
	const size, count = 700, 20
	open := func(n *network, addr netip.AddrPort) (c *net.UDPConn) {
		n.do(func() (err error) {
			c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
			return err
		})
		return c
	}
	rx := open(p.hosts[1], netip.AddrPortFrom(to, 9))
	defer rx.Close()
	from := netip.IPv6Unspecified()
	if to.Is4() {
		from = netip.IPv4Unspecified()
	}
	tx := open(p.hosts[0], netip.AddrPortFrom(from, 0))
	defer tx.Close()
	raw, err := tx.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	data := make([]byte, size*count-1)
	for i := range data {
		data[i] = byte(i / size)
	}
	if _, err := tx.WriteToUDPAddrPort(data, netip.AddrPortFrom(to, 9)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	if err := rx.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		n, _, err := rx.ReadFromUDPAddrPort(buf)
		want := data[i*size : min((i+1)*size, len(data))]
		if err != nil || !bytes.Equal(buf[:n], want) {
			t.Fatalf("to %v: datagram %d of %d has %d bytes, want %d: %v", to, i, count, n, len(want), err)
		}
	}
}

// Two hosts, with every offload on or off on either side: the same streams and
// datagrams arrive, and no TCP segment is larger than the path.
func TestOffloadsBetweenHosts(t *testing.T) {
	for name, test := range map[string]pairing{
		"all on":                      {size: 1440},
		"all on, whole checksums":     {size: 1440, whole: true},
		"all on, path unknown":        {},
		"all on, small path":          {size: 1200},
		"all on, with loss":           {size: 1440, loseEach: 211},
		"hosts with an MTU of 9000":   {size: 1440, mtu: 9000},
		"the same without offloads":   {mtu: 9000, size: 1440, without: [2]offload.Features{offload.All, offload.All}},
		"sender has none":             {without: [2]offload.Features{offload.All, 0}, size: 1440},
		"receiver has none":           {without: [2]offload.Features{0, offload.All}, size: 1440},
		"none":                        {without: [2]offload.Features{offload.All, offload.All}, size: 1440},
		"checksums alone":             {without: [2]offload.Features{^offload.Checksum, ^offload.Checksum}, size: 1440},
		"no vnet header":              {header: [2]bool{true, true}, size: 1440},
		"no vnet header to receive":   {header: [2]bool{false, true}, size: 1440},
		"no vnet header to send":      {header: [2]bool{true, false}, size: 1440},
		"several queues":              {queues: 3, size: 1440},
		"no USO, as before Linux 6.2": {without: [2]offload.Features{offload.USO, offload.USO}, size: 1440},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, test)
			for i, tap := range p.taps {
				if got := tap.Offloads(); got&test.without[i] != 0 || !got.Has(offload.Checksum|offload.TSO4|offload.TSO6) && test.without[i] == 0 && !test.header[i] {
					t.Errorf("offloads of %d are %v, without %v", i, got, test.without[i])
				}
			}
			for _, prefix := range siteAddrs(1) {
				p.stream(t, prefix.Addr(), 2<<20)
				if test.loseEach == 0 {
					p.datagrams(t, prefix.Addr())
				}
			}
			super := !test.header[0] && test.without[0]&(offload.Checksum|offload.TSO4|offload.TSO6) == 0
			if read, passed := p.sw[0].Counters().FromDevice.Frames, p.paths[0].passed.Load(); test.mtu == 0 && super != (passed > 4*int64(read)) {
				t.Errorf("%d frames of the host have become %d; super-frames: %v", read, passed, super)
			}
			for i, path := range p.paths {
				if n := path.oversize.Load(); n != 0 {
					t.Errorf("host %d sent %d frames that are too large for the path", i, n)
				}
				if c := p.sw[i].Counters(); c.FromDevice.Dropped[l2.DropMalformed]+c.FromDevice.Dropped[l2.DropOversize]+c.FromRemotes.Dropped[l2.DropDevice] != 0 {
					t.Errorf("host %d dropped honest frames: %+v", i, c)
				}
			}
		})
	}
}

// Tags that the host's kernel puts on and takes off: they are beside the frame in its
// memory, and its offsets count them.
func TestOffloadsOnVLAN(t *testing.T) {
	for name, with := range map[string]pairing{
		"all on":           {size: 1440},
		"whole checksums":  {size: 1440, whole: true},
		"receiver without": {size: 1440, without: [2]offload.Features{0, offload.All}},
		"sender without":   {size: 1440, without: [2]offload.Features{offload.All, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, with)
			for _, n := range p.hosts {
				tagAll(t, n, "mesh0", 42)
			}
			for _, prefix := range siteAddrs(1) {
				p.stream(t, prefix.Addr(), 2<<20)
				p.datagrams(t, prefix.Addr())
			}
			for i, path := range p.paths {
				if tagged, passed := path.tagged.Load(), path.passed.Load(); tagged*10 < passed*9 || path.oversize.Load() > 0 {
					t.Errorf("from host %d: %d of %d frames are tagged, %d too large", i, tagged, passed, path.oversize.Load())
				}
				if c := p.sw[i].Counters(); c.FromDevice.Dropped[l2.DropMalformed]+c.FromDevice.Dropped[l2.DropOversize] != 0 {
					t.Errorf("host %d dropped honest frames: %+v", i, c.FromDevice)
				}
			}
		})
	}
}

// The TAP takes what the Merger makes, and hands over what the Cutter cuts: the
// twin does both with the Cutter, so the conformance test holds whole frames only.
func TestTwinTakesSuperFrames(t *testing.T) {
	d := l2test.NewDevice("twin0")
	m := offload.Merger{Features: d.Offloads()}
	frame := l2test.Frame(macA, macB, 1, 100)
	m.Add(frame, 0)
	if err := d.Write(m.Frames()); err != nil {
		t.Fatal(err)
	}
	if got := <-d.Frames(); !bytes.Equal(got, frame) {
		t.Errorf("the host got %x, want %x", got, frame)
	}
}
