//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

// matrixDelay is one way on each link to the internet.
const matrixDelay = 10 * time.Millisecond

// depends says on what a NAT's mapping or filtering depends (RFC 4787, 4.1 and 5): the greater, the stricter.
type depends int

const (
	onNothing depends = iota
	onAddress
	onPort // and address
)

// kind is a way to be connected to the internet, and what RFC 4787 says of it.
type kind struct {
	name               string
	v6                 bool // IPv6 alone; else IPv4 alone
	mapping, filtering depends
	oneLAN             bool // the two of the kind share a LAN
	oneCarrier         bool // they share a carrier
	hairpin            bool // of the LAN's router, or of the carrier
	moves              bool // its mapping is independent only as long as nobody comes unasked
	build              func(*lab.Network, string) [2]*lab.Host
}

// kinds are the rows and columns of the matrix.
func kinds() []kind {
	nat := func(cfg lab.SiteConfig) func(*lab.Network, string) [2]*lab.Host {
		return apart(cfg)
	}
	return []kind{
		{name: "public", build: public},
		{name: "full-cone", build: nat(lab.SiteConfig{NAT: lab.FullCone})},
		{name: "address-restricted", filtering: onAddress, build: nat(lab.SiteConfig{NAT: lab.AddressRestricted})},
		{name: "port-restricted", filtering: onPort, build: nat(lab.SiteConfig{NAT: lab.Home})},
		{name: "symmetric", mapping: onPort, filtering: onPort, build: nat(lab.SiteConfig{NAT: lab.Symmetric})},
		{name: "cgnat", filtering: onPort, build: nat(lab.SiteConfig{NAT: lab.CGNAT})},
		{name: "one-nat", filtering: onPort, oneLAN: true, build: together(lab.SiteConfig{NAT: lab.Home})},
		{name: "one-nat-hairpin", filtering: onPort, oneLAN: true, hairpin: true, build: together(lab.SiteConfig{NAT: lab.Home, Hairpin: true})},
		{name: "one-carrier", filtering: onPort, oneCarrier: true, build: customers(false)},
		{name: "one-carrier-hairpin", filtering: onPort, oneCarrier: true, hairpin: true, build: customers(true)},
		{name: "ipv6-firewall", v6: true, filtering: onPort, build: nat(lab.SiteConfig{V6: true})},
		{name: "accepting", filtering: onPort, moves: true, build: nat(lab.SiteConfig{NAT: lab.HomePortKept, Accepts: true})},
		{name: "forgetful", filtering: onPort, build: nat(lab.SiteConfig{NAT: lab.Home, UDPTimeout: 5 * time.Second})},
	}
}

// public is two hosts on the internet.
func public(n *lab.Network, name string) (hosts [2]*lab.Host) {
	for i := range hosts {
		hosts[i] = n.Host(fmt.Sprintf("%s-%d", name, i+1), lab.HostConfig{V4: true, V6: true, Link: lab.Link{Delay: matrixDelay}})
	}
	return hosts
}

// apart is a host each in two sites.
func apart(cfg lab.SiteConfig) func(*lab.Network, string) [2]*lab.Host {
	cfg.V4, cfg.Link = !cfg.V6, lab.Link{Delay: matrixDelay}
	return func(n *lab.Network, name string) (hosts [2]*lab.Host) {
		for i := range hosts {
			at := fmt.Sprintf("%s-%d", name, i+1)
			hosts[i] = n.Site(at, cfg).Host(at)
		}
		return hosts
	}
}

// together is two hosts in one site.
func together(cfg lab.SiteConfig) func(*lab.Network, string) [2]*lab.Host {
	cfg.V4, cfg.Link = true, lab.Link{Delay: matrixDelay}
	return func(n *lab.Network, name string) (hosts [2]*lab.Host) {
		site := n.Site(name, cfg)
		for i := range hosts {
			hosts[i] = site.Host(fmt.Sprintf("%s-%d", name, i+1))
		}
		return hosts
	}
}

