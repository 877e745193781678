package l2

import (
	"errors"
	"net/netip"
)

// TAP is the host's side of the segment, as an Ethernet interface. It is a Device.
type TAP struct{}

// OpenTAP makes the interface, or attaches to the one that an earlier process left.
func OpenTAP(cfg TAPConfig) (*TAP, error) { return nil, errors.ErrUnsupported }

// RemoveTAP removes a persistent TAP that no process holds. One that is not there is no error.
func RemoveTAP(name string) error { return errors.ErrUnsupported }

// SetAddresses makes addrs the addresses of the interface: it adds what is missing
// and removes what it has set before. Addresses set by others stay.
func (t *TAP) SetAddresses(addrs []netip.Prefix) error { return errors.ErrUnsupported }

// Problems lists what could not be set up as it should be.
func (t *TAP) Problems() []Problem { return nil }

// Remove closes the TAP and removes the interface, also when it is persistent.
func (t *TAP) Remove() error { return errors.ErrUnsupported }

// MTU is the interface's MTU.
func (t *TAP) MTU() int { return 0 }

// Name is the interface's name.
func (t *TAP) Name() string { return "" }

// Read is Device.Read.
func (t *TAP) Read(frames [][]byte) (int, error) { return 0, errors.ErrUnsupported }

// Write is Device.Write.
func (t *TAP) Write(frames [][]byte) error { return errors.ErrUnsupported }

// Close ends the use of the TAP. A persistent one stays.
func (t *TAP) Close() error { return nil }
