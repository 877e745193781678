package main

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"meshd/mesh/api"
)

const (
	// extendEvery and extendBy keep systemd from giving up on a node that waits for an admin.
	extendEvery = 20 * time.Second
	extendBy    = 60 * time.Second
)

// notifier tells systemd how the node is (sd_notify). Without systemd it does nothing.
type notifier struct {
	on       bool
	watchdog time.Duration

	mu      sync.Mutex
	isReady bool
}

// newNotifier looks in the environment whether systemd listens.
func newNotifier(getenv func(string) string) *notifier {
	n := &notifier{on: getenv("NOTIFY_SOCKET") != ""}
	if d, err := daemon.SdWatchdogEnabled(false); err == nil && n.on {
		n.watchdog = d
	}
	return n
}

// send tells systemd something; that it cannot be told changes nothing for the node.
func (n *notifier) send(state string) {
	if n.on {
		_, _ = daemon.SdNotify(false, state)
	}
}

// ready tells systemd that the unit has started.
func (n *notifier) ready(status string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isReady = true
	n.send(daemon.SdNotifyReady + "\n" + status)
}

func (n *notifier) started() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.isReady
}

// prober is what the watchdog asks: a daemon that answers a status has a living control loop.
type prober interface {
	Status(ctx context.Context) (*api.Status, error)
}

// run keeps systemd's patience up until the node is ready, and then its watchdog fed for as long as the node answers.
func (n *notifier) run(ctx context.Context, p prober) {
	if !n.on {
		return
	}
	every := extendEvery
	if n.watchdog > 0 {
		every = min(every, n.watchdog/3)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !n.started() {
			n.send("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(extendBy.Microseconds(), 10))
		}
		if n.watchdog > 0 && alive(ctx, p, every) {
			n.send(daemon.SdNotifyWatchdog)
		}
	}
}

// alive reports whether the node answers in time.
func alive(ctx context.Context, p prober, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := p.Status(ctx)
	return err == nil
}
