package mesh

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"meshd/keys"
	"meshd/mesh/api"
	"meshd/mesh/directory"
	"meshd/mesh/record"
	"meshd/nat-traversal"
	"meshd/peer"
	"meshd/peer/stream"
	"meshd/peer/way"
)

const (
	// streamAfter is how long UDP may be silent before a stream is opened beside it.
	streamAfter = time.Second
	// streamIdle is how long a stream that nobody uses stays open.
	streamIdle = time.Minute
	// streamTick is how often streams are looked at while one may be missing.
	streamTick = 250 * time.Millisecond
	// maxTLSEndpoints is how many endpoints of its TLS listener a node announces.
	maxTLSEndpoints = 3
	// contacts is how many members that take streams a node keeps a session with
	// while UDP does not get through at all: they are how it is reached.
	contacts = 2
)

// streams are the ways besides UDP.
type streams struct {
	carriers map[way.Class]*stream.Carrier
	client   *stream.Client
	tcp      bool         // the host has it
	listener net.Listener // of --listen-tls; nil: none
	changed  atomic.Bool  // a stream has begun or ended
}

// streamHost is a Host that has TCP as well.
type streamHost interface {
	// ListenTCP opens a listener.
	ListenTCP(at netip.AddrPort) (net.Listener, error)
	// DialTCP connects to HOST:PORT.
	DialTCP(ctx context.Context, address string) (net.Conn, error)
}

// line is a stream that this node has opened.
type line struct {
	class  way.Class
	member keys.NodeID  // to whom it leads; zero until a hello has told
	held   *peer.Remote // that has it for a way
	used   time.Time    // when it was last of use
}

var errNoTCP = errors.New("this host has no TCP")

// openStreams makes what carries streams, and the listener where one is wanted.
func (n *Node) openStreams() error {
	n.streams.carriers = map[way.Class]*stream.Carrier{}
	for _, class := range []way.Class{way.TCP, way.SSH} {
		n.streams.carriers[class] = stream.NewCarrier(class, n.log, func() { n.streams.changed.Store(true); n.wake() })
	}
	direct := func(context.Context, string) (net.Conn, error) { return nil, errNoTCP }
	host, ok := n.cfg.Host.(streamHost)
	if n.streams.tcp = ok; ok {
		direct = host.DialTCP
	}
	n.streams.client = &stream.Client{
		Key:     n.identity.Sign,
		Chain:   n.ownChain,
		Connect: stream.Through(n.cfg.Proxy, direct),
	}
	if !n.cfg.ListenTLS.IsValid() {
		return nil
	}
	err := errNoTCP
	if ok {
		n.streams.listener, err = host.ListenTCP(n.cfg.ListenTLS)
	}
	if err != nil {
		return fmt.Errorf("listen for TLS: %w", err)
	}
	return nil
}

// closeStreams ends the listener; the carriers end with the engine.
func (n *Node) closeStreams() error {
	if l := n.streams.listener; l != nil {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("close the TLS listener: %w", err)
		}
	}
	return nil
}

// ownChain is this node's certificate, nil before it has one.
func (n *Node) ownChain(ctx context.Context) (chain []byte) {
	_ = n.do(ctx, func() {
		if m := n.state.membership; m != nil {
			chain = m.Chain
		}
	})
	return chain
}

// serveStreams takes streams on --listen-tls until ctx ends.
func (n *Node) serveStreams(ctx context.Context) error {
	if n.streams.listener == nil {
		return nil
	}
	var trust keys.Trust
	if err := n.do(ctx, func() { trust = n.state.membership.trust() }); err != nil {
		return errors.Join(err, n.streams.listener.Close())
	}
	verify := n.verify(trust)
	server := &stream.Server{
		Key: n.identity.Sign,
		Verify: func(chain []byte) (ed25519.PublicKey, error) {
			cert, err := verify(chain, time.Now())
			if err != nil {
				return nil, err
			}
			return cert.Sign[:], nil
		},
		Carrier: n.streams.carriers[way.TCP],
		Log:     n.log,
	}
	return server.Run(ctx, n.streams.listener)
}

// sourceOf is the real address behind one at which somebody was met; the zero
// one where there is none, as over ssh.
func (n *Node) sourceOf(at netip.AddrPort) netip.AddrPort {
	if !way.IsVirtual(at.Addr()) {
		return at
	}
	if c := n.streams.carriers[way.ClassOf(at)]; c != nil {
		at, _ = netip.ParseAddrPort(c.Name(at)) // else the zero one
		return at
	}
	return netip.AddrPort{}
}

