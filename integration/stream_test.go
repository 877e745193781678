//go:build linux

package integration

import (
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

// connectLimit is how long a node may take to be connected where UDP is blocked.
const connectLimit = 5 * time.Second

// joined starts a node that joins by an invite, and holds it to the limit.
func (w *world) joined(h *lab.Host, invite string, limit time.Duration, args ...string) *lab.Node {
	w.Helper()
	w.must(w.lab.Ready(w.within(10 * time.Second)))
	n := w.node(h)
	start := time.Now()
	w.must(n.UpWithInput(strings.NewReader(invite+"\n"), append([]string{"--join", "-"}, args...)...))
	w.must(n.Ready(w.within(limit + 10*time.Second)))
	took := time.Since(start)
	w.Logf("%s is ready after %v", h.Name(), took)
	if took > limit {
		w.Errorf("%s is ready after %v, want %v at most", h.Name(), took, limit)
	}
	return n
}

// transport is how a node reaches another, by its own word.
func (w *world) transport(n *lab.Node, peer string) string {
	w.Helper()
	for _, p := range w.status(n).Peers {
		if p.Name == peer {
			return p.State + " " + p.Transport
		}
	}
	return "unknown"
}

// Where a company lets no UDP out, whoever is inside joins and stays over TLS.
func TestUDPBlocked(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{}), "--listen-tls", ":443")
	office := w.net.Site("office", lab.SiteConfig{NAT: lab.Home, BlockUDP: true})
	worker := w.joined(office.Host("worker"), w.invite(home), connectLimit)
	if got := w.transport(worker, "home"); got != "direct tcp" {
		t.Errorf("worker reaches home: %s", got)
	}
	if got := w.transport(home, "worker"); got != "direct tcp" {
		t.Errorf("home reaches worker: %s", got)
	}
	w.pingAll(50, home, worker)
}
