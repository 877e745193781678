//go:build !linux && !darwin && !windows

package l2

import (
	"errors"
	"net/netip"
	"runtime"

	"meshd/l2/offload"
)

// TAP is not there on this system.
type TAP struct{}

// OpenTAP returns an error: there is no driver for this system.
func OpenTAP(cfg TAPConfig) (*TAP, error) {
	return nil, &DeviceError{"open tap", cfg.Name, errors.New("meshd has no TAP driver for " + runtime.GOOS), "use --no-tap"}
}

// RemoveTAP has nothing to remove.
func RemoveTAP(string) error { return nil }

// SetAddresses returns errors.ErrUnsupported.
func (t *TAP) SetAddresses([]netip.Prefix) error { return errors.ErrUnsupported }

// Problems returns nothing.
func (t *TAP) Problems() []Problem { return nil }

// Remove does nothing.
func (t *TAP) Remove() error { return nil }

// MTU returns 0.
func (t *TAP) MTU() int { return 0 }

// Name returns "".
func (t *TAP) Name() string { return "" }

// Read returns errors.ErrUnsupported.
func (t *TAP) Read([]Frame) (int, error) { return 0, errors.ErrUnsupported }

// Write returns errors.ErrUnsupported.
func (t *TAP) Write([]Frame) error { return errors.ErrUnsupported }

// Offloads returns none.
func (t *TAP) Offloads() offload.Features { return offload.None }

// Close does nothing.
func (t *TAP) Close() error { return nil }
