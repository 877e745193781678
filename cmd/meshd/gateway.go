package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newGateway is `meshd gateway`.
func newGateway(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "gateway",
		Short: "Show who routes the network's prefixes, and by which router this host could go",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			g, err := a.client().Gateway(cmd.Context())
			if err != nil {
				return err
			}
			if a.flags.json {
				return printJSON(a.stdout, g)
			}
			a.printf("%s", a.style.table(gatewayRows(g)))
			return nil
		},
	}
}

// gatewayRows has a line for each router of a prefix, and one for each default route.
func gatewayRows(g *api.Gateway) []row {
	var rows []row
	for _, r := range g.Routers {
		uplink := "uplink " + clean(r.Uplink)
		if r.Interface != "" {
			uplink += " (" + clean(r.Interface) + ")"
		}
		rows = append(rows, row{
			{r.Prefix.String(), bold},
			{field(r.Member), plain},
			{clean(r.State), goodColour(r.State == api.RouterActive)},
			{uplink, plain},
			{r.Address.String() + " at " + clean(r.MAC), dim},
		})
	}
	if d := g.DHCP4; d != nil {
		rows = append(rows, row{{d.Subnet.String(), bold}, {"dhcp", plain}, {d.Router.String(), plain}, {strconv.Itoa(len(d.Leases)) + " leases", plain}})
	}
	for _, d := range g.DefaultRoutes {
		taken := "not taken"
		if d.Taken {
			taken = "taken"
		}
		rows = append(rows, row{{"default", bold}, {d.Router.String(), plain}, {taken, goodColour(d.Taken)}, {"for " + lasts(d.Seconds), plain}})
	}
	return rows
}
