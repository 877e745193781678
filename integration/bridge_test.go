//go:build linux

package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/integration/lab"
)

// bridgedLAN is a LAN with two members that bridge it, and hosts that know nothing of it;
// far is the third site.
type bridgedLAN struct {
	*world
	site        *lab.Site
	one, two    *lab.Node // both on the LAN
	far         *lab.Node
	host, other *lab.Host // plain hosts on the LAN
	hostMAC     net.HardwareAddr
	before      map[*lab.Node]string // settings before --bridge
	hostAddr    netip.Addr           // of host, on the segment
	farAddr     netip.Addr
}

// bridgeStatus is what `meshd status --json` says of the port to the LAN.
type bridgeStatus struct {
	Name, State, Segment, Forwarder string
	Beside                          []string
}

func (w *world) bridgeStatus(n *lab.Node) bridgeStatus {
	w.Helper()
	var s struct {
		Self struct{ Bridge bridgeStatus }
	}
	w.must(n.JSON(w.within(10*time.Second), &s, "status"))
	return s.Self.Bridge
}

// newBridgedLAN has the two members bridge eth0.
func newBridgedLAN(t *testing.T) *bridgedLAN {
	t.Helper()
	b := &bridgedLAN{world: newWorld(t), before: map[*lab.Node]string{}}
	b.far = b.found(b.net.Host("far", lab.HostConfig{}))
	b.site = b.net.Site("lan", lab.SiteConfig{NAT: lab.Home})
	hosts := []*lab.Host{b.site.Host("one"), b.site.Host("two")}
	b.host, b.other = b.site.Host("host"), b.site.Host("other")
	invite := b.invite(b.far, "--uses", "2", "--role", "bridge")
	var before [2]string
	for i, h := range hosts {
		before[i] = b.netSettings(h)
	}
	b.one = b.join(hosts[0], invite, "--bridge", "eth0")
	b.two = b.join(hosts[1], invite, "--bridge", "eth0")
	b.before[b.one], b.before[b.two] = before[0], before[1]
	b.waitPeers(b.one, b.two, b.far)
	b.hostAddr, b.farAddr = netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.3")
	b.up(b.host, "eth0", netip.PrefixFrom(b.hostAddr, 24))
	b.up(b.far.Host, "mesh0", netip.PrefixFrom(b.farAddr, 24))
	b.hostMAC = b.macOfLink(b.host, "eth0")
	b.settled()
	return b
}

// settled waits until one member forwards and the other blocks, and returns them.
func (b *bridgedLAN) settled() (forwarder, blocked *lab.Node) {
	b.Helper()
	b.eventually(10*time.Second, "one forwards, one blocks", func() error {
		one, two := b.bridgeStatus(b.one), b.bridgeStatus(b.two)
		forwarder, blocked = b.one, b.two
		if two.State == "forwarding" {
			forwarder, blocked = b.two, b.one
			one, two = two, one
		}
		if one.State != "forwarding" || two.State != "blocked" || one.Segment != two.Segment || one.Forwarder != two.Forwarder {
			return fmt.Errorf("%+v and %+v", one, two)
		}
		return nil
	})
	return forwarder, blocked
}

func (w *world) macOfLink(h *lab.Host, name string) (mac net.HardwareAddr) {
	w.Helper()
	w.inside(h, func(handle *netlink.Handle) error {
		l, err := handle.LinkByName(name)
		if err == nil {
			mac = l.Attrs().HardwareAddr
		}
		return err
	})
	return mac
}

// settings are the links, addresses, routes and rules of a host.
func (w *world) netSettings(h *lab.Host) string {
	w.Helper()
	out, err := h.Command(w.within(10*time.Second), "sh", "-c",
		"ip -d link; ip addr; ip -4 route show table all; ip -6 route show table all; ip rule; ip -6 rule; nft list tables").CombinedOutput()
	w.must(err)
	return string(out)
}

// restored compares a host's settings with those before.
func (b *bridgedLAN) restored(n *lab.Node, what string) {
	b.Helper()
	is := b.netSettings(n.Host)
	if was := b.before[n]; was != is {
		b.Errorf("%s: %s is not as it was:\n%s", n.Host.Name(), what, difference(was, is))
	}
}

