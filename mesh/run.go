package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/keys"
	"meshd/l2"
	"meshd/mesh/api"
	"meshd/mesh/directory"
	"meshd/mesh/gossip"
	"meshd/mesh/underlay"
	"meshd/nat-traversal"
	"meshd/peer"
	"meshd/peer/udp"
	"meshd/peer/way"
)

// Run is the life of a node. It returns nil when ctx ended or `meshd down`
// asked for the end.
func Run(ctx context.Context, cfg Config) error {
	n, err := prepare(cfg)
	if err != nil {
		return err
	}
	ctx, n.stop = context.WithCancelCause(ctx)
	defer n.stop(nil)

	// The engine outlives the rest to say goodbye, and the control socket
	// outlives everything: its absence says that nothing is left.
	stopServing, served, err := n.serve()
	if err != nil {
		return errors.Join(err, n.closeStreams(), n.engine.Run(ended()), n.closeState())
	}
	n.blank = false
	stopEngine, engineDone := background(func(ctx context.Context) error { return n.vital(n.engine.Run(ctx)) })
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return n.control(inner) })
	group.Go(func() error { return n.mapPorts(inner) })
	group.Go(func() error { return n.watchNAT64(inner) })
	group.Go(func() error { return n.lookAround(inner) })
	group.Go(func() error { return n.live(inner, group) })
	err = group.Wait()
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, errEnding)) {
		err = nil
	}
	n.failed = err != nil && !n.ready.Load()
	n.goodbye()
	n.unmapPorts()
	err = errors.Join(err, n.closeSegment(), n.closeStreams())
	stopEngine()
	err = errors.Join(err, <-engineDone, n.closeState())
	stopServing()
	err = errors.Join(err, <-served)
	n.store.Sweep() // the control socket was in that folder
	return err
}

// closeState lets go of the state directory. A network that was founded by a
// start that failed goes with it, and so does all of a first start that failed
// before it did anything: nothing is left half made. Who has begun to join keeps
// its identity: it may have been given a certificate that it has not seen yet.
func (n *Node) closeState() error {
	switch {
	case n.leaving.Load():
		return n.store.Remove()
	case n.failed && (n.founded || n.blank):
		return n.store.Discard()
	}
	return n.store.Close()
}

// vital ends the node when a part of it that has to run has failed.
func (n *Node) vital(err error) error {
	if err != nil {
		n.stop(err)
	}
	return err
}

// background runs f until stop is called; done then yields its result.
func background(f func(context.Context) error) (stop func(), done <-chan error) {
	ctx, cancel := context.WithCancel(context.Background())
	c := make(chan error, 1)
	go func() { c <- f(ctx) }()
	return cancel, c
}

// ended is a context that is over: Run with it only closes what it holds.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// prepare opens the state and the sockets and makes the parts.
func prepare(cfg Config) (*Node, error) {
	withDefaults(&cfg)
	store, err := keys.Open(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg:   cfg,
		log:   cfg.Logger,
		store: store,
		tasks: make(chan func(), taskQueue),
		kick:  make(chan struct{}, 1),

		linksChanged: make(chan struct{}, 1),
		ended:        make(chan struct{}),
		started:      time.Now(),
	}
	n.nat64.changed = make(chan struct{}, 1)
	n.sightings, n.rerouted = make(chan sighting, sightingQueue), make(chan struct{}, 1)
	n.failed, n.blank = true, store.Fresh() // until it runs
	if host, ok := cfg.Host.(interface {
		Asleep(since time.Time) time.Duration
	}); ok {
		n.state.sleep.Asleep = host.Asleep
	}
	if err := firstOf(n.checkHost(), n.checkBridge(), n.undoEarlier()); err != nil {
		return nil, errors.Join(err, n.closeState())
	}
	if n.conns, err = cfg.Host.Listen(cfg.Listen); err != nil {
		return nil, errors.Join(err, n.closeState())
	}
	if err = firstOf(n.load(), n.loadShare()); err == nil {
		err = n.openStreams()
	}
	if err == nil {
		n.engine, err = n.newEngine()
	}
	if err == nil {
		n.applyShare()
	}
	if err != nil {
		for _, c := range n.conns {
			err = errors.Join(err, c.Close())
		}
		err = errors.Join(err, n.closeStreams())
		return nil, errors.Join(err, n.closeState())
	}
	n.mapper = n.newMapper()
	return n, nil
}

