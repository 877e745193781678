package gossip

import (
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"meshd/keys"
)

// What one member may send us. Its own memberlist stays far below.
const (
	packetRate, packetBurst         = 50, 100
	byteRate, byteBurst             = 64 << 10, 128 << 10
	accusationRate, accusationBurst = 16, 128
	errandRate, errandBurst         = 8, 32 // indirect pings: each makes us send one packet
)

// Incarnations. memberlist's are 32 bits wide and wrap, after which nobody believes a member any more. So they may grow
// freely only up to a floor that leaves restarts and floods room enough, and from there by 64 and then one a second: 2^31 is
// 68 years away.
const (
	fedIncarnation   = 1 // what we feed of others at first; it is never passed on, and their own begin at 2
	incarnationFloor = 1 << 20
	incarnationStep  = 64
	maxIncarnation   = 1<<31 - 1
)

const (
	heardFor     = 10 * time.Second // a packet from a member shows it alive for so long
	goodbyeFor   = 10 * time.Second // what trails a goodbye does not revive
	feedAgain    = 2 * time.Second
	tellInterval = 5 * time.Second // our own incarnation goes to each peer we talk to
	checkEvery   = 5 * time.Second // a suspect is asked
	askInterval  = 10 * time.Second
	askSooner    = 3 * time.Second  // once it has waited for greetings that long, and until
	askSoonerFor = time.Minute      // after it has started
	errandFor    = 2 * time.Second  // after a request to ping, a ping is on somebody's behalf
	accuseAfter  = 15 * time.Second // without evidence of a neighbour, doubling while others vouch for it
	accuseAtMost = time.Hour
	greetAfter   = time.Minute // of silence
	greeters     = 4           // how many members greet one that comes, on average
	greetAtOnce  = 64          // names a second for each that is greeted
	perPacket    = 8           // names
)

// peer is what is known of one member, ourselves included.
type peer struct {
	id   keys.NodeID
	name string // the id as text, which is memberlist's name for it
	addr [16]byte

	incarnation uint32 // the highest one seen
	growth      *rate.Limiter
	joined      bool // memberlist knows it
	up          bool // memberlist thinks that it lives
	confirmed   bool // and somebody has evidence, or it is only our assumption
	shown       bool // what Alive said last
	near        bool // a neighbour

	fed, heard, left time.Time
	suspected        time.Time // last, by another member
	checked          time.Time // when it was last asked because of that
	told             time.Time
	errand           time.Time // another member last asked us to ping it
	seen             time.Time // a neighbour: when there was evidence of it last, or when it was accused
	patience         time.Duration
	toldIncarnation  uint32
	greeting         []string // members that it has yet to hear of from us

	packets, bytes, accusations, errands *rate.Limiter
}

func newPeer(id keys.NodeID) *peer {
	return &peer{
		id: id, name: id.String(), addr: syntheticAddr(id),
		growth:      rate.NewLimiter(1, incarnationStep),
		packets:     rate.NewLimiter(packetRate, packetBurst),
		bytes:       rate.NewLimiter(byteRate, byteBurst),
		accusations: rate.NewLimiter(accusationRate, accusationBurst),
		errands:     rate.NewLimiter(errandRate, errandBurst),
	}
}

// believe records an incarnation that was claimed, and says whether it may be. A member may say anything of itself.
func (p *peer) believe(incarnation uint32, itself bool, now time.Time) bool {
	if incarnation > maxIncarnation {
		return false
	}
	if base := max(p.incarnation, incarnationFloor); !itself && incarnation > base {
		if step := incarnation - base; step > incarnationStep || !p.growth.AllowN(now, int(step)) {
			return false
		}
	}
	p.incarnation = max(p.incarnation, incarnation)
	return true
}

// alive is the hint. reachable is better evidence than memberlist's.
func (p *peer) alive(reachable bool, now time.Time) bool {
	if since(p.left, now) < goodbyeFor {
		return false
	}
	return reachable || since(p.heard, now) < heardFor || p.up && p.confirmed
}

