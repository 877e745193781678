package main

import (
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newPrefix is `meshd prefix`.
func newPrefix(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prefix",
		Short: "Show the network's IPv6 prefixes, and change them as an admin",
		Long: `prefix lists the network's IPv6 prefixes. Every member has an address in each of them.

One that is removed is deprecated first: addresses stay, and new connections use others, until its lifetime ends.`,
		Example: "  meshd prefix\n  meshd prefix add 2001:db8:1:2::/64\n  meshd prefix remove fd12:3456:789a:1::/64",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.prefix(cmd, api.PrefixChange{}) },
	}
	var lifetime string
	add := &cobra.Command{
		Use: "add P/64...", Short: "Give the network prefixes, beside those that it has", Args: somePrefixes,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := api.PrefixChange{}
			if lifetime != "" {
				d, err := time.ParseDuration(lifetime)
				if err != nil || d <= 0 {
					return usagef("lifetime", "%q is no time such as 90m", lifetime)
				}
				c.Lifetime = d
			}
			var err error
			c.Add, err = prefixes(args)
			if err != nil {
				return err
			}
			return a.prefix(cmd, c)
		},
	}
	add.Flags().StringVar(&lifetime, "lifetime", "", "how long hosts use an address after they last heard of the prefix (default 90m)")
	remove := &cobra.Command{
		Use: "remove P/64...", Short: "Deprecate prefixes, which go when their lifetime ends", Args: somePrefixes,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := prefixes(args)
			if err != nil {
				return err
			}
			return a.prefix(cmd, api.PrefixChange{Remove: list})
		},
	}
	cmd.AddCommand(add, remove)
	return cmd
}

// somePrefixes wants at least one argument.
func somePrefixes(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError("prefix "+cmd.Name(), "P/64 is missing", "")
	}
	return nil
}

func prefixes(args []string) ([]netip.Prefix, error) {
	list := make([]netip.Prefix, len(args))
	for i, s := range args {
		p, err := parsePrefix(s)
		if err != nil {
			return nil, err
		}
		list[i] = p
	}
	return list, nil
}

// prefix asks the daemon and prints what it says.
func (a *app) prefix(cmd *cobra.Command, c api.PrefixChange) error {
	list, err := a.client().Prefixes(cmd.Context(), c)
	if err != nil {
		return err
	}
	if a.flags.json {
		return printJSON(a.stdout, list)
	}
	rows := make([]row, len(list))
	for i, p := range list {
		left := "lifetime " + lasts(p.ValidSeconds)
		if p.State == api.PrefixDeprecated {
			left = "ends in " + lasts(p.ValidSeconds)
		}
		rows[i] = row{{p.Prefix.String(), bold}, {clean(p.State), goodColour(p.State == api.PrefixInUse)}, {left, plain}}
	}
	a.printf("%s", a.style.table(rows))
	return nil
}

func lasts(seconds float64) string {
	return (time.Duration(seconds) * time.Second).String()
}

func goodColour(good bool) colour {
	if good {
		return green
	}
	return yellow
}
