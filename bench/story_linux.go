package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/bench/report"
	"meshd/integration/lab"
)

// The story: a laptop at work, behind a NAT and a slow link, is in a /64 of home's (examples/home-prefix). Once by meshd,
// and once as people did it before: a switch of vde2 at both ends, a cable through ssh between them, and radvd. Both run
// at a time, so that their samples can alternate.
//
//	laptop            work            internet             home
//	+-------+        +-----+     50 Mbit/s, 20 ms        +-------+
//	| tap0  |--------| NAT |-----------------------------| tap0  |  vde_switch, dpipe vde_plug = ssh home vde_plug
//	| mesh0 |        +-----+     each way, losses        | mesh0 |  meshd
//	+-------+                                            +-------+
type story struct {
	pair  *Pair // the laptop, and home
	work  *lab.Site
	ways  []storyWay
	meshd meshd
}

// storyLink is the slow one, one way.
var storyLink = lab.Link{Delay: 20 * time.Millisecond, Rate: 50_000_000, Adjustable: true}

// storyLosses are the shares of packets that are lost each way.
var storyLosses = []float64{0, 0.001, 0.005}

// storyWay is one way to home: the name of what carries it, and home's address by it.
type storyWay struct {
	name string
	home netip.Addr
}

// storyConfig is radvd's at home: an interface and its prefix.
const storyConfig = "interface %s {\n\tAdvSendAdvert on;\n\tMinRtrAdvInterval 3;\n\tMaxRtrAdvInterval 4;\n\tprefix %v { };\n};\n"

// newStory builds all of it and waits until both ways carry.
func newStory(ctx context.Context, binary string) (s *story, err error) {
	s = &story{pair: &Pair{}, meshd: meshd{binary: binary}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%w\n%s", err, s.pair.Logs()), s.pair.Close())
		}
	}()
	if s.pair.Dir, err = os.MkdirTemp("", "meshd-story-"); err != nil {
		return s, err
	}
	if s.pair.lab, err = lab.New(lab.Options{Name: "story"}); err != nil {
		return s, err
	}
	internet := s.pair.lab.Internet("isp")
	s.work = internet.Site("work", lab.SiteConfig{NAT: lab.Home, V4: true, Link: storyLink})
	s.pair.Hosts = [2]*lab.Host{s.work.Host("laptop"), internet.Host("home", lab.HostConfig{})}
	for _, h := range s.pair.Hosts {
		if err := os.Mkdir(s.pair.File(h, ""), 0o700); err != nil {
			return s, err
		}
	}
	s.ways = []storyWay{{name: "underlay", home: s.pair.Hosts[1].Addr4()}}
	first := s.pair.Hosts[1].Routed6()
	if err := s.startReference(ctx, next64(first)); err != nil {
		return s, err
	}
	if err := s.startMeshd(ctx, first); err != nil {
		return s, err
	}
	if _, err := s.pair.Run(s.pair.Hosts[1], "iperf3", "-s"); err != nil {
		return s, err
	}
	return s, awaitPort(ctx, s.pair.Hosts[1], iperfPort)
}

