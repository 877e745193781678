package mesh

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/mesh/lan"
	"meshd/peer"
	"meshd/peer/hello"
)

const (
	// meetAtOnce bounds the hellos that discovery has under way.
	meetAtOnce = 16
	// metFor is how long a member that was met on a link is not met there again.
	metFor = 15 * time.Minute
	// heardQueue is what may wait to be looked at.
	heardQueue = 64
)

// links is a host's part in the discovery of members on its own links.
type links interface {
	Refresh(exclude func(ifname string) bool) error
	Send(msg []byte)
	Receive(f func(from netip.AddrPort, msg []byte))
	Close() error
}

// linkHost is what a Host may offer.
type linkHost interface {
	OpenLinks(ctx context.Context) (links, error)
}

// OpenLinks opens multicast on this machine's links.
func (machine) OpenLinks(ctx context.Context) (links, error) { return lan.Listen(ctx) }

// discovery finds members on the links of this host.
type discovery struct {
	node   *Node
	links  links
	beacon *lan.Beacon
	meets  errgroup.Group
	met    map[netip.AddrPort]time.Time // who was met where; owned by run
	ended  chan meetEnd
}

// meetEnd says that a hello to an address has ended well.
type meetEnd struct{ at netip.AddrPort }

// discover runs until ctx ends. A host whose links do not let us goes without.
func (n *Node) discover(ctx context.Context) error {
	host, ok := n.cfg.Host.(linkHost)
	if !ok || n.cfg.Listen.Addr().IsLoopback() {
		return nil
	}
	var root []byte
	if n.do(ctx, func() { root = n.state.membership.Root }) != nil {
		return nil // it ends before it has begun
	}
	beacon, err := lan.NewBeacon(root, n.conns[0].LocalAddr().Port())
	if err != nil {
		return err
	}
	l, err := host.OpenLinks(ctx)
	if err != nil {
		n.log.Info("members on the LAN are not discovered", "err", err)
		return nil
	}
	d := &discovery{node: n, links: l, beacon: beacon, met: map[netip.AddrPort]time.Time{}, ended: make(chan meetEnd, meetAtOnce)}
	d.meets.SetLimit(meetAtOnce)
	return d.run(ctx)
}

// hearing is what came in by a link.
type hearing struct {
	from netip.AddrPort
	msg  []byte
}

func (d *discovery) run(ctx context.Context) error {
	heard := make(chan hearing, heardQueue)
	var receiving errgroup.Group
	receiving.Go(func() error {
		d.links.Receive(func(from netip.AddrPort, msg []byte) {
			if len(msg) != lan.Size || len(heard) == cap(heard) {
				return
			}
			select {
			case heard <- hearing{from, append([]byte(nil), msg...)}:
			default:
			}
		})
		return nil
	})
	defer func() {
		_ = d.links.Close()
		_ = receiving.Wait()
		_ = d.meets.Wait()
	}()
	d.refresh()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.node.linksChanged:
			d.refresh()
			d.beacon.Changed()
			timer.Reset(0)
		case h := <-heard:
			now := time.Now()
			if at, meet := d.beacon.Heard(now, h.from, h.msg); meet {
				d.meet(ctx, at, now)
			}
		case e := <-d.ended:
			d.met[e.at] = time.Now()
		case now := <-timer.C:
			say, next := d.beacon.Poll(now)
			if say != nil {
				d.links.Send(say)
			}
			timer.Reset(time.Until(next))
		}
	}
}

func (d *discovery) refresh() {
	if err := d.links.Refresh(func(ifname string) bool { return ifname == d.node.cfg.TAP && !d.node.cfg.NoTAP }); err != nil {
		d.node.log.Debug("discover members on the LAN", "err", err)
	}
}

// meet says hello to who may be a member, once: whether it answers or not, what
// we send is no more than what we have heard. Who it is, the observer hears.
func (d *discovery) meet(ctx context.Context, at netip.AddrPort, now time.Time) {
	if d.node.engineReaches(at) || now.Sub(d.met[at]) < metFor {
		return
	}
	for addr, when := range d.met {
		if now.Sub(when) >= metFor {
			delete(d.met, addr)
		}
	}
	d.meets.TryGo(func() error {
		ctx, cancel := context.WithTimeout(ctx, meetAgain)
		defer cancel()
		var cfg hello.Config
		if d.node.do(ctx, func() { cfg = d.node.hello() }) != nil {
			return nil
		}
		cfg.Opens = 1
		if _, err := d.node.engine.Meet(ctx, at, cfg); err != nil {
			d.node.log.Debug("meet who is on the LAN", "addr", at.String(), "err", err)
			return nil
		}
		select {
		case d.ended <- meetEnd{at}:
		case <-ctx.Done():
		}
		return nil
	})
}

// engineReaches reports whether a member is reached at an address already.
func (n *Node) engineReaches(at netip.AddrPort) bool {
	for _, r := range n.engine.Remotes() {
		if r.Class() != peer.Member {
			continue
		}
		for _, p := range r.Status().Paths {
			if p.Addr == at && p.Up {
				return true
			}
		}
	}
	return false
}
