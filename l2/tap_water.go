//go:build darwin || windows

package l2

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/songgao/water"

	"meshd/l2/offload"
)

// TAP is the host's side of the segment, as far as the system's TAP driver goes:
// one frame for each call, the MAC as the driver has it, nothing persistent.
type TAP struct {
	cfg    TAPConfig
	tap    *water.Interface
	name   string
	buf    []byte
	closed atomic.Bool

	mu  sync.Mutex
	set []netip.Prefix
}

// OpenTAP opens a TAP of the system's driver.
func OpenTAP(cfg TAPConfig) (*TAP, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	tap, err := water.New(waterConfig(cfg.Name))
	if err != nil {
		return nil, &DeviceError{"open tap", cfg.Name, err, waterRemedy}
	}
	t := &TAP{cfg: cfg, tap: tap, name: tap.Name(), buf: make([]byte, headerLen+maxTags*tagLen+cfg.MTU)}
	if err := setLink(t.name, cfg); err != nil {
		tap.Close()
		return nil, &DeviceError{"set up tap", t.name, err, ""}
	}
	return t, nil
}

// RemoveTAP has nothing to remove: TAPs end with their process here.
func RemoveTAP(string) error { return nil }

// SetAddresses makes addrs the addresses of the interface: it adds what is missing
// and removes what it has set before.
func (t *TAP) SetAddresses(addrs []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, p := range t.set {
		if !slices.Contains(addrs, p) {
			errs = append(errs, setAddress(t.name, p, false))
		}
	}
	for _, p := range addrs {
		if !slices.Contains(t.set, p) {
			errs = append(errs, setAddress(t.name, p, true))
		}
	}
	t.set = slices.Clone(addrs)
	return errors.Join(errs...)
}

// Problems lists what this system cannot do.
func (t *TAP) Problems() []Problem {
	if !t.cfg.Persist {
		return nil
	}
	return []Problem{{"tap-not-persistent", "on this system the TAP ends with its process, and connections with it", ""}}
}

// Remove closes the TAP.
func (t *TAP) Remove() error { return t.Close() }

// MTU is the interface's MTU.
func (t *TAP) MTU() int { return t.cfg.MTU }

// Name is the interface's name.
func (t *TAP) Name() string { return t.name }

// Read is Device.Read, with one frame at a time.
func (t *TAP) Read(frames []Frame) (int, error) {
	n, err := t.tap.Read(t.buf)
	if err != nil {
		return 0, t.failed("read tap", err)
	}
	frames[0] = Frame{Data: t.buf[:n:n]}
	return 1, nil
}

// Write is Device.Write. It tries every frame and returns the first error.
func (t *TAP) Write(frames []Frame) error {
	var first error
	for _, frame := range frames {
		if _, err := t.tap.Write(frame.Data); err != nil && first == nil {
			first = t.failed("write tap", err)
		}
	}
	return first
}

func (t *TAP) failed(op string, err error) error {
	if t.closed.Load() {
		err = os.ErrClosed
	}
	return fmt.Errorf("%s %q: %w", op, t.name, err)
}

// Offloads returns none: the drivers have no super-frames.
func (t *TAP) Offloads() offload.Features { return offload.None }

// Close ends the use of the TAP.
func (t *TAP) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	return t.tap.Close()
}
