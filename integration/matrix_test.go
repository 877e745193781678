//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/integration/lab"
	"meshd/mesh/api"
)

const (
	firstFrameBound = time.Second     // from need to the first answer, at the 95th percentile, when there is a relay
	directBound     = 3 * time.Second // from need to a direct path, at the 95th percentile
	directPatience  = 12 * time.Second
	relayedPatience = 3 * time.Second // how long a pair must stay relayed that the RFCs leave no other way
	steadyTime      = time.Second     // over which the traffic of a settled pair is counted
)

// place is a member of the matrix's mesh.
type place struct {
	*lab.Node
	kind   kind
	site   string // what the core sees its packets come from; empty when several share it
	client *api.Client
	addr   netip.Addr
	mac    net.HardwareAddr
}

// pair is a meeting of two places, and what came of it.
type pair struct {
	a, b   *place
	want   verdict
	cold   bool          // they had no session before
	first  time.Duration // until the first answer; negative: none
	direct time.Duration // until both say direct; negative: they did not
	via    []string
	stats  lab.PingStats
	crowd  string // what the core says, when it contradicts the members
	err    error
}

// TestMatrix lets a host of each kind of NAT meet one of each other kind, in one mesh with two relays on the internet.
// What must be direct and what must be relayed is judge's.
func TestMatrix(t *testing.T) {
	w := newWorld(t)
	link := lab.Link{Delay: matrixDelay}
	relays := []*lab.Host{w.net.Host("relay-1", lab.HostConfig{Link: link}), w.net.Host("relay-2", lab.HostConfig{Link: link})}
	var hosts [][2]*lab.Host
	for _, k := range kinds() {
		hosts = append(hosts, k.build(w.net, k.name))
	}
	w.must(w.lab.Ready(w.within(20 * time.Second)))
	start := time.Now()
	w.net.SetName("home.example", relays[0].Addrs()...)
	founder := w.quietNode(relays[0])
	w.must(founder.Up())
	w.must(founder.Ready(w.within(10 * time.Second)))
	invite := w.invite(founder, "--uses", "100")
	nodes := []*lab.Node{w.quietNode(relays[1])}
	places := make([][2]*place, len(hosts))
	flags := make(map[*lab.Node][]string)
	for i, k := range kinds() {
		for j, h := range hosts[i] {
			p := &place{Node: w.quietNode(h), kind: k, site: h.Name()}
			if k.oneLAN || k.oneCarrier {
				p.site = k.name
			}
			if k.name == "public" {
				flags[p.Node] = []string{"--relay", "off"}
			}
			places[i][j], nodes = p, append(nodes, p.Node)
		}
	}
	w.joinAll(invite, nodes, flags)
	names := []string{relays[0].Name()}
	for _, n := range nodes {
		names = append(names, n.Host.Name())
	}
	for i := range places {
		for _, p := range places[i] {
			w.introduce(p)
		}
	}
	w.eventually(30*time.Second, "all are known", func() error {
		var errs []error
		for i := range places {
			for _, p := range places[i] {
				errs = append(errs, p.knows(w.Context(), names))
			}
		}
		return errors.Join(errs...)
	})
	t.Logf("%d members know each other after %v", len(nodes)+1, round(time.Since(start)))
	w.restart(nodes[1:]) // not the relays
	pairs, others := w.pairs(places)
	w.must(w.net.CountFlows())
	w.meetAll(pairs, 5)
	if slow := tardy(t, pairs); repeats(t) >= 20 || slow != nil {
		t.Logf("the other pairs meet too: %v", slow)
		w.meetAll(others, 5)
		pairs = append(pairs, others...)
	}
	t.Log("\n" + grid(pairs))
	report(t, pairs)
}

// restart restarts nodes at once, so that none has a session but with its neighbours: else there would be three minutes to
// wait until those end that joining has made.
func (w *world) restart(nodes []*lab.Node) {
	w.Helper()
	w.all(nodes, func(n *lab.Node) error { return keepQuiet(w.Context(), n.Host) })
	w.all(nodes, (*lab.Node).Terminate)
	w.all(nodes, func(n *lab.Node) error {
		if err := n.Up("--resume"); err != nil {
			return err
		}
		return n.Ready(w.within(20 * time.Second))
	})
	w.eventually(30*time.Second, "each has a session with somebody", func() error {
		for _, n := range nodes {
			s := w.status(n)
			if !slices.ContainsFunc(s.Peers, func(p peerStatus) bool { return p.State == "direct" || p.State == "relayed" }) {
				return fmt.Errorf("%s has none", n.Host.Name())
			}
		}
		return nil
	})
}

