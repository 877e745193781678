package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"meshd/mesh/api"
)

// Config is what is known before.
type Config struct {
	StateDir string
	TAP      string
	Port     uint16
	// Status is the running node's; nil: none answers, for the reason in NoStatus.
	Status   *api.Status
	NoStatus error
	// Netcheck measures the network; nil: that is left out.
	Netcheck func(ctx context.Context) (*api.Netcheck, error)
}

// checkTime bounds each check: a name server may not answer.
const checkTime = 6 * time.Second

// Examine makes all checks at once and returns them in their order.
func Examine(ctx context.Context, cfg Config) []api.Check {
	checks := []func(context.Context, Config) []api.Check{
		checkDaemon, checkTUN, checkState, checkPort, checkFirewall, checkBuffers, checkClock, checkIPv6, checkDNS, checkNames,
		checkNetwork, checkCertificate, checkHealth, checkPairs,
	}
	results := make([][]api.Check, len(checks))
	var group sync.WaitGroup
	for i, check := range checks {
		group.Go(func() { results[i] = check(ctx, cfg) })
	}
	group.Wait()
	var list []api.Check
	for _, r := range results {
		list = append(list, r...)
	}
	return list
}

// one is the result of a check that says one thing.
func one(name string, state api.CheckState, remedy, format string, args ...any) []api.Check {
	return []api.Check{{Name: name, State: state, Text: fmt.Sprintf(format, args...), Remedy: remedy}}
}

func ok(name, format string, args ...any) []api.Check {
	return one(name, api.CheckOK, "", format, args...)
}

func skipped(name, format string, args ...any) []api.Check {
	return one(name, api.CheckSkipped, "", format, args...)
}

// forwardRemedy is what helps a node that others cannot reach.
func forwardRemedy(port uint16) string {
	return fmt.Sprintf("turn on UPnP, NAT-PMP or PCP in the router, or forward UDP port %d to this host and start meshd with --advertise HOST:%d", port, port)
}
