//go:build linux

package integration

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"meshd/integration/lab"
	"meshd/keys"
	traversal "meshd/nat-traversal"
	"meshd/peer/hello"
)

const (
	meshPort      = 51830
	probesAMinute = 5 // to an address that has not answered (PROTOCOL.md, 3)
)

// ground is where a stranger attacks: two members, and one who has nothing to do with it.
type ground struct {
	*world
	home, laptop    *lab.Node
	stranger, third *lab.Host
	conn            *net.UDPConn // of the stranger
	at, victim      netip.AddrPort
	before          map[lab.Flow]lab.Count
}

func newGround(w *world) *ground {
	w.Helper()
	cfg := lab.HostConfig{V4: true}
	g := &ground{world: w, stranger: w.net.Host("stranger", cfg), third: w.net.Host("third", cfg)}
	g.home = w.found(w.net.Host("home", cfg))
	g.at = netip.AddrPortFrom(g.home.Host.Addr4(), meshPort)
	g.victim = netip.AddrPortFrom(g.third.Addr4(), meshPort)
	w.must(g.stranger.Do(func() (err error) {
		g.conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 4000})
		return err
	}))
	w.Cleanup(func() { g.conn.Close() })
	w.must(w.net.CountFlows())
	return g
}

// attack sends datagrams from the stranger's own address or in the name of the third.
func (g *ground) attack(spoofed bool, datagrams ...[]byte) {
	g.Helper()
	for _, d := range datagrams {
		if spoofed {
			g.must(g.stranger.Spoof(g.victim, g.at, d))
		} else if _, err := g.conn.WriteToUDPAddrPort(d, g.at); err != nil {
			g.Fatal(err)
		}
		time.Sleep(time.Millisecond) // a pace at which no queue drops
	}
}

// settle waits until the core has seen everything, and returns what came from the stranger and what went out for it
// since the last call: to itself, and to the third.
func (g *ground) settle(wait time.Duration) (in, back, third lab.Count) {
	g.Helper()
	time.Sleep(wait) // for what must not come
	flows, err := g.net.Flows()
	g.must(err)
	since := func(from, to string) lab.Count {
		now, then := flows[lab.Flow{From: from, To: to}], g.before[lab.Flow{From: from, To: to}]
		return lab.Count{Packets: now.Packets - then.Packets, Bytes: now.Bytes - then.Bytes}
	}
	in, back, third = since("stranger", "home"), since("home", "stranger"), since("home", "third")
	g.before = flows
	return in, back, third
}

// random is a datagram of random bytes that begins like this.
func random(size int, begin ...byte) []byte {
	b := make([]byte, size)
	_, _ = rand.Read(b)
	copy(b, begin)
	return b
}