func difference(was, is string) (out string) {
	for _, side := range []struct{ sign, a, b string }{{"- ", was, is}, {"+ ", is, was}} {
		for line := range strings.Lines(side.a) {
			if !strings.Contains(side.b, line) {
				out += side.sign + line
			}
		}
	}
	return out
}

// broadcaster sends numbered broadcasts from an interface, and counts at others how often
// each comes.
type broadcaster struct {
	b      *bridgedLAN
	from   *lab.Host
	iface  string
	mac    net.HardwareAddr
	mark   string
	sent   atomic.Uint32
	from0  uint32 // the first that counts
	times  []time.Time
	at     map[string]*lab.Capture
	cut    map[string][][2]time.Time // when a place could not be reached
	cancel func()
	done   chan struct{}
}

const broadcastEvery = 20 * time.Millisecond

// broadcast starts it; at says where it is to arrive, as host and interface.
func (b *bridgedLAN) broadcast(mark string, from *lab.Host, iface string, at map[*lab.Host]string) *broadcaster {
	b.Helper()
	c := &broadcaster{
		b: b, from: from, iface: iface, mac: b.macOfLink(from, iface), mark: mark, at: map[string]*lab.Capture{},
		done: make(chan struct{}),
	}
	ended := make(chan struct{})
	c.cancel = sync.OnceFunc(func() { close(ended); <-c.done })
	b.Cleanup(c.cancel)
	for h, name := range at {
		capture, err := h.Capture(name)
		b.must(err)
		c.at[h.Name()] = capture
	}
	go func() {
		defer close(c.done)
		tick := time.NewTicker(broadcastEvery)
		defer tick.Stop()
		for {
			c.times = append(c.times, time.Now())
			if err := c.from.SendFrame(c.iface, c.frame(c.sent.Load())); err != nil {
				b.Logf("%s: %v", mark, err)
			}
			c.sent.Add(1)
			select {
			case <-tick.C:
			case <-ended:
				return
			}
		}
	}()
	return c
}

func (c *broadcaster) frame(number uint32) []byte {
	body := binary.BigEndian.AppendUint32(fmt.Appendf([]byte{0x88, 0xb5}, "%-12s", c.mark), number)
	return ethernet(net.HardwareAddr{255, 255, 255, 255, 255, 255}, c.mac, body)
}

// counts is how often each broadcast came to a place.
func (c *broadcaster) counts(place string) []int {
	counts := make([]int, c.sent.Load())
	head := c.frame(0)[:14+12]
	for _, f := range c.at[place].Frames() {
		if !f.Out && bytes.HasPrefix(f.Data, head) && len(f.Data) >= len(head)+4 {
			if n := binary.BigEndian.Uint32(f.Data[len(head):]); int(n) < len(counts) {
				counts[n]++
			}
		}
	}
	return counts
}

// stop ends it and holds that each broadcast came once everywhere; those sent within a
// second after a change, or just before, are excepted. To a place that is cut off none
// needs to come.
func (c *broadcaster) stop(changes ...time.Time) {
	c.b.Helper()
	c.cancel()
	for place := range c.at { // the last has gone all the way, if it ever will
		deadline := time.Now().Add(time.Second)
		for counts := c.counts(place); counts[len(counts)-1] == 0 && time.Now().Before(deadline); counts = c.counts(place) {
			time.Sleep(20 * time.Millisecond)
		}
	}
	excepted := func(at time.Time) bool {
		for _, change := range changes {
			if d := at.Sub(change); d > -200*time.Millisecond && d < time.Second {
				return true
			}
		}
		return false
	}
	for place := range c.at {
		wrong, held, when := map[int]int{}, 0, ""
		for n, count := range c.counts(place) {
			if n < int(c.from0) || excepted(c.times[n]) {
				continue
			}
			if count == 0 && c.isCut(place, c.times[n]) {
				continue
			}
			held++
			if count != 1 {
				wrong[count]++
				if last := c.times[n]; n == 0 || excepted(c.times[n-1]) || len(wrong) == 1 && wrong[count] == 1 || wrong[count]%20 == 0 {
					when += fmt.Sprintf(" %dx %v (after changes by %v)", count, last.Sub(c.times[0]).Round(10*time.Millisecond), since(last, changes))
				}
			}
		}
		c.b.Logf("%s at %s: %d broadcasts looked at", c.mark, place, held)
		if len(wrong) > 0 || held == 0 {
			c.b.Errorf("%s at %s: came so often, so many of %d: %v:%s", c.mark, place, held, wrong, when)
		}
	}
}

