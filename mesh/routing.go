package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/l2/radv"
	"meshd/mesh/election"
	"meshd/mesh/gateway"
)

// Who speaks for the network's prefixes, and which way packets take that leave the
// segment. The machines are in radv and election, the host's side in gateway.

const (
	// sightingQueue bounds what was seen and not looked at yet. Hosts ask again.
	sightingQueue = 128
	// routesEvery is how often routes are compared with what they should be, changes of
	// the host apart.
	routesEvery = 30 * time.Second
	// idleRouting is how long nothing is looked at when nothing is due.
	idleRouting = 5 * time.Second
	// shareEveryBeats is how often a gateway tells the others what it was asked for.
	shareEveryBeats = 3
	// solicitEvery and solicitTimes are RTR_SOLICITATION_INTERVAL and
	// MAX_RTR_SOLICITATIONS (RFC 4861, section 10).
	solicitEvery = 4 * time.Second
	solicitTimes = 3
)

// routes is what routing needs of a host.
type routes interface {
	// Uplink is the interface of the host's own IPv6 default route.
	Uplink() (gateway.Uplink, bool, error)
	Sync(want gateway.Want) error
	Problems(want gateway.Want) []gateway.Problem
	// Close puts everything back; Leave leaves it to the next process.
	Close() error
	Leave()
}

// sighting is a frame that routing is to look at.
type sighting struct {
	frame  []byte
	uplink bool // it was seen there, not on the segment
}

// routing is what the control goroutine knows of it.
type routing struct {
	election *election.Machine // nil: it has not begun
	next     time.Time         // when the routing goroutine looks again
	slots    []*slot
	heard    radv.Routers
	host     routes // nil: this host's routes are not ours to set
	trouble  error  // why they are not as they should be
	noProxy  error  // why nobody answers on the uplink for the segment
	uplink   gateway.Uplink
	up       bool
	dirty    bool // the host has changed
	looked   time.Time
	applied  gateway.Want
	old      []netip.Addr  // own addresses that are deprecated, as last told
	beaten   time.Time     // when the last beat went out
	beat     election.Beat // as last told
	beats    int
	proxy    *radv.Proxy // nil: the uplink is no Ethernet, or there is none
	link     *gateway.Link
	members  map[netip.Addr]struct{}  // their addresses
	listed   time.Time                // when that was made
	outside  map[netip.Addr]time.Time // neighbours there, by when they were heard last
	watched  []netip.Prefix           // that the uplink shares with the segment, as last told to the switch
	readers  sync.WaitGroup
	dhcp     dhcp
	asked    int // router solicitations
	askNext  time.Time
	carried  uint64    // bytes that the routers that speak had carried
	counted  time.Time // when that was looked at
}

// slot is a prefix with its virtual router.
type slot struct {
	prefix netip.Prefix
	mac    l2.MAC
	addr   netip.Addr
	advert *radv.Advertiser
	proxy  *radv.Proxy // answers on the segment for neighbours of the uplink
}

func (r *routing) hostChanged() { r.dirty = true }

// reroute has routing looked at soon.
func (n *Node) reroute() {
	select {
	case n.rerouted <- struct{}{}:
	default:
	}
}

// overheard takes a frame from the switch. It never blocks.
func (n *Node) overheard(frame []byte) { n.see(sighting{frame: slices.Clone(frame)}) }

func (n *Node) see(s sighting) {
	select {
	case n.sightings <- s:
	default:
	}
}

// route keeps routing going until ctx ends.
func (n *Node) route(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var s sighting
		select {
		case <-ctx.Done():
			return nil
		case s = <-n.sightings:
		case <-n.rerouted:
		case <-timer.C:
		}
		var next time.Time
		if n.do(ctx, func() {
			next = n.advanceRouting(s, time.Now())
			n.state.routing.next = next
		}) != nil {
			return nil
		}
		timer.Reset(time.Until(next))
	}
}

// lookAtRouting does the same without waking anybody when nothing comes of it: for members
// that may route each time, for others when there is news of members or of this host.
func (n *Node) lookAtRouting(now time.Time, news bool) {
	r := &n.state.routing
	if r.election != nil && n.standing() == election.Absent && !news && !r.dirty && now.Before(r.next) {
		return
	}
	if r.election == nil || n.advanceRouting(sighting{}, now).Before(r.next) {
		n.reroute()
	}
}

// advanceRouting takes account of what was seen, and does what is due. It returns
// when to be called again.
func (n *Node) advanceRouting(s sighting, now time.Time) time.Time {
	r := &n.state.routing
	if n.state.segment == nil || n.state.dir == nil {
		return now.Add(tick)
	}
	if r.election == nil {
		n.beginRouting(now)
	}
	n.lookAtUplink(now)
	n.keepSlots()
	n.takeSighting(s, now)
	next := now.Add(idleRouting)
	soonest := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	others := n.otherRouters(now)
	soonest(n.elect(others, now))
	soonest(n.sendBeats(others, now))
	for _, slot := range r.slots {
		frames, due := slot.advert.Poll(now)
		for _, f := range frames {
			n.state.segment.sw.Inject(f)
		}
		soonest(due)
	}
	soonest(n.solicit(now))
	n.keepStandbys(now)
	soonest(n.advanceProxy(now))
	soonest(n.advanceDHCP(now))
	n.applyRoutes(now)
	return next
}