// TestStrangersAmplifyNothing sends each kind of message that needs no key, from the stranger's own address and from a
// third's, to a member: it never sends more, in packets or bytes, than it gets. The counters are the core's.
func TestStrangersAmplifyNothing(t *testing.T) {
	w := newWorld(t)
	g := newGround(w)
	met := g.meet()
	withMAC := func(kind byte, size int) func() []byte {
		var macs device.CookieGenerator
		macs.Init(device.NoisePublicKey(met.Remote.WireGuard))
		return func() []byte {
			d := random(size, kind, 0, 0, 0)
			macs.AddMacs(d)
			return d
		}
	}
	fixed := func(d []byte) func() []byte { return func() []byte { return d } }
	sized := func(size int, begin ...byte) func() []byte { return func() []byte { return random(size, begin...) } }
	tests := []struct {
		name   string
		make   func() []byte
		silent bool // nothing at all may come
	}{
		{"empty", fixed(nil), true},
		{"one byte", sized(1), true},
		{"a full frame", sized(1472), true},
		{"WireGuard initiation, no MAC", sized(148, 1, 0, 0, 0), true},
		{"WireGuard initiation, MAC", withMAC(1, 148), false},
		{"WireGuard response, no MAC", sized(92, 2, 0, 0, 0), true},
		{"WireGuard response, MAC", withMAC(2, 92), false},
		{"WireGuard cookie", sized(64, 3, 0, 0, 0), true},
		{"WireGuard data", sized(160, 4, 0, 0, 0), true},
		{"WireGuard keepalive", sized(32, 4, 0, 0, 0), true},
		{"STUN request", func() []byte { return traversal.Request(traversal.TxID(random(12))) }, false},
		{"STUN request, 20 bytes", func() []byte { return append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, random(12)...) }, true},
		{"STUN answer", func() []byte { return append([]byte{1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, random(12)...) }, true},
		{"hello open, no cookie", func() []byte { return append(random(12, 0xd1, 1, 1, 0), make([]byte, 1188)...) }, false},
		{"hello open, wrong cookie", sized(1200, 0xd1, 1, 1, 0), false},
		{"hello open, short", sized(200, 0xd1, 1, 1, 0), true},
		{"hello cookie", sized(28, 0xd1, 1, 2, 0), true},
		{"hello answer", sized(400, 0xd1, 1, 3, 0), true},
		{"hello proof", sized(1200, 0xd1, 1, 4, 0), true},
		{"hello result", sized(200, 0xd1, 1, 5, 0), true},
		{"probe", sized(92, 0xd2, 1, 0, 0), true},
		{"probe, padded", sized(1400, 0xd2, 1, 0, 0), true},
		{"relay, circuit 0", func() []byte { return append([]byte{0xd3, 1, 0, 0, 0, 0, 0, 0}, random(148, 1, 0, 0, 0)...) }, true},
		{"relay", func() []byte { return append(random(8, 0xd3, 1, 0, 0), random(148, 4, 0, 0, 0)...) }, true},
		{"relay in a relay", func() []byte { return append(random(8, 0xd3, 1), append(random(8, 0xd3, 1), random(64)...)...) }, true},
	}
	for _, test := range tests {
		for _, spoofed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, spoofed %v", test.name, spoofed), func(t *testing.T) {
				const count = 20
				g.settle(0)
				for range count {
					g.attack(spoofed, test.make())
				}
				in, back, third := g.settle(50 * time.Millisecond)
				if in.Packets != count {
					t.Fatalf("%d packets have come, of %d", in.Packets, count)
				}
				atMost(t, test.name, in, back, third, test.silent)
				if !spoofed && third.Packets > 0 {
					t.Errorf("the third gets %d packets", third.Packets)
				}
			})
		}
	}
	_, back, third := g.settle(3 * time.Second)
	if back.Packets+third.Packets > 0 {
		t.Errorf("long after: %v and %v", back, third)
	}
	laptop := w.join(w.net.Host("laptop", lab.HostConfig{V4: true}), w.invite(g.home))
	w.waitPeers(g.home, laptop)
}

// atMost holds what has gone out to what has come in.
func atMost(t *testing.T, what string, in, back, third lab.Count, silent bool) {
	t.Helper()
	out := lab.Count{Packets: back.Packets + third.Packets, Bytes: back.Bytes + third.Bytes}
	ratio := func(out, in uint64) float64 { return float64(out) / float64(max(in, 1)) }
	t.Logf("%s: %.2f of its packets and %.2f of its bytes", what, ratio(out.Packets, in.Packets), ratio(out.Bytes, in.Bytes))
	if out.Packets > in.Packets || out.Bytes > in.Bytes {
		t.Errorf("%s: %+v for %+v", what, out, in)
	}
	if silent && out.Packets > 0 {
		t.Errorf("%s: %+v for what needs no answer", what, out)
	}
}

// meet lets the stranger say hello as a joiner does, and holds the whole conversation to the same rule.
func (g *ground) meet() *hello.Result {
	g.Helper()
	identity, err := keys.NewIdentity()
	g.must(err)
	machine, err := hello.NewInitiator(hello.Config{Identity: identity}, time.Now())
	g.must(err)
	g.settle(0)
	buf := make([]byte, 2000)
	for machine.Result() == nil {
		out, wake := machine.Tick(time.Now())
		g.must(machine.Err())
		for out != nil {
			if _, err := g.conn.WriteToUDPAddrPort(out, g.at); err != nil {
				g.Fatal(err)
			}
			g.must(g.conn.SetReadDeadline(wake))
			n, _, err := g.conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				break // the machine repeats
			}
			out = machine.Receive(buf[:n], time.Now())
		}
	}
	g.must(g.conn.SetReadDeadline(time.Time{}))
	in, back, third := g.settle(100 * time.Millisecond)
	atMost(g.T, "a whole hello", in, back, third, false)
	return machine.Result()
}

