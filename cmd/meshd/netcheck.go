package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newNetcheck is `meshd netcheck`.
func newNetcheck(a *app) *cobra.Command {
	var stun []string
	cmd := &cobra.Command{
		Use:   "netcheck [HOST[:PORT]...]",
		Short: "Show what NATs and firewalls in front of this host do",
		Long: `Measures what the network in front of this host does to UDP: whether it passes at all, addresses as others see
them, mapping and filtering behaviour in the terms of RFC 5780, hairpins, the path's MTU, and routers that open ports.

It asks members of the network: those that a running node reaches, else those that its state knows, and the HOSTs given,
which may be any members or STUN servers. Exit status 4 says that servers were asked and none has answered.`,
		Example: "  meshd netcheck\n  meshd netcheck home.example\n  meshd netcheck --stun stun.example:3478 --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			servers, err := netcheckServers(args, stun)
			if err != nil {
				return err
			}
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			r, err := a.netcheck(ctx, servers)
			if err != nil {
				return err
			}
			if a.flags.json {
				err = printJSON(a.stdout, r)
			} else {
				a.printf("%s", a.style.table(netcheckRows(r)))
			}
			if err == nil && r.Asked > 0 && !r.UDP {
				return exitStatus(4)
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&stun, "stun", nil, "HOST:PORT of a STUN server (repeatable)")
	return cmd
}

// netcheckServers are the servers that the command line names, as HOST:PORT.
func netcheckServers(args, stun []string) (list []string, err error) {
	for _, s := range stun {
		if err := checkHostPort("stun", s); err != nil {
			return nil, err
		}
	}
	for _, arg := range args {
		host, port := splitEntry(arg)
		if err := checkHost(host); err != nil {
			return nil, usageError(fmt.Sprintf("%q", arg), err.Error(), "")
		}
		if port == "" {
			port = fmt.Sprint(defaultPort)
		}
		if _, err := parsePort(port, 1); err != nil {
			return nil, usageError(fmt.Sprintf("%q", arg), err.Error(), "")
		}
		list = append(list, net.JoinHostPort(host, port))
	}
	return append(list, stun...), nil
}

// netcheck has the running node measure, or does it itself.
func (a *app) netcheck(ctx context.Context, servers []string) (*api.Netcheck, error) {
	r, err := a.client().Netcheck(ctx, servers)
	if err == nil {
		return r, nil
	}
	if !errors.Is(err, api.ErrNoDaemon) && api.CodeOf(err) != api.CodeDenied {
		return nil, err
	}
	if r, err = a.node.Netcheck(ctx, a.flags.state, servers); err != nil {
		return nil, err
	}
	r.Canonical()
	return r, nil
}

// netcheckRows is a report, one fact a line.
func netcheckRows(r *api.Netcheck) []row {
	var rows []row
	fact := func(about, what, value string, c colour) {
		rows = append(rows, row{{about, bold}, {what, plain}, {clean(value), c}})
	}
	switch {
	case r.Asked == 0:
		fact("udp", "", "unknown: no server to ask; name one: meshd netcheck HOST", yellow)
	case r.UDP:
		fact("udp", "", "ok", green)
	default:
		fact("udp", "", "no answer: blocked, or nobody is there", red)
	}
	for _, f := range r.Families {
		if f.Address == "" {
			fact(f.Family, "address", "none: no route to the internet", dim)
			if !f.UDP {
				continue
			}
		} else {
			fact(f.Family, "address", f.Address, plain)
		}
		if f.Problem != "" {
			fact(f.Family, "problem", f.Problem, yellow)
		}
		if !f.UDP {
			fact(f.Family, "udp", "no answer", yellow)
			continue
		}
		fact(f.Family, "reflexive", field(strings.Join(f.Reflexive, " ")), plain)
		fact(f.Family, "mapping", f.Mapping, behaviourColour(f.Mapping))
		fact(f.Family, "filtering", f.Filtering, plain)
		fact(f.Family, "hairpin", f.Hairpin, plain)
		if f.PathMTU > 0 {
			fact(f.Family, "mtu", fmt.Sprint(f.PathMTU), plain)
		} else {
			fact(f.Family, "mtu", "unknown", plain)
		}
	}
	for _, router := range r.Routers {
		fact(router.Family, "router", routerText(router), plain)
	}
	for _, p := range r.NAT64 {
		fact("ipv6", "nat64", p.String(), plain)
	}
	for _, s := range r.Servers {
		text, c := "no answer", dim
		if s.Answered {
			text, c = "sees "+field(s.Mapped)+" in "+millis(s.RTTMillis), plain
		}
		rows = append(rows, row{{"server", bold}, {clean(s.Addr), plain}, {clean(text), c}})
	}
	return rows
}

// routerText is what a router does for us.
func routerText(router api.Router) string {
	protocols := strings.Join(router.Protocols, " ")
	if protocols == "" {
		protocols = "no protocol to open ports"
	}
	text := router.Addr + ": " + protocols
	if router.Mapped != "" {
		text += ", " + router.Mapped + " mapped by " + router.Used
	}
	if router.DoubleNAT {
		text += ", which is not public: there is another NAT behind it"
	}
	return text
}

// behaviourColour warns of NATs that cannot be punched.
func behaviourColour(mapping string) colour {
	switch mapping {
	case "none", "endpoint-independent":
		return green
	case "unknown":
		return plain
	default:
		return yellow
	}
}
