package wireguard

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

// The oracle is wireguard-go's device on an in-memory network: what it accepts
// is WireGuard, and what it sends has to be accepted.

var (
	ourIP    = netip.MustParseAddr("10.0.0.1")
	theirIP  = netip.MustParseAddr("10.0.0.2")
	ourAddr  = netip.MustParseAddrPort("192.0.2.1:1000")
	ourMoved = netip.MustParseAddrPort("192.0.2.9:2000")
)

const patience = 10 * time.Second

// datagram is one that the device sent, or is to receive.
type datagram struct {
	data []byte
	addr netip.AddrPort
}

// memBind is a conn.Bind of channels.
type memBind struct {
	in     chan []datagram // batches for the device
	out    chan datagram
	mu     sync.Mutex
	closed chan struct{}
}

func (b *memBind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed := make(chan struct{})
	b.closed = closed
	receive := func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		select {
		case <-closed:
			return 0, net.ErrClosed
		case batch := <-b.in:
			for i, d := range batch {
				sizes[i] = copy(packets[i], d.data)
				eps[i] = memEndpoint{d.addr}
			}
			return len(batch), nil
		}
	}
	return []conn.ReceiveFunc{receive}, port, nil
}

func (b *memBind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		close(b.closed)
		b.closed = nil
	}
	return nil
}

func (b *memBind) Send(bufs [][]byte, ep conn.Endpoint) error {
	for _, buf := range bufs {
		select {
		case b.out <- datagram{append([]byte(nil), buf...), ep.(memEndpoint).AddrPort}:
		default: // the network drops what nobody wants
		}
	}
	return nil
}

func (b *memBind) SetMark(uint32) error { return nil }
func (b *memBind) BatchSize() int       { return conn.IdealBatchSize }

func (b *memBind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	return memEndpoint{a}, err
}

type memEndpoint struct{ netip.AddrPort }

func (e memEndpoint) ClearSrc()           {}
func (e memEndpoint) SrcToString() string { return "" }
func (e memEndpoint) SrcIP() netip.Addr   { return netip.Addr{} }
func (e memEndpoint) DstIP() netip.Addr   { return e.Addr() }
func (e memEndpoint) DstToString() string { return e.String() }
func (e memEndpoint) DstToBytes() []byte  { b, _ := e.MarshalBinary(); return b }

// oracle is a device and, facing it, an end. Our clock is ahead of the real one
// by skip, so that our timers need no waiting.
type oracle struct {
	*end
	bind   *memBind
	tun    *tuntest.ChannelTUN
	device *device.Device
	skip   time.Duration
	addr   netip.AddrPort // where we are
}

func newOracle(t *testing.T, opts Options, config string) *oracle {
	t.Helper()
	ours, theirs := testKey(1), testKey(2)
	o := &oracle{
		end:  newEnd(t, ours, theirs.PublicKey(), opts),
		bind: &memBind{in: make(chan []datagram), out: make(chan datagram, 4096)},
		tun:  tuntest.NewChannelTUN(),
		addr: ourAddr,
	}
	o.device = device.NewDevice(o.tun.TUN(), o.bind, device.NewLogger(device.LogLevelSilent, ""))
	t.Cleanup(o.device.Close)
	pub := ours.PublicKey()
	err := o.device.IpcSet(fmt.Sprintf("private_key=%x\nlisten_port=1\nreplace_peers=true\npublic_key=%x\nallowed_ip=%s/32\nendpoint=%s\npreshared_key=%x\n%s",
		theirs[:], pub[:], ourIP, ourAddr, opts.PSK[:], config))
	if err == nil {
		err = o.device.Up()
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *oracle) now() time.Time { return time.Now().Add(o.skip) }

// peer is the device's view of us.
func (o *oracle) peer() *device.Peer {
	return o.device.LookupPeer(device.NoisePublicKey(o.local.public))
}

// counter reads a line of the device's configuration.
func (o *oracle) counter(name string) (n int) {
	o.t.Helper()
	text, err := o.device.IpcGet()
	if err != nil {
		o.t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			fmt.Sscan(v, &n)
		}
	}
	return n
}