// since is by how much a time is after the last change before it, and before the next one (negative).
func since(at time.Time, changes []time.Time) (around []time.Duration) {
	next, last := time.Duration(math.MinInt64), time.Duration(math.MaxInt64)
	for _, change := range changes {
		if d := at.Sub(change).Round(time.Millisecond); d < 0 {
			next = max(next, d)
		} else {
			last = min(last, d)
		}
	}
	return []time.Duration{last, next}
}

func (c *broadcaster) isCut(place string, at time.Time) bool {
	for _, cut := range c.cut[place] {
		if at.After(cut[0]) && at.Before(cut[1]) {
			return true
		}
	}
	return false
}

// holdCopies holds that no broadcast came anywhere more than twice, whenever it was sent.
func (c *broadcaster) holdCopies() {
	c.b.Helper()
	for place := range c.at {
		counts := c.counts(place)
		if most := slices.Max(counts); most > 2 {
			at := c.times[slices.Index(counts, most)].Sub(c.times[0])
			c.b.Errorf("%s at %s: %d copies of one broadcast, sent at %v", c.mark, place, most, at)
		}
	}
}

// everybody starts broadcasts from the LAN and from the far site, which are to come to
// all others once.
func (b *bridgedLAN) everybody() (fromLAN, fromFar *broadcaster) {
	b.Helper()
	one, two := b.bridgeStatus(b.one).Name, b.bridgeStatus(b.two).Name
	fromLAN = b.broadcast("lan", b.host, "eth0", map[*lab.Host]string{
		b.other: "eth0", b.one.Host: one, b.two.Host: two, b.far.Host: "mesh0",
	})
	fromFar = b.broadcast("far", b.far.Host, "mesh0", map[*lab.Host]string{
		b.host: "eth0", b.other: "eth0", b.one.Host: one, b.two.Host: two,
	})
	return fromLAN, fromFar
}

// bridgeFor is how long links flap while broadcasts run.
const bridgeFor = time.Minute

// TestBridge is two members on one LAN and a third site, for a minute in which the members'
// cables are pulled and plugged, slowly and fast: each broadcast comes to each host exactly
// once, but in the second after a change, and no change interrupts for more than two seconds.
// Then `down` puts the hosts back as they were.
func TestBridge(t *testing.T) {
	t.Parallel()
	b := newBridgedLAN(t)
	c := &changes{bridgedLAN: b}
	b.pingAll(20, b.one, b.two, b.far)
	lan, far := b.everybody()
	cut := map[string][][2]time.Time{}
	// flap pulls a member's cable for a while, and plugs it again.
	flap := func(what string, n *lab.Node, whilePulled func()) {
		pulled := time.Now()
		c.change(what+"'s cable pulled", func() { b.must(n.Host.LinkDown("eth0")) })
		whilePulled()
		c.change(what+"'s cable plugged in again", func() { b.must(n.Host.LinkUp("eth0")) })
		cut[n.Host.Name()] = append(cut[n.Host.Name()], [2]time.Time{pulled, time.Now()})
	}
	for began := time.Now(); time.Since(began) < bridgeFor; {
		forwarder, _ := b.settled()
		flap("the forwarder", forwarder, func() {})
		_, blocked := b.settled()
		flap("the blocked member", blocked, func() {})
		forwarder, _ = b.settled()
		pulled := time.Now()
		c.change("the forwarder's cable flaps", func() {
			for range 3 {
				b.must(forwarder.Host.LinkDown("eth0"))
				time.Sleep(150 * time.Millisecond) // how long is what is asked for
				b.must(forwarder.Host.LinkUp("eth0"))
				time.Sleep(150 * time.Millisecond)
			}
		})
		b.settled()
		cut[forwarder.Host.Name()] = append(cut[forwarder.Host.Name()], [2]time.Time{pulled, time.Now()})
	}
	lan.cut, far.cut = cut, cut
	lan.stop(c.times...)
	far.stop(c.times...)
	_, blocked := b.settled()
	b.must(blocked.Interrupt())
	b.restored(blocked, "down")
	other := b.one
	if blocked == b.one {
		other = b.two
	}
	b.must(other.Kill())
	if _, err := other.Run(b.within(20*time.Second), "down"); err != nil {
		t.Errorf("down after kill: %v", err)
	}
	b.restored(other, "down after kill -9")
}

