package main

import "github.com/spf13/cobra"

// newDemo is `meshd demo`.
func newDemo(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "demo",
		Short:             "Show it: three sites in network namespaces on this one machine, joined into one Ethernet",
		Args:              noArgs,
		PersistentPreRunE: needsNoNode,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			return a.demo(ctx)
		},
	}
}
