package snoop

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Timers. Those of a querier are shorter than the RFCs' (125 s, 10 s, 31 s): a host that has gone without a word is
// forgotten after two minutes, for two small frames a minute that never cross the overlay.
const (
	queryEvery      = time.Minute     // general queries of ours
	queryResponse   = 4 * time.Second // in which hosts answer them
	startupQueries  = 3               // at the start, which is when members know nothing of their hosts,
	startupEvery    = 2 * time.Second // so often,
	startupResponse = time.Second     // in this time
	lastQueries     = 2               // for one group, when somebody has left it (RFC 3376, 8.8 and 8.9)
	lastEvery       = time.Second

	othersQuery    = 125 * time.Second // of queriers that do not say how often they ask (RFC 3376, 8.2)
	othersResponse = 10 * time.Second
	ageLeast       = 20 * time.Second // whatever a querier says
	ageMost        = 10 * time.Minute
	helloHolds     = 105 * time.Second // a PIM hello that does not say how long (RFC 7761, 4.11)
	vlanIdle       = 10 * time.Minute  // a VLAN without frames and groups is forgotten
	speakEvery     = time.Second       // at most: members cannot make others' LANs busy

	// settleAfter is when the hosts of a VLAN have been asked so often that who has said nothing listens to nothing.
	settleAfter = startupQueries * startupEvery
)

// Bounds.
const (
	maxGroups = 1024 // of all VLANs
	maxVLANs  = 16   // that are snooped; in others everything is wanted
	maxRemote = 2048 // groups that are spoken for
)

const never = time.Duration(math.MaxInt64)

// Group is a multicast group in a VLAN; 0 is untagged.
type Group struct {
	VLAN uint16
	Addr netip.Addr
}

// Compare orders groups by VLAN, then address.
func (g Group) Compare(o Group) int {
	return cmp.Or(cmp.Compare(g.VLAN, o.VLAN), g.Addr.Compare(o.Addr))
}

// Set is what one side of the overlay wants of multicast. It is immutable.
type Set struct {
	All    bool     // everything: its hosts are not known yet, or there is more than is kept
	Router bool     // everything as well: a multicast router is there
	VLANs  []uint16 // that are snooped, ascending; in others it wants everything
	Groups []Group  // that hosts listen to, ascending
}

// Equal reports whether both say the same.
func (s *Set) Equal(o *Set) bool {
	return s.All == o.All && s.Router == o.Router && slices.Equal(s.VLANs, o.VLANs) && slices.Equal(s.Groups, o.Groups)
}

// Table is what one side listens to. It is not safe for concurrent use.
type Table struct {
	mac  [6]byte // of the proxy
	addr netip.Addr

	vlans    map[uint16]*vlan
	groups   map[Group]*listeners
	overflow time.Duration // there were too many groups, until then
	remote   []Group       // that hosts elsewhere listen to, ascending
	spoken   map[Group]struct{}
	quiet    time.Duration // no more is said of hosts elsewhere until then, unless somebody asks
	set      *Set          // nil: to be made anew
	out      [][]byte
}

// vlan is a VLAN that is snooped.
type vlan struct {
	id       uint16
	settled  time.Duration // from when on its groups are all known
	seen     time.Duration // when there last was a frame
	families [2]family     // IPv4, IPv6
}

// family is what is known of who asks in one family of a VLAN.
type family struct {
	v6      bool
	startup int           // short intervals to come
	next    time.Duration // general query, or advertisement
	answer  time.Duration // when another's general query is answered
	router  time.Duration // one is there, until then
	other   querier
}

// listeners are those to one group.
type listeners struct {
	until   time.Duration // whoever says nothing has gone
	old     time.Duration // one of IGMPv1 is among them, which does not say that it leaves (RFC 2236, 4)
	queries int           // for this group to come
	next    time.Duration
	leaving bool // it has been left, and nobody has said since that he listens
}

// NewTable makes a table that speaks from mac, which is ProxyMAC of the node's own. It snoops untagged frames from the start.
func NewTable(mac [6]byte, now time.Duration) *Table {
	t := &Table{
		mac: mac, addr: proxyAddress(mac),
		vlans: map[uint16]*vlan{}, groups: map[Group]*listeners{}, spoken: map[Group]struct{}{},
	}
	t.Saw(0, now)
	return t
}

// Saw notes that there are hosts in a VLAN.
func (t *Table) Saw(id uint16, now time.Duration) {
	v := t.vlans[id]
	if v == nil {
		if len(t.vlans) >= maxVLANs {
			return
		}
		v = &vlan{id: id}
		v.families[1].v6 = true
		t.vlans[id] = v
		v.ask(now)
		v.settled = now + settleAfter
	}
	v.seen = now
}

// Ask has all hosts asked anew, since there may be others. What is known holds.
func (t *Table) Ask(now time.Duration) {
	for _, v := range t.vlans {
		v.ask(now)
	}
}

// age is how long a report holds (RFC 3376, 8.4).
func (f *family) age() time.Duration {
	interval, response := queryEvery, queryResponse
	if f.other.until != 0 {
		interval, response = f.other.interval, f.other.response
	}
	return min(max(2*interval+response, ageLeast), ageMost)
}

