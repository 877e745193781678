//go:build !linux

package netcheck

// prepare does nothing on this system: what is too large may cross in fragments.
func prepare(uintptr, bool, uint32) {}
