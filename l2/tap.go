package l2

import (
	"errors"
	"fmt"
	"strings"

	"meshd/l2/offload"
)

// TAPConfig says how the TAP is to be.
type TAPConfig struct {
	Name    string // such as mesh0
	MTU     int    // 0: DefaultMTU
	MAC     MAC    // zero: as it is
	Persist bool   // it stays when the process ends, however it ends

	// Queues is how many goroutines are to read side by side (Linux); 0: one. There
	// may be fewer: TAP.Queues says.
	Queues int

	// What is not to be used, whatever the kernel can.
	WithoutOffloads offload.Features
	WithoutHeader   bool // IFF_VNET_HDR, and with it all offloads
}

// Problem is something about the host that does not keep the TAP from working,
// but that its user should know.
type Problem struct {
	Code   string // stable, such as "tap-sysctl"
	Text   string
	Remedy string
}

// DeviceError is why a TAP could not be opened or set up.
type DeviceError struct {
	Op     string // such as "open tap"
	Name   string // of the interface
	Err    error
	Remedy string // what to do about it, if that is known
}

func (e *DeviceError) Error() string { return fmt.Sprintf("%s %q: %v", e.Op, e.Name, e.Err) }

// Unwrap returns the cause.
func (e *DeviceError) Unwrap() error { return e.Err }

// minMTU is what IPv6 needs of a link (RFC 8200 section 5); maxMTU is what fits the
// eight pieces that a frame may cross in.
const (
	minMTU = 1280
	maxMTU = 9000
)

// check completes cfg.
func (cfg *TAPConfig) check() error {
	cfg.MTU = orDefault(cfg.MTU, DefaultMTU)
	switch {
	case cfg.Name == "" || cfg.Name == "." || cfg.Name == ".." || strings.ContainsFunc(cfg.Name, unfitForName):
		return &DeviceError{"open tap", cfg.Name, errors.New("not an interface name"), "use letters, digits and - _ ."}
	case len(cfg.Name) > 15:
		return &DeviceError{"open tap", cfg.Name, errors.New("the name is longer than 15 bytes"), "choose a shorter one"}
	case cfg.MTU < minMTU || cfg.MTU > maxMTU:
		return &DeviceError{"open tap", cfg.Name, fmt.Errorf("an MTU of %d is not between %d and %d", cfg.MTU, minMTU, maxMTU), ""}
	case cfg.MAC.Multicast():
		return &DeviceError{"open tap", cfg.Name, fmt.Errorf("%s is a multicast address", cfg.MAC), ""}
	}
	return nil
}

// unfitForName also keeps a name from reaching another place in /proc/sys, and from
// being a pattern (%d) to the kernel.
func unfitForName(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/\:%`, r) }
