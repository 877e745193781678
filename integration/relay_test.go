//go:build linux

package integration

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
	"meshd/mesh/api"
)

// carried is two members that have no way to each other but through one of some relays, or that had a direct one.
type carried struct {
	*world
	relays map[string]*lab.Node
	sites  [2]*lab.Site
	ends   [2]*lab.Node
	see    [2]*api.Client
	addr   netip.Addr // of the second end
}

func newCarried(t *testing.T, nat lab.NAT) *carried {
	t.Helper()
	link := lab.Link{Delay: matrixDelay}
	return newCarriedBy(t, nat, link, link)
}

// newCarriedBy is newCarried with a relay behind each of these links.
func newCarriedBy(t *testing.T, nat lab.NAT, links ...lab.Link) *carried {
	t.Helper()
	w := newWorld(t)
	link := lab.Link{Delay: matrixDelay}
	c := &carried{world: w, relays: make(map[string]*lab.Node)}
	var relays []*lab.Host
	for i, l := range links {
		relays = append(relays, w.net.Host(fmt.Sprintf("relay-%d", i+1), lab.HostConfig{V4: true, Link: l}))
	}
	for i := range c.sites {
		c.sites[i] = w.net.Site(fmt.Sprintf("site-%d", i+1), lab.SiteConfig{V4: true, NAT: nat, Link: link})
	}
	hosts := [2]*lab.Host{c.sites[0].Host("left"), c.sites[1].Host("right")}
	founder := w.found(relays[0])
	nodes := []*lab.Node{founder}
	invite := w.invite(founder, "--uses", "3")
	for _, h := range relays[1:] {
		nodes = append(nodes, w.join(h, invite))
	}
	for _, n := range nodes {
		c.relays[n.Host.Name()] = n
	}
	for i, h := range hosts {
		c.ends[i] = w.join(h, invite)
		c.see[i] = api.NewClient(filepath.Join(c.ends[i].State, "meshd.sock"))
	}
	w.waitPeers(append(nodes, c.ends[:]...)...)
	c.addr = w.addr(c.ends[1])
	return c
}

// peer is how one end sees the other.
func (c *carried) peer(end int) (api.Peer, error) {
	ctx, cancel := context.WithTimeout(c.Context(), 5*time.Second)
	defer cancel()
	s, err := c.see[end].Status(ctx)
	if err != nil {
		return api.Peer{}, err
	}
	name := c.ends[1-end].Host.Name()
	i := slices.IndexFunc(s.Peers, func(p api.Peer) bool { return p.Name == name })
	if i < 0 {
		return api.Peer{}, fmt.Errorf("%s does not know %s", c.ends[end].Host.Name(), name)
	}
	return s.Peers[i], nil
}

// settled waits until both ends say that they are connected like this and no ping has been lost for a second.
func (c *carried) settled(pings *lab.Pinger, want api.PeerState) {
	c.Helper()
	c.eventually(30*time.Second, fmt.Sprintf("both ends are %s", want), func() error {
		for end := range c.ends {
			p, err := c.peer(end)
			if err != nil {
				return err
			}
			if p.State != want {
				return fmt.Errorf("%s says %s via %v", c.ends[end].Host.Name(), p.State, p.Via)
			}
		}
		if clean := pings.Clean(pingPatience); clean < time.Second {
			return fmt.Errorf("a ping was lost %v ago: %v", clean, pings.Stats())
		}
		return nil
	})
}

// standby waits until both ends have a second way ready.
func (c *carried) standby() {
	c.Helper()
	c.eventually(30*time.Second, "a second relay is ready", func() error {
		for end := range c.ends {
			p, err := c.peer(end)
			if err != nil {
				return err
			}
			relays := make(map[string]bool)
			for _, path := range p.Paths {
				if path.Up && len(path.Via) > 0 {
					relays[path.Via[0]] = true
				}
			}
			if len(relays) < 2 {
				return fmt.Errorf("%s has paths %+v", c.ends[end].Host.Name(), p.Paths)
			}
		}
		return nil
	})
}

// pingPatience is after which time a ping counts as lost.
const pingPatience = 300 * time.Millisecond

