package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newHosts is `meshd hosts`.
func newHosts(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "hosts",
		Short: "Show the broadcast domain: MAC, VLAN, addresses, behind which member, learned how, age",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hosts, err := a.client().Hosts(cmd.Context())
			if err != nil {
				return err
			}
			if a.flags.json {
				return printJSON(a.stdout, hosts)
			}
			a.printf("%s", a.style.table(hostRows(hosts)))
			return nil
		},
	}
}

// hostRows is the table of hosts, one a line.
func hostRows(hosts []api.Host) []row {
	rows := make([]row, len(hosts))
	for i, h := range hosts {
		vlan := "untagged"
		if h.VLAN != 0 {
			vlan = "vlan " + strconv.Itoa(int(h.VLAN))
		}
		rows[i] = row{
			{clean(h.MAC), bold},
			{vlan, plain},
			{join(h.Addresses), plain},
			{field(h.Member), plain},
			{field(h.Source), plain},
			{age(time.Duration(h.AgeSeconds * float64(time.Second))), dim},
		}
	}
	return rows
}