// endpointName is an address for people: of a stream, where it leads.
func (n *Node) endpointName(at netip.AddrPort) string {
	if !way.IsVirtual(at.Addr()) {
		return at.String()
	}
	if c := n.streams.carriers[way.ClassOf(at)]; c != nil {
		return c.Name(at)
	}
	return ""
}

// openLine opens a stream and notes it. It may be open already.
func (n *Node) openLine(class way.Class, key string, dial stream.Dial, member keys.NodeID, now time.Time) netip.AddrPort {
	addr := n.streams.carriers[class].Open(key, dial)
	if n.state.lines[addr] == nil {
		n.state.lines[addr] = &line{class: class, member: member, used: now}
	}
	return addr
}

// assignLine notes to whom a stream leads.
func (n *Node) assignLine(at netip.AddrPort, id keys.NodeID) {
	if l := n.state.lines[at]; l != nil {
		l.member = id
		n.streams.changed.Store(true)
	}
}

// reconcileStreams opens the streams that are missing and closes those that are
// of no use; it tells remotes of the ways that come and go.
func (n *Node) reconcileStreams(now time.Time) {
	s := &n.state
	if !n.streams.changed.Swap(false) && now.Before(s.schedule.streams) {
		return
	}
	s.schedule.streams = now.Add(tick)
	used := map[netip.AddrPort]bool{}
	n.callMembers(n.watchStreams(used), now)
	for addr, l := range s.lines {
		n.holdLine(addr, l)
		if used[addr] || l.class == way.SSH { // ssh may have asked for a password
			l.used = now
		}
		if now.Sub(l.used) > streamIdle {
			n.hangUp(addr, l)
		}
	}
}

// holdLine gives a stream to the remote to which it leads while it is up, and
// takes it away when it is not.
func (n *Node) holdLine(addr netip.AddrPort, l *line) {
	var want *peer.Remote
	if n.streams.carriers[l.class].Up(addr) && !l.member.IsZero() {
		want = n.engine.Remote(l.member)
	}
	if want == l.held {
		return
	}
	if l.held != nil {
		l.held.Release(addr)
	}
	if l.held = want; want != nil {
		want.Hold(addr)
	}
}

func (n *Node) hangUp(addr netip.AddrPort, l *line) {
	if l.held != nil {
		l.held.Release(addr)
	}
	n.streams.carriers[l.class].Hang(addr)
	delete(n.state.lines, addr)
}

// watchStreams vouches for the streams over which somebody is reached, and takes
// those from the remotes that have ended. It notes those in use, and reports
// whether anybody is reached by UDP.
func (n *Node) watchStreams(used map[netip.AddrPort]bool) (direct bool) {
	for _, r := range n.connected() {
		st := r.Status()
		for _, p := range st.Paths {
			c := n.streams.carriers[way.ClassOf(p.Addr)]
			switch {
			case c == nil:
			case !c.Up(p.Addr):
				r.Release(p.Addr)
			case p.Up:
				c.Vouch(p.Addr)
			}
		}
		if st.Up {
			used[st.Endpoint] = true
			direct = direct || way.ClassOf(st.Endpoint) == way.Direct
		}
	}
	return direct
}

// connected lists those with whom there is a session, or may be one.
func (n *Node) connected() []*peer.Remote {
	s := &n.state
	list := make([]*peer.Remote, 0, len(s.up)+len(s.pending)+1)
	for _, m := range s.up {
		list = append(list, m.remote)
	}
	for _, p := range s.pending {
		list = append(list, p.remote)
	}
	if s.joining != nil {
		list = append(list, s.joining.entry)
	}
	return list
}

// callMembers opens streams to members that are wanted, take streams, and have
// not been reached otherwise for a while.
func (n *Node) callMembers(direct bool, now time.Time) {
	s := &n.state
	met := 0
	var able []keys.NodeID
	for id := range s.listeners {
		m := s.members[id]
		if m == nil || m.left {
			continue
		}
		st := m.remote.Status()
		if st.Up && !st.Failing {
			met++
			continue
		}
		able = append(able, id)
		if !st.Wanted {
			continue
		}
		since := st.WantedSince
		if m.lost.After(since) {
			since = m.lost
		}
		if wait := since.Add(streamAfter).Sub(now); wait > 0 && !st.Up && (direct || len(s.lines) == 0) {
			s.schedule.streams = earlier(s.schedule.streams, now.Add(max(wait, joinTick)))
			continue
		}
		addr := n.openLine(way.TCP, "member "+id.String(), n.dialMember(id), id, now)
		s.lines[addr].used = now
	}
	if len(able) > 0 {
		s.schedule.streams = earlier(s.schedule.streams, now.Add(streamTick))
	}
	if !direct && n.isolated(now) {
		n.wantContacts(able, contacts-met)
	}
}

