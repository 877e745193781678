//go:build !linux

package portmap

// defaultRoute is not known on this system: no port is mapped there.
func defaultRoute(bool, uint32) (Route, bool) { return Route{}, false }

func marker(uint32) control { return nil }
