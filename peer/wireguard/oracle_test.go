package wireguard

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
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

func TestOracleRoles(t *testing.T) {
	for _, opts := range []struct {
		name string
		Options
	}{{"plain", Options{}}, {"preshared key", Options{PSK: [32]byte{5}}}, {"member", Options{Member: true}}} {
		t.Run(opts.name+", we initiate", func(t *testing.T) {
			o := newOracle(t, opts.Options, "")
			o.we()
			o.data()
		})
		t.Run(opts.name+", it initiates", func(t *testing.T) {
			o := newOracle(t, opts.Options, "")
			o.they()
			o.data()
		})
	}
}

// Several rekeys in both roles. Packets under the key before still pass.
func TestOracleRekeys(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.we()
	o.data()
	for i := range 3 {
		before := o.session.SendKey()
		// By our timer: a packet sent when the key is RekeyAfterTime old.
		o.pause()
		o.skip += RekeyAfterTime
		if !before.initiator {
			t.Fatalf("rekey %d: not the initiator", i)
		}
		o.data()
		o.flush()
		if _, err := o.take(o.next(TypeResponse)); err != nil {
			t.Fatal(err)
		}
		if o.session.SendKey() == before {
			t.Fatalf("rekey %d: the same key", i)
		}
		late, err := before.Seal(nil, tuntest.Ping(theirIP, ourIP))
		if err != nil {
			t.Fatal(err)
		}
		o.give(late)
		o.arrives()
		o.data()
	}
	for i := range 3 {
		before := o.session.SendKey()
		o.pause()
		o.skip += InitiationGap
		o.they()
		if kp := o.session.SendKey(); kp == before || kp.initiator {
			t.Fatalf("rekey %d by the device: no new key", i)
		}
		o.data()
	}
	o.pause()
	o.skip += RekeyTimeout
	o.we()
	o.data()
}

func TestOraclePresharedKeyMismatch(t *testing.T) {
	o := newOracle(t, Options{PSK: [32]byte{5}}, "preshared_key="+hex.EncodeToString(make([]byte, 32))+"\n")
	o.initiate(o.now())
	o.flush()
	if _, err := o.take(o.next(TypeResponse)); !errors.Is(err, ErrAuth) {
		t.Errorf("response under another preshared key: %v", err)
	}
}

// The device under load: it wants a cookie, and takes our next initiation with it.
func TestOracleUnderLoad(t *testing.T) {
	o := newOracle(t, Options{}, "")
	target := newTargetKeys(o.session.remote)
	stranger := newEnd(t, testKey(77), o.session.remote, Options{})
	flood := make([][]byte, conn.IdealBatchSize)
	for i := range flood {
		flood[i] = message(t, stranger)
		new(jar).stamp(&target, flood[i], o.now())
	}
	var reply datagram
	for deadline := time.Now().Add(patience); ; {
		if time.Now().After(deadline) {
			t.Fatal("the device never was under load")
		}
		for range 8 { // its queue holds 1024, an eighth is load
			o.give(flood...)
		}
		o.do(o.session.Expire(o.now()), o.now())
		o.skip += time.Second
		o.initiate(o.now())
		index := o.session.attempt.index
		o.flush()
		if reply = o.next(TypeCookie, TypeResponse); reply.data[0] == byte(TypeResponse) {
			continue
		}
		for { // one that answers us and not the flood
			if i, _ := Receiver(reply.data); i == index {
				break
			}
			select {
			case reply = <-o.bind.out:
			case <-time.After(patience):
				t.Fatal("no reply to us")
			}
		}
		if reply.data[0] == byte(TypeCookie) {
			break
		}
	}
	if err := o.session.HandleCookie(reply.data, "path", o.now()); err != nil {
		t.Fatal(err)
	}
	mac2 := func(m []byte) bool { return binary.LittleEndian.Uint64(mac2In(m)) != 0 }
	if o.initiate(o.now()); len(o.sent) != 0 {
		t.Error("the cookie makes the initiator repeat at once")
	}
	o.skip += RekeyTimeout
	o.tick(o.now())
	if len(o.sent) != 1 || !mac2(o.sent[0]) {
		t.Fatal("no initiation with a cookie")
	}
	o.flush()
	for { // cookie replies to the flood may be left
		d := o.next(TypeResponse)
		if i, _ := Receiver(d.data); i == o.session.attempt.index {
			if _, err := o.take(d); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	o.data()
}

// We are under load: the device gets a cookie and comes back with it.
func TestOracleWeAreUnderLoad(t *testing.T) {
	o := newOracle(t, Options{}, "")
	src := []byte("where the device is")
	o.offer()
	first := o.next(TypeInitiation).data
	ok, reply := o.local.CheckMACs(first, src, true, o.now())
	if ok || reply == nil {
		t.Fatal("accepted without a cookie")
	}
	o.give(reply)
	// The reply is handled by the time the device has answered an initiation of ours
	// that comes after it; with one worker for each core, ask once for each.
	for range 4 {
		o.give(reply)
	}
	deadline := time.Now().Add(patience)
	for {
		o.pause()
		o.peer().ExpireCurrentKeypairs()
		o.offer()
		msg := o.next(TypeInitiation).data
		if ok, _ := o.local.CheckMACs(msg, src, true, o.now()); ok {
			if ok, _ := o.local.CheckMACs(msg, []byte("elsewhere"), true, o.now()); ok {
				t.Error("the cookie is good from elsewhere")
			}
			if err := o.handshake(msg, o.now()); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the device does not use the cookie")
		}
	}
	o.flush()
	o.expect(o.next(TypeTransport))
}

// A lost first initiation, ours and the device's.
func TestOracleLostInitiation(t *testing.T) {
	for _, tc := range []struct {
		name  string
		opts  Options
		after time.Duration
	}{{"standard", Options{}, RekeyTimeout}, {"member", Options{Member: true}, 2 * FirstRetry}} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOracle(t, tc.opts, "")
			start := o.now()
			o.initiate(start)
			for len(o.messages()) == 0 {
				o.tick(o.wake)
			}
			o.tick(o.wake)
			if d := o.wake.Sub(start); d > 3*tc.after {
				t.Errorf("third initiation after %v", d)
			}
			o.flush()
			if _, err := o.take(o.next(TypeResponse)); err != nil {
				t.Fatal(err)
			}
			o.data()
		})
	}
	t.Run("the device's", func(t *testing.T) {
		o := newOracle(t, Options{}, "")
		o.offer()
		o.next(TypeInitiation) // lost
		o.pause()
		o.they()
		o.data()
	})
}

