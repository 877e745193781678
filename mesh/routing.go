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

	"github.com/mdlayher/ndp"

	"meshd/keys"
	"meshd/l2"
	"meshd/l2/radv"
	"meshd/mesh/directory"
	"meshd/mesh/election"
	"meshd/mesh/gateway"
	"meshd/mesh/names"
	"meshd/mesh/record"
	"meshd/peer"
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
	slots    []*slot
	heard    radv.Routers
	host     routes // nil: this host's routes are not ours to set
	trouble  error  // why they are not as they should be
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
		if n.do(ctx, func() { next = n.advanceRouting(s, time.Now()) }) != nil {
			return nil
		}
		timer.Reset(time.Until(next))
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
		r.host, r.trouble = nil, err
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

// standing is how fit this node is to speak for the prefixes.
func (n *Node) standing() election.Standing {
	d := n.state.dir.Member(n.self)
	switch {
	case d == nil || !d.Certificate.Roles.Has(keys.RoleRouter):
		return election.Absent
	case n.cfg.Gateway && n.state.routing.up:
		return election.Uplinked
	}
	return election.Local
}

// otherRouters are the other members with the role.
func (n *Node) otherRouters(now time.Time) (list []election.Router) {
	for _, d := range n.state.dir.Members() {
		m := n.state.members[d.ID]
		if d.ID == n.self || m == nil || !d.Certificate.Roles.Has(keys.RoleRouter) {
			continue
		}
		list = append(list, election.Router{
			ID: d.ID, Gateway: isGateway(d), Alive: n.peerState(m, m.remote.Status(), now).Alive(),
		})
	}
	return list
}

func isGateway(d *directory.Member) bool {
	return d.Node != nil && d.Node.Capabilities&record.CapGateway != 0
}

// elect decides who speaks for each prefix, and does so if it is us.
func (n *Node) elect(others []election.Router, now time.Time) time.Time {
	r := &n.state.routing
	r.election.Keep(others)
	own := n.standing()
	for _, slot := range r.slots {
		chosen := r.election.Choose(slot.prefix, own, others, n.speaker(slot), now)
		if chosen != n.self {
			if slot.advert.Active() {
				n.log.Info("another routes", "prefix", slot.prefix)
			}
			slot.advert.Set(nil, now)
			continue
		}
		began := !slot.advert.Active()
		slot.advert.Set(n.advertised(slot, own), now)
		if began {
			n.log.Info("this node speaks for a prefix", "prefix", slot.prefix, "uplink", r.uplink.Name)
			n.announce(slot.prefix)
		}
	}
	return r.election.Wake(now)
}

// speaker is who spoke for a prefix last, zero for nobody.
func (n *Node) speaker(s *slot) keys.NodeID {
	name, known := n.state.segment.sw.RouterAt(s.mac)
	if !known {
		return keys.NodeID{}
	}
	if name == "" {
		return n.self
	}
	id, err := keys.ParseNodeID(name)
	if err != nil {
		return keys.NodeID{}
	}
	return id
}

// advertised is what hosts are told of a prefix.
func (n *Node) advertised(s *slot, own election.Standing) *radv.Config {
	_, _, mtu := n.state.dir.Network()
	t := record.ParseTerms(n.state.dir.Settings(), s.prefix)
	c := &radv.Config{
		MAC: s.mac, Addr: s.addr, MTU: mtu, DNS: slices.DeleteFunc(slices.Clone(n.cfg.RouterDNS), netip.Addr.Is4),
		Prefixes: []radv.Prefix{{Prefix: s.prefix, Valid: t.Lifetime, Preferred: t.Lifetime / 2, Until: t.Until}},
	}
	// A unique local prefix leads nowhere (RFC 7084, L-4).
	c.Preference = map[string]ndp.Preference{"low": ndp.Low, "high": ndp.High}[n.cfg.RouterPreference]
	if len(c.DNS) > 0 {
		c.Search = []string{names.Domain}
	}
	c.Quiet = own != election.Uplinked && !n.state.segment.sw.Strangers()
	if own == election.Uplinked && !s.prefix.Addr().IsPrivate() {
		c.Lifetime = radv.DefaultLifetime
	}
	return c
}

// sendBeats tells the other gateways how this one is.
func (n *Node) sendBeats(others []election.Router, now time.Time) time.Time {
	r := &n.state.routing
	if !n.cfg.Gateway || n.standing() == election.Absent {
		return time.Time{}
	}
	beat := election.Beat{Uplink: r.up}
	for _, slot := range r.slots {
		if slot.advert.Active() {
			beat.Active = append(beat.Active, slot.prefix)
		}
	}
	same := beat.Uplink == r.beat.Uplink && slices.Equal(beat.Active, r.beat.Active)
	if r.proxy != nil && r.proxy.News() {
		r.beats = 0 // tell it soon
	}
	if due := r.beaten.Add(election.BeatEvery); same && now.Before(due) {
		return due
	}
	r.beat, r.beaten = beat, now
	if r.proxy != nil && len(beat.Active) > 0 && r.beats%shareEveryBeats == 0 {
		beat.Sought = r.proxy.Sought(election.MaxSought)
	}
	r.beats++
	n.tellGateways(others, beat)
	return now.Add(election.BeatEvery)
}

func (n *Node) tellGateways(others []election.Router, beat election.Beat) {
	body := beat.Append(nil)
	for _, o := range others {
		if m := n.state.members[o.ID]; o.Gateway && m != nil {
			m.remote.Want()
			sendControl(m.remote, kindBeat, body)
		}
	}
}

// handleBeat takes another gateway's.
func (n *Node) handleBeat(from *peer.Remote, body []byte) {
	r := &n.state.routing
	d := n.state.dir.Member(from.ID)
	if r.election == nil || d == nil || !d.Certificate.Roles.Has(keys.RoleRouter) {
		return
	}
	beat, err := election.ParseBeat(body)
	if err != nil {
		return
	}
	r.election.Receive(from.ID, beat, time.Now())
	if r.proxy != nil {
		r.proxy.Remember(beat.Sought)
	}
	n.reroute()
}

// routingCapabilities are what our record says of it.
func (n *Node) routingCapabilities() record.Capabilities {
	switch {
	case !n.cfg.Gateway:
		return 0
	case n.state.routing.up:
		return record.CapGateway | record.CapUplink
	}
	return record.CapGateway
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
