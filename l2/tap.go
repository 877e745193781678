package l2

import "fmt"

// TAPConfig says how the TAP is to be.
type TAPConfig struct {
	Name    string // such as mesh0
	MTU     int    // 0: DefaultMTU
	MAC     MAC
	Persist bool // it stays when the process ends, however it ends
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