// next64 is the /64 behind another. (Home has a /48.)
func next64(p netip.Prefix) netip.Prefix {
	a := p.Addr().As16()
	a[7]++
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// startReference starts vde2 over ssh. The laptop's address comes from radvd at home, by SLAAC.
func (s *story) startReference(ctx context.Context, prefix netip.Prefix) error {
	p, laptop, home := s.pair, s.pair.Hosts[0], s.pair.Hosts[1]
	gateway := netip.PrefixFrom(prefix.Addr().Next(), 64)
	for _, h := range p.Hosts {
		if _, err := p.Run(h, "vde_switch", "-s", p.File(h, "ctl"), "-t", tap); err != nil {
			return err
		}
		var addr netip.Prefix
		if h == home {
			addr = gateway
		}
		if err := awaitTap(ctx, h, addr); err != nil {
			return err
		}
	}
	if err := s.advertise(tap, prefix); err != nil {
		return err
	}
	reference := &vde{}
	if _, err := reference.server(ctx, p, home.Addr4()); err != nil {
		return err
	}
	plug, err := absolute("vde_plug")
	if err != nil {
		return err
	}
	cable := append([]string{plug, "vde://" + p.File(laptop, "ctl"), "=", "ssh"}, reference.login(p, home.Addr4())...)
	if _, err := p.Run(laptop, "dpipe", append(cable, plug, "vde://"+p.File(home, "ctl"))...); err != nil {
		return err
	}
	s.ways = append(s.ways, storyWay{name: "vde2 over ssh", home: gateway.Addr()})
	return awaitAddress(ctx, laptop, prefix)
}

// startMeshd founds a network at home, with the prefix, and joins it from the laptop.
func (s *story) startMeshd(ctx context.Context, prefix netip.Prefix) error {
	laptop, home := lab.NewNode(s.pair.Hosts[0], s.meshd.binary, s.pair.File(s.pair.Hosts[0], "state")),
		lab.NewNode(s.pair.Hosts[1], s.meshd.binary, s.pair.File(s.pair.Hosts[1], "state"))
	s.meshd.nodes = [2]*lab.Node{laptop, home}
	if err := errors.Join(home.Up("--prefix", prefix.String()), home.Ready(ctx)); err != nil {
		return err
	}
	if err := s.advertise("mesh0", prefix); err != nil {
		return err
	}
	invite, err := home.Run(ctx, "invite")
	if err != nil {
		return err
	}
	if err := errors.Join(laptop.UpWithInput(strings.NewReader(invite), "--join", "-"), laptop.Ready(ctx)); err != nil {
		return err
	}
	addr, err := meshAddress(ctx, home)
	s.ways = append(s.ways, storyWay{name: "meshd", home: addr})
	return err
}

// advertise runs radvd at home.
func (s *story) advertise(iface string, prefix netip.Prefix) error {
	home := s.pair.Hosts[1]
	if err := home.Do(func() error { return setParameters(map[string]string{"ipv6/conf/all/forwarding": "1"}) }); err != nil {
		return err
	}
	config, err := s.pair.Write(home, "radvd-"+iface, fmt.Sprintf(storyConfig, iface, prefix))
	if err != nil {
		return err
	}
	_, err = s.pair.Run(home, "radvd", "--nodaemon", "--config", config, "--pidfile", config+".pid", "--logmethod", "stderr")
	return err
}

// awaitTap waits for the tap of vde_switch, and takes it up, with an address if there is one.
func awaitTap(ctx context.Context, h *lab.Host, prefix netip.Prefix) error {
	up := func() error {
		link, err := netlink.LinkByName(tap)
		if err != nil {
			return err
		}
		if !prefix.IsValid() {
			return netlink.LinkSetUp(link)
		}
		addr, err := netlink.ParseAddr(prefix.String())
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrReplace(link, addr), netlink.LinkSetUp(link))
	}
	var last error
	if err := poll(ctx, func() bool { last = h.Do(up); return last == nil }); err != nil {
		return fmt.Errorf("take up %s of %s: %w", tap, h.Name(), errors.Join(err, last))
	}
	return nil
}

// awaitAddress waits until a host has configured itself an address in a prefix.
func awaitAddress(ctx context.Context, h *lab.Host, prefix netip.Prefix) error {
	err := poll(ctx, func() bool {
		found := false
		_ = h.Do(func() error { // asked again
			link, err := netlink.LinkByName(tap)
			if err != nil {
				return err
			}
			addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
			found = slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
				ip, ok := netip.AddrFromSlice(a.IP)
				return ok && prefix.Contains(ip)
			})
			return err
		})
		return found
	})
	if err != nil {
		return fmt.Errorf("wait for an address in %v on %s: %w", prefix, h.Name(), err)
	}
	return nil
}

