package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// The states of a prefix.
const (
	PrefixInUse      = "in-use"
	PrefixDeprecated = "deprecated"
)

// Prefix is one of the network's.
type Prefix struct {
	Prefix netip.Prefix `json:"prefix"`
	State  string       `json:"state"`
	// ValidSeconds and PreferredSeconds are what hosts are told; of a deprecated prefix, how long it still lasts.
	ValidSeconds     float64 `json:"valid_seconds"`
	PreferredSeconds float64 `json:"preferred_seconds"`
}

// PrefixChange is what an admin changes about the network's prefixes.
type PrefixChange struct {
	Add, Remove []netip.Prefix
	Lifetime    time.Duration // of what is added; 0: the default
}

// Empty says that nothing is to be changed.
func (c PrefixChange) Empty() bool { return len(c.Add)+len(c.Remove) == 0 }

// maxChanged bounds how many prefixes a request names.
const maxChanged = 64

// Check says what is wrong with c.
func (c PrefixChange) Check() error {
	if len(c.Add)+len(c.Remove) > maxChanged {
		return usage("prefix", "too many prefixes", "")
	}
	for _, p := range append(append([]netip.Prefix(nil), c.Add...), c.Remove...) {
		if err := CheckPrefix(p); err != nil {
			return err
		}
	}
	if c.Lifetime < 0 {
		return usage("prefix", "the lifetime is negative", "")
	}
	return nil
}

// CheckPrefix says why p cannot be a segment's.
func CheckPrefix(p netip.Prefix) error {
	a := p.Addr()
	switch {
	case !p.IsValid() || !a.Is6() || a.Is4In6():
		return usage("prefix", fmt.Sprintf("%v is not an IPv6 prefix like fd12:3456:789a::/64", p), "")
	case p.Bits() != 64:
		return usage("prefix", fmt.Sprintf("%v is not a /64", p), "")
	case p != p.Masked():
		return usage("prefix", fmt.Sprintf("%v has bits beyond the prefix", p), fmt.Sprintf("did you mean %v?", p.Masked()))
	case !a.IsGlobalUnicast():
		return usage("prefix", fmt.Sprintf("%v cannot be a segment's", p), "")
	}
	return nil
}

// Gateway is who routes what.
type Gateway struct {
	// Routers are the members that have the role and advertise, by prefix, the active one first.
	Routers []PrefixRouter `json:"routers"`
	// DefaultRoutes are the routers that this node has heard advertise a way to the internet.
	DefaultRoutes []DefaultRoute `json:"default_routes"`
	// DHCP4 is what this node hands out; nil: it does not.
	DHCP4 *DHCP4 `json:"dhcp4,omitempty"`
}

// DHCP4 is a subnet of IPv4 that a gateway serves.
type DHCP4 struct {
	Subnet netip.Prefix `json:"subnet"`
	Router netip.Addr   `json:"router"`
	Leases []Lease      `json:"leases"`
}

// Lease says who has an address.
type Lease struct {
	Address netip.Addr `json:"address"`
	Client  string     `json:"client"` // its identifier or MAC, in hexadecimal
	Until   time.Time  `json:"until"`
}

// The states of a router and of its uplink.
const (
	RouterActive  = "active"
	RouterStandby = "standby"

	UplinkUp   = "up"
	UplinkDown = "down"
	UplinkNone = "none" // it is no gateway: it advertises the prefix alone
)

// PrefixRouter is what a member does for a prefix.
type PrefixRouter struct {
	Prefix netip.Prefix `json:"prefix"`
	Member string       `json:"member"`
	State  string       `json:"state"`
	Uplink string       `json:"uplink"`
	// Interface is that of the uplink; only this node's own is known.
	Interface string `json:"interface,omitempty"`
	// Address and MAC are those that hosts see, whoever is active.
	Address netip.Addr `json:"address"`
	MAC     string     `json:"mac"`
}

// DefaultRoute is a router that was heard.
type DefaultRoute struct {
	Router  netip.Addr `json:"router"`
	Seconds float64    `json:"lifetime_seconds"`
	// Taken says that this host's own packets go there, beside what it has otherwise.
	Taken bool `json:"taken"`
}

// prefixRequest is the request's body.
type prefixRequest struct {
	Add             []netip.Prefix `json:"add,omitempty"`
	Remove          []netip.Prefix `json:"remove,omitempty"`
	LifetimeSeconds float64        `json:"lifetime_seconds,omitempty"`
}

func (s *server) prefix(w http.ResponseWriter, r *http.Request) error {
	return s.answerPrefixes(w, r, PrefixChange{})
}

func (s *server) changePrefix(w http.ResponseWriter, r *http.Request) error {
	var q prefixRequest
	if err := body(w, r, &q); err != nil {
		return err
	}
	life, ok := seconds(q.LifetimeSeconds, maxExpires)
	if !ok {
		life = -1
	}
	c := PrefixChange{Add: q.Add, Remove: q.Remove, Lifetime: life}
	if err := c.Check(); err != nil {
		return err
	}
	return s.answerPrefixes(w, r, c)
}

func (s *server) answerPrefixes(w http.ResponseWriter, r *http.Request, c PrefixChange) error {
	prefixes, err := s.node.Prefixes(r.Context(), c)
	if err != nil {
		return err
	}
	s.answer(w, http.StatusOK, list(prefixes))
	return nil
}

func (s *server) gateway(w http.ResponseWriter, r *http.Request) error {
	g, err := s.node.Gateway(r.Context())
	if err != nil {
		return err
	}
	g.Routers, g.DefaultRoutes = list(g.Routers), list(g.DefaultRoutes)
	s.answer(w, http.StatusOK, g)
	return nil
}

// Prefixes lists the network's prefixes, after they have been changed.
func (c *Client) Prefixes(ctx context.Context, change PrefixChange) ([]Prefix, error) {
	var in any
	if !change.Empty() {
		in = prefixRequest{change.Add, change.Remove, change.Lifetime.Seconds()}
	}
	var out []Prefix
	err := c.call(ctx, "prefix", in, &out)
	return out, err
}

// Gateway asks who routes what.
func (c *Client) Gateway(ctx context.Context) (*Gateway, error) {
	g := new(Gateway)
	if err := c.call(ctx, "gateway", nil, g); err != nil {
		return nil, err
	}
	return g, nil
}
