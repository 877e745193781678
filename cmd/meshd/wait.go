package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newWait is `meshd wait`.
func newWait(a *app) *cobra.Command {
	var w api.WaitSpec
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait until the node is ready and connected as asked; exit status 4 if the time runs out",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, flag := range []string{"peer", "direct"} {
				if changed(cmd.Flags(), flag) && cmd.Flags().Lookup(flag).Value.String() == "" {
					return usagef(flag, "the name is empty")
				}
			}
			if err := w.Check(); err != nil {
				return err
			}
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			if err := a.wait(ctx, w); err != nil {
				return err
			}
			if a.flags.json {
				return printJSON(a.stdout, map[string]bool{"ok": true})
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&w.Peers, "peers", 0, "that many other members are known and alive")
	f.StringVar(&w.Peer, "peer", "", "there is a session with this member; it is made if need be")
	f.StringVar(&w.Direct, "direct", "", "there is a direct path to this member")
	f.Var((*duration)(&w.Timeout), "timeout", "give up after this time, such as 30s (default: never); also waits for a daemon that is only starting")
	for _, flag := range []string{"peer", "direct"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, a.completeNames)
	}
	return cmd
}

// wait waits for a condition. A timeout is also the patience with a daemon that
// does not answer yet: scripts start one and wait for it in the next line.
func (a *app) wait(ctx context.Context, w api.WaitSpec) error {
	deadline := time.Now().Add(w.Timeout)
	for {
		err := a.client().Wait(ctx, w)
		left := time.Until(deadline)
		if w.Timeout == 0 || left <= 0 || !errors.Is(err, api.ErrNoDaemon) || pause(ctx) != nil {
			return err
		}
		w.Timeout = left
	}
}

// duration is a flag's value: a number with a unit as Go writes it, or seconds.
type duration time.Duration

// String implements pflag.Value.
func (d *duration) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

// Type implements pflag.Value.
func (d *duration) Type() string { return "duration" }

// Set implements pflag.Value.
func (d *duration) Set(s string) error {
	if seconds, err := strconv.ParseUint(s, 10, 31); err == nil {
		*d = duration(time.Duration(seconds) * time.Second)
		return nil
	}
	v, err := time.ParseDuration(s)
	*d = duration(v)
	return err
}
