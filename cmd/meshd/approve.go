package main

import (
	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newApprove is `meshd approve`.
func newApprove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "approve WORDS",
		Short:             "Admit the joiner that shows these six words",
		Example:           "  meshd approve apple bridge candle dragon eagle forest",
		ValidArgsFunction: a.completeWords,
		RunE: func(cmd *cobra.Command, args []string) error {
			words, err := api.Words(args...)
			if err != nil {
				return err
			}
			r, err := a.client().Approve(cmd.Context(), words)
			if err != nil {
				return err
			}
			if a.flags.json {
				return printJSON(a.stdout, r)
			}
			a.printf("admitted %s (%s)\n", field(r.Name), clean(r.ID))
			return nil
		},
	}
}