// keepQuiet drops what a host's kernel says to everyone on the segment by itself: reports of multicast groups, questions for
// routers. It would make a session with every member.
func keepQuiet(ctx context.Context, h *lab.Host) error {
	cmd := h.Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader("table netdev quiet { chain out { type filter hook egress device mesh0 priority 0; " +
		"ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop; }; }\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("keep %s quiet: %w\n%s", h.Name(), err, out)
	}
	return nil
}

// quietNode is a node that says nothing of itself when the test fails: there are many.
func (w *world) quietNode(h *lab.Host) *lab.Node {
	n := lab.NewNode(h, w.bin, filepath.Join(w.dir, h.Name()))
	n.Logf = func(string, ...any) {}
	return n
}

// invitation is what `--join -` reads.
func invitation(invite string) io.Reader { return strings.NewReader(invite + "\n") }

// joinAll lets nodes join by an invite, ten at a time: a small machine is slow with more.
func (w *world) joinAll(invite string, nodes []*lab.Node, flags map[*lab.Node][]string) {
	w.Helper()
	for batch := range slices.Chunk(nodes, 10) {
		for _, n := range batch {
			w.must(n.UpWithInput(invitation(invite), append([]string{"--join", "-"}, flags[n]...)...))
		}
		w.all(batch, func(n *lab.Node) error { return n.Ready(w.within(time.Minute)) })
	}
}

// introduce learns what a place is in the mesh.
func (w *world) introduce(p *place) {
	w.Helper()
	s := w.status(p.Node)
	p.addr = s.Self.Addresses[0]
	mac, err := net.ParseMAC(s.Self.MAC)
	w.must(err)
	p.mac = mac
	p.client = api.NewClient(filepath.Join(p.State, "meshd.sock"))
}

// pairs chooses one pair for each two kinds, and returns the others besides: they meet when there is time, or when the
// few have been slow, of whom the 95th percentile is the slowest.
func (w *world) pairs(places [][2]*place) (chosen, others []*pair) {
	meeting := func(a, b *place, same bool) *pair {
		return &pair{a: a, b: b, want: judge(a.kind, b.kind, same), first: -1, direct: -1}
	}
	for i := range places {
		chosen = append(chosen, meeting(places[i][0], places[i][1], true))
		for j := i + 1; j < len(places); j++ {
			here, there := places[i], places[j]
			even, odd := (i+j)%2, (i+j+1)%2
			chosen = append(chosen, meeting(here[even], there[odd], false))
			others = append(others, meeting(here[odd], there[odd], false), meeting(there[even], here[even], false), meeting(there[even], here[odd], false))
		}
	}
	return chosen, others
}

// grid draws the matrix: D and how many seconds it took, R for relayed, ? for no answer; small letters where there was
// a session before.
func grid(pairs []*pair) string {
	names := make([]string, 0, 16)
	cells := make(map[[2]string]string)
	for _, p := range pairs {
		a, b := p.a.kind.name, p.b.kind.name
		if !slices.Contains(names, a) {
			names = append(names, a)
		}
		cell := "R"
		switch {
		case p.first < 0:
			cell = "?"
		case p.direct >= 0:
			cell = fmt.Sprintf("D%.1f", p.direct.Seconds())
		}
		if !p.cold {
			cell = strings.ToLower(cell[:1])
		}
		cells[[2]string{a, b}] += " " + cell
	}
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for i, row := range names {
		fmt.Fprintf(table, "%2d %s\t", i+1, row)
		for _, column := range names[:i+1] {
			fmt.Fprintf(table, "%s\t", strings.TrimSpace(cells[[2]string{column, row}]+cells[[2]string{row, column}]))
		}
		fmt.Fprintln(table)
	}
	_ = table.Flush() // into memory
	return text.String()
}

// meetAll lets all pairs meet, so many at a time, and none of them takes part in two meetings at once.
func (w *world) meetAll(pairs []*pair, atOnce int) {
	var mu sync.Mutex
	free := sync.NewCond(&mu)
	busy := make(map[*place]bool)
	var group sync.WaitGroup
	left := slices.Clone(pairs)
	for len(left) > 0 {
		mu.Lock()
		next := -1
		for next < 0 {
			next = slices.IndexFunc(left, func(p *pair) bool { return len(busy) < 2*atOnce && !busy[p.a] && !busy[p.b] })
			if next < 0 {
				free.Wait()
			}
		}
		p := left[next]
		busy[p.a], busy[p.b] = true, true
		mu.Unlock()
		left = slices.Delete(left, next, next+1)
		group.Go(func() {
			p.err = w.meet(p)
			mu.Lock()
			defer mu.Unlock()
			delete(busy, p.a)
			delete(busy, p.b)
			free.Broadcast()
		})
	}
	group.Wait()
}

