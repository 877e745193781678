//go:build !linux

package gateway

import (
	"context"
	"errors"
	"fmt"
)

// Host is nothing on this system.
type Host struct{}

// Open fails: routing is written for Linux.
func Open(string, []byte, func([]byte) error) (*Host, error) {
	return nil, fmt.Errorf("routes through the mesh are set on Linux only: %w", errors.ErrUnsupported)
}

// Close has nothing to put back.
func (*Host) Close() error { return nil }

// Leave has nothing to leave.
func (*Host) Leave() {}

// Uplink finds none.
func (*Host) Uplink() (Uplink, bool, error) { return Uplink{}, false, nil }

// Problems finds none.
func (*Host) Problems(Want) []Problem { return nil }

// Sync does nothing.
func (*Host) Sync(Want) error { return nil }

// Link is nothing on this system.
type Link struct{}

// OpenLink fails.
func OpenLink(Uplink) (*Link, error) { return nil, errors.ErrUnsupported }

// Receive fails.
func (*Link) Receive(context.Context, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Send fails.
func (*Link) Send([]byte) error { return errors.ErrUnsupported }

// Close does nothing.
func (*Link) Close() error { return nil }
