package main

import (
	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newDeny is `meshd deny`.
func newDeny(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "deny WORDS",
		Short:             "Refuse the joiner that shows these six words",
		ValidArgsFunction: a.completeWords,
		RunE: func(cmd *cobra.Command, args []string) error {
			words, err := api.Words(args...)
			if err != nil {
				return err
			}
			if err := a.client().Deny(cmd.Context(), words); err != nil {
				return err
			}
			if a.flags.json {
				return printJSON(a.stdout, map[string]string{"denied": words})
			}
			a.printf("refused %s\n", words)
			return nil
		},
	}
}
