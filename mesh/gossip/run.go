package gossip

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/time/rate"
)

// How often Run compares what memberlist thinks with what is so, and how much it tells memberlist at a time.
const (
	planInterval = time.Second
	feedsAtOnce  = 128
)

// Run gossips until the context ends; it is called once. Probes of memberlist's that are under way then end by themselves within some seconds,
// without sending; memberlist offers no way to wait for them. (In a bubble of testing/synctest, sleep a minute before
// the test returns.)
func (g *Gossip) Run(ctx context.Context) error {
	list, err := memberlist.Create(g.settings())
	if err != nil {
		return fmt.Errorf("start gossip: %w", err)
	}
	g.setList(list)
	defer g.setList(nil)
	defer list.Shutdown() //nolint:errcheck // it only fails where the transport does, and ours does not

	// Our own incarnation becomes 2, so that 1 always means "only known from records". UpdateNode would do the same, but a
	// broadcast that replaces the only one in memberlist's queue takes its number with it, and one that follows overwrites it.
	self := message{kind: kindSuspect, incarnation: fedIncarnation, node: g.config.Self.String(), from: g.config.Self.String()}
	g.transport.packets <- g.incoming(g.config.Self, self.append(nil))

	ticker := time.NewTicker(planInterval)
	defer ticker.Stop()
	for {
		if !g.plan(ctx) {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			case <-g.wake:
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (g *Gossip) setList(list *memberlist.Memberlist) {
	g.mu.Lock()
	g.list = list
	g.mu.Unlock()
}

// plan feeds memberlist, asks after the dead and greets newcomers. It says whether there is more to feed now.
func (g *Gossip) plan(ctx context.Context) (more bool) {
	now := time.Now()
	g.mu.Lock()
	feeds := g.table.feeds(now, g.isReachable, feedsAtOnce)
	feeds = append(feeds, g.table.accusations(now, g.isReachable)...)
	asks := append(g.table.asks(now, g.isReachable), g.table.checks(now, g.isReachable)...)
	greetings := g.table.greetings()
	g.noteChanges(now)
	g.mu.Unlock()
	for i := range feeds {
		select {
		case g.transport.packets <- g.incoming(g.config.Self, feeds[i].append(nil)):
		case <-ctx.Done():
			return false
		}
	}
	for _, p := range asks {
		g.ping(p)
	}
	for p, packets := range greetings {
		for _, packet := range packets {
			g.send(p.name, packet, now)
		}
	}
	return len(feeds) >= feedsAtOnce
}

// settings are memberlist's. The times give a detection in 13 to 29 s for 10 to 1,000 members; quicker answers are the
// business of the probes of paths.
func (g *Gossip) settings() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.config.Self.String()
	c.Transport = g.transport
	c.BindPort, c.AdvertisePort = port, port
	c.ProtocolVersion = memberlist.ProtocolVersion2Compatible

	c.ProbeInterval, c.ProbeTimeout = 2*time.Second, time.Second
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = 4, 6
	c.IndirectChecks = 4
	c.AwarenessMaxMultiplier = 8
	c.GossipInterval, c.GossipNodes = 300*time.Millisecond, 3
	c.GossipToTheDeadTime = time.Minute
	c.RetransmitMult = 4

	c.PushPullInterval = 0 // no streams at all: membership comes from the signed records
	c.DisableTcpPings = true
	c.EnableCompression = false
	c.SecretKey, c.Keyring = nil, nil
	c.RequireNodeNames = true
	c.DNSConfigPath = "/dev/null"
	c.UDPBufferSize = 900 // leaves room for the label and for what filter adds
	c.Events, c.Ping = events{g}, events{g}
	c.LogOutput = nil
	c.Logger = log.New(&logWriter{g.config.Logger, rate.NewLimiter(5, 50)}, "", 0)
	return c
}

// events are memberlist's calls, which it makes with its lock held.
type events struct{ g *Gossip }

// NotifyJoin is called when a member is thought to live, again or for the first time.
func (e events) NotifyJoin(n *memberlist.Node) { e.note(n.Name, true) }

// NotifyLeave is called when a member is thought to be dead.
func (e events) NotifyLeave(n *memberlist.Node) { e.note(n.Name, false) }

// NotifyUpdate is called when metadata changes; we have none.
func (e events) NotifyUpdate(*memberlist.Node) {}

func (e events) note(name string, up bool) {
	g := e.g
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.table.peers[name]
	if p == nil {
		return
	}
	p.joined, p.up = true, up
	p.confirmed = p.confirmed && up
	if up && p != g.table.self {
		p.left = time.Time{}
	}
	g.noteChange(p, time.Now())
}

// AckPayload is empty.
func (e events) AckPayload() []byte { return nil }

// NotifyPingComplete is called when a member has answered a probe.
func (e events) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	g := e.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.table.peers[n.Name]; p != nil && (p.near || !g.table.sparse) { // others' pings we have answered ourselves
		p.confirmed = true
		g.noteChange(p, time.Now())
	}
}

// logWriter makes memberlist's lines debug records. Peers can cause many of them.
type logWriter struct {
	logger  *slog.Logger
	limiter *rate.Limiter
}

var _ io.Writer = (*logWriter)(nil)

// Write takes one line.
func (w *logWriter) Write(line []byte) (int, error) {
	if w.limiter.Allow() {
		w.logger.Debug("memberlist", "line", strings.TrimSpace(string(line)))
	}
	return len(line), nil
}
