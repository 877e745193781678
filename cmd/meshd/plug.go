package main

import (
	"context"

	"github.com/spf13/cobra"
)

// newPlug is `meshd plug`.
func newPlug(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "plug",
		Short: "An Ethernet cable on stdin and stdout",
		Long: `Plugs stdin and stdout into the running node's segment: Ethernet frames in the framing of vde_plug.

What is at the other end is one more host on the segment, with its own MAC and addresses. On a host that has meshd this is
done from elsewhere with nothing but an ssh login. Who may make invites may plug in.`,
		Example: "  dpipe vde_plug vde:///run/vde.ctl = ssh home meshd plug",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.plug(cmd.Context()) },
	}
}

func (a *app) plug(ctx context.Context) error {
	conn, err := a.client().Plug(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	a.join(ctx, conn)
	return nil
}
