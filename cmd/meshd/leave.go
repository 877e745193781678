package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newLeave is `meshd leave`.
func newLeave(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Go for good: have this node revoked, and remove its state",
		Long: `leave asks an admin's node to revoke this one, ends it, and removes its state, identity included. meshd down ends it only for now.

With --force it does so also when no admin's node answers, when this node holds the network's root key, or when no daemon runs;
without an admin, others go on counting it as a member until its certificate has ended.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*downTimeout)
			defer cancel()
			err := a.client().Leave(ctx, force)
			switch {
			case err == nil:
				if err := a.waitGone(ctx); err != nil {
					return err
				}
			case !errors.Is(err, api.ErrNoDaemon) || !fileExists(a.flags.state):
				return err
			case force:
				if err := a.cleanUp(ctx); err != nil {
					return err
				}
				if err := a.node.Forget(a.flags.state); err != nil {
					return explain(err, nodeConfig{StateDir: a.flags.state})
				}
			default:
				return &api.Error{
					Code: api.CodeNoDaemon, What: "leave", Why: "no daemon answers, and it has to ask an admin's node", Err: err,
					Remedy: "start it with meshd up --resume, or use --force to remove the state alone",
				}
			}
			if a.flags.json {
				return printJSON(a.stdout, map[string]string{"left": a.flags.state})
			}
			a.printf("left; %s is empty\n", clean(a.flags.state))
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also where nobody can revoke this node")
	return cmd
}
