package portmap

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// stepTimeout bounds whatever is asked of a router at once.
	stepTimeout = 15 * time.Second
	// removeTimeout bounds the end.
	removeTimeout = 2 * time.Second
)

// Config of a Mapper.
type Config struct {
	Port    uint16   // ours, that others shall reach
	Secret  [32]byte // makes PCP's nonces, the same after a restart
	Mark    uint32   // of packets that go around the mesh, where the system has that
	Changed func()   // called when Mappings has changed; must not block
	Logger  *slog.Logger
}

// Mapper keeps a way in open for IPv4, and one for IPv6. It asks again before
// the time is over, when the router has restarted or has another address, and
// when Poke says that the network has changed.
type Mapper struct {
	cfg   Config
	slots [2]*slot
}

// slot is one family.
type slot struct {
	mapper *Mapper
	v6     bool
	poke   chan struct{}
	hint   chan struct{} // the router has announced itself

	mu    sync.Mutex
	state State
}

// State is what is known of one family's router.
type State struct {
	Route   Route      // zero: there is none
	Found   []Protocol // that the router speaks
	Mapping *Mapping   // open; nil: none is
	Err     error      // of the last attempt, while nothing is open
}

// New makes a Mapper. It does nothing until Run.
func New(cfg Config) *Mapper {
	m := &Mapper{cfg: cfg}
	for i := range m.slots {
		m.slots[i] = &slot{mapper: m, v6: i == 1, poke: make(chan struct{}, 1), hint: make(chan struct{}, 1)}
	}
	return m
}

// Poke has the way out looked up again, and mappings checked: the network may
// have changed. It does not block.
func (m *Mapper) Poke() {
	for _, s := range m.slots {
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
}

// States are those of IPv4 and IPv6.
func (m *Mapper) States() []State {
	var list []State
	for _, s := range m.slots {
		s.mu.Lock()
		list = append(list, s.state)
		s.mu.Unlock()
	}
	return list
}

// Mappings are those that are open.
func (m *Mapper) Mappings() (list []Mapping) {
	for _, st := range m.States() {
		if st.Mapping != nil {
			list = append(list, *st.Mapping)
		}
	}
	return list
}

// Run keeps mappings until ctx ends. They stay open then, for as long as they
// last; Remove closes them.
func (m *Mapper) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range m.slots {
		group.Go(func() error { return s.run(ctx) })
	}
	group.Go(func() error { return m.listen(ctx) })
	return group.Wait()
}

// Remove closes what is open, after Run has returned. It takes two seconds at most.
func (m *Mapper) Remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	errs := make([]error, len(m.slots))
	var group sync.WaitGroup
	for i, s := range m.slots {
		if st := s.state; st.Mapping != nil {
			s.state.Mapping = nil
			group.Go(func() { errs[i] = s.client(st.Mapping.Protocol).remove(ctx, st.Route, st.Mapping) })
		}
	}
	group.Wait()
	return errors.Join(errs...)
}

func (s *slot) client(p Protocol) client {
	return clients(s.mapper.cfg)[p]
}

func clients(cfg Config) [protocols]client {
	mark := marker(cfg.Mark)
	return [protocols]client{
		PCP:    pcpClient{mark, cfg.Secret},
		NATPMP: natpmpClient{mark},
		UPnP:   upnpClient{mark},
	}
}

// run does what the plan says.
func (s *slot) run(ctx context.Context) error {
	var p plan
	s.lookUp(&p)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		todo, use, until := p.next(time.Now())
		if todo != rest {
			s.do(ctx, &p, todo, use)
			s.publish(&p, nil)
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		s.publish(&p, nil)
		timer.Stop()
		var due <-chan time.Time
		if !until.IsZero() {
			timer.Reset(time.Until(until))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-due:
		case <-s.poke:
			s.lookUp(&p)
		case <-s.hint:
			s.lookUp(&p)
			p.announced(time.Now())
		}
	}
}