// beginRouting opens the host's side.
func (n *Node) beginRouting(now time.Time) {
	r := &n.state.routing
	r.election = election.New(n.self, now)
	r.askNext = now
	host, ok := n.cfg.Host.(interface {
		OpenRoutes(tap string, notes []byte, save func([]byte) error) (routes, error)
	})
	if !ok || n.cfg.NoTAP {
		return
	}
	notes, err := n.store.Load(stateGateway)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		r.host, err = host.OpenRoutes(n.cfg.TAP, notes, func(b []byte) error { return n.store.Save(stateGateway, b) })
	}
	if err != nil {
		r.host = nil
		if n.cfg.Gateway || !errors.Is(err, errors.ErrUnsupported) {
			r.trouble = err
		}
		n.log.Info("routes are left as they are", "err", err)
	}
}

// lookAtUplink finds out whether this host has a way to the internet of its own.
func (n *Node) lookAtUplink(now time.Time) {
	r := &n.state.routing
	if r.host == nil || !r.dirty && now.Sub(r.looked) < routesEvery {
		return
	}
	r.dirty, r.looked = false, now
	r.applied = gateway.Want{} // compare again
	uplink, up, err := r.host.Uplink()
	if err != nil {
		r.trouble = err
		return
	}
	if up == r.up && uplink.Equal(r.uplink) {
		return
	}
	if up != r.up && n.cfg.Gateway {
		n.log.Info("uplink", "up", up, "interface", uplink.Name)
	}
	r.uplink, r.up = uplink, up
	if n.cfg.Gateway {
		n.openUplink()
	}
}

// keepSlots gives every prefix its virtual router.
func (n *Node) keepSlots() {
	r := &n.state.routing
	prefixes, shared := n.prefixes(), n.sharedPrefixes()
	if slices.Equal(shared, r.watched) && slices.EqualFunc(r.slots, prefixes, func(s *slot, p netip.Prefix) bool { return s.prefix == p }) {
		return
	}
	network := n.state.membership.trust().NetworkID()
	old := r.slots
	r.slots = nil
	macs := make([]l2.MAC, 0, len(prefixes))
	for _, p := range prefixes {
		at := slices.IndexFunc(old, func(s *slot) bool { return s.prefix == p })
		if at >= 0 {
			r.slots = append(r.slots, old[at])
		} else {
			mac := keys.RouterMAC(network, p)
			random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
			r.slots = append(r.slots, &slot{p, mac, radv.LinkLocal(mac), radv.NewAdvertiser(random), radv.NewProxy(mac, nil)})
		}
		macs = append(macs, r.slots[len(r.slots)-1].mac)
	}
	r.watched = shared
	n.state.segment.sw.SetRouters(macs, shared)
}

// takeSighting hands a frame to those whom it concerns.
func (n *Node) takeSighting(s sighting, now time.Time) {
	r := &n.state.routing
	switch {
	case s.frame == nil:
	case s.uplink:
		if r.proxy != nil {
			r.proxy.Receive(s.frame, now)
			n.heardOutside(radv.Neighbor(s.frame), now)
		}
	default:
		r.heard.Learn(s.frame, now)
		if r.dhcp.server != nil {
			r.dhcp.server.Receive(s.frame, now)
		}
		for _, slot := range r.slots {
			slot.advert.Receive(s.frame, now)
			slot.proxy.Receive(s.frame, now)
		}
	}
}

// leaveRouting ends it. It runs after the control goroutine has ended. Another
// gateway takes over at once; where there is none, hosts are told.
func (n *Node) leaveRouting(now time.Time) {
	r := &n.state.routing
	if r.election == nil {
		return
	}
	others := n.otherRouters(now)
	heir := slices.ContainsFunc(others, func(o election.Router) bool { return r.election.Standing(o, now) == election.Uplinked })
	for _, slot := range r.slots {
		if heir {
			slot.advert.Set(nil, now)
		}
		for _, f := range slot.advert.Goodbye(now) {
			n.state.segment.sw.Inject(f)
		}
	}
	if n.cfg.Gateway {
		n.tellGateways(others, election.Beat{Leaving: true})
	}
	n.closeUplink()
	n.saveLeases()
	switch {
	case r.host == nil:
	case n.keepsTAP():
		r.host.Leave()
	default:
		if err := r.host.Close(); err != nil {
			n.log.Warn("put routes back", "err", err)
		}
	}
}

// removeRoutes puts back what a killed node has changed.
func removeRoutes(store *keys.Store, tap string) error {
	notes, err := store.Load(stateGateway)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("put routes back: %w", err)
	}
	host, err := gateway.Open(tap, notes, func(b []byte) error { return store.Save(stateGateway, b) })
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("put routes back: %w", err)
	}
	return host.Close()
}
