package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newRevoke is `meshd revoke`.
func newRevoke(a *app) *cobra.Command {
	var since string
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "End a membership for good, as an admin",
		Long: `revoke ends a membership for good: every member that can be reached cuts the node off within seconds, and those that
cannot, as soon as they can. The node can come back only with a new identity (meshd leave --force there, and a new invite).

Revoking an admin ends what it signs from now on. If its key was stolen, --since ends what it has signed since then too.`,
		Example:           "  meshd revoke laptop\n  meshd revoke backup-admin --since 2026-11-01",
		Args:              oneArg("NAME"),
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := api.CheckName(args[0]); err != nil {
				return err
			}
			o := api.RevokeOptions{Name: args[0]}
			if since != "" {
				var err error
				if o.Since, err = parseSince(since, a.now()); err != nil {
					return usagef("since", "%v", err)
				}
			}
			m, err := a.client().Revoke(cmd.Context(), o)
			if err != nil {
				return err
			}
			if a.flags.json {
				return printJSON(a.stdout, m)
			}
			a.printf("revoked %s (%s)\n", field(m.Name), clean(m.ID))
			for _, id := range m.Also {
				a.printf("revoked with it %s\n", clean(id))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "also whom it has admitted since then: a date, a time, a span like 7d, or all")
	return cmd
}

// parseSince reads a time in the past: 2026-11-01, 2026-11-01T12:00:00Z, 36h or 7d ago, or all.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "all" {
		return time.Unix(0, 0), nil
	}
	for _, layout := range []string{time.DateOnly, time.DateTime} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return checkPast(t, now)
		}
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return checkPast(t, now)
	}
	d, err := parseLife(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no date (2026-11-01), time (2026-11-01T12:00:00Z), span (7d) or all", s)
	}
	return now.Add(-d), nil
}

func checkPast(t, now time.Time) (time.Time, error) {
	if t.After(now) {
		return t, fmt.Errorf("%s is in the future", t.Format(time.RFC3339))
	}
	return t, nil
}

// newRole is `meshd role`.
func newRole(a *app) *cobra.Command {
	roles := []string{"member", "admin", "router", "dhcp", "bridge", "vlan="}
	return &cobra.Command{
		Use:   "role NAME ROLE...",
		Short: "Give a member these roles and no others, as an admin",
		Long: `role gives a member a new certificate with these roles and no others: admin, router, dhcp, bridge, vlan=LIST
(vlan=10,20-29, vlan=none), or member for the least. Only the founder's node, with the network's root key, makes admins.`,
		Example: "  meshd role gateway router dhcp\n  meshd role gateway member",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError(cmd.Name(), "NAME and at least one ROLE are wanted", "")
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return roles, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeNames(cmd, args, text)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := api.CheckName(args[0]); err != nil {
				return err
			}
			if err := api.CheckRoles(args[1:]); err != nil {
				return err
			}
			m, err := a.client().SetRoles(cmd.Context(), args[0], args[1:])
			if err != nil {
				return err
			}
			if a.flags.json {
				return printJSON(a.stdout, m)
			}
			a.printf("%s is now %s\n", field(m.Name), clean(strings.Join(m.Roles, ", ")))
			return nil
		},
	}
}