func (s *slot) lookUp(p *plan) {
	r, _ := defaultRoute(s.v6, s.mapper.cfg.Mark)
	p.setRoute(r, time.Now())
}

// do takes one step of the plan.
func (s *slot) do(ctx context.Context, p *plan, todo step, use Protocol) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	log := s.mapper.cfg.Logger.With("router", p.route.Gateway.String(), "protocol", use.String())
	switch todo {
	case probe:
		found := probeAll(ctx, s.mapper.cfg, p.route)
		s.mapper.cfg.Logger.Debug("ask the router which protocols it speaks", "router", p.route.Gateway.String(), "pcp", found[PCP], "nat-pmp", found[NATPMP], "upnp", found[UPnP])
		p.probed(found, time.Now())
	case open:
		m, err := s.client(use).open(ctx, p.route, s.mapper.cfg.Port, p.last)
		if ctx.Err() == context.Canceled && err != nil {
			return
		}
		if err != nil {
			m = nil
			log.Debug("map a port", "err", err)
			s.publish(p, err)
		} else if p.mapping == nil || p.mapping.External != m.External {
			log.Info("port mapped", "external", m.External.String(), "lifetime", m.Lifetime)
		}
		p.opened(m, time.Now())
	case check:
		changed, err := s.client(use).check(ctx, p.route, p.mapping)
		if changed || err != nil {
			log.Debug("check a mapped port", "changed", changed, "err", err)
		}
		p.checked(changed, err != nil, time.Now())
	}
}

// probeAll asks for all protocols at once.
func probeAll(ctx context.Context, cfg Config, r Route) (found [protocols]bool) {
	var group sync.WaitGroup
	for i, c := range clients(cfg) {
		group.Go(func() { found[i] = c.probe(ctx, r) == nil })
	}
	group.Wait()
	return found
}

// publish shows others what is open.
func (s *slot) publish(p *plan, err error) {
	st := State{Route: p.route, Err: err}
	if p.mapping != nil {
		open := *p.mapping // check writes to the plan's own
		st.Mapping = &open
	}
	for i, found := range p.found {
		if found {
			st.Found = append(st.Found, Protocol(i))
		}
	}
	s.mu.Lock()
	old := s.state
	if st.Err == nil && st.Mapping == nil && st.Route == old.Route {
		st.Err = old.Err
	}
	s.state = st
	s.mu.Unlock()
	if same(old.Mapping, st.Mapping) {
		return
	}
	if s.mapper.cfg.Changed != nil {
		s.mapper.cfg.Changed()
	}
}

func same(a, b *Mapping) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.External == b.External && a.Internal == b.Internal
}

// listen waits for a router's word that it has restarted (RFC 6886, 3.2.1; RFC
// 6887, 14.1). It is only a hint, and anybody on the LAN could give it: at most
// one a second makes us check. Without it the regular check finds out.
func (m *Mapper) listen(ctx context.Context) error {
	group := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("224.0.0.1:5350"))
	conn, err := net.ListenMulticastUDP("udp4", nil, group)
	if err != nil {
		m.cfg.Logger.Debug("listen to routers", "err", err)
		return nil
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, pcpMax)
	for ctx.Err() == nil {
		_, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return nil
		}
		if from.Addr().Unmap() != m.States()[0].Route.Gateway {
			continue
		}
		for _, s := range m.slots {
			select {
			case s.hint <- struct{}{}:
			default:
			}
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return nil
}

// Survey asks the routers in front of this host which protocols they speak, and
// opens nothing.
func Survey(ctx context.Context, mark uint32) []State {
	cfg := Config{Mark: mark, Logger: slog.New(slog.DiscardHandler)}
	list := make([]State, 2)
	var group sync.WaitGroup
	for i := range list {
		r, ok := defaultRoute(i == 1, mark)
		if !ok {
			continue
		}
		group.Go(func() {
			list[i].Route = r
			for p, found := range probeAll(ctx, cfg, r) {
				if found {
					list[i].Found = append(list[i].Found, Protocol(p))
				}
			}
		})
	}
	group.Wait()
	return list
}
