package main

import (
	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newWait is `meshd wait`.
func newWait(a *app) *cobra.Command {
	var w api.WaitSpec
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait until the node is ready and connected as asked; exit status 4 if the time runs out",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, flag := range []string{"peer", "direct"} {
				if changed(cmd.Flags(), flag) && cmd.Flags().Lookup(flag).Value.String() == "" {
					return usagef(flag, "the name is empty")
				}
			}
			if err := w.Check(); err != nil {
				return err
			}
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			if err := a.client().Wait(ctx, w); err != nil {
				return err
			}
			if a.flags.json {
				return printJSON(a.stdout, map[string]bool{"ok": true})
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&w.Peers, "peers", 0, "that many other members are known and alive")
	f.StringVar(&w.Peer, "peer", "", "there is a session with this member; it is made if need be")
	f.StringVar(&w.Direct, "direct", "", "there is a direct path to this member")
	f.DurationVar(&w.Timeout, "timeout", 0, "give up after this time (default: never)")
	for _, flag := range []string{"peer", "direct"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, a.completeNames)
	}
	return cmd
}