// checkHost says what would keep the node from its TAP, before a network is
// founded or an invite used up.
func (n *Node) checkHost() error {
	if checker, ok := n.cfg.Host.(interface{ CheckSegment(l2.TAPConfig) error }); ok && !n.cfg.NoTAP {
		return checker.CheckSegment(l2.TAPConfig{Name: n.cfg.TAP, MTU: DefaultMTU})
	}
	return nil
}

func (n *Node) newEngine() (*peer.Engine, error) {
	carriers := map[way.Class]udp.Conn{}
	for class, c := range n.streams.carriers {
		carriers[class] = c
	}
	return peer.New(peer.Config{
		Identity: n.identity,
		Conns:    n.conns,
		OpenPort: n.portOpener(),
		Carriers: carriers,
		Hello:    n.hello(),
		Observer: n,
		Logger:   n.log,
		Lanes:    parallel(),
	})
}

// portOpener is how sockets are opened beside those of the node; nil: not.
func (n *Node) portOpener() peer.PortOpener {
	host, ok := n.cfg.Host.(interface {
		OpenPort(port uint16, spare bool) (udp.Conn, error)
	})
	v4 := slices.ContainsFunc(n.conns, func(c udp.Conn) bool { return c.LocalAddr().Addr().Is4() })
	if !ok || !v4 {
		return nil
	}
	return host.OpenPort
}

func withDefaults(cfg *Config) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.TAP == "" {
		cfg.TAP = DefaultTAP
	}
	if cfg.Name == "" {
		cfg.Name = "node"
	}
	switch {
	case cfg.Host != nil:
	case cfg.NoTAP:
		cfg.Host = machine{}
	default:
		cfg.Host = machine{mark: underlay.Mark(cfg.TAP)}
	}
	cfg.Proxy = proxyOf(cfg)
}

// load reads who this node is and where it belongs, or makes it so.
func (n *Node) load() error {
	n.state.members = map[keys.NodeID]*member{}
	n.state.up = map[keys.NodeID]*member{}
	n.state.pending = map[keys.NodeID]*pendingJoiner{}
	n.state.lines = map[netip.AddrPort]*line{}
	n.state.self.stun = traversal.NewClient(newTxID)
	n.state.alarms = map[directory.Alarm]time.Time{}
	m, err := loadMembership(n.store)
	if err != nil {
		return err
	}
	if m == nil && n.cfg.Resume {
		return errors.New("resume: this node belongs to no network yet: run `meshd up` or `meshd up --join HOST` once")
	}
	if n.identity, err = n.store.LoadOrCreateIdentity(); err != nil {
		return err
	}
	n.self = n.identity.Public().ID()
	if m == nil && len(n.cfg.Join) > 0 {
		return nil
	}
	if m == nil {
		n.founded = true
		if m, err = found(n.store, n.identity, &n.cfg, time.Now()); err != nil {
			return err
		}
	}
	return n.adopt(m)
}

// adopt makes this node a member: the parts that need a network come to be, all
// or none.
func (n *Node) adopt(m *membership) (err error) {
	defer func() {
		if err != nil {
			n.state.dir = nil
		}
	}()
	now := time.Now()
	epoch, err := n.store.NextEpoch()
	if err != nil {
		return err
	}
	id := n.self
	s := &n.state
	s.membership = m
	n.chain.Store(&m.Chain)
	s.dir = directory.New(m.trust(), id)
	s.dir.Own(n.identity, epoch)
	if err := n.seedDirectory(m, now); err != nil {
		return err
	}
	n.noteRevocations()
	if err := n.openDesk(); err != nil {
		return err
	}
	s.gossip, err = gossip.New(gossip.Config{
		Self:    id,
		Network: m.trust().NetworkID(),
		Link:    gossipLink{n},
		Logger:  n.log,
	})
	if err != nil {
		return err
	}
	s.gossip.Reachable(func(id keys.NodeID) bool {
		r := n.engine.Remote(id)
		return r != nil && r.Up()
	})
	return nil
}

