package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meshd/mesh/api"
)

// newShare is `meshd share`.
func newShare(a *app) *cobra.Command {
	var rate, volume string
	var off, on bool
	cmd := &cobra.Command{
		Use:     "share",
		Short:   "Show what is relayed for whom and by whom, and change the limits",
		Example: "  meshd share --rate 10mbit --volume 100GB/month\n  meshd share --off",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if on && off {
				return usageError("share", "--on and --off exclude each other", "")
			}
			change, err := shareChange(cmd.Flags(), rate, volume)
			if err != nil {
				return err
			}
			if on || off {
				change.On = &on
			}
			return a.share(cmd.Context(), change)
		},
	}
	f := cmd.Flags()
	f.StringVar(&rate, "rate", "", "most that is relayed for others, such as 10mbit; 0: no fixed limit, own traffic first")
	f.StringVar(&volume, "volume", "", "most in a month, such as 100GB/month; 0: no limit")
	f.BoolVar(&off, "off", false, "relay for nobody")
	f.BoolVar(&on, "on", false, "relay for others")
	return cmd
}

// share asks the daemon and prints what it says.
func (a *app) share(ctx context.Context, change api.ShareChange) error {
	s, err := a.client().Share(ctx, change)
	if err != nil {
		return err
	}
	if a.flags.json {
		return printJSON(a.stdout, s)
	}
	a.printf("%s", a.style.table(shareRows(s)))
	return nil
}

// shareRows is what is relayed as lines, each with what it is about in its first column.
func shareRows(s *api.Share) []row {
	state := cell{"on", green}
	if !s.On {
		state = cell{"off", yellow}
	}
	limit := "rate unlimited"
	if s.RateBPS > 0 {
		limit = "rate " + bitRate(s.RateBPS)
	}
	used := byteCount(s.UsedBytes) + " in " + field(s.Month)
	if s.VolumeBytes > 0 {
		used += " of " + byteCount(s.VolumeBytes)
	}
	rows := []row{{{"share", bold}, state, {limit, plain}, {used, plain}}}
	for _, r := range s.For {
		rows = append(rows, texts("for", clean(r.From)+" - "+clean(r.To), byteCount(r.Bytes), bitRate(r.RateBPS)))
	}
	for _, b := range s.By {
		rows = append(rows, texts("by", list(b.Via), "to "+field(b.Peer), bitRate(b.RateBPS)))
	}
	return rows
}

// shareChange is what the flags of share, or those of up, ask for.
func shareChange(flags *pflag.FlagSet, rate, volume string) (api.ShareChange, error) {
	var c api.ShareChange
	if rate != "" || changed(flags, "rate") {
		n, err := parseRate(rate)
		if err != nil {
			return c, usagef("rate", "%v", err)
		}
		c.RateBPS = &n
	}
	if volume != "" || changed(flags, "volume") {
		n, err := parseVolume(volume)
		if err != nil {
			return c, usagef("volume", "%v", err)
		}
		c.VolumeBytes = &n
	}
	return c, nil
}

// maxAmount is beyond every rate and volume, and far from where sums would overflow.
const maxAmount = 1e18

// parseRate reads a rate in bits per second, as tc writes it: a number, and bit, kbit, mbit, gbit or tbit.
func parseRate(s string) (uint64, error) {
	unit := map[string]float64{"": 1, "bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9, "tbit": 1e12}
	text := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), "/s"), "ps")
	n, err := parseAmount(text, unit)
	if err != nil {
		return 0, fmt.Errorf("%q is not a rate such as 10mbit", s)
	}
	return n, nil
}

// parseVolume reads bytes, with the units of SI or IEC, by the month.
func parseVolume(s string) (uint64, error) {
	unit := map[string]float64{
		"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	}
	text := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), "/month")
	n, err := parseAmount(text, unit)
	if err != nil {
		return 0, fmt.Errorf("%q is not a volume such as 100GB/month", s)
	}
	return n, nil
}

// parseAmount reads a number and a unit.
func parseAmount(s string, units map[string]float64) (uint64, error) {
	at := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if at < 0 {
		at = len(s)
	}
	n, err := strconv.ParseFloat(s[:at], 64)
	factor, known := units[strings.TrimSpace(s[at:])]
	if err != nil || !known || math.IsInf(n, 0) || n*factor > maxAmount {
		return 0, strconv.ErrSyntax
	}
	if v := uint64(n * factor); v > 0 || n == 0 {
		return v, nil
	}
	return 0, strconv.ErrSyntax // less than one is not no limit
}