// isolated says that nobody has been reached by UDP although it was tried.
func (n *Node) isolated(now time.Time) bool {
	for _, id := range n.state.neighbours {
		if m := n.state.members[id]; m != nil && !m.up && now.Sub(m.keptSince) >= streamAfter {
			return true
		}
	}
	return len(n.state.lines) > 0
}

// wantContacts asks for sessions with some members that take streams.
func (n *Node) wantContacts(able []keys.NodeID, count int) {
	slices.SortFunc(able, keys.NodeID.Compare)
	at, _ := slices.BinarySearchFunc(able, n.self, keys.NodeID.Compare)
	for i := range min(count, len(able)) { // the next on the ring, so that not all take the same
		n.state.members[able[(at+i)%len(able)]].remote.Want()
	}
}

// dialMember opens a stream to a member, wherever it says then that it listens.
func (n *Node) dialMember(id keys.NodeID) stream.Dial {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		var addresses []string
		var key ed25519.PublicKey
		err := n.do(ctx, func() {
			if d := n.state.dir.Member(id); d != nil {
				addresses, key = tlsEndpoints(d), d.Certificate.Sign[:]
			}
		})
		if err != nil {
			return nil, err
		}
		return n.streams.client.Dial(ctx, addresses, key)
	}
}

// tlsEndpoints is where a member takes streams.
func tlsEndpoints(d *directory.Member) []string {
	var list []string
	if d.Node == nil {
		return nil
	}
	for _, e := range d.Node.Endpoints {
		if e.Kind == record.KindTLS && traversal.UsableEndpoint(e.Addr) && len(list) < maxTLSEndpoints {
			list = append(list, e.Addr.String())
		}
	}
	return list
}

// ownTLSEndpoints is where this node takes streams: at the port of its listener,
// under the addresses at which it may be reached by UDP.
func (n *Node) ownTLSEndpoints() []record.Endpoint {
	l := n.streams.listener
	if l == nil {
		return nil
	}
	at, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return nil
	}
	if a := at.Addr().Unmap(); !a.IsUnspecified() {
		return []record.Endpoint{{Addr: netip.AddrPortFrom(a, at.Port()), Kind: record.KindTLS}}
	}
	list := slices.Clone(n.state.self.list)
	rank := func(c traversal.Candidate) int {
		switch private := c.Addr.Addr().IsPrivate(); {
		case c.Kind == traversal.Advertised:
			return 0
		case c.Kind == traversal.Host && !private:
			return 1
		case !private:
			return 2
		}
		return 3
	}
	slices.SortStableFunc(list, func(a, b traversal.Candidate) int { return rank(a) - rank(b) })
	var endpoints []record.Endpoint
	for _, c := range list {
		e := record.Endpoint{Addr: netip.AddrPortFrom(c.Addr.Addr(), at.Port()), Kind: record.KindTLS}
		if len(endpoints) < maxTLSEndpoints && !slices.Contains(endpoints, e) && e.Check() == nil {
			endpoints = append(endpoints, e)
		}
	}
	return endpoints
}

// proxyOf is the configured choice of proxies, or the environment's.
func proxyOf(cfg *Config) stream.ProxyFor {
	if cfg.Proxy != nil {
		return cfg.Proxy
	}
	return stream.Environment(os.Getenv)
}

// noteListener notes whether a member takes streams.
func (n *Node) noteListener(d *directory.Member) {
	s := &n.state
	switch {
	case len(tlsEndpoints(d)) == 0:
		delete(s.listeners, d.ID)
	case s.listeners == nil:
		s.listeners = map[keys.NodeID]struct{}{d.ID: {}}
	default:
		s.listeners[d.ID] = struct{}{}
	}
}

// reachedBy counts the members with whom there is a session over UDP, and over
// streams of our own.
func (n *Node) reachedBy() (udp, streams int) {
	for _, m := range n.state.up {
		st := m.remote.Status()
		switch c := way.ClassOf(st.Endpoint); {
		case !st.Up:
		case c == way.Direct:
			udp++
		case c != way.Relayed && n.state.lines[st.Endpoint] != nil:
			streams++
		}
	}
	return udp, streams
}

// streamHealth tells of a node that UDP does not get through to.
func (n *Node) streamHealth() []api.Health {
	udp, streams := n.reachedBy()
	if udp > 0 || streams == 0 {
		return nil
	}
	return []api.Health{{
		Code: "udp-blocked", Severity: api.SeverityWarning,
		Text:   "nobody is reached by UDP; this node is connected over TLS or ssh, which is slower",
		Remedy: "let UDP out of this network if you can; see meshd netcheck",
	}}
}
