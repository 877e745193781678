//go:build !linux

package names

import (
	"context"
	"net/netip"
)

// Registration is a link's routing of the zone to our server; there is none on this system.
type Registration struct{}

// Register returns [ErrNoResolved]: systemd-resolved is of Linux.
func Register(context.Context, int, netip.AddrPort, ...string) (*Registration, error) {
	return nil, ErrNoResolved
}

// Run returns nil when ctx ends.
func (*Registration) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Close does nothing.
func (*Registration) Close() error { return nil }
