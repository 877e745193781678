//go:build !linux

package doctor

import (
	"context"

	"meshd/mesh/api"
)

func clockSynchronised() (yes, known bool) { return false, false }

func checkBuffers(context.Context, Config) []api.Check {
	return skipped("socket-buffers", "not known on this system")
}

func checkIPv6(context.Context, Config) []api.Check {
	return skipped("ipv6", "not known on this system")
}

func checkFirewall(context.Context, Config) []api.Check {
	return skipped("firewall", "not known on this system")
}
