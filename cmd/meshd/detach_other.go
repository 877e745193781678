//go:build !unix

package main

import (
	"context"

	"github.com/spf13/pflag"

	"meshd/mesh/api"
)

// detach is not possible here: a service manager runs programs in the background.
func (a *app) detach(context.Context, *pflag.FlagSet, []string) error {
	return &api.Error{Code: api.CodeUnsupported, What: "--detach", Why: "this system has no such thing", Remedy: "run meshd up as a service"}
}

func leaveTerminal(string) {}