// relay is the one that the first end uses.
func (c *carried) relay() *lab.Node {
	c.Helper()
	p, err := c.peer(0)
	c.must(err)
	if len(p.Via) != 1 || c.relays[p.Via[0]] == nil {
		c.Fatalf("left is %s with right via %v", p.State, p.Via)
	}
	return c.relays[p.Via[0]]
}

// TestRelayKilled kills the relay that a pair uses: the other one takes over.
func TestRelayKilled(t *testing.T) {
	c := newCarried(t, lab.Symmetric)
	var outages []time.Duration
	for range repeats(t) {
		pings, err := c.ends[0].Host.Pinger(c.addr, lab.PingOptions{})
		c.must(err)
		c.settled(pings, api.StateRelayed)
		c.standby()
		victim := c.relay()
		c.must(victim.Kill())
		c.settled(pings, api.StateRelayed)
		s := pings.Stop()
		t.Logf("without %s: %v", victim.Host.Name(), s)
		outages = append(outages, s.Outage)
		c.resume(victim)
	}
	holdOutages(t, "outage after a relay's death", outages, 2*time.Second)
	c.eventually(30*time.Second, "doctor says why the pair is relayed", func() error {
		checks, _ := c.doctor(c.ends[0])
		why := checks["pair "+c.ends[1].Host.Name()]
		if why.State != "warning" || !strings.Contains(why.Text, "the NATs here and there are both") || !strings.Contains(why.Remedy, "UPnP") {
			return fmt.Errorf("it says %+v", why)
		}
		return nil
	})
}

// TestRelayHostile lets a relay that a pair uses do worse and worse: it is left.
func TestRelayHostile(t *testing.T) {
	const relayed, data = 0xd3, 0x04 // first bytes; of data, after the relay's header
	tests := []struct {
		name string
		loss []lab.Loss
	}{
		{"drops 30 %", []lab.Loss{{Percent: 30}}},
		{"passes probes and drops data", []lab.Loss{{Payload: []lab.PayloadByte{{At: 0, Value: relayed}, {At: 8, Value: data}}}}},
		{"passes small packets", []lab.Loss{{Longer: 130, Payload: []lab.PayloadByte{{At: 0, Value: relayed}}}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "passes small packets" && repeats(t) < 20 {
				t.Skip("make soak runs it: data that is lost is found out alike, whatever its size")
			}
			var left []time.Duration
			for i := range (repeats(t) + 2) / 3 {
				t.Run(strconv.Itoa(i), func(t *testing.T) { left = append(left, newCarried(t, lab.Symmetric).leave(test.loss)) })
			}
			if t.Failed() {
				return
			}
			holdOutages(t, "a hostile relay is left", left, 5*time.Second)
		})
	}
}

// leave lets the relay in use lose packets, and returns when the last ping was lost. A world is good for one: who is left
// so is not asked again for minutes.
func (c *carried) leave(loss []lab.Loss) time.Duration {
	c.Helper()
	pings, err := c.ends[0].Host.Pinger(c.addr, lab.PingOptions{})
	c.must(err)
	c.settled(pings, api.StateRelayed)
	c.standby()
	relay := c.relay()
	c.must(relay.Host.Lose(loss...))
	start := time.Now()
	time.Sleep(2 * pingPatience) // until losses count
	c.settled(pings, api.StateRelayed)
	took := time.Since(start) - pings.Clean(pingPatience) - pingPatience
	c.Logf("%s is left after %v: %v", relay.Host.Name(), round(took), pings.Stop())
	c.eventually(5*time.Second, "both ends have another relay", func() error {
		for end := range c.ends {
			if p, err := c.peer(end); err != nil || len(p.Via) == 0 || p.Via[0] == relay.Host.Name() {
				return fmt.Errorf("%s goes via %v (%v)", c.ends[end].Host.Name(), p.Via, err)
			}
		}
		return nil
	})
	return took
}