// changes are made while broadcasts run and a ping crosses.
type changes struct {
	*bridgedLAN
	times []time.Time // when each began and ended
}

// change makes one and holds that it interrupts neither pings from the far site nor frames
// away from the LAN for more than two seconds.
func (c *changes) change(what string, do func()) {
	b := c.bridgedLAN
	b.Helper()
	p, err := b.far.Host.Pinger(b.hostAddr, lab.PingOptions{Interval: 10 * time.Millisecond})
	b.must(err)
	b.eventually(5*time.Second, "pings cross before "+what, func() error {
		if s := p.Stats(); s.Received < 20 || s.Trailing > 50*time.Millisecond {
			return fmt.Errorf("%v", s)
		}
		return nil
	})
	away := b.unicast(b.host, "eth0", b.far.Host)
	c.times = append(c.times, time.Now())
	do()
	ended := time.Now()
	c.times = append(c.times, ended)
	b.eventually(10*time.Second, "pings cross after "+what, func() error {
		if s := p.Stats(); time.Since(ended) < 1500*time.Millisecond || s.Trailing > 50*time.Millisecond {
			return fmt.Errorf("%v", s)
		}
		return nil
	})
	s := p.Stop()
	b.Logf("%s: outage %v, %d lost, %d duplicates", what, s.Outage, s.Lost(), s.Duplicates)
	gap := away()
	b.Logf("%s: outage of frames from the LAN that nobody answers: %v", what, gap)
	if max(s.Outage, gap) > 2*time.Second {
		b.Errorf("%s: an outage of %v, and away from the LAN of %v, want 2s at most", what, s.Outage, gap)
	}
}

// TestBridgeChanges kills, ends and starts members again while broadcasts run and a ping
// crosses: nothing comes twice or not at all to the hosts of the LAN and the third site but
// in the second after a change, and no change interrupts for more than two seconds.
func TestBridgeChanges(t *testing.T) {
	b := newBridgedLAN(t)
	lan := b.broadcast("lan", b.host, "eth0", map[*lab.Host]string{b.other: "eth0", b.far.Host: "mesh0"})
	far := b.broadcast("far", b.far.Host, "mesh0", map[*lab.Host]string{b.host: "eth0", b.other: "eth0"})
	c := &changes{bridgedLAN: b}
	for range repeats(t) / 3 {
		forwarder, _ := b.settled()
		c.change("the forwarder killed", func() { b.must(forwarder.Kill()) })
		c.change("the forwarder started again", func() { b.resume(forwarder, "--bridge", "eth0") })
		forwarder, _ = b.settled()
		c.change("the forwarder restarted", func() { b.must(forwarder.Terminate()); b.resume(forwarder, "--bridge", "eth0") })
		forwarder, _ = b.settled()
		c.change("the forwarder ended", func() { b.must(forwarder.Interrupt()) })
		c.change("it is back", func() { b.resume(forwarder, "--bridge", "eth0") })
	}
	lan.stop(c.times...)
	far.stop(c.times...)
	b.must(b.one.Interrupt())
	b.must(b.two.Interrupt())
	b.restored(b.one, "down after changes")
	b.restored(b.two, "down after changes")
}