// customers is two sites of one carrier.
func customers(hairpin bool) func(*lab.Network, string) [2]*lab.Host {
	return func(n *lab.Network, name string) (hosts [2]*lab.Host) {
		carrier := n.Site(name, lab.SiteConfig{V4: true, NAT: lab.Home, Carrier: true, Hairpin: hairpin, Link: lab.Link{Delay: matrixDelay}})
		for i := range hosts {
			at := fmt.Sprintf("%s-%d", name, i+1)
			hosts[i] = carrier.Customer(at, lab.SiteConfig{NAT: lab.Home}).Host(at)
		}
		return hosts
	}
}

// verdict is whether two members can send to each other without a relay.
type verdict int

const (
	never verdict = iota
	always
	luck // neither is wrong: by guessing ports, or by who comes first
)

func (v verdict) String() string { return [...]string{"relayed", "direct", "either"}[v] }

// judge says what the RFCs allow to a host of each of two kinds; both send, at the other's outer address as a third
// party sees it.
func judge(a, b kind, same bool) verdict {
	switch {
	case same && a.oneLAN:
		return always
	case same && a.oneCarrier && !a.hairpin:
		return never // the carrier drops what goes to its own address
	case same && a.oneCarrier:
		return always
	case !a.dual() && !b.dual() && a.v6 != b.v6:
		return never
	}
	if a.mapping > b.mapping {
		a, b = b, a // b's mapping is the stricter one
	}
	switch {
	case b.mapping == onNothing && a.luckyWith(b):
		return luck
	case b.mapping == onNothing:
		return always // each knows where to send, and its own packets open its filter (RFC 5128, 3.3)
	case a.mapping != onNothing:
		return never // neither knows the other's port
	case a.filtering == onPort:
		return luck // a's filter is open for a port that b does not use
	default:
		return always // b comes from an unknown port, and a answers there
	}
}

// dual reports whether the kind has both families.
func (k kind) dual() bool { return k.name == "public" }

// luckyWith reports whether it depends on who comes first.
func (k kind) luckyWith(o kind) bool {
	return k.moves && o.filtering == onPort || o.moves && k.filtering == onPort
}

// TestJudge holds the table of verdicts to what a reader can check line by line.
func TestJudge(t *testing.T) {
	by := make(map[string]kind)
	for _, k := range kinds() {
		by[k.name] = k
	}
	tests := []struct {
		a    string
		bs   string
		want verdict
	}{
		{"public", "public full-cone address-restricted port-restricted symmetric cgnat one-nat one-nat-hairpin one-carrier one-carrier-hairpin ipv6-firewall accepting forgetful", always},
		{"full-cone", "full-cone address-restricted port-restricted symmetric cgnat one-nat one-carrier accepting forgetful", always},
		{"address-restricted", "address-restricted port-restricted symmetric cgnat one-nat one-carrier accepting forgetful", always},
		{"port-restricted", "port-restricted cgnat one-nat one-carrier forgetful", always},
		{"port-restricted", "symmetric accepting", luck},
		{"symmetric", "symmetric", never},
		{"symmetric", "port-restricted cgnat one-nat one-carrier accepting forgetful", luck},
		{"cgnat", "cgnat one-nat one-carrier forgetful", always},
		{"one-nat", "one-nat", always},
		{"one-nat-hairpin", "one-nat-hairpin", always},
		{"one-carrier", "one-carrier", never},
		{"one-carrier", "one-carrier-hairpin", always},
		{"one-carrier-hairpin", "one-carrier-hairpin", always},
		{"ipv6-firewall", "ipv6-firewall", always},
		{"ipv6-firewall", "full-cone symmetric one-nat", never},
		{"accepting", "accepting", luck},
		{"forgetful", "forgetful", always},
	}
	for _, test := range tests {
		for name := range strings.FieldsSeq(test.bs) {
			a, b := by[test.a], by[name]
			for range 2 {
				if got := judge(a, b, a.name == b.name); got != test.want {
					t.Errorf("%s and %s: %v, want %v", a.name, b.name, got, test.want)
				}
				a, b = b, a
			}
		}
	}
}
