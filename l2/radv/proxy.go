package radv

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/ndp"
)

const (
	maxPending = 32                      // addresses that the segment is asked for at a time
	pendingFor = 1500 * time.Millisecond // past the second question of who asks (RFC 4861, RETRANS_TIMER)
	lookAgain  = 20 * time.Millisecond
	maxSought  = 512
)

// Proxy answers on the uplink for addresses on the segment, where neighbours there
// take a prefix of the segment for on-link (RFC 4389 does so for links of one kind).
// What it has not heard of, it asks the segment for.
//
// Its advertisements override what neighbours knew before: another gateway may have
// answered until now. (RFC 4861, section 7.2.8 wants a proxy to yield to the host
// itself, which here is never on the uplink.)
type Proxy struct {
	mac      MAC // of the uplink
	prefixes []netip.Prefix
	active   []netip.Prefix // those of prefixes that we answer for
	own      []netip.Addr   // of the uplink, for which the kernel answers
	pending  map[netip.Addr]question
	sought   map[netip.Addr]bool // asked for there and found here, by us or who was active before
	news     bool                // sought has grown
}

// question is who asked for an address.
type question struct {
	mac   MAC
	from  netip.Addr
	until time.Time
	asked bool // the segment
}

// NewProxy makes one for an uplink.
func NewProxy(mac MAC, own []netip.Addr) *Proxy {
	return &Proxy{mac: mac, own: own, pending: map[netip.Addr]question{}, sought: map[netip.Addr]bool{}}
}

// Serve says which prefixes are the segment's, and which of them it answers for now.
func (p *Proxy) Serve(prefixes, active []netip.Prefix) { p.prefixes, p.active = prefixes, active }

func (p *Proxy) isIn(ip netip.Addr, prefixes []netip.Prefix) bool {
	return !slices.Contains(p.own, ip) && slices.ContainsFunc(prefixes, func(q netip.Prefix) bool { return q.Contains(ip) })
}

// Receive takes a frame from the uplink. What is no solicitation for an address of
// the prefixes is passed over.
func (p *Proxy) Receive(frame []byte, now time.Time) {
	k, err := Parse(frame)
	m, ok := k.Message.(*ndp.NeighborSolicitation)
	if err != nil || !ok || !p.isIn(m.TargetAddress, p.prefixes) || k.SrcMAC == p.mac {
		return
	}
	if !p.isIn(m.TargetAddress, p.active) {
		return
	}
	if _, known := p.pending[m.TargetAddress]; !known && len(p.pending) >= maxPending {
		return
	}
	mac := k.SrcMAC
	if lla, ok := linkLayer(m.Options, ndp.Source); ok {
		mac = lla
	}
	q := question{mac: mac, from: k.Src, until: now.Add(pendingFor), asked: p.pending[m.TargetAddress].asked}
	p.pending[m.TargetAddress] = q
}

// Poll returns what is to be sent on the uplink, whom to ask the segment for, and
// when to call again; zero: not before Receive. held says whether an address is on
// the segment, as far as is known.
func (p *Proxy) Poll(now time.Time, held func(netip.Addr) bool) (frames [][]byte, ask []netip.Addr, next time.Time) {
	for _, ip := range p.asked() {
		q := p.pending[ip]
		switch {
		case held(ip):
			if f, err := p.answer(ip, q); err == nil {
				frames = append(frames, f)
			}
			p.note(ip)
			delete(p.pending, ip)
		case !now.Before(q.until):
			delete(p.pending, ip)
		case !q.asked:
			q.asked = true
			p.pending[ip] = q
			ask = append(ask, ip)
		}
	}
	if len(p.pending) > 0 {
		next = now.Add(lookAgain)
	}
	return frames, ask, next
}

func (p *Proxy) asked() []netip.Addr {
	list := make([]netip.Addr, 0, len(p.pending))
	for ip := range p.pending {
		list = append(list, ip)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// answer tells one who asked; who is about to take an address that somebody has is
// told with all others (RFC 4861, section 7.2.4).
func (p *Proxy) answer(ip netip.Addr, q question) ([]byte, error) {
	if q.from.IsUnspecified() {
		return p.advertise(ip, GroupMAC(allNodes()), allNodes(), false)
	}
	return p.advertise(ip, q.mac, q.from, true)
}

func (p *Proxy) advertise(ip netip.Addr, mac MAC, dst netip.Addr, solicited bool) ([]byte, error) {
	return Packet{p.mac, mac, LinkLocal(p.mac), dst, &ndp.NeighborAdvertisement{
		Router: true, Solicited: solicited, Override: true, TargetAddress: ip,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: net.HardwareAddr(p.mac[:])}},
	}}.Frame()
}

// Announce tells the uplink that what is in a prefix is here from now on, as far as
// neighbours there have asked for it and have been answered: another gateway did so
// before. (What a standby hears asked for may as well be on the uplink itself.)
func (p *Proxy) Announce(prefix netip.Prefix) (frames [][]byte) {
	for ip := range p.sought {
		if !prefix.Contains(ip) {
			continue
		}
		if f, err := p.advertise(ip, GroupMAC(allNodes()), allNodes(), false); err == nil {
			frames = append(frames, f)
		}
	}
	return frames
}

// note remembers what was found on the segment.
func (p *Proxy) note(ip netip.Addr) {
	if p.sought[ip] {
		return
	}
	if len(p.sought) >= maxSought {
		clear(p.sought)
	}
	p.sought[ip], p.news = true, true
}

// Forget is for an address that is not on the segment any more.
func (p *Proxy) Forget(ip netip.Addr) { delete(p.sought, ip) }

// News reports whether more is sought than at the last call.
func (p *Proxy) News() bool {
	was := p.news
	p.news = false
	return was
}

// Sought lists at most so many of the addresses that neighbours on the uplink have
// asked for and that are on the segment; where there are more, others each time.
func (p *Proxy) Sought(most int) (list []netip.Addr) {
	for ip := range p.sought {
		if len(list) >= most {
			break
		}
		list = append(list, ip)
	}
	return list
}

// Remember takes over what another gateway was asked for.
func (p *Proxy) Remember(sought []netip.Addr) {
	for _, ip := range sought {
		if p.isIn(ip, p.prefixes) && len(p.sought) < maxSought {
			p.sought[ip] = true
		}
	}
}

// Neighbor is the address that a frame of neighbour discovery says its sender has, as
// solicitations and advertisements do; invalid for others.
func Neighbor(frame []byte) netip.Addr {
	p, err := Parse(frame)
	if err != nil {
		return netip.Addr{}
	}
	switch m := p.Message.(type) {
	case *ndp.NeighborSolicitation:
		if !p.Src.IsUnspecified() {
			return p.Src
		}
	case *ndp.NeighborAdvertisement:
		return m.TargetAddress
	}
	return netip.Addr{}
}
