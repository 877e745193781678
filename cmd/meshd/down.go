package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"meshd/keys"
	"meshd/mesh/api"
)

const (
	// downTimeout is how long a daemon may take to end, downPoll how often we look.
	downTimeout = 15 * time.Second
	downPoll    = 20 * time.Millisecond
)

// newDown is `meshd down`.
func newDown(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the node cleanly, or clean up after one that was killed",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), downTimeout)
			defer cancel()
			err := a.client().Down(ctx)
			if err != nil && !errors.Is(err, api.ErrNoDaemon) {
				return err
			}
			// Without state there has been no node that could have left something.
			if err != nil && !fileExists(a.flags.state) {
				return err
			}
			ended := err == nil
			if err := a.waitGone(ctx); err != nil {
				return err
			}
			if ended && ofAnother(a.flags.state) {
				return nil // the daemon has cleaned up itself; we may not look
			}
			return a.cleanUp(ctx)
		},
	}
}

// waitGone waits until no daemon answers any more.
func (a *app) waitGone(ctx context.Context) error {
	client := a.client()
	for {
		alive, err := client.Alive(ctx)
		if ctx.Err() != nil {
			return &api.Error{Code: api.CodeFailed, What: "down", Why: fmt.Sprintf("the daemon still runs after %v", downTimeout)}
		}
		if err != nil || !alive {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// cleanUp removes what the state lists, once the daemon has let go of it.
func (a *app) cleanUp(ctx context.Context) error {
	for {
		err := a.node.CleanUp(a.flags.state)
		if !errors.Is(err, keys.ErrLocked) || pause(ctx) != nil {
			return explain(err, nodeConfig{StateDir: a.flags.state})
		}
	}
}

// pause waits a moment; it returns an error when ctx ends first.
func pause(ctx context.Context) error {
	t := time.NewTimer(downPoll)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
