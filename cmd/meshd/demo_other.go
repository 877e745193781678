//go:build !linux

package main

import (
	"context"

	"meshd/mesh/api"
)

func enterLab() {}

// demo needs network namespaces.
func (a *app) demo(context.Context) error {
	return &api.Error{Code: api.CodeUnsupported, What: "demo", Why: "it needs the network namespaces of Linux"}
}
