package doctor

import (
	"context"
	"fmt"
	"strings"

	"meshd/mesh/api"
)

// checkNetwork makes checks of what netcheck measures.
func checkNetwork(ctx context.Context, cfg Config) []api.Check {
	if cfg.Netcheck == nil {
		return skipped("udp", "the network was not measured")
	}
	r, err := cfg.Netcheck(ctx)
	if err != nil {
		return one("udp", api.CheckFailed, "run meshd netcheck", "%v", err)
	}
	list := checkUDP(r)
	list = append(list, checkNAT(r, cfg.Port)...)
	list = append(list, checkRouters(r, cfg.Port)...)
	return append(list, checkMTU(r)...)
}

func checkUDP(r *api.Netcheck) []api.Check {
	const name = "udp"
	routes := 0
	for _, f := range r.Families {
		if f.Address != "" {
			routes++
		}
	}
	switch {
	case routes == 0:
		return one(name, api.CheckFailed, "connect this host to a network; members on its own links are found without", "this host has no route to the internet")
	case r.Asked == 0:
		return skipped(name, "no member is known to ask; meshd netcheck HOST asks one")
	case !r.UDP:
		return one(name, api.CheckFailed, "let UDP out in the firewall; try meshd netcheck with another HOST",
			"none of %d members and servers answers: UDP is blocked, or none of them is there", r.Asked)
	}
	var list []api.Check
	v4, v6 := family(r, "ipv4"), family(r, "ipv6")
	if v6.Address != "" && !v6.UDP && v4.UDP && askedOver(r, true) {
		list = one("ipv6-path", api.CheckWarning, "repair IPv6 in this network, or turn it off there", "this host has the IPv6 address %s, and nothing comes back over IPv6", v6.Address)
	}
	return append(ok(name, "it passes"), list...)
}

func family(r *api.Netcheck, name string) (found api.NetcheckFamily) {
	for _, f := range r.Families {
		if f.Family == name {
			return f
		}
	}
	return found
}

func askedOver(r *api.Netcheck, v6 bool) bool {
	for _, s := range r.Servers {
		if strings.HasPrefix(s.Addr, "[") == v6 {
			return true
		}
	}
	return false
}

func checkNAT(r *api.Netcheck, port uint16) []api.Check {
	const name = "nat"
	f := family(r, "ipv4")
	text := fmt.Sprintf("mapping %s, filtering %s", f.Mapping, f.Filtering)
	switch f.Mapping {
	case "none", "endpoint-independent":
		return ok(name, "%s", text)
	case "address-dependent", "address-and-port-dependent":
		for _, router := range r.Routers {
			if router.Mapped != "" && !router.DoubleNAT && router.Family == "ipv4" {
				return ok(name, "%s, and a port is mapped", text)
			}
		}
		return one(name, api.CheckWarning, forwardRemedy(port), "%s: members behind NATs like this one are reached through relays", text)
	}
	return skipped(name, "too few answers over IPv4 to tell")
}

func checkRouters(r *api.Netcheck, port uint16) (list []api.Check) {
	const name = "port-mapping"
	mapping := family(r, "ipv4").Mapping
	for _, router := range r.Routers {
		at := fmt.Sprintf("router %s (%s)", router.Addr, router.Family)
		switch {
		case router.DoubleNAT:
			list = append(list, one(name, api.CheckWarning, "ask the provider for a public address, or put the first router into bridge mode; direct paths are punched without",
				"%s maps to %s, which is not public: there is another NAT behind it", at, router.Mapped)...)
		case router.Mapped != "":
			list = append(list, ok(name, "%s lets others in at %s by %s", at, router.Mapped, router.Used)...)
		case len(router.Protocols) > 0 && router.Problem != "":
			list = append(list, one(name, api.CheckWarning, forwardRemedy(port), "%s opens no port: %s", at, router.Problem)...)
		case len(router.Protocols) > 0:
			list = append(list, ok(name, "%s speaks %s", at, strings.Join(router.Protocols, ", "))...)
		case router.Family == "ipv4" && mapping == "none":
			list = append(list, ok(name, "none is needed: there is no NAT")...)
		case router.Family == "ipv6":
			list = append(list, skipped(name, "%s does not say how its firewall is opened; direct paths are punched all the same", at)...)
		default:
			list = append(list, one(name, api.CheckWarning, forwardRemedy(port), "%s speaks neither PCP, NAT-PMP nor UPnP", at)...)
		}
	}
	if len(list) == 0 {
		return skipped(name, "no router in front of this host is known")
	}
	return list
}

// leastMTU is what meshd needs to carry frames in two pieces.
const leastMTU = 1280

func checkMTU(r *api.Netcheck) []api.Check {
	const name = "mtu"
	least := 0
	for _, f := range r.Families {
		if f.PathMTU > 0 && (least == 0 || f.PathMTU < least) {
			least = f.PathMTU
		}
	}
	switch {
	case least == 0 && r.UDP:
		return one(name, api.CheckWarning, "look for a firewall that drops large packets or fragments", "packets of %d bytes do not arrive, or nobody answers to such", leastMTU)
	case least == 0:
		return skipped(name, "nobody has answered")
	default:
		return ok(name, "packets of %d bytes arrive", least)
	}
}
