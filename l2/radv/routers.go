package radv

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/ndp"
)

// maxRouters bounds how many default routers a host keeps (RFC 4861, section 5.1
// wants at least two).
const maxRouters = 8

// Heard is a default router that a host has heard.
type Heard struct {
	Addr       netip.Addr
	MAC        MAC
	Until      time.Time
	Preference ndp.Preference
}

// Routers is a host's default router list (RFC 4861, section 6.3.4, with the
// preferences of RFC 4191).
type Routers struct{ list []Heard }

// Learn takes a frame and reports whether the list has changed in more than its
// times. What is no advertisement is passed over.
func (r *Routers) Learn(frame []byte, now time.Time) bool {
	p, err := Parse(frame)
	m, ok := p.Message.(*ndp.RouterAdvertisement)
	if err != nil || !ok || !p.Src.IsLinkLocalUnicast() {
		return false
	}
	h := Heard{Addr: p.Src, MAC: p.SrcMAC, Until: now.Add(m.RouterLifetime), Preference: m.RouterSelectionPreference}
	if mac, ok := linkLayer(m.Options, ndp.Source); ok {
		h.MAC = mac
	}
	at := slices.IndexFunc(r.list, func(o Heard) bool { return o.Addr == h.Addr })
	switch {
	case m.RouterLifetime == 0 && at < 0:
		return false
	case m.RouterLifetime == 0:
		r.list = slices.Delete(r.list, at, at+1)
		return true
	case at >= 0:
		old := r.list[at]
		r.list[at] = h
		return old.MAC != h.MAC || old.Preference != h.Preference
	case len(r.list) >= maxRouters:
		return false
	}
	r.list = append(r.list, h)
	return true
}

// List returns those whose time is not over, the best first: by preference, then as
// they were heard first.
func (r *Routers) List(now time.Time) []Heard {
	r.list = slices.DeleteFunc(r.list, func(h Heard) bool { return !now.Before(h.Until) })
	list := slices.Clone(r.list)
	slices.SortStableFunc(list, func(a, b Heard) int { return cmp.Compare(rank(a.Preference), rank(b.Preference)) })
	return list
}

// rank orders preferences, of which "high" is 1 on the wire and "low" 3.
func rank(p ndp.Preference) int {
	switch p {
	case ndp.High:
		return 0
	case ndp.Low:
		return 2
	}
	return 1
}

// Forget empties the list.
func (r *Routers) Forget() { r.list = nil }

// Solicitation is what a host asks one router with.
func Solicitation(mac, router MAC) ([]byte, error) {
	return Packet{
		mac, router, LinkLocal(mac), allRouters(),
		&ndp.RouterSolicitation{Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac[:]}}},
	}.Frame()
}

// WhoHas asks the segment who has an address.
func WhoHas(mac MAC, ip netip.Addr) ([]byte, error) {
	group := SolicitedNode(ip)
	return Packet{
		mac, GroupMAC(group), LinkLocal(mac), group,
		&ndp.NeighborSolicitation{TargetAddress: ip, Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac[:]}}},
	}.Frame()
}
