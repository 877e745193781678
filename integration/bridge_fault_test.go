//go:build linux

package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"

	"meshd/integration/lab"
	"meshd/l2/l2test/frames"
)

// healthCodes are the codes of a node's health lines.
func (w *world) healthCodes(n *lab.Node) (codes []string) {
	w.Helper()
	var s struct {
		Health []struct{ Code, Text, Remedy string }
	}
	w.must(n.JSON(w.within(10*time.Second), &s, "status"))
	for _, h := range s.Health {
		if h.Text == "" || h.Remedy == "" {
			w.Errorf("%s has no text or remedy: %+v", h.Code, h)
		}
		codes = append(codes, h.Code)
	}
	return codes
}

// healthy waits until a health line is there, or is not.
func (w *world) healthy(limit time.Duration, n *lab.Node, code string, there bool) {
	w.Helper()
	w.eventually(limit, fmt.Sprintf("health has %q: %v", code, there), func() error {
		codes := w.healthCodes(n)
		if strings.Contains(" "+strings.Join(codes, " ")+" ", " "+code+" ") != there {
			return fmt.Errorf("%v", codes)
		}
		return nil
	})
}

// TestForcedLoop puts the TAPs of two members into bridges by hand, which meshd knows
// nothing of, and joins the LANs: a frame goes round a few times at most, of a host or of a
// member itself, be it that of a router.
func TestForcedLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	far := w.found(w.net.Host("far", lab.HostConfig{}))
	invite := w.invite(far, "--uses", "2", "--role", "bridge", "--role", "router")
	one, two := w.net.Host("one", lab.HostConfig{}), w.net.Host("two", lab.HostConfig{})
	hosts := []*lab.Host{w.net.Host("host-one", lab.HostConfig{}), w.net.Host("host-two", lab.HostConfig{})}
	var nodes []*lab.Node
	for i, h := range []*lab.Host{one, two} {
		w.lanBehind(h, hosts[i], false)
		nodes = append(nodes, w.join(h, invite))
		w.shell(h, "ip link set mesh0 master br0")
	}
	w.waitPeers(nodes[0], nodes[1], far)
	w.wire(one, two)
	b := &bridgedLAN{world: w, far: far, one: nodes[0], two: nodes[1], host: hosts[0], other: hosts[1]}
	// The second learns that the host is behind the first.
	first := b.broadcast("first", hosts[0], "l0", map[*lab.Host]string{hosts[1]: "l0", far.Host: "mesh0"})
	b.flow(first)
	first.cancel()
	host, member := w.macOfLink(hosts[0], "l0"), w.macOfLink(one, "mesh0") // which is the bridge's
	var all []sending
	for n := range uint32(4) {
		advertisement := frames.ND("fe80::1", layers.ICMPv6TypeRouterAdvertisement, &layers.ICMPv6RouterAdvertisement{RouterLifetime: uint16(n)})
		all = append(all,
			sending{"a host", hosts[0], "l0", looping(host, n)}, sending{"a member", one, "br0", looping(member, n)},
			sending{"a member that advertises itself", one, "br0", frames.From(member, advertisement)})
	}
	b.holdLoop(all)
	b.holdCable(all[0])
}

// TestTaggedLoop joins the LANs of two members that bridge them by a cable that takes tagged
// frames alone: no statement crosses it, so that both forward. A frame comes twice at most.
func TestTaggedLoop(t *testing.T) {
	t.Parallel()
	b, _, _ := newTwoLANs(t, false)
	for h, end := range map[*lab.Host]string{b.one.Host: "x0", b.two.Host: "x1"} {
		b.shell(h, "nft 'add table netdev trunk; add chain netdev trunk in { type filter hook ingress device "+end+" priority 0; }; add rule netdev trunk in ether type != 8021q drop'")
	}
	tag := func(frame []byte) []byte { return frames.Tagged(frame, 0x81) }
	var all []sending
	for n := range uint32(6) {
		all = append(all, sending{"a host", b.host, "l0", tag(looping(b.hostMAC, n))})
	}
	b.holdLoop(all)
	for _, n := range []*lab.Node{b.one, b.two} {
		if s := b.bridgeStatus(n); s.State != "forwarding" {
			t.Errorf("%s: %+v: the cable takes untagged frames, and the test proves nothing", n.Host.Name(), s)
		}
	}
	b.holdCable(all[0])
}

