package radv

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/ndp"
)

// The constants of RFC 4861, sections 6.2.1 and 10.
const (
	maxInterval     = 600 * time.Second      // MaxRtrAdvInterval
	initialInterval = 16 * time.Second       // MAX_INITIAL_RTR_ADVERT_INTERVAL
	initialCount    = 3                      // MAX_INITIAL_RTR_ADVERTISEMENTS
	minDelay        = 3 * time.Second        // MIN_DELAY_BETWEEN_RAS
	maxReplyDelay   = 500 * time.Millisecond // MAX_RA_DELAY_TIME
	maxAskers       = 64                     // who are answered one by one at a time; beyond it all are at once
)

// DefaultLifetime is the router lifetime of one that has a way to the internet: three
// times the longest time between advertisements.
const DefaultLifetime = 3 * maxInterval

// Config is what is advertised.
type Config struct {
	MAC        MAC
	Addr       netip.Addr    // link-local
	Lifetime   time.Duration // as a default router; 0: it is none
	Preference ndp.Preference
	MTU        int // 0: it is not said
	Prefixes   []Prefix
	DNS        []netip.Addr // RFC 8106
	Search     []string     // likewise
	// Quiet is for a segment where nobody is known who makes use of advertisements: they
	// are sent to who asks, and to all for as long as what was told then is valid.
	Quiet bool
}

// Prefix is one in which hosts make themselves addresses.
type Prefix struct {
	Prefix           netip.Prefix
	Valid, Preferred time.Duration
	Until            time.Time // when it ends; lifetimes then count down to it. Zero: it goes on
}

func (c *Config) equal(o *Config) bool {
	return c.Quiet == o.Quiet && c.MAC == o.MAC && c.Addr == o.Addr && c.Lifetime == o.Lifetime && c.Preference == o.Preference && c.MTU == o.MTU &&
		slices.Equal(c.Prefixes, o.Prefixes) && slices.Equal(c.DNS, o.DNS) && slices.Equal(c.Search, o.Search)
}

// interval is the longest time between two advertisements to all. Hosts must hear
// of a prefix several times before an address ceases to be preferred.
func (c *Config) interval() time.Duration {
	most := maxInterval
	for _, p := range c.Prefixes {
		most = min(most, max(p.Valid/6, minDelay))
	}
	return most
}

// Advertiser is the router's side of neighbour discovery. It is silent until it has
// been Set.
type Advertiser struct {
	random  *rand.Rand
	config  *Config // nil: silent
	initial int     // advertisements to all that are still sent at short intervals
	last    time.Time
	next    time.Time // when all are told; zero: not by itself
	until   time.Time // who has asked heeds what it was told
	askers  map[netip.Addr]asker
	out     [][]byte // to be sent at once
}

// asker has asked for an advertisement.
type asker struct {
	mac MAC
	due time.Time
}

// NewAdvertiser makes one that is silent.
func NewAdvertiser(random *rand.Rand) *Advertiser {
	return &Advertiser{random: random, askers: map[netip.Addr]asker{}}
}

// Active reports whether it advertises.
func (a *Advertiser) Active() bool { return a.config != nil }

// Set says what is advertised from now on, nil for nothing. Who begins or changes
// what it says tells all at once and repeats it soon (RFC 4861, section 6.2.4). One
// that begins may take over from another that hosts know: it says where the router
// is, which moves that in all switches on the way.
func (a *Advertiser) Set(c *Config, now time.Time) {
	switch {
	case c == nil:
		a.config, a.out = nil, nil
		clear(a.askers)
		return
	case a.config == nil:
		a.last, a.until = time.Time{}, time.Time{}
		a.config = c
		if c.Quiet {
			break
		}
		a.send(Packet{c.MAC, GroupMAC(allNodes()), c.Addr, allNodes(), a.here(false)})
	case a.config.equal(c):
		return
	}
	a.config, a.initial = c, initialCount
	if a.next = now; a.silent(now) {
		a.next = time.Time{}
		return
	}
	if !a.last.IsZero() {
		a.next = later(now, a.last.Add(minDelay))
	}
}

// silent says that nobody is known to listen.
func (a *Advertiser) silent(now time.Time) bool { return a.config.Quiet && !now.Before(a.until) }

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Receive takes a frame: a router solicitation, or one that asks for the router's
// link-layer address. Others are passed over.
func (a *Advertiser) Receive(frame []byte, now time.Time) {
	if a.config == nil {
		return
	}
	p, err := Parse(frame)
	if err != nil {
		return
	}
	switch m := p.Message.(type) {
	case *ndp.RouterSolicitation:
		a.solicited(p, m, now)
	case *ndp.NeighborSolicitation:
		if m.TargetAddress != a.config.Addr || p.Src == a.config.Addr {
			return
		}
		if p.Src.IsUnspecified() { // somebody is about to take our address (RFC 4862, section 5.4.3)
			a.send(Packet{a.config.MAC, GroupMAC(allNodes()), a.config.Addr, allNodes(), a.here(false)})
			return
		}
		a.send(Packet{a.config.MAC, p.SrcMAC, a.config.Addr, p.Src, a.here(true)})
	}
}