// Receive takes a message that was heard in a VLAN on this side. ally says that from is the proxy of another node on it.
func (t *Table) Receive(id uint16, from [6]byte, ally bool, m *Message, now time.Duration) {
	if from == t.mac {
		return
	}
	t.Saw(id, now)
	v := t.vlans[id]
	if v == nil {
		return
	}
	f := v.family(m.V6())
	switch m.Kind {
	case Query:
		t.asked(v, f, from, ally, m, now)
	case RouterHere:
		if !ally {
			t.route(f, now+m.Interval, now)
		}
	case RouterGone:
		if f.router > now && !ally && f.other.until <= now {
			t.route(f, 0, now)
		}
	case RouterAsked:
		if f.startup == 0 {
			f.next = min(f.next, now+time.Second)
		}
	case Report:
		if ally { // it speaks for hosts elsewhere, and we would for its
			return
		}
		for _, r := range m.Records {
			if Flooded(r.Group) {
				continue
			}
			if r.Change == Join {
				t.join(Group{id, r.Group}, f, m.Version, now)
			} else {
				t.leave(Group{id, r.Group}, f, now)
			}
		}
	}
}

// route notes until when a router is there; 0: there is none.
func (t *Table) route(f *family, until, now time.Duration) {
	if (f.router > now) != (until > now) {
		t.set = nil
	}
	if f.router = max(f.router, until); until <= now {
		f.router = 0
	}
}

func (t *Table) join(g Group, f *family, version uint8, now time.Duration) {
	l := t.groups[g]
	if l == nil {
		if len(t.groups) >= maxGroups {
			if t.overflow <= now {
				t.set = nil
			}
			t.overflow = now + f.age()
			return
		}
		l = &listeners{}
		t.groups[g] = l
		t.set = nil
	}
	l.until, l.queries, l.leaving = now+f.age(), 0, false
	if version == 1 && !f.v6 {
		l.old = l.until
	}
}

// leave asks whether others listen, if it is ours to ask.
func (t *Table) leave(g Group, f *family, now time.Duration) {
	l := t.groups[g]
	if l == nil || l.old > now || f.other.until > now || l.queries > 0 {
		return
	}
	l.queries, l.next, l.leaving = lastQueries, now, true
	l.until = min(l.until, now+lastQueries*lastEvery+lastEvery/2)
}

// Leaving reports whether a group will be forgotten soon unless somebody says that he listens.
func (t *Table) Leaving() bool {
	for _, l := range t.groups {
		if l.leaving {
			return true
		}
	}
	return false
}

// Listens takes what the host itself says that it listens to, untagged: it may be deaf to queries.
func (t *Table) Listens(groups []netip.Addr, now time.Duration) {
	v := t.vlans[0]
	for _, g := range groups {
		if g.IsMulticast() && !Flooded(g) {
			t.join(Group{0, g}, v.family(g.Is6()), 0, now)
		}
	}
}

// Advance does what is due, and returns the frames to send on this side and when to call it again.
func (t *Table) Advance(now time.Duration) (frames [][]byte, next time.Duration) {
	next = never
	due := func(at time.Duration) { next = min(next, at) }
	if t.overflow != 0 {
		if t.overflow <= now {
			t.overflow, t.set = 0, nil
		} else {
			due(t.overflow)
		}
	}
	for id, v := range t.vlans {
		if id != 0 && v.seen+vlanIdle <= now && !t.listened(id) {
			delete(t.vlans, id)
			t.set = nil
			continue
		}
		if v.settled != 0 {
			if v.settled <= now {
				v.settled, t.set = 0, nil
			} else {
				due(v.settled)
			}
		}
		for i := range v.families {
			due(t.advanceFamily(v, &v.families[i], now))
		}
	}
	for g, l := range t.groups {
		due(t.advanceGroup(g, l, now))
	}
	due(t.speak(now))
	frames, t.out = t.out, nil
	return frames, next
}

// listened reports whether there are groups in a VLAN.
func (t *Table) listened(id uint16) bool {
	for g := range t.groups {
		if g.VLAN == id {
			return true
		}
	}
	return false
}

func (t *Table) advanceGroup(g Group, l *listeners, now time.Duration) (next time.Duration) {
	if l.until <= now {
		delete(t.groups, g)
		t.set = nil
		return never
	}
	if l.queries > 0 && l.next <= now {
		l.queries--
		l.next = now + lastEvery
		t.out = append(t.out, t.query(g.VLAN, g.Addr.Is6(), g.Addr, lastEvery))
	}
	if l.queries > 0 {
		return min(l.until, l.next)
	}
	return l.until
}

func (v *vlan) family(v6 bool) *family {
	if v6 {
		return &v.families[1]
	}
	return &v.families[0]
}

// Set returns what this side wants. Every call returns the same until that changes.
func (t *Table) Set() *Set {
	if t.set != nil {
		return t.set
	}
	s := &Set{All: t.vlans[0].settled != 0 || t.overflow != 0}
	for id, v := range t.vlans {
		if v.settled == 0 {
			s.VLANs = append(s.VLANs, id)
		}
		s.Router = s.Router || v.families[0].router != 0 || v.families[1].router != 0
	}
	for g := range t.groups {
		s.Groups = append(s.Groups, g)
	}
	slices.Sort(s.VLANs)
	slices.SortFunc(s.Groups, Group.Compare)
	t.set = s
	return s
}
