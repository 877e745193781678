//go:build !linux

package lab

import (
	"errors"
	"runtime"
)

// Supported says what this system lacks for a lab, with the remedy.
func Supported() error {
	return errors.New("lab: " + runtime.GOOS + " has no network namespaces\nrun it on Linux")
}

// EnterUserNamespace returns what Supported returns.
func EnterUserNamespace() error { return Supported() }

// Shim does nothing.
func Shim() {}

// Sweep does nothing.
func Sweep() error { return nil }