// runStory measures rounds of all ways at all losses, and in the end carries the laptop's router to another address.
func runStory(ctx context.Context, c *config, out io.Writer) error {
	dir, err := os.MkdirTemp("", "meshd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tools := &Tools{Dir: dir, Install: c.install, Paths: c.paths}
	variant := &meshd{}
	if err := errors.Join(variant.Find(ctx, tools), (&vde{}).Find(ctx, tools), tools.Package(ctx, "radvd", "radvd"),
		tools.Package(ctx, "iperf3", "iperf3"), tools.Package(ctx, "iputils-ping", "ping")); err != nil {
		return err
	}
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s, err := newStory(startCtx, variant.binary)
	if err != nil {
		return err
	}
	result := &storyResult{Machine: machine(ctx), Seconds: c.story.Seconds()}
	for round := range c.rounds {
		for _, loss := range storyLosses {
			for _, way := range s.ways {
				sample, err := s.sample(ctx, way, loss, c.story)
				if err != nil {
					return errors.Join(fmt.Errorf("%s at loss %g: %w", way.name, loss, err), s.pair.Close())
				}
				log.Printf("round %d: %v", round+1, sample)
				result.Samples = append(result.Samples, sample)
			}
		}
		slices.Reverse(s.ways)
	}
	if result.Moves, err = s.move(ctx, 30*time.Second); err != nil {
		return errors.Join(err, s.pair.Close())
	}
	return errors.Join(s.pair.Close(), result.publish(c.out, out))
}

// sample measures one way at one loss: TCP for d each way, a ping beside it, and one without.
func (s *story) sample(ctx context.Context, way storyWay, loss float64, d time.Duration) (storySample, error) {
	sample := storySample{Way: way.name, Loss: loss}
	link := storyLink
	link.Loss = loss
	if err := s.work.SetLink(link); err != nil {
		return sample, err
	}
	laptop := s.pair.Hosts[0]
	var err error
	if sample.Idle, err = patientPing(ctx, laptop, way.home, time.Second); err != nil {
		return sample, err
	}
	for _, direction := range []struct {
		down bool
		mbit *float64
		ping *float64
	}{{false, &sample.Up, &sample.PingUp}, {true, &sample.Down, &sample.PingDown}} {
		failed := make(chan error, 1)
		go func() {
			var err error
			*direction.ping, err = patientPing(ctx, laptop, way.home, d-200*time.Millisecond)
			failed <- err
		}()
		t, err := iperf(ctx, laptop, way.home, 1, int(d.Seconds()), direction.down)
		if err := errors.Join(err, <-failed); err != nil {
			return sample, err
		}
		*direction.mbit = t.mbits
	}
	return sample, nil
}

// patientPing is the median round trip of pings, in ms. Unlike ping it waits: TCP in TCP may stand still for seconds.
func patientPing(ctx context.Context, from *lab.Host, to netip.Addr, d time.Duration) (float64, error) {
	const interval, patience = 20 * time.Millisecond, 5 * time.Second
	count := int(d / interval)
	ctx, cancel := context.WithTimeout(ctx, d+2*patience)
	defer cancel()
	out, err := from.Command(ctx, "ping", "-n", "-i", "0.02", "-W", "5", "-c", fmt.Sprint(count), to.String()).Output()
	all := parsePing(string(out))
	if len(all) < count/3 {
		return 0, fmt.Errorf("ping %v: %d of %d answered (%v)", to, len(all), count, err)
	}
	slices.Sort(all)
	return report.Quantile(all, 0.5), nil
}

// move gives the laptop's router another address under a ping by each way but the underlay, and pings on for d.
func (s *story) move(ctx context.Context, d time.Duration) ([]storyMove, error) {
	if err := s.work.SetLink(storyLink); err != nil {
		return nil, err
	}
	ways := slices.DeleteFunc(slices.Clone(s.ways), func(w storyWay) bool { return w.name == "underlay" })
	pingers := make([]*lab.Pinger, len(ways))
	for i, way := range ways {
		p, err := s.pair.Hosts[0].Pinger(way.home, lab.PingOptions{Interval: 100 * time.Millisecond})
		if err != nil {
			return nil, err
		}
		pingers[i] = p
		if err := poll(ctx, func() bool { return p.Stats().Received > 5 }); err != nil {
			return nil, fmt.Errorf("ping by %s: %w", way.name, err)
		}
	}
	if err := s.work.Renumber(); err != nil {
		return nil, err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var moves []storyMove
	for i, way := range ways {
		stats := pingers[i].Stop()
		moves = append(moves, storyMove{
			Way: way.name, Sent: stats.Sent, Lost: stats.Lost(), Outage: stats.Outage.Seconds(), Back: stats.Trailing < time.Second,
		})
	}
	return moves, nil
}