// changes says whether the hint is other than it was.
func (p *peer) changes(reachable bool, now time.Time) bool {
	was := p.shown
	p.shown = p.alive(reachable, now)
	return p.shown != was
}

// since is the time from t to now; for ever if t never was.
func since(t, now time.Time) time.Duration {
	if t.IsZero() {
		return 1<<63 - 1
	}
	return now.Sub(t)
}

// table holds the peers by name: members and nobody else.
type table struct {
	self    *peer
	peers   map[string]*peer
	removed []*peer   // memberlist has yet to hear that they are gone
	leaving []*peer   // likewise, by their own word
	began   time.Time // the first time that anybody might have been asked
	asked   time.Time
	sparse  bool // we talk to neighbours; else to everybody
}

func newTable(self keys.NodeID) *table {
	p := newPeer(self)
	return &table{self: p, peers: map[string]*peer{p.name: p}}
}

// setMembers makes the members those of ids and ourselves.
func (t *table) setMembers(ids []keys.NodeID) {
	want := make(map[string]keys.NodeID, len(ids))
	for _, id := range ids {
		want[id.String()] = id
	}
	for name, p := range t.peers {
		if _, ok := want[name]; !ok && p != t.self {
			delete(t.peers, name)
			if p.joined {
				t.removed = append(t.removed, p)
			}
		}
	}
	for name, id := range want {
		if t.peers[name] == nil {
			t.peers[name] = newPeer(id)
		}
	}
}

// feeds returns what memberlist has to be told: members that it does not know, that it thinks dead though there is
// better evidence, or that are members no longer. At most limit at a time; it is asked again.
func (t *table) feeds(now time.Time, reachable func(keys.NodeID) bool, limit int) []message {
	var out []message
	for len(t.removed) > 0 && len(out) < limit {
		p := t.removed[0]
		t.removed = t.removed[1:]
		out = append(out, message{kind: kindDead, incarnation: p.incarnation, node: p.name, from: t.self.name})
	}
	for _, p := range t.leaving {
		if p.joined {
			out = append(out, message{kind: kindDead, incarnation: p.incarnation, node: p.name, from: p.name})
		}
	}
	t.leaving = nil
	for _, p := range t.peers {
		if len(out) >= limit {
			break
		}
		if p == t.self || since(p.fed, now) < feedAgain || p.joined && (p.up || !p.evidence(now, reachable)) {
			continue
		}
		if p.joined || p.incarnation > fedIncarnation {
			if !p.believe(p.incarnation+1, true, now) {
				continue
			}
		} else {
			p.incarnation = fedIncarnation
		}
		p.fed = now
		out = append(out, p.aliveMessage())
	}
	return out
}

func (p *peer) evidence(now time.Time, reachable func(keys.NodeID) bool) bool {
	return since(p.left, now) >= goodbyeFor && (since(p.heard, now) < heardFor/2 || reachable(p.id))
}

func (p *peer) aliveMessage() message {
	return message{
		kind: kindAlive, incarnation: p.incarnation, node: p.name, addr: p.addr[:], port: port, versions: ownVersions(),
	}
}

// checks are the members that are asked at once: whom somebody suspects, so that a path that leads nowhere is noticed although
// nothing else goes there; and whom we reach without having heard their incarnation, which is what we can tell a newcomer.
func (t *table) checks(now time.Time, reachable func(keys.NodeID) bool) []*peer {
	var out []*peer
	for _, p := range t.peers {
		if t.sparse && !p.near && !reachable(p.id) {
			continue
		}
		untold := p.joined && p.up && !p.confirmed && reachable(p.id)
		if p != t.self && (untold || p.suspected.After(p.checked)) && since(p.checked, now) >= checkEvery {
			p.checked = now
			out = append(out, p)
		}
	}
	return out
}

