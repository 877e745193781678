//go:build !linux

package main

// guests does nothing: the tests run virtual machines on Linux only.
func guests(bool) error { return nil }