// TestDirectPathLost cuts the direct path of a pair in the middle of a TCP stream, and gives it back: the relay carries
// in between, and the way back to the direct path costs no retransmission.
func TestDirectPathLost(t *testing.T) {
	c := newCarried(t, lab.Home)
	pings, err := c.ends[0].Host.Pinger(c.addr, lab.PingOptions{})
	c.must(err)
	c.settled(pings, api.StateDirect)
	echo, err := c.ends[1].Host.Echo(netip.AddrPortFrom(c.addr, 7000))
	c.must(err)
	stream, err := c.ends[0].Host.Stream(c.within(5*time.Second), echo.Addr(), lab.StreamOptions{Interval: 2 * time.Millisecond, Size: 1000})
	c.must(err)
	c.must(stream.Alive(c.within(5 * time.Second)))
	for range (repeats(t) + 2) / 3 {
		pings, err := c.ends[0].Host.Pinger(c.addr, lab.PingOptions{})
		c.must(err)
		c.must(c.net.Cut(c.sites[0], c.sites[1]))
		time.Sleep(2 * pingPatience) // until losses count
		c.settled(pings, api.StateRelayed)
		c.must(stream.Alive(c.within(10 * time.Second)))
		lost := pings.Stop()
		t.Logf("direct path lost: %v", lost)
		if lost.Outage > 6*time.Second {
			t.Errorf("the direct path is lost for %v, want twice 3 s at most", lost.Outage)
		}
		before, err := stream.Retransmissions()
		c.must(err)
		pings, err = c.ends[0].Host.Pinger(c.addr, lab.PingOptions{})
		c.must(err)
		c.must(c.net.Heal())
		start := time.Now()
		c.settled(pings, api.StateDirect)
		c.must(stream.Alive(c.within(10 * time.Second)))
		after, err := stream.Retransmissions()
		c.must(err)
		back := pings.Stop()
		t.Logf("direct again after %v: %v, %d retransmissions there, %d back", round(time.Since(start)), back, before, after-before)
		if after != before || back.Lost() > 0 {
			t.Errorf("on the way back to the direct path %d segments were sent again and %d pings lost", after-before, back.Lost())
		}
	}
}

// TestRelayedThroughput: a pair gets at least 0.8 of what the relay's own link allows to one TCP connection that comes in
// and goes out by it. That is not the link's rate: data and its acknowledgements wait in one queue in front of the relay, and
// come in bursts therefore, so that the kernel, when it passes a connection on like a router, fills two thirds of the link
// with cubic. It is asked in turn with the pair. What encryption, the frame's header and pieces cost is the pair's.
func TestRelayedThroughput(t *testing.T) {
	const (
		rate   = 20_000_000 // bit/s, so little that no machine is the limit
		least  = 0.8
		during = 6 * time.Second
		rounds = 3 // at least, and most when those were not enough: a busy machine adds chance
		most   = 8
		port   = 5001
	)
	link := lab.Link{Delay: matrixDelay}
	c := newCarriedBy(t, lab.Symmetric, lab.Link{Delay: matrixDelay, Rate: rate})
	relay, left, right := c.relays["relay-1"].Host, c.ends[0].Host, c.ends[1].Host
	plain := c.net.Host("plain", lab.HostConfig{V4: true, Link: link})
	c.must(relay.PassOn(port, plain.Addr4()))
	pings, err := left.Pinger(c.addr, lab.PingOptions{})
	c.must(err)
	c.settled(pings, api.StateRelayed)
	pings.Stop()

	var allows, gets float64 // sums of bit/s
	for n := 0; n < rounds || n < most && gets < least*allows; n++ {
		by, err := left.Transfer(c.within(during+20*time.Second), plain, netip.AddrPortFrom(plain.Addr4(), port), netip.AddrPortFrom(relay.Addr4(), port), during)
		c.must(err)
		at := netip.AddrPortFrom(c.addr, port)
		got, err := left.Transfer(c.within(during+20*time.Second), right, at, at, during)
		c.must(err)
		t.Logf("TCP payload: the kernel passes on %.1f Mbit/s (%.2f of the link's rate, %d segments again), the pair gets %.1f (%.2f, %d)",
			by.Rate()/1e6, by.Rate()/rate, by.Retransmissions, got.Rate()/1e6, got.Rate()/rate, got.Retransmissions)
		allows, gets = allows+by.Rate(), gets+got.Rate()
	}
	p, err := c.peer(0)
	c.must(err)
	if p.State != api.StateRelayed || len(p.Via) != 1 || p.Via[0] != relay.Name() {
		t.Errorf("afterwards the pair is %s via %v", p.State, p.Via)
	}
	if share := gets / allows; share < least {
		t.Errorf("the pair gets %.2f of what the relay's link allows, want %.2f", share, least)
	} else {
		t.Logf("the pair gets %.2f of what the relay's link allows", share)
	}
}