// give hands datagrams to the device.
func (o *oracle) give(packets ...[]byte) {
	o.t.Helper()
	var batch []datagram
	for _, p := range packets {
		batch = append(batch, datagram{p, o.addr})
	}
	select {
	case o.bind.in <- batch:
	case <-time.After(patience):
		o.t.Fatal("the device does not receive")
	}
}

// flush gives the device what we have sent.
func (o *oracle) flush() {
	o.t.Helper()
	for _, m := range o.messages() {
		o.give(m)
	}
	if o.happened().Keepalive {
		o.give(o.seal("", o.now()))
	}
}

// next returns the next datagram of the device that is of one of those types.
func (o *oracle) next(types ...MessageType) datagram {
	o.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case d := <-o.bind.out:
			got, ok := Type(d.data)
			if !ok {
				o.t.Fatalf("the device sent %x", d.data)
			}
			for _, want := range types {
				if got == want {
					return d
				}
			}
		case <-deadline:
			o.t.Fatalf("the device sends no message of type %v", types)
		}
	}
}

// take handles a handshake message or a packet from the device.
func (o *oracle) take(d datagram) (string, error) {
	o.t.Helper()
	if t, _ := Type(d.data); t == TypeTransport {
		return o.open(d.data, o.now())
	}
	err := o.handshake(d.data, o.now())
	o.flush()
	return "", err
}

// pause lets the device's clock, which is the real one, pass what it wants
// between two initiations: a step of time stamps when it sends them and
// InitiationGap when it takes them.
func (o *oracle) pause() { time.Sleep(InitiationGap + 5*time.Millisecond) }

// we connects with us as the initiator.
func (o *oracle) we() {
	o.t.Helper()
	o.do(o.session.Rekey(o.now()), o.now())
	if len(o.sent) == 0 { // not so soon after the last
		o.skip += RekeyTimeout
		o.tick(o.now())
	}
	if len(o.sent) != 1 {
		o.t.Fatalf("%d initiations", len(o.sent))
	}
	o.flush()
	if _, err := o.take(o.next(TypeResponse)); err != nil {
		o.t.Fatal(err)
	}
}

// they connects with the device as the initiator, by a packet to us.
func (o *oracle) they() {
	o.t.Helper()
	o.peer().ExpireCurrentKeypairs()
	o.offer()
	if _, err := o.take(o.next(TypeInitiation)); err != nil {
		o.t.Fatal(err)
	}
	o.expect(o.next(TypeTransport))
}

// offer gives the device an IP packet for us.
func (o *oracle) offer() {
	o.t.Helper()
	select {
	case o.tun.Outbound <- tuntest.Ping(ourIP, theirIP):
	case <-time.After(patience):
		o.t.Fatal("the device reads no packets")
	}
}

// expect opens a packet that must be what offer gave.
func (o *oracle) expect(d datagram) {
	o.t.Helper()
	got, err := o.take(d)
	if err != nil || !strings.HasPrefix(got, string(tuntest.Ping(ourIP, theirIP))) || len(got)%16 != 0 {
		o.t.Fatalf("from the device: %x, %v", got, err)
	}
}

// data sends packets both ways.
func (o *oracle) data() {
	o.t.Helper()
	o.give(o.seal(string(tuntest.Ping(theirIP, ourIP)), o.now()))
	o.arrives()
	o.offer()
	o.expect(o.next(TypeTransport))
}

// arrives waits for one packet of ours behind the device.
func (o *oracle) arrives() {
	o.t.Helper()
	select {
	case p := <-o.tun.Inbound:
		if string(p) != string(tuntest.Ping(theirIP, ourIP)) {
			o.t.Fatalf("behind the device: %x", p)
		}
	case <-time.After(patience):
		o.t.Fatal("nothing comes out of the device")
	}
}