// TestForwarderDiesUnheard kills a LAN's forwarder that has never heard the member that takes
// over, so that it has not agreed to share the LAN with it: no interruption is longer for that.
func TestForwarderDiesUnheard(t *testing.T) {
	b := newBridgedLAN(t)
	c := &changes{bridgedLAN: b}
	for range repeats(t) / 3 {
		forwarder, heir := b.settled()
		b.must(heir.Interrupt())
		time.Sleep(11 * time.Second) // for so long it counts that they heard each other before
		b.shell(forwarder.Host, "nft 'table netdev deaf { chain in { type filter hook ingress device eth0 priority 0; ether type 0x88b6 drop; }; }'")
		b.resume(heir, "--bridge", "eth0")
		b.settled()
		c.change("the forwarder killed", func() { b.must(forwarder.Kill()) })
		b.shell(forwarder.Host, "nft delete table netdev deaf")
		b.resume(forwarder, "--bridge", "eth0")
	}
	b.settled()
}

// unicast sends frames from a host to a station at the far member that is heard once and
// then silent: no frame that comes back tells the LAN's switches where it is. What it returns
// ends it and says for how long nothing arrived.
func (b *bridgedLAN) unicast(from *lab.Host, iface string, to *lab.Host) func() time.Duration {
	b.Helper()
	station := net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	b.must(to.SendFrame("mesh0", ethernet(net.HardwareAddr{255, 255, 255, 255, 255, 255}, station, []byte{0x88, 0xb5})))
	frame := ethernet(station, b.macOfLink(from, iface), fmt.Appendf([]byte{0x88, 0xb5}, "one way %d", time.Now().UnixNano()))
	seen, err := to.Capture("mesh0")
	b.must(err)
	is := func(f lab.Frame) bool { return !f.Out && bytes.Equal(f.Data, frame) }
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			_ = from.SendFrame(iface, frame) // fails with the end of the lab only
			select {
			case <-tick.C:
			case <-ended:
				tick.Stop()
				return
			}
		}
	}()
	stop := sync.OnceFunc(func() { close(ended); <-done })
	b.Cleanup(stop)
	_, err = seen.Wait(b.within(5*time.Second), is)
	b.must(err)
	return func() (longest time.Duration) {
		stop()
		last := time.Time{}
		for _, f := range seen.Frames() {
			if is(f) && !last.IsZero() {
				longest = max(longest, f.Time.Sub(last))
			}
			if is(f) {
				last = f.Time
			}
		}
		longest = max(longest, time.Since(last))
		b.must(seen.Close())
		return longest
	}
}

// flow waits until broadcasts come everywhere.
func (b *bridgedLAN) flow(c *broadcaster) {
	b.Helper()
	for place := range c.at {
		b.eventually(15*time.Second, c.mark+" comes to "+place, func() error {
			if n := c.counts(place); len(n) < 10 || n[len(n)-5] == 0 {
				return fmt.Errorf("not of the last of %d", len(n))
			}
			return nil
		})
	}
}

