package main

import (
	"time"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newRequests is `meshd requests`.
func newRequests(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "requests",
		Short: "Show who waits for approval, and the words to compare",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reqs, err := a.client().Requests(cmd.Context())
			if err != nil {
				return err
			}
			if a.flags.json {
				return printJSON(a.stdout, reqs)
			}
			a.printf("%s", a.style.table(requestRows(reqs, a.now())))
			return nil
		},
	}
}

// requestRows is the table of requests: the words first, for they are what counts.
func requestRows(reqs []api.Request, now time.Time) []row {
	rows := make([]row, len(reqs))
	for i, r := range reqs {
		from := field(r.From)
		if r.Introducer != "" {
			from += " at " + clean(r.Introducer)
		}
		asked := "-"
		if !r.Asked.IsZero() {
			asked = age(now.Sub(r.Asked)) + " ago"
		}
		rows[i] = row{{clean(r.Words), bold}, {field(r.Name), plain}, {clean(r.ID), dim}, {from, plain}, {asked, dim}}
	}
	return rows
}
