//go:build !linux && !darwin && !freebsd && !openbsd

package mesh

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// serveUAPI has no socket to serve on here.
func (n *Node) serveUAPI(context.Context, *errgroup.Group) {}

func removeUAPI(string) error { return nil }