// Both initiate at once. The device forgets its initiation when it answers
// ours, so that our key is the one.
func TestOracleSimultaneousStart(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.offer()
	theirs := o.next(TypeInitiation)
	o.initiate(o.now())
	ours := o.messages()[0]
	o.give(ours)
	response := o.next(TypeResponse)
	if _, err := o.take(theirs); err != nil {
		t.Fatal(err)
	}
	if _, err := o.take(response); err != nil {
		t.Fatal(err)
	}
	o.expect(o.next(TypeTransport)) // what it had waiting
	o.data()
}

func TestOracleReplays(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.we()
	o.data()
	first := o.seal(string(tuntest.Ping(theirIP, ourIP)), o.now())
	before := o.counter("rx_bytes")
	o.give(first, first)
	o.give(first)
	o.arrives()
	o.data()                                                    // the next that comes out is a new one
	if n := o.counter("rx_bytes") - before; n != 2*len(first) { // with that of data
		t.Errorf("the device counts %d bytes of two packets of %d", n, len(first))
	}
	o.offer()
	d := o.next(TypeTransport)
	again := append([]byte(nil), d.data...)
	o.expect(d)
	if _, err := o.open(again, o.now()); !errors.Is(err, ErrReplay) {
		t.Errorf("a repeated packet: %v", err)
	}
}

// Our keepalive reaches it, and its reaches us.
func TestOracleKeepalives(t *testing.T) {
	o := newOracle(t, Options{}, "persistent_keepalive_interval=1\n")
	o.we()
	d := o.next(TypeTransport)
	if got, err := o.take(d); err != nil || got != "" {
		t.Fatalf("keepalive of the device: %q, %v", got, err)
	}
	o.offer()
	for { // between keepalives
		got, err := o.take(o.next(TypeTransport))
		if err != nil {
			t.Fatal(err)
		}
		if got != "" {
			break
		}
	}
	before := o.counter("rx_bytes")
	o.skip += KeepaliveTimeout
	o.tick(o.now())
	o.flush()
	o.data()
	if n := o.counter("rx_bytes") - before; n != Overhead+Overhead+32 {
		t.Errorf("the device counts %d bytes of a keepalive and a packet", n)
	}
}

// We move. The device follows our next packet, and we do not mind where its
// packets come from.
func TestOracleRoaming(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.we()
	o.data()
	o.addr = ourMoved
	o.give(o.seal(string(tuntest.Ping(theirIP, ourIP)), o.now()))
	o.arrives()
	o.offer()
	d := o.next(TypeTransport)
	if d.addr != ourMoved {
		t.Errorf("the device sends to %v", d.addr)
	}
	o.expect(d)
}

// Both ends of the counter.
func TestOracleCounterLimits(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.we()
	o.data()
	o.pause()
	key := o.session.SendKey()
	key.nonce.Store(RejectAfterMessages - 1)
	o.skip += RekeyTimeout
	last := o.seal(string(tuntest.Ping(theirIP, ourIP)), o.now())
	if last == nil {
		t.Fatal("the last counter is not used")
	}
	rekey := o.messages()
	if len(rekey) != 1 {
		t.Fatal("no rekey at the end of the counter")
	}
	o.give(last)
	o.arrives()
	// One beyond, made by force: the device must refuse it, so we must never send it.
	header := binary.LittleEndian.AppendUint32([]byte{4, 0, 0, 0}, key.remoteIndex)
	header = binary.LittleEndian.AppendUint64(header, RejectAfterMessages)
	beyond := key.keys.send.Seal(header, append(make([]byte, 4), header[8:]...), tuntest.Ping(theirIP, ourIP), nil)
	before := o.counter("rx_bytes")
	o.give(beyond)
	o.give(rekey[0])
	if _, err := o.take(o.next(TypeResponse)); err != nil {
		t.Fatal(err)
	}
	o.data()
	if n := o.counter("rx_bytes") - before; n > InitiationSize+Overhead+Overhead+32 {
		t.Errorf("the device counts %d bytes: the packet beyond the limit as well", n)
	}
}

// A packet of the device that was lost, and one that is late, do not matter.
func TestOracleLossAndReordering(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.they()
	var late []datagram
	for range 5 {
		o.offer()
		late = append(late, o.next(TypeTransport))
	}
	for _, i := range []int{4, 0, 2, 3} {
		o.expect(late[i])
	}
	o.data()
}