// meet lets one pair exchange pings, from none to a settled path.
func (w *world) meet(p *pair) error {
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	for _, ends := range [][2]*place{{p.a, p.b}, {p.b, p.a}} {
		if err := neighbour(ends[0].Node, ends[1].Node, ends[1].addr, ends[1].mac); err != nil {
			return err
		}
	}
	before, err := p.a.peer(ctx, p.b)
	if err != nil {
		return err
	}
	p.cold = !before.State.Connected()
	start := time.Now()
	p.via = before.Via
	pings, err := p.a.Host.Pinger(p.b.addr, lab.PingOptions{})
	if err != nil {
		return err
	}
	defer pings.Close()
	patience := map[verdict]time.Duration{always: directPatience, never: relayedPatience, luck: relayedPatience}[p.want]
	if !p.cold {
		patience = min(patience, relayedPatience)
	}
	for time.Since(start) < patience && p.direct < 0 {
		here, err := p.a.peer(ctx, p.b)
		if err != nil {
			return err
		}
		there, err := p.b.peer(ctx, p.a)
		if err != nil {
			return err
		}
		if p.via = here.Via; here.State == api.StateDirect && there.State == api.StateDirect {
			p.direct = time.Since(start)
		}
		time.Sleep(100 * time.Millisecond) // the path settles by itself, or does not
	}
	for pings.Stats().Received == 0 && time.Since(start) < directPatience {
		time.Sleep(20 * time.Millisecond) // a path that a router has forgotten is found out by silence
	}
	if err := w.count(p); err != nil {
		return err
	}
	p.stats = pings.Stop()
	p.first = -1
	if p.stats.Received > 0 {
		p.first = p.stats.First
	}
	return nil
}

// count compares what the members say with what passes the core.
func (w *world) count(p *pair) error {
	before, err := w.net.Flows()
	if err != nil {
		return err
	}
	time.Sleep(steadyTime) // what is measured is the traffic of so long a time
	after, err := w.net.Flows()
	if err != nil {
		return err
	}
	if p.a.site == p.b.site || p.want == luck {
		return nil // what they say to each other does not pass the core; or they may change their minds meanwhile
	}
	there, back := lab.Flow{From: p.a.site, To: p.b.site}, lab.Flow{From: p.b.site, To: p.a.site}
	sent, answered := after[there].Packets-before[there].Packets, after[back].Packets-before[back].Packets
	const most = uint64(steadyTime / (20 * time.Millisecond) / 3) // a busy machine sends fewer
	here, err := p.a.peer(w.Context(), p.b)
	if err != nil {
		return err
	}
	beyond, err := p.b.peer(w.Context(), p.a)
	if err != nil {
		return err
	}
	if both := here.State == api.StateDirect && beyond.State == api.StateDirect; both != (p.direct >= 0) {
		return nil // they have changed their minds while it was counted: a router had forgotten the one that was direct
	}
	if direct := sent >= most && answered >= most; direct != (p.direct >= 0) {
		if now, err := p.a.peer(w.Context(), p.b); err == nil && direct && p.want == luck && now.State == api.StateDirect {
			return nil // it has become so meanwhile
		}
		p.crowd = fmt.Sprintf("%d packets there and %d back pass the core between them", sent, answered)
	}
	return nil
}

// knows fails unless the place knows all of these names, its own among them.
func (p *place) knows(ctx context.Context, names []string) error {
	s, err := p.client.Status(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{s.Self.Name: true}
	for _, peer := range s.Peers {
		known[peer.Name] = true
	}
	missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return known[name] })
	if len(missing) > 0 {
		return fmt.Errorf("%s does not know %v", p.Host.Name(), missing)
	}
	return nil
}

// peer is how a place sees another.
func (p *place) peer(ctx context.Context, other *place) (api.Peer, error) {
	s, err := p.client.Status(ctx)
	if err != nil {
		return api.Peer{}, fmt.Errorf("%s: %w", p.Host.Name(), err)
	}
	for _, peer := range s.Peers {
		if peer.Name == other.Host.Name() {
			return peer, nil
		}
	}
	return api.Peer{}, fmt.Errorf("%s does not know %s", p.Host.Name(), other.Host.Name())
}

