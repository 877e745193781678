package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newInvite is `meshd invite`.
func newInvite(a *app) *cobra.Command {
	var (
		o       api.InviteOptions
		expires string
		qr      bool
	)
	cmd := &cobra.Command{
		Use:     "invite",
		Short:   "Print an invite: who has it may join without approval",
		Example: "  meshd invite | ssh laptop meshd up --join -",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Expires, err = parseLife(expires); err != nil {
				return usagef("expires", "%v", err)
			}
			if err := o.Check(); err != nil {
				return err
			}
			i, err := a.client().NewInvite(cmd.Context(), o)
			if err != nil {
				return err
			}
			return a.printInvite(i, qr)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Uses, "uses", 1, "how often it may be used")
	f.StringVar(&expires, "expires", "24h", "how long it may be used, as in 30m, 24h or 7d")
	f.StringSliceVar(&o.Roles, "role", nil, "role of who joins with it: member, admin, router, dhcp, bridge, vlan=LIST (repeatable)")
	f.BoolVar(&qr, "qr", false, "show it as a QR code too")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(
		[]string{"member", "admin", "router", "dhcp", "bridge", "vlan="}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// printInvite prints an invite alone on its line, so that it can be piped; what people want to know besides goes to stderr on a terminal.
func (a *app) printInvite(i api.Invite, qr bool) error {
	if a.flags.json {
		return printJSON(a.stdout, i)
	}
	a.printf("%s\n", clean(i.Invite))
	if qr {
		qrterminal.GenerateWithConfig(i.Invite, qrterminal.Config{
			Level: qrterminal.L, Writer: a.stdout, HalfBlocks: true, QuietZone: 2,
			BlackChar: qrterminal.BLACK_BLACK, WhiteChar: qrterminal.WHITE_WHITE,
			BlackWhiteChar: qrterminal.BLACK_WHITE, WhiteBlackChar: qrterminal.WHITE_BLACK,
		})
	}
	if a.live {
		fmt.Fprintf(a.stderr, "%s, until %s, as %s; on the other machine: meshd up --join -, and paste it\n",
			times(i.Uses), i.Expires.Local().Format(time.DateTime), list(i.Roles))
	}
	return nil
}

// times is how often, in words.
func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// parseLife reads a duration, also in days and weeks.
func parseLife(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	for suffix, unit := range map[string]time.Duration{"d": day, "w": 7 * day} {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.ParseUint(digits, 10, 16)
			if err != nil {
				return 0, fmt.Errorf("%q is not a duration like 30m, 24h or 7d", s)
			}
			return time.Duration(n) * unit, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a duration like 30m, 24h or 7d", s)
	}
	return d, nil
}