// asks picks a member that memberlist has given up, or of whom nobody has told us that it lives, so that it is asked:
// memberlist never would, and two halves of a network would stay apart for ever.
func (t *table) asks(now time.Time, reachable func(keys.NodeID) bool) []*peer {
	if t.began.IsZero() {
		t.began, t.asked = now, now
	}
	wait := askInterval
	if age := now.Sub(t.began); age > askInterval && age < askSoonerFor {
		wait = askSooner
	}
	if now.Sub(t.asked) < wait {
		return nil
	}
	t.asked = now
	var dead, unsure []*peer
	for _, p := range t.peers {
		switch {
		case p == t.self || !p.joined || !p.left.IsZero():
		case !p.up:
			dead = append(dead, p)
		case !p.alive(reachable(p.id), now): // of whom we know ourselves needs no asking
			unsure = append(unsure, p)
		}
	}
	if len(dead) == 0 {
		dead = unsure
	}
	if len(dead) == 0 {
		return nil
	}
	return []*peer{dead[rand.IntN(len(dead))]}
}

// setNeighbours says whom we talk to.
func (t *table) setNeighbours(ids []keys.NodeID) {
	t.sparse = true
	near := make(map[keys.NodeID]bool, len(ids))
	for _, id := range ids {
		near[id] = true
	}
	for _, p := range t.peers {
		if on := near[p.id]; on != p.near {
			p.near, p.seen, p.patience = on, time.Time{}, accuseAfter
		}
	}
}

// accusations are what we have to say of neighbours: nobody but a member's neighbours watches it. One that others vouch for
// is left alone for longer each time, since it must be our way to it that is broken.
func (t *table) accusations(now time.Time, reachable func(keys.NodeID) bool) []message {
	var out []message
	for _, p := range t.peers {
		switch {
		case !p.near || p == t.self:
		case since(p.heard, now) < heardFor || reachable(p.id):
			p.seen, p.patience = now, accuseAfter
		case p.seen.IsZero() || !p.up || !p.joined:
			p.seen = now
		case now.Sub(p.seen) >= p.patience:
			p.seen, p.patience = now, min(2*p.patience, accuseAtMost)
			out = append(out, message{kind: kindSuspect, incarnation: p.incarnation, node: p.name, from: t.self.name})
		}
	}
	return out
}

// other picks a neighbour there is evidence of, other than p, to take what concerns nobody in particular.
func (t *table) other(p *peer, now time.Time, reachable func(keys.NodeID) bool) *peer {
	var picked *peer
	seen := 0
	for _, o := range t.peers {
		if o == p || o == t.self || !o.near || !reachable(o.id) && since(o.heard, now) >= heardFor {
			continue
		}
		if seen++; rand.IntN(seen) == 0 { // reservoir sampling
			picked = o
		}
	}
	return picked
}

// greet begins to tell a member that has come, or come back, who lives: memberlist would have fetched that by push/pull,
// and asking everyone would take minutes. Some of those that it meets do so, by chance.
func (t *table) greet(p *peer) {
	crowd := len(t.peers)
	if t.sparse {
		crowd = 0
		for _, o := range t.peers {
			if o.near {
				crowd++
			}
		}
	}
	if rand.IntN(max(crowd, 1)) >= greeters {
		return
	}
	p.greeting = nil
	for name, o := range t.peers {
		if o != p && o != t.self && o.up && o.confirmed {
			p.greeting = append(p.greeting, name)
		}
	}
}

// greetings returns the next packets of greetings, by receiver.
func (t *table) greetings() map[*peer][][]byte {
	var out map[*peer][][]byte
	for _, p := range t.peers {
		n := min(len(p.greeting), greetAtOnce)
		if n == 0 {
			continue
		}
		if out == nil {
			out = map[*peer][][]byte{}
		}
		for chunk := range slices.Chunk(p.greeting[:n], perPacket) {
			var parts [][]byte
			for _, name := range chunk {
				if o := t.peers[name]; o != nil && o.up && o.confirmed {
					m := o.aliveMessage()
					parts = append(parts, m.append(nil))
				}
			}
			if len(parts) > 0 {
				out[p] = append(out[p], joinParts(nil, parts))
			}
		}
		p.greeting = p.greeting[n:]
	}
	return out
}

// changes says whether any hint is other than it was.
func (t *table) changes(now time.Time, reachable func(keys.NodeID) bool) bool {
	changed := false
	for _, p := range t.peers {
		changed = p.changes(reachable(p.id), now) || changed
	}
	return changed
}