// TestReplaysMoveNothing takes everything that two members have said to each other, and sends it again in the name of a
// third and of the stranger: it earns no more than it costs, a few probes afterwards, and the two stay connected.
func TestReplaysMoveNothing(t *testing.T) {
	w := newWorld(t)
	g := newGround(w)
	seen, err := g.home.Host.Capture("eth0")
	w.must(err)
	g.laptop = w.join(w.net.Host("laptop", lab.HostConfig{V4: true}), w.invite(g.home))
	w.waitPeers(g.home, g.laptop)
	w.pingAll(20, g.home, g.laptop)
	kinds := datagrams(seen.Frames(), g.laptop.Host.Addr4())
	for _, kind := range []byte{0x01, 0x04, 0xd1, 0xd2} {
		if len(kinds[kind]) == 0 {
			t.Errorf("no message of kind %x was captured", kind)
		}
	}
	for kind, all := range kinds {
		for _, spoofed := range []bool{false, true} {
			t.Run(fmt.Sprintf("kind %x, spoofed %v", kind, spoofed), func(t *testing.T) {
				g.settle(0)
				g.attack(spoofed, all...)
				in, back, third := g.settle(200 * time.Millisecond)
				atMost(t, fmt.Sprintf("%d messages", len(all)), in, back, third, false)
			})
		}
	}
	for name, s := range map[string]status{"home": w.status(g.home), "laptop": w.status(g.laptop)} {
		if len(s.Peers) != 1 || s.Peers[0].State != "direct" || netip.MustParseAddrPort(s.Peers[0].Endpoint).Addr() == g.victim.Addr() {
			t.Errorf("%s: %+v", name, s.Peers)
		}
	}
	w.pingAll(20, g.home, g.laptop)
	g.settle(0)
	if _, back, third := g.settle(3 * time.Second); back.Packets > probesAMinute || third.Packets > probesAMinute {
		t.Errorf("after the replays %+v go to the stranger and %+v to the third", back, third)
	}
}

// datagrams are the UDP payloads that have come from an address, by their first byte.
func datagrams(frames []lab.Frame, from netip.Addr) map[byte][][]byte {
	const ethernetHeader, ipv4Header, udpHeader = 14, 20, 8
	kinds := make(map[byte][][]byte)
	for _, f := range frames {
		d := f.Data
		if f.Out || len(d) <= ethernetHeader+ipv4Header+udpHeader || binary.BigEndian.Uint16(d[12:]) != 0x0800 || d[23] != 17 {
			continue
		}
		if src, _ := netip.AddrFromSlice(d[26:30]); src != from {
			continue
		}
		d = d[ethernetHeader+ipv4Header:]
		length := int(binary.BigEndian.Uint16(d[4:]))
		if length <= udpHeader || length > len(d) || length > 1480 {
			continue // or a super-frame
		}
		kinds[d[udpHeader]] = append(kinds[d[udpHeader]], d[udpHeader:length])
	}
	return kinds
}

// TestStrangersUseNoRelay takes what a member has sent through a relay, and sends it again from elsewhere: the relay passes
// on nothing, to nobody.
func TestStrangersUseNoRelay(t *testing.T) {
	w := newWorld(t)
	g := newGround(w)
	invite := w.invite(g.home, "--uses", "2")
	var ends []*lab.Node
	var sites []*lab.Site
	for _, name := range []string{"left", "right"} {
		s := w.net.Site(name+"-site", lab.SiteConfig{V4: true, NAT: lab.Symmetric})
		sites, ends = append(sites, s), append(ends, w.join(s.Host(name), invite))
	}
	w.waitPeers(g.home, ends[0], ends[1])
	seen, err := g.home.Host.Capture("eth0")
	w.must(err)
	pings, err := ends[0].Host.Pinger(w.addr(ends[1]), lab.PingOptions{})
	w.must(err)
	w.eventually(15*time.Second, "the relay carries", func() error {
		if s := pings.Stats(); s.Received < 50 {
			return fmt.Errorf("%v", s)
		}
		return nil
	})
	pings.Stop()
	frames := datagrams(seen.Frames(), sites[0].Public())[0xd3]
	if len(frames) < 50 {
		t.Fatalf("only %d relay frames were captured", len(frames))
	}
	carried := func() uint64 {
		flows, err := w.net.Flows()
		w.must(err)
		return flows[lab.Flow{From: "home", To: "right-site"}].Packets
	}
	for _, spoofed := range []bool{false, true} {
		g.settle(time.Second) // until the ends are quiet
		before := carried()
		g.attack(spoofed, frames...)
		in, back, third := g.settle(100 * time.Millisecond)
		if in.Packets < uint64(len(frames)) || back.Packets+third.Packets > 0 {
			t.Errorf("spoofed %v: %+v of %d have come; %+v and %+v go out", spoofed, in, len(frames), back, third)
		}
		if passed := carried() - before; passed > uint64(len(frames))/4 {
			t.Errorf("spoofed %v: the relay passed on %d of %d", spoofed, passed, len(frames))
		}
	}
}
