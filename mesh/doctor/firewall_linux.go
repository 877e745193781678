package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"meshd/mesh/api"
)

// checkFirewall reads this host's nftables for what keeps others from our port.
// It understands rules that name a UDP port and policies, and says so where there
// is more than that: a rule may accept by what it does not understand.
func checkFirewall(_ context.Context, cfg Config) []api.Check {
	const name = "firewall"
	conn, err := nftables.New()
	if err != nil {
		return skipped(name, "nftables cannot be read: %v", err)
	}
	chains, err := conn.ListChains()
	if errors.Is(err, unix.EPERM) || errors.Is(err, os.ErrPermission) {
		return skipped(name, "only root can read nftables")
	}
	if err != nil {
		return skipped(name, "nftables cannot be read: %v", err)
	}
	var findings []finding
	for _, c := range chains {
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookInput || c.Type != nftables.ChainTypeFilter {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			continue
		}
		where := c.Table.Name + " " + c.Name
		findings = append(findings, finding{where, judgeChain(rules, c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop, cfg.Port)})
	}
	return firewallVerdict(findings, cfg.Port)
}

// finding is what a chain does to packets for our port that nobody has asked for.
type finding struct {
	chain  string
	effect effect
}

// effect is what becomes of them.
type effect int

const (
	passes effect = iota
	unclear
	drops
)

func firewallVerdict(findings []finding, port uint16) []api.Check {
	const name = "firewall"
	remedy := fmt.Sprintf("accept UDP port %d there: nft add rule ... udp dport %d accept (or firewall-cmd --add-port=%d/udp, ufw allow %d/udp)", port, port, port, port)
	for _, f := range findings {
		if f.effect == drops {
			return one(name, api.CheckWarning, remedy, "nftables chain %q drops what comes unasked to UDP port %d; direct paths are punched all the same, if slower", f.chain, port)
		}
	}
	for _, f := range findings {
		if f.effect == unclear {
			return ok(name, "nftables chain %q has rules that are not understood here; none names UDP port %d", f.chain, port)
		}
	}
	return ok(name, "nftables keeps nothing from UDP port %d", port)
}

// judgeChain walks the rules as the kernel does, for a UDP packet to our port of
// an unknown flow.
func judgeChain(rules []*nftables.Rule, policyDrops bool, port uint16) effect {
	unknown := false
	for _, r := range rules {
		match, understood := matchesPort(r.Exprs, port)
		verdict := verdictOf(r.Exprs)
		switch {
		case !understood && verdict != none:
			unknown = true // it may be for our packet
		case match && verdict == accept:
			return passes
		case match && verdict == drop:
			return drops
		}
	}
	switch {
	case policyDrops && unknown:
		return unclear
	case policyDrops:
		return drops
	}
	return passes
}

// outcome is a rule's verdict.
type outcome int

const (
	none outcome = iota
	accept
	drop
	jump
)

func verdictOf(exprs []expr.Any) outcome {
	for _, e := range exprs {
		switch v := e.(type) {
		case *expr.Reject:
			return drop
		case *expr.Verdict:
			switch v.Kind {
			case expr.VerdictAccept:
				return accept
			case expr.VerdictDrop:
				return drop
			case expr.VerdictJump, expr.VerdictGoto:
				return jump
			}
		}
	}
	return none
}

// matchesPort reports whether a rule is for a UDP packet to port; not understood
// when it looks at something else.
func matchesPort(exprs []expr.Any, port uint16) (match, understood bool) {
	var loaded string // what the register holds, as far as we know
	for _, e := range exprs {
		switch v := e.(type) {
		case *expr.Counter, *expr.Log, *expr.Verdict, *expr.Reject:
		case *expr.Meta:
			loaded = "other"
			if v.Key == expr.MetaKeyL4PROTO {
				loaded = "protocol"
			}
		case *expr.Payload:
			loaded = "other"
			if v.Base == expr.PayloadBaseTransportHeader && v.Offset == 2 && v.Len == 2 {
				loaded = "port"
			}
		case *expr.Cmp:
			same, known := compare(loaded, v, port)
			if !known {
				return false, false
			}
			if !same {
				return false, true // it is for others
			}
		default:
			return false, false
		}
	}
	return true, true
}

func compare(loaded string, c *expr.Cmp, port uint16) (same, known bool) {
	var equal bool
	switch {
	case loaded == "protocol" && len(c.Data) == 1:
		equal = c.Data[0] == unix.IPPROTO_UDP
	case loaded == "port" && len(c.Data) == 2:
		equal = binary.BigEndian.Uint16(c.Data) == port
	default:
		return false, false
	}
	switch c.Op {
	case expr.CmpOpEq:
		return equal, true
	case expr.CmpOpNeq:
		return !equal, true
	default:
		return false, false
	}
}