// newTwoLANs has two members that each bridge a LAN of their own, joined by nothing but the
// mesh, and a far site. The LANs have the same IPv4 addresses of hosts on the segment.
func newTwoLANs(t *testing.T, stp bool) (b *bridgedLAN, join, split func()) {
	t.Helper()
	b = &bridgedLAN{world: newWorld(t), before: map[*lab.Node]string{}}
	b.far = b.found(b.net.Host("far", lab.HostConfig{}))
	invite := b.invite(b.far, "--uses", "2", "--role", "bridge")
	var members [2]*lab.Node
	var hosts [2]*lab.Host
	for i, name := range []string{"one", "two"} {
		h := b.net.Host(name, lab.HostConfig{}) // its uplink is not the LAN
		hosts[i] = b.net.Host("host-"+name, lab.HostConfig{})
		b.lanBehind(h, hosts[i], stp)
		members[i] = b.join(h, invite, "--bridge", "br0")
	}
	b.one, b.two = members[0], members[1]
	b.host, b.other = hosts[0], hosts[1]
	b.waitPeers(b.one, b.two, b.far)
	b.hostMAC = b.macOfLink(b.host, "l0")
	b.eventually(60*time.Second, "both forward", func() error {
		for _, n := range members {
			if s := b.bridgeStatus(n); s.State != "forwarding" {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	b.wire(members[0].Host, members[1].Host)
	set := func(what string) func() {
		return func() {
			b.Helper()
			b.inside(members[0].Host, func(h *netlink.Handle) error {
				l, err := h.LinkByName("x0")
				if err == nil && what == "up" {
					return h.LinkSetUp(l)
				}
				if err == nil {
					err = h.LinkSetDown(l)
				}
				return err
			})
		}
	}
	return b, set("up"), set("down")
}

// lanBehind gives a host a bridge br0 with a cable to another host, l0.
func (w *world) lanBehind(h, host *lab.Host, stp bool) {
	w.Helper()
	state, delay := "0", "0"
	if stp {
		state, delay = "1", "200" // centiseconds: the least that the kernel takes
	}
	w.shell(h, "ip link add br0 type bridge stp_state "+state+" forward_delay "+delay+" && ip link set br0 up")
	w.must(w.lab.Cable(h, "p0", host, "l0"))
	w.shell(h, "ip link set p0 master br0")
}

// wire lays a cable between the bridges of two hosts; x0, its end at the first, is down.
func (w *world) wire(a, b *lab.Host) {
	w.Helper()
	w.must(w.lab.Cable(a, "x0", b, "x1"))
	w.shell(a, "ip link set x0 down && ip link set x0 master br0")
	w.shell(b, "ip link set x1 master br0")
}

func (w *world) shell(h *lab.Host, script string) {
	w.Helper()
	w.run(h, "sh", "-c", script)
}

// portState is what a bridge does with a port of it.
func (w *world) portState(h *lab.Host, port string) string {
	w.Helper()
	out, err := h.Command(w.within(10*time.Second), "ip", "-d", "link", "show", port).CombinedOutput()
	w.must(err)
	_, state, found := strings.Cut(string(out), "bridge_slave state ")
	if !found {
		w.Fatalf("%s of %s: %s", port, h.Name(), out)
	}
	state, _, _ = strings.Cut(state, " ")
	return state
}

// TestBridgedLANsJoined joins and splits the LANs of two members while they run, with a
// broadcast under way at the moment that the loop is closed: it ends after few copies, and
// then all comes once again.
func TestBridgedLANsJoined(t *testing.T) {
	for name, stp := range map[string]bool{"STP off": false, "STP on": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, join, split := newTwoLANs(t, stp)
			lan := b.broadcast("lan", b.host, "l0", map[*lab.Host]string{b.other: "l0", b.far.Host: "mesh0"})
			far := b.broadcast("far", b.far.Host, "mesh0", map[*lab.Host]string{b.host: "l0", b.other: "l0"})
			b.flow(lan)
			b.flow(far)
			lan.from0, far.from0 = lan.sent.Load(), far.sent.Load() // STP lets nothing through before
			// ports are the states of the cable's ends in the bridges.
			ports := func() string {
				return b.portState(b.one.Host, "x0") + b.portState(b.two.Host, "x1")
			}
			var changes []time.Time
			change := func(do func(), settled func() error) {
				time.Sleep(500 * time.Millisecond) // of broadcasts that are to be right
				changes = append(changes, time.Now())
				do()
				was, looked := ports(), time.Now()
				b.eventually(20*time.Second, "settled", func() error {
					if is := ports(); is != was { // with STP the LANs are joined when its delays are over
						was, changes = is, append(changes, looked, time.Now())
					}
					looked = time.Now()
					return settled()
				})
				changes = append(changes, time.Now()) // of the forwarder
				time.Sleep(1500 * time.Millisecond)   // the second that is excepted, and some that are not
			}
			states := func(want int) func() error {
				return func() error {
					one, two := b.bridgeStatus(b.one), b.bridgeStatus(b.two)
					forward := 0
					for _, s := range []bridgeStatus{one, two} {
						if s.State == "forwarding" {
							forward++
						}
					}
					if forward != want || (one.Segment == two.Segment) != (want == 1) {
						return fmt.Errorf("%+v, %+v", one, two)
					}
					return nil
				}
			}
			for range repeats(t) {
				change(join, states(1))
				change(split, states(2))
			}
			lan.stop(changes...)
			far.stop(changes...)
			lan.holdCopies()
			far.holdCopies()
		})
	}
}
