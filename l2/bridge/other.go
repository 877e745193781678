//go:build !linux

package bridge

import (
	"errors"
	"net/netip"
)

// Bridge is a bridge with the TAP in it.
type Bridge struct{}

var errSystem = errors.New("only Linux can")

// Check says why there is no bridging.
func Check(name string) error { return &Error{Name: name, Err: errSystem} }

// Open does not work on this system.
func Open(cfg Config, _ []byte) (*Bridge, error) { return nil, &Error{Name: cfg.Name, Err: errSystem} }

// Undo has nothing to undo on this system.
func Undo([]byte) error { return nil }

// Name is the bridge's.
func (*Bridge) Name() string { return "" }

// Sync does nothing on this system.
func (*Bridge) Sync() []Problem { return nil }

// Link is false on this system.
func (*Bridge) Link() bool { return false }

// SetAddresses does nothing on this system.
func (*Bridge) SetAddresses([]netip.Prefix) error { return nil }

// Deprecate does nothing on this system.
func (*Bridge) Deprecate([]netip.Addr) error { return nil }

// Undo does nothing on this system.
func (*Bridge) Undo() error { return nil }
