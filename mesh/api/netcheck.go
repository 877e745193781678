package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
)

// Netcheck is what `meshd netcheck --json` prints: what the network in front of this host does to datagrams.
type Netcheck struct {
	// UDP says whether any server answered, Asked how many were asked.
	UDP      bool             `json:"udp"`
	Asked    int              `json:"asked"`
	Families []NetcheckFamily `json:"families"`
	Routers  []Router         `json:"routers"`
	NAT64    []netip.Prefix   `json:"nat64"`
	Servers  []NetcheckServer `json:"servers"`
	// Node says whether a running node has measured, with its members' help.
	Node bool `json:"node"`
}

// NetcheckFamily is one family's part, in the terms of RFC 5780.
type NetcheckFamily struct {
	Family string `json:"family"` // ipv4 or ipv6
	// Address is what this host sends from; empty without a route.
	Address   string   `json:"address"`
	UDP       bool     `json:"udp"`
	Reflexive []string `json:"reflexive"`
	// Mapping is as in NAT; Filtering is endpoint-independent, address-dependent, address-and-port-dependent or unknown.
	Mapping   string `json:"mapping"`
	Filtering string `json:"filtering"`
	// Hairpin is yes, no, not-needed or unknown.
	Hairpin string `json:"hairpin"`
	// PathMTU is the largest usual size that arrives, 0 if unknown.
	PathMTU int    `json:"path_mtu"`
	Problem string `json:"problem,omitempty"`
}

// Router is one that was asked to open a port.
type Router struct {
	Addr      string   `json:"addr"`
	Family    string   `json:"family"`
	Protocols []string `json:"protocols"` // pcp, nat-pmp, upnp-igd
	// Used and Mapped are the protocol in use and the outside address, of a running node.
	Used   string `json:"used,omitempty"`
	Mapped string `json:"mapped,omitempty"`
	// DoubleNAT says that the outside address is not public: another NAT is behind the router.
	DoubleNAT bool   `json:"double_nat"`
	Problem   string `json:"problem,omitempty"`
}

// NetcheckServer is one that was asked.
type NetcheckServer struct {
	Addr      string  `json:"addr"`
	Answered  bool    `json:"answered"`
	Mapped    string  `json:"mapped,omitempty"` // how it sees us
	RTTMillis float64 `json:"rtt_ms"`
}

// maxServers bounds what one check asks.
const maxServers = 16

type netcheckRequest struct {
	Servers []string `json:"servers"`
}

func (s *server) netcheck(w http.ResponseWriter, r *http.Request) error {
	var q netcheckRequest
	if err := body(w, r, &q); err != nil {
		return err
	}
	if len(q.Servers) > maxServers {
		return usage("netcheck", fmt.Sprintf("more than %d servers", maxServers), "")
	}
	report, err := s.node.Netcheck(r.Context(), q.Servers)
	if err != nil {
		return err
	}
	report.Canonical()
	s.answer(w, http.StatusOK, report)
	return nil
}

// Netcheck asks the daemon to measure the network in front of it.
func (c *Client) Netcheck(ctx context.Context, servers []string) (*Netcheck, error) {
	resp, err := c.send(ctx, "netcheck", netcheckRequest{Servers: servers}) // longer than other calls
	if err != nil {
		return nil, err
	}
	report := new(Netcheck)
	if err := c.receive(ctx, "netcheck", resp, report); err != nil {
		return nil, err
	}
	return report, nil
}

// Canonical puts lists in the place of nil ones.
func (n *Netcheck) Canonical() {
	n.Families, n.Routers, n.NAT64, n.Servers = list(n.Families), list(n.Routers), list(n.NAT64), list(n.Servers)
	for i := range n.Families {
		n.Families[i].Reflexive = list(n.Families[i].Reflexive)
	}
	for i := range n.Routers {
		n.Routers[i].Protocols = list(n.Routers[i].Protocols)
	}
}