// sending is a frame and where it is sent.
type sending struct {
	by    string
	from  *lab.Host
	port  string
	frame []byte
}

// looping is a broadcast with a number.
func looping(src net.HardwareAddr, n uint32) []byte {
	body := binary.BigEndian.AppendUint32([]byte{0x88, 0xb5, 'l', 'o', 'o', 'p'}, n)
	return ethernet([]byte{255, 255, 255, 255, 255, 255}, src, body)
}

// holdLoop closes the loop of two LANs while the first frame is under way, sends the others, and holds that each
// comes to a host of the other LAN, and to the far site, a few times at most, within a second.
func (b *bridgedLAN) holdLoop(all []sending) {
	b.Helper()
	captures := map[string]*lab.Capture{}
	for h, port := range map[*lab.Host]string{b.other: "l0", b.far.Host: "mesh0"} {
		seen, err := h.Capture(port)
		b.must(err)
		captures[h.Name()] = seen
	}
	for i, s := range all {
		sent := time.Now()
		if i == 0 {
			b.inside(b.one.Host, func(h *netlink.Handle) error {
				l, err := h.LinkByName("x0")
				if err != nil {
					return err
				}
				if err := s.from.SendFrame(s.port, s.frame); err != nil {
					return err
				}
				return h.LinkSetUp(l)
			})
		} else {
			b.must(s.from.SendFrame(s.port, s.frame))
		}
		time.Sleep(1500 * time.Millisecond) // a loop would go on
		for place, seen := range captures {
			copies, last := 0, time.Duration(0)
			for _, f := range seen.Frames() {
				if !f.Out && bytes.Equal(f.Data, s.frame) {
					copies, last = copies+1, f.Time.Sub(sent)
				}
			}
			b.Logf("from %s: %d copies at %s, the last after %v", s.by, copies, place, last)
			if copies == 0 || copies > maxRound || last > time.Second {
				b.Errorf("%s: a frame came %d times to %s, the last after %v", s.by, copies, place, last)
			}
		}
	}
}

// holdCable holds that frames still come to the other LAN when nobody forwards: by the cable.
func (b *bridgedLAN) holdCable(s sending) {
	b.Helper()
	seen, err := b.other.Capture("l0")
	b.must(err)
	b.must(b.one.Kill())
	b.must(b.two.Kill())
	b.must(s.from.SendFrame(s.port, s.frame))
	if _, err := seen.Wait(b.within(5*time.Second), func(f lab.Frame) bool { return !f.Out && bytes.Equal(f.Data, s.frame) }); err != nil {
		b.Errorf("there was no loop: %v", err)
	}
}

// maxRound is how often a frame may come; 2 is usual.
const maxRound = 20

