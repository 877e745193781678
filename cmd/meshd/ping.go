package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newPing is `meshd ping`.
func newPing(a *app) *cobra.Command {
	count := 4
	cmd := &cobra.Command{
		Use:               "ping NAME",
		Short:             "Measure the round trip to a member, and show the path that it takes",
		Args:              oneArg("NAME"),
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := api.CheckName(args[0]); err != nil {
				return err
			}
			if count < 0 {
				return usagef("count", "%d is negative", count)
			}
			return a.ping(cmd.Context(), args[0], count)
		},
	}
	cmd.Flags().IntVarP(&count, "count", "c", count, "how many; 0: until interrupted")
	return cmd
}

// pingSummary is the last line of ping.
type pingSummary struct {
	Name     string  `json:"name"`
	Sent     int     `json:"sent"`
	Received int     `json:"received"`
	Min      float64 `json:"rtt_min_ms"`
	Avg      float64 `json:"rtt_avg_ms"`
	Max      float64 `json:"rtt_max_ms"`
}

// add counts one reply in.
func (s *pingSummary) add(r api.PingReply) {
	s.Name = r.Name
	s.Sent++
	if r.Lost {
		return
	}
	s.Received++
	if s.Received == 1 || r.RTTMillis < s.Min {
		s.Min = r.RTTMillis
	}
	s.Max = max(s.Max, r.RTTMillis)
	s.Avg += (r.RTTMillis - s.Avg) / float64(s.Received)
}

// ping prints each reply as it comes and then the sum. No reply at all is exit status 4.
func (a *app) ping(ctx context.Context, name string, count int) error {
	ctx, stop := a.interruptible(ctx)
	defer stop()
	sum := pingSummary{Name: name}
	var last api.PingReply
	err := a.client().Ping(ctx, name, count, func(r api.PingReply) {
		sum.add(r)
		last = r
		if a.flags.json {
			_ = printJSONLine(a.stdout, r)
			return
		}
		a.printf("%s\n", a.pingLine(r))
	})
	if err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
		return err
	}
	if sum.Sent > 0 {
		a.printSummary(sum)
	}
	if last.State == api.StateRelayed && !a.flags.json {
		a.explainRelayed(ctx, last.Name)
	}
	if sum.Received == 0 {
		if sum.Sent == 0 {
			return exitStatus(api.CodeNotConnected.ExitStatus())
		}
		return &api.Error{
			Code: api.CodeNotConnected, What: fmt.Sprintf("ping %q", sum.Name), Why: fmt.Sprintf("none of %d was answered", sum.Sent),
			Remedy: "meshd status shows how it is connected",
		}
	}
	return nil
}

// pingLine is one reply for people.
func (a *app) pingLine(r api.PingReply) string {
	if r.Lost {
		line := fmt.Sprintf("no answer from %s: seq=%d", clean(r.Name), r.Seq)
		if r.Reason != "" {
			line += " (" + clean(r.Reason) + ")"
		}
		return a.style.paint(red, line)
	}
	return fmt.Sprintf("%d bytes from %s: seq=%d time=%s path=%s %s", r.Bytes, clean(r.Name), r.Seq, millis(r.RTTMillis),
		a.style.paint(stateColour(r.State), clean(string(r.State))), pathText(r.Transport, r.Endpoint, r.Via))
}

// explainRelayed prints why a member is reached through others, if the node says so now.
func (a *app) explainRelayed(ctx context.Context, name string) {
	s, err := a.client().Status(context.WithoutCancel(ctx)) // after an interrupt, too
	if err != nil {
		return // it has just ended
	}
	for _, p := range s.Peers {
		if p.Name == name && p.State == api.StateRelayed {
			a.printf("relayed: %s\n", whyRelayed(s, p))
		}
	}
}

func (a *app) printSummary(s pingSummary) {
	if a.flags.json {
		_ = printJSONLine(a.stdout, s)
		return
	}
	a.printf("%s: %d sent, %d received, %.0f%% lost", clean(s.Name), s.Sent, s.Received, 100*float64(s.Sent-s.Received)/float64(s.Sent))
	if s.Received > 0 {
		a.printf(", rtt min/avg/max %.2f/%.2f/%.2f ms", s.Min, s.Avg, s.Max)
	}
	a.printf("\n")
}
