package main

import (
	"context"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
	"meshd/mesh/doctor"
)

// doctorReport is what `meshd doctor --json` prints.
type doctorReport struct {
	// Daemon says whether a running node was asked.
	Daemon bool        `json:"daemon"`
	Checks []api.Check `json:"checks"`
}

// newDoctor is `meshd doctor`.
func newDoctor(a *app) *cobra.Command {
	offline := false
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps meshd from working well, and say what to do",
		Long: `Makes named checks of this host, its network and the running node, if there is one: each is ok, warning, failed, or
skipped where it cannot be made here, and says what to do. It changes nothing.

Exit status: 1 when a check has failed, else 3 when no daemon answers, else 0.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			r := a.doctor(ctx, offline)
			var err error
			if a.flags.json {
				err = printJSON(a.stdout, r)
			} else {
				a.printf("%s", a.style.table(doctorRows(r)))
			}
			if err != nil {
				return err
			}
			failed := slices.ContainsFunc(r.Checks, func(c api.Check) bool { return c.State == api.CheckFailed })
			switch {
			case failed:
				return exitStatus(1)
			case !r.Daemon:
				return exitStatus(3)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "do not measure the network")
	return cmd
}

// doctor makes the checks.
func (a *app) doctor(ctx context.Context, offline bool) doctorReport {
	c := doctor.Config{StateDir: a.flags.state, TAP: defaultTAP, Port: defaultPort}
	c.Status, c.NoStatus = a.client().Status(ctx)
	if c.NoStatus != nil {
		c.Status = nil
	} else {
		c.Port = portOf(c.Status)
	}
	if !offline {
		c.Netcheck = func(ctx context.Context) (*api.Netcheck, error) { return a.netcheck(ctx, nil) }
	}
	return doctorReport{Daemon: c.Status != nil, Checks: a.node.Examine(ctx, c)}
}

// portOf is the port of a node's own addresses.
func portOf(s *api.Status) uint16 {
	for _, e := range s.Self.Endpoints {
		if at, err := netip.ParseAddrPort(e.Addr); err == nil && e.Kind == api.EndpointHost {
			return at.Port()
		}
	}
	return defaultPort
}

// doctorRows is a check a line.
func doctorRows(r doctorReport) []row {
	rows := make([]row, len(r.Checks))
	for i, c := range r.Checks {
		colours := map[api.CheckState]colour{api.CheckOK: green, api.CheckWarning: yellow, api.CheckFailed: red}
		text := clean(c.Text)
		if c.Remedy != "" {
			text += " (" + clean(c.Remedy) + ")"
		}
		rows[i] = row{{clean(string(c.State)), colours[c.State]}, {clean(c.Name), bold}, {text, plain}}
	}
	return rows
}