// live brings the node up step by step and then waits for the end.
func (n *Node) live(ctx context.Context, group *errgroup.Group) error {
	joining := n.state.membership == nil
	n.announceStart()
	group.Go(func() error { return n.keepConfigured(ctx) })
	entries, err := n.awaitEntries(ctx, joining)
	if err != nil {
		return err
	}
	if err := n.checkInvite(entries.invite); err != nil {
		return err
	}
	if joining {
		if err := n.joinNetwork(ctx, entries); err != nil {
			return err
		}
	}
	var s *segment
	var failed error
	err = n.do(ctx, func() {
		_, _, mtu := n.state.dir.Network()
		if s, failed = n.openSegment(n.prefixes(), mtu); failed == nil {
			s.life = ctx
			n.state.segment = s
			n.state.schedule.all = time.Time{} // everybody gets a port
			n.reconcileBridge(time.Now())
		}
	})
	if err = firstOf(failed, err); err != nil {
		return err
	}
	group.Go(func() error { return s.run(ctx, n) })
	group.Go(func() error { return n.route(ctx) })
	group.Go(func() error { return n.state.gossip.Run(ctx) })
	group.Go(func() error { return n.discover(ctx) })
	group.Go(func() error { return n.serveStreams(ctx) })
	n.serveUAPI(ctx, group)
	n.wake()
	if n.founded {
		n.event(Founded, n.joinLine(ctx))
	}
	if !joining && !entries.empty() {
		if err := n.checkEntries(ctx, entries); err != nil {
			return err
		}
	}
	met := !joining
	if joining {
		if met, err = n.firstMember(ctx, entries); err != nil {
			return err
		}
	}
	if err := s.portDecided(ctx); err != nil {
		return err
	}
	n.ready.Store(true)
	n.event(Ready, n.readyLine(ctx))
	n.keepEntries(ctx, met)
	return nil
}

// serve answers on the control socket until stop is called.
func (n *Node) serve() (stop func(), done <-chan error, err error) {
	serve := n.cfg.Serve
	if serve == nil {
		l, err := api.Listen(n.cfg.SocketPath)
		if err != nil {
			return nil, nil, err
		}
		serve = func(ctx context.Context, s api.Node) error { return api.Serve(ctx, l, s, n.log) }
	}
	stop, done = background(func(ctx context.Context) error { return n.vital(serve(ctx, service{n})) })
	return stop, done, nil
}

// closeSegment ends the host's side once nothing else runs.
func (n *Node) closeSegment() error {
	s := n.state.segment
	if s == nil {
		return nil
	}
	keep := n.keepsTAP()
	if err := s.close(keep); err != nil || keep {
		return err
	}
	return forgetTAP(n.store)
}

// announceStart says what kind of start this is.
func (n *Node) announceStart() {
	if n.founded {
		n.event(Progress, "founded network "+n.state.membership.trust().NetworkID().String())
		return
	}
	if n.state.membership == nil {
		n.event(Progress, "joining through "+strings.Join(joinNames(n.cfg.Join), ", "))
		return
	}
	n.event(Progress, "resuming network "+n.state.membership.trust().NetworkID().String())
}

// readyLine is what follows "ready".
func (n *Node) readyLine(ctx context.Context) string {
	info := make([]string, 0, 4)
	name := n.cfg.Name
	_ = n.do(ctx, func() {
		name = n.ownName()
		id := n.self
		for _, a := range ownAddresses(id, n.prefixes()) {
			info = append(info, a.Addr().String())
		}
	})
	tap := n.cfg.TAP
	if n.cfg.NoTAP {
		tap = "no TAP"
	}
	return fmt.Sprintf("ready %s %s %s", name, tap, strings.Join(info, " "))
}

// joinLine is what others type to join through this node.
func (n *Node) joinLine(ctx context.Context) string {
	host := "HOST"
	_ = n.do(ctx, func() {
		n.gather(time.Now())
		if len(n.cfg.Advertise) > 0 {
			host = n.cfg.Advertise[0]
		} else if list := n.candidates(time.Now()); len(list) > 0 {
			host = list[0].Addr.String()
			if list[0].Addr.Port() == DefaultPort {
				host = list[0].Addr.Addr().String()
			}
		}
	})
	return "meshd up --join " + host
}

// ownName is this node's name in the network.
func (n *Node) ownName() string {
	if d := n.state.dir.Member(n.self); d != nil {
		return d.Display
	}
	return n.cfg.Name
}
