//go:build !linux

package underlay

// Rules are the routing rules of a node.
type Rules struct{}

// Open does nothing on this system.
func Open(string) (*Rules, error) { return &Rules{}, nil }

// Sync does nothing on this system.
func (*Rules) Sync() error { return nil }

// Guard does nothing on this system.
func (*Rules) Guard() error { return nil }

// Complete is false: nothing is kept out.
func (*Rules) Complete() bool { return false }

// Close does nothing on this system.
func (*Rules) Close() error { return nil }

// Remove does nothing on this system.
func Remove(string) error { return nil }