// TestBridgeUndone has a bridge cut the host off: after 30 s without an answer all is put
// back, and the node is reached again.
func TestBridgeUndone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	far := w.found(w.net.Host("far", lab.HostConfig{}))
	n := w.join(w.net.Host("one", lab.HostConfig{}), w.invite(far, "--role", "bridge"))
	w.waitPeers(n, far)
	w.must(n.Interrupt())
	w.shell(n.Host, "nft add table bridge cut; nft 'add chain bridge cut in { type filter hook prerouting priority 0; policy drop; }'")
	eth0 := func() string {
		out, err := n.Host.Command(w.within(10*time.Second), "sh", "-c", "ip addr show eth0; ip route show dev eth0; ip -6 route show dev eth0").CombinedOutput()
		w.must(err)
		return string(out)
	}
	before := eth0()
	began := time.Now()
	w.resume(n, "--bridge", "eth0")
	w.eventually(15*time.Second, "it is bridged", func() error {
		if s := w.bridgeStatus(n); s.Name != "br-mesh0" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	w.healthy(40*time.Second, n, "bridge-undone", true)
	if d := time.Since(began); d < 29*time.Second || d > 36*time.Second {
		t.Errorf("undone after %v, want 30s", d)
	}
	if after := eth0(); after != before {
		t.Errorf("eth0 is not as it was:\n%s", difference(before, after))
	}
	w.reached(20*time.Second, far, w.addr(n))
	w.must(n.Interrupt())
}

// TestBridgeByHand takes a bridge apart while the node runs.
func TestBridgeByHand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	far := w.found(w.net.Host("far", lab.HostConfig{}))
	invite := w.invite(far, "--uses", "2", "--role", "bridge")
	n := w.join(w.net.Host("one", lab.HostConfig{}), invite, "--bridge", "eth0")
	w.waitPeers(n, far)
	for _, hand := range []string{
		"ip link set mesh0 nomaster", "ip link set eth0 nomaster", "ip link del br-mesh0", "ip link set br-mesh0 down",
		"ip addr flush dev br-mesh0 scope global",
	} {
		w.shell(n.Host, hand)
		w.reached(15*time.Second, far, w.addr(n))
		if n.PID() == 0 {
			t.Fatalf("after %s the node is gone", hand)
		}
		w.eventually(10*time.Second, "repaired after "+hand, func() error {
			out, err := n.Host.Command(w.within(5*time.Second), "ip", "-br", "link", "show", "master", "br-mesh0", "up").CombinedOutput()
			if err == nil && (!strings.Contains(string(out), "eth0") || !strings.Contains(string(out), "mesh0")) {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
	}
	other := w.net.Host("two", lab.HostConfig{})
	plain := w.net.Host("plain", lab.HostConfig{})
	w.lanBehind(other, plain, false)
	m := w.join(other, invite, "--bridge", "br0")
	w.eventually(5*time.Second, "it forwards", func() error {
		if s := w.bridgeStatus(m); s.State != "forwarding" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	w.shell(other, "ip link set p0 down")
	w.healthy(5*time.Second, m, "bridge-no-link", true)
	w.shell(other, "ip link set p0 up")
	w.healthy(5*time.Second, m, "bridge-no-link", false)
	w.shell(other, "ip link del br0")
	w.healthy(15*time.Second, m, "bridge", true)
	w.shell(other, "ip link add br0 type bridge && ip link set br0 up && ip link set p0 master br0")
	w.healthy(15*time.Second, m, "bridge", false)
	w.reached(10*time.Second, far, w.addr(m))
}

// TestBridgeRole has a member without the role: it says so, bridges nothing, and does as
// soon as it may. A radvd on its LAN configures hosts of other sites once it also has the
// role router, and none before.
func TestBridgeRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	socket := t.TempDir() + "/ctl"
	far := w.found(w.net.Host("far", lab.HostConfig{}), "--plug", "vde:"+socket)
	vm := w.plugged("vm", socket)
	site := w.net.Site("lan", lab.SiteConfig{NAT: lab.Home})
	h, router := site.Host("one"), site.Host("router")
	n := w.node(h)
	invite := w.invite(far)
	w.must(n.UpWithInput(strings.NewReader(invite+"\n"), "--join", "-", "--bridge", "nothing0"))
	if code, err := n.Wait(w.within(10 * time.Second)); err != nil || code != 1 || !strings.Contains(n.Output(), "no such interface") {
		t.Errorf("an interface that is not there: status %d, %v", code, err)
	}
	w.must(n.UpWithInput(strings.NewReader(invite+"\n"), "--join", "-", "--bridge", "eth0"))
	w.must(n.Ready(w.within(10 * time.Second)))
	w.healthy(5*time.Second, n, "bridge-role", true)
	if s := w.bridgeStatus(n); s.Name != "" {
		t.Errorf("bridged without the role: %+v", s)
	}
	w.waitPeers(n, far)
	_, err := far.Run(w.within(10*time.Second), "role", "one", "bridge")
	w.must(err)
	w.healthy(15*time.Second, n, "bridge-role", false)
	w.eventually(10*time.Second, "it is bridged", func() error {
		if s := w.bridgeStatus(n); s.Name != "br-mesh0" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	w.reached(10*time.Second, far, w.addr(n))

	w.sysctl(router, "net.ipv6.conf.eth0.forwarding=1")
	w.run(router, "ip", "addr", "add", "2001:db8:88::1/64", "dev", "eth0", "nodad")
	config := w.config(fmt.Sprintf(`interface eth0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvDefaultLifetime 1800;
	prefix %v { AdvOnLink on; AdvAutonomous on; }; };`, outsider))
	sent, err := h.Capture("mesh0")
	w.must(err)
	came, err := vm.Capture("vm0")
	w.must(err)
	w.spawn(router, "radvd", "-n", "-C", config, "-p", config+".pid", "-m", "stderr")
	w.advertised(sent, 2)
	if n := came.Count(advertises(outsider)); n > 0 || w.has(vm, "vm0", outsider) {
		t.Errorf("%d advertisements from the LAN of a member without the role router", n)
	}
	_, err = far.Run(w.within(10*time.Second), "role", "one", "bridge", "router")
	w.must(err)
	w.slaac(vm, "vm0", outsider)
	w.reached(10*time.Second, &lab.Node{Host: vm}, netip.MustParseAddr("2001:db8:88::1"))
}

// TestBridgedSharedPrefix bridges home's own uplink into a mesh that has the uplink's /64:
// what carries the mesh never enters the TAP, also while the bridge knows nobody and
// floods, and nothing is interrupted.
func TestBridgedSharedPrefix(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.net.Host("home", lab.HostConfig{V6: true})
	prefix, err := h.Addr6().Prefix(64)
	w.must(err)
	home := w.found(h, "--prefix", prefix.String(), "--bridge", "eth0")
	laptop := w.join(w.net.Host("laptop", lab.HostConfig{V6: true}), w.invite(home))
	w.waitPeers(home, laptop)
	w.waitDirect(laptop, "home")
	w.eventually(5*time.Second, "home's port has listened to the LAN, and forwards", func() error {
		if s := w.bridgeStatus(home); s.State != "forwarding" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	inside, err := h.Capture("mesh0")
	w.must(err)
	p, err := laptop.Host.Pinger(w.addr(home), lab.PingOptions{Linger: time.Second})
	w.must(err)
	for range 10 {
		w.shell(h, "ip link set br-mesh0 type bridge fdb_flush")
		time.Sleep(200 * time.Millisecond) // of traffic while the bridge learns anew
	}
	if s := p.Stop(); s.Lost() > 1 || s.Received < 50 {
		t.Errorf("laptop to home: %v", s)
	}
	port := binary.BigEndian.AppendUint16(nil, 51830)
	isUnderlay := func(f lab.Frame) bool {
		d := f.Data
		return len(d) > 58 && d[12] == 0x86 && d[13] == 0xdd && d[20] == 17 && (string(d[54:56]) == string(port) || string(d[56:58]) == string(port))
	}
	if n := inside.Count(isUnderlay); n > 0 {
		t.Errorf("%d packets of the underlay went to the TAP", n)
	}
	for _, peer := range w.status(laptop).Peers {
		at, err := netip.ParseAddrPort(peer.Endpoint)
		if err != nil || at.Addr() != h.Addr6() {
			t.Errorf("home is reached at %s, which has %v", peer.Endpoint, h.Addr6())
		}
	}
	if codes := w.healthCodes(home); len(codes) > 0 {
		t.Errorf("health: %v", codes)
	}
	if out, err := home.Run(w.within(20*time.Second), "doctor"); strings.Contains(out, "IPv6 is turned off") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	dropped, err := h.Command(w.within(5*time.Second), "nft", "list", "table", "netdev", "meshd-mesh0").CombinedOutput()
	w.must(err)
	t.Logf("%s", dropped)
}