// solicited answers one host alone if it says who it is (RFC 7772), else all at
// once, and that not too often.
func (a *Advertiser) solicited(p Packet, m *ndp.RouterSolicitation, now time.Time) {
	_, hasMAC := linkLayer(m.Options, ndp.Source)
	if p.Src.IsUnspecified() && hasMAC {
		return // RFC 4861, section 6.1.1
	}
	for _, p := range a.config.Prefixes {
		a.until = later(a.until, now.Add(p.Valid))
	}
	if a.next.IsZero() {
		a.next = now.Add(a.pause())
	}
	due := now.Add(time.Duration(a.random.Int64N(int64(maxReplyDelay))))
	if _, known := a.askers[p.Src]; known {
		return
	}
	if p.Src.IsLinkLocalUnicast() && len(a.askers) < maxAskers {
		a.askers[p.Src] = asker{p.SrcMAC, due}
		return
	}
	if !a.last.IsZero() {
		due = later(due, a.last.Add(minDelay))
	}
	if due.Before(a.next) {
		a.next = due
	}
}

// here says where the router is.
func (a *Advertiser) here(solicited bool) ndp.Message {
	return &ndp.NeighborAdvertisement{
		Router: true, Solicited: solicited, Override: true, TargetAddress: a.config.Addr,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: net.HardwareAddr(a.config.MAC[:])}},
	}
}

func (a *Advertiser) send(p Packet) {
	if len(a.out) >= 2*maxAskers {
		return // the asker asks again
	}
	if f, err := p.Frame(); err == nil {
		a.out = append(a.out, f)
	}
}

// Poll returns the frames that are due and when to ask again; zero: not before
// Receive or Set.
func (a *Advertiser) Poll(now time.Time) (frames [][]byte, next time.Time) {
	if a.config == nil {
		return nil, time.Time{}
	}
	if a.silent(now) {
		a.next = time.Time{}
	} else if !now.Before(a.next) {
		a.sayTo(allNodes(), GroupMAC(allNodes()), now)
		clear(a.askers) // they have heard it
		a.last = now
		a.next = now.Add(a.pause())
	}
	next = a.next
	for _, addr := range a.byDue() {
		if k := a.askers[addr]; now.Before(k.due) {
			if next = earlier(next, k.due); next.IsZero() {
				next = k.due
			}
		} else {
			delete(a.askers, addr)
			a.sayTo(addr, k.mac, now)
		}
	}
	frames, a.out = a.out, nil
	return frames, next
}

func earlier(a, b time.Time) time.Time {
	if !a.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// byDue are those who have asked, in a fixed order.
func (a *Advertiser) byDue() []netip.Addr {
	list := make([]netip.Addr, 0, len(a.askers))
	for addr := range a.askers {
		list = append(list, addr)
	}
	slices.SortFunc(list, func(x, y netip.Addr) int {
		if c := a.askers[x].due.Compare(a.askers[y].due); c != 0 {
			return c
		}
		return x.Compare(y)
	})
	return list
}

// pause is random, so that routers do not fall into step (RFC 4861, section 6.2.4).
func (a *Advertiser) pause() time.Duration {
	most := a.config.interval()
	least := max(most/3, minDelay)
	pause := least
	if most > least {
		pause += time.Duration(a.random.Int64N(int64(most - least)))
	}
	if a.initial > 0 {
		a.initial--
		pause = min(pause, initialInterval)
	}
	return pause
}

// sayTo queues an advertisement.
func (a *Advertiser) sayTo(dst netip.Addr, mac MAC, now time.Time) {
	a.send(Packet{a.config.MAC, mac, a.config.Addr, dst, a.config.message(now)})
}

// Goodbye returns the last advertisement: the router is one no longer (RFC 4861,
// section 6.2.5). It is for when nobody takes over.
func (a *Advertiser) Goodbye(now time.Time) [][]byte {
	if a.config == nil {
		return nil
	}
	c := *a.config
	c.Lifetime = 0
	a.config, a.out = &c, nil
	a.sayTo(allNodes(), GroupMAC(allNodes()), now)
	frames := a.out
	a.Set(nil, now)
	return frames
}

// message is the advertisement.
func (c *Config) message(now time.Time) ndp.Message {
	m := &ndp.RouterAdvertisement{
		CurrentHopLimit: 64, RouterSelectionPreference: c.Preference, RouterLifetime: c.Lifetime.Truncate(time.Second),
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: net.HardwareAddr(bytes.Clone(c.MAC[:]))}},
	}
	if c.Lifetime == 0 {
		m.RouterSelectionPreference = ndp.Medium // RFC 4191, section 2.2
	}
	if c.MTU > 0 {
		m.Options = append(m.Options, ndp.NewMTU(uint32(c.MTU)))
	}
	for _, p := range c.Prefixes {
		valid, preferred := p.Valid, p.Preferred
		if !p.Until.IsZero() {
			valid, preferred = max(0, min(valid, p.Until.Sub(now))), 0
		}
		m.Options = append(m.Options, &ndp.PrefixInformation{
			PrefixLength: uint8(p.Prefix.Bits()), OnLink: true, AutonomousAddressConfiguration: true,
			ValidLifetime: valid.Truncate(time.Second), PreferredLifetime: preferred.Truncate(time.Second), Prefix: p.Prefix.Addr(),
		})
	}
	if len(c.DNS) > 0 {
		m.Options = append(m.Options, &ndp.RecursiveDNSServer{Lifetime: DefaultLifetime, Servers: c.DNS})
	}
	if len(c.Search) > 0 {
		m.Options = append(m.Options, &ndp.DNSSearchList{Lifetime: DefaultLifetime, DomainNames: c.Search})
	}
	return m
}
