package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

const (
	// configuredEvery is how often the names in --advertise and --stun are looked
	// up anew: they may be dynamic. configuredRetry is for those that failed.
	configuredEvery = 5 * time.Minute
	configuredRetry = 15 * time.Second
)

// keepConfigured looks up --advertise and --stun, and again until ctx ends: the
// network, or its DNS, may not be there yet. Nothing waits for it.
func (n *Node) keepConfigured(ctx context.Context) error {
	if len(n.cfg.Advertise)+len(n.cfg.STUN) == 0 {
		return nil
	}
	warn := func(text string) { n.event(Warning, text) }
	for {
		ok, err := n.lookUpConfigured(ctx, warn)
		if err != nil {
			return nil // the node is ending
		}
		warn = func(text string) { n.log.Debug("look up", "err", text) }
		wait := configuredEvery
		if !ok {
			wait = configuredRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// lookUpConfigured takes over what is found. What is not keeps its last addresses.
func (n *Node) lookUpConfigured(ctx context.Context, warn func(string)) (all bool, err error) {
	all = true
	lookUp := func(what string, specs []string) (list []netip.AddrPort) {
		for _, spec := range specs {
			addrs, err := n.resolve(ctx, spec)
			if err != nil {
				warn(fmt.Sprintf("%s: %v", what, err))
				all = false
			}
			list = append(list, addrs...)
		}
		return list
	}
	advertised := lookUp("advertise", n.cfg.Advertise)
	servers := n.throughNAT64(ctx, lookUp("stun", n.cfg.STUN))
	return all, n.do(ctx, func() {
		if all || len(advertised) > 0 {
			n.state.self.advertised = advertised
		}
		if all || len(servers) > 0 {
			n.stun = servers
		}
		n.wake()
	})
}