// neighbour tells a host where another is on the segment: else the first frame would be a question to everyone, which
// wakes all sessions.
func neighbour(at, of *lab.Node, addr netip.Addr, mac net.HardwareAddr) error {
	err := at.Host.Do(func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		tap, err := h.LinkByName("mesh0")
		if err != nil {
			return err
		}
		return h.NeighSet(&netlink.Neigh{
			LinkIndex: tap.Attrs().Index, Family: netlink.FAMILY_V6, State: netlink.NUD_PERMANENT,
			IP: addr.AsSlice(), HardwareAddr: mac,
		})
	})
	if err != nil {
		return fmt.Errorf("tell %s where %s is: %w", at.Host.Name(), of.Host.Name(), err)
	}
	return nil
}

// report prints the matrix and holds it to the bounds.
func report(t *testing.T, pairs []*pair) {
	t.Helper()
	cold := 0
	for _, p := range pairs {
		name := p.a.Host.Name() + " to " + p.b.Host.Name()
		line := fmt.Sprintf("%-44s %-8s first %-8s direct %-8s cold %-5v via %v; %v", name, p.want, round(p.first), round(p.direct), p.cold, p.via, p.stats)
		t.Log(line)
		switch {
		case p.err != nil:
			t.Errorf("%s: %v", name, p.err)
			continue
		case p.first < 0:
			t.Errorf("%s: no answer: %s", name, line)
			continue
		case p.crowd != "":
			t.Errorf("%s: %s, though: %s", name, p.crowd, line)
		case p.want == always && p.direct < 0:
			t.Errorf("%s: not direct: %s", name, line)
		case p.want == never && p.direct >= 0:
			t.Errorf("%s: direct, which cannot be: %s", name, line)
		}
		if p.cold {
			cold++
		}
	}
	t.Logf("%d of %d pairs were cold", cold, len(pairs))
	if cold < len(pairs)/4 {
		t.Errorf("only %d of %d pairs were cold: the times say nothing", cold, len(pairs))
		return
	}
	for _, q := range meetingTimes(t, pairs) {
		t.Log(q)
	}
	if err := tardy(t, pairs); err != nil {
		t.Error(err)
	}
}

// tardy says which times of the meetings are beyond their bound.
func tardy(t *testing.T, pairs []*pair) error {
	t.Helper()
	var errs []error
	for _, q := range meetingTimes(t, pairs) {
		errs = append(errs, q.beyond())
	}
	return errors.Join(errs...)
}

// meetingTimes are how long the pairs took that have met.
func meetingTimes(t *testing.T, pairs []*pair) []quantiles {
	t.Helper()
	bound := firstFrameBound
	if repeats(t) < 20 {
		bound *= 2 // as for outages: once, on a machine that has 30 nodes to run
	}
	first := quantiles{what: "first answer", bound: bound}
	direct := quantiles{what: "direct path", bound: directBound}
	warm := quantiles{what: "first answer of those that had a session, and may have been forgotten by a router", bound: directBound}
	for _, p := range pairs {
		switch {
		case p.err != nil || p.first < 0:
		case !p.cold:
			warm.all = append(warm.all, p.first)
		default:
			first.all = append(first.all, p.first)
			if p.want == always && p.direct >= 0 {
				direct.all = append(direct.all, p.direct)
			}
		}
	}
	return []quantiles{first, direct, warm}
}

// quantiles are durations of which 95 of 100 are held to a bound.
type quantiles struct {
	what  string
	all   []time.Duration
	bound time.Duration
}

func (q quantiles) at(share float64) time.Duration {
	all := slices.Sorted(slices.Values(q.all))
	return all[min(int(share*float64(len(all))), len(all)-1)]
}

func (q quantiles) String() string {
	if len(q.all) == 0 {
		return q.what + ": nothing was measured"
	}
	return fmt.Sprintf("%s: p50 %v, p95 %v, max %v of %d", q.what, round(q.at(0.5)), round(q.at(0.95)), round(q.at(1)), len(q.all))
}

// beyond is an error when the bound is not kept, or nothing was measured.
func (q quantiles) beyond() error {
	if len(q.all) == 0 || q.at(0.95) > q.bound {
		return fmt.Errorf("%v, want %v at most", q, q.bound)
	}
	return nil
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
