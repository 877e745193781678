package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"meshd/mesh/api"
)

func checkDaemon(_ context.Context, cfg Config) []api.Check {
	const name = "daemon"
	if cfg.Status == nil {
		return one(name, api.CheckWarning, "start one with meshd up, or name another with --state or --socket", "%v", cfg.NoStatus)
	}
	self := cfg.Status.Self
	if self.Waiting != "" {
		return one(name, api.CheckWarning, "an admin compares the words and runs meshd approve", "it waits for approval: %s", self.Waiting)
	}
	if !self.Ready {
		return one(name, api.CheckWarning, "look at its output", "it runs and is not ready yet")
	}
	return ok(name, "%s runs for %v", self.Name, (time.Duration(self.UptimeSeconds) * time.Second).String())
}

// soon is how long before its end a certificate is a warning: a node renews it at
// half of its 90 days.
const soon = 30 * 24 * time.Hour

func checkCertificate(_ context.Context, cfg Config) []api.Check {
	const name = "certificate"
	if cfg.Status == nil {
		return skipped(name, "no daemon to ask")
	}
	for _, h := range cfg.Status.Health {
		if strings.HasPrefix(h.Code, "certificate-") {
			return one(name, api.CheckFailed, h.Remedy, "%s", h.Text)
		}
	}
	end := cfg.Status.Self.CertificateExpires
	switch left := time.Until(end); {
	case end.IsZero():
		return skipped(name, "there is none yet")
	case left < soon:
		return one(name, api.CheckWarning, "bring an admin's node back, which renews it", "it ends at %s and has not been renewed", end.UTC().Format(time.RFC3339))
	default:
		return ok(name, "it is valid until %s", end.UTC().Format(time.DateOnly))
	}
}

// checkHealth passes on what the node says is not as it should be.
func checkHealth(_ context.Context, cfg Config) (list []api.Check) {
	if cfg.Status == nil {
		return nil
	}
	for _, h := range cfg.Status.Health {
		if strings.HasPrefix(h.Code, "certificate-") || h.Code == "socket-buffers" { // which have checks of their own
			continue
		}
		state := api.CheckWarning
		if h.Severity == api.SeverityError {
			state = api.CheckFailed
		}
		list = append(list, one(h.Code, state, h.Remedy, "%s", h.Text)...)
	}
	return list
}

// checkPairs says of every member that is not reached directly why.
func checkPairs(_ context.Context, cfg Config) []api.Check {
	const name = "pairs"
	if cfg.Status == nil {
		return skipped(name, "no daemon to ask")
	}
	var list []api.Check
	direct := 0
	for _, p := range cfg.Status.Peers {
		switch p.State {
		case api.StateDirect:
			direct++
		case api.StateRelayed:
			why, remedy := WhyNotDirect(cfg.Status.Self, p, cfg.Port)
			list = append(list, one("pair "+p.Name, api.CheckWarning, remedy, "relayed through %s: %s", orUnknown(strings.Join(p.Via, ", ")), why)...)
		case api.StateConnecting:
			list = append(list, one("pair "+p.Name, api.CheckWarning, "wait some seconds and look again", "connecting")...)
		case api.StateOffline:
			text := "offline"
			if !p.LastSeen.IsZero() {
				text = "offline, last heard of at " + p.LastSeen.UTC().Format(time.RFC3339)
			}
			list = append(list, one("pair "+p.Name, api.CheckWarning, "see that meshd runs there: meshd doctor on "+p.Name+" says what it lacks", "%s", text)...)
		}
	}
	summary := fmt.Sprintf("%d members, %d reached directly, %d not in use or not reached", len(cfg.Status.Peers), direct, len(cfg.Status.Peers)-direct)
	if len(cfg.Status.Peers) == 0 {
		summary = "there is no other member"
	}
	return append(ok(name, "%s", summary), list...)
}

// WhyNotDirect reasons from what is known of both sides why a member is reached through others, and says what its user
// could do. Port is the one that this node listens on.
func WhyNotDirect(self api.Self, p api.Peer, port uint16) (why, remedy string) {
	here, there := self.NAT.Mapping, p.NATMapping
	switch {
	case !self.NAT.UDP:
		return "no UDP passes between here and the others", "let UDP out in the firewall"
	case mapped(self):
		return "others can reach this host at a mapped or advertised address: " + beyond(there), thereRemedy(p, port)
	case dependent(here) && dependent(there):
		return "the NATs here and there are both " + dependentMapping + ": each shows every member another port, and neither can be told the other's",
			"on either side: " + forwardRemedy(port)
	case dependent(here):
		return "the NAT here is " + here + ": it shows each member another port, so that only members with a public or mapped address can be reached directly",
			forwardRemedy(port)
	case dependent(there):
		return "the NAT there is " + there + ": it shows each member another port, and a firewall or NAT here lets only known ones in", thereRemedy(p, port)
	case here == noMapping:
		return "there is no NAT here: it is a firewall here, or " + beyond(there), "let UDP in at this port in the firewall; " + thereRemedy(p, port)
	default:
		return "the NAT here can be punched: " + beyond(there), thereRemedy(p, port)
	}
}

// The words of api.NAT.Mapping that count here.
const (
	noMapping        = "none"
	dependentMapping = "address- or port-dependent"
	unknownMapping   = "unknown"
)

func dependent(mapping string) bool {
	return mapping == "address-and-port-dependent" || mapping == "address-dependent"
}

// beyond is what is likely in the way on the other side.
func beyond(there string) string {
	switch there {
	case "", unknownMapping:
		return "the NAT or firewall is on the other side, which has not said yet what it is"
	case noMapping:
		return "there is no NAT on the other side, so a firewall there lets nothing in"
	}
	if dependent(there) {
		return "the NAT on the other side is " + there
	}
	return "the NAT on the other side (" + there + ") can be punched as well, so a firewall is in the way on either side"
}

// thereRemedy is what can be done on the other side.
func thereRemedy(p api.Peer, port uint16) string {
	if dependent(p.NATMapping) {
		return "on " + p.Name + ": " + forwardRemedy(port)
	}
	return "run meshd doctor on " + p.Name
}

func mapped(self api.Self) bool {
	for _, e := range self.Endpoints {
		if e.Kind == api.EndpointMapped || e.Kind == api.EndpointAdvertised {
			return true
		}
	}
	return false
}

func orUnknown(s string) string {
	if s == "" {
		return "a member"
	}
	return s
}
