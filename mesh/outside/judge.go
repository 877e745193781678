package outside

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Patience is how long nobody may be reached before it counts.
const Patience = 20 * time.Second

// Facts are what a node knows of where it stands.
type Facts struct {
	Now        time.Time
	V4, V6     netip.Addr      // what it sends from; invalid without a route
	Addresses  []netip.Addr    // of the host, link-local IPv6 not among them
	Known      bool            // that routes were looked at
	Members    int             // others that should be there
	Reached    int             // of them
	AloneSince time.Time       // since when none is reached; zero while one is
	By6        int             // members reached over IPv6
	Dead6      int             // members reached over IPv4 whose IPv6 addresses are silent
	DNS        string          // why the last names were not resolved; empty: they were
	Portal     string          // where somebody else answered in a member's place
	Clocks     []time.Duration // how far members' clocks are ahead of this host's, of those that are known
}

// Finding is one thing that is wrong.
type Finding struct{ Code, Text, Remedy string }

// Judge says what is wrong, the cause before its effects.
func Judge(f Facts) (list []Finding) {
	add := func(code, remedy, format string, args ...any) {
		list = append(list, Finding{code, fmt.Sprintf(format, args...), remedy})
	}
	alone := !f.AloneSince.IsZero() && f.Members > 0
	patient := alone && f.Now.Sub(f.AloneSince) >= Patience
	routed := f.V4.IsValid() || f.V6.IsValid()
	switch {
	case !f.Known:
	case !routed && onlyLinkLocal(f.Addresses):
		add("link-local-only", "see that the network gives out addresses (DHCP, router advertisements)",
			"this host has no address but link-local ones: it reaches members on its own links only")
	case !routed:
		add("no-route", "see that the network has a router, and this host a default route", "this host has no route to the internet")
	case f.Portal != "":
		add("captive-portal", "sign in with a browser: http://"+f.Portal+"/", "the network answers in the place of members: it wants you to sign in first (captive portal)")
	case patient:
		add("unreachable", "let UDP out in the firewall; meshd doctor says more",
			"none of %d members is reached since %s: UDP is blocked here, or none of them is there", f.Members, f.AloneSince.UTC().Format(time.RFC3339))
	}
	if f.V6.IsValid() && f.Dead6 > 0 && f.By6 == 0 {
		add("ipv6-broken", "repair IPv6 in this network, or turn it off there; IPv4 is used meanwhile",
			"this host has the IPv6 address %v, and nothing comes back over IPv6 from any of %d members", f.V6, f.Dead6)
	}
	if f.DNS != "" {
		add("dns-failing", "repair the name servers of this host; addresses that worked last are used meanwhile", "names are not resolved: %s", f.DNS)
	}
	switch ahead := mostAhead(f.Clocks); {
	case ahead > 0:
		add("clock-skew", "set this host's clock", "this host's clock is %s behind those of most members", about(ahead))
	case ahead < 0:
		add("clock-skew", "set this host's clock", "this host's clock is %s ahead of those of most members", about(-ahead))
	}
	return list
}

// clockTolerance is how far a clock may be off before its user is told.
const clockTolerance = 5 * time.Minute

// mostAhead is by how much more than half of the clocks are ahead at least, or behind if negative; 0 if they
// are not by more than what is tolerated.
func mostAhead(clocks []time.Duration) time.Duration {
	if len(clocks) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(clocks))
	switch low, high := sorted[(len(sorted)-1)/2], sorted[len(sorted)/2]; {
	case low > clockTolerance:
		return low
	case high < -clockTolerance:
		return high
	}
	return 0
}

// about is a duration for people.
func about(d time.Duration) string {
	const day = 24 * time.Hour
	if d > 3*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}

// onlyLinkLocal reports that no address leads beyond a link; none at all neither does.
func onlyLinkLocal(addrs []netip.Addr) bool {
	for _, a := range addrs {
		if !a.IsLinkLocalUnicast() {
			return false
		}
	}
	return true
}
