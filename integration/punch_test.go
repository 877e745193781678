//go:build linux

package integration

import (
	"fmt"
	"testing"
	"time"

	"meshd/integration/lab"
)

// TestManyPorts lets two members find a direct path by the method of many ports, which needs luck (docs/adr/0010): one
// behind a NAT that gives each destination a port of its own, the other behind one that lets in whom it has sent to.
func TestManyPorts(t *testing.T) {
	direct, tries := 0, min(repeats(t)-1, 20)
	for i := range tries {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			w := newWorld(t)
			home := w.found(w.net.Host("home", lab.HostConfig{V4: true}))
			aide := w.join(w.net.Host("aide", lab.HostConfig{V4: true}), w.invite(home)) // two see more of a NAT than one
			hidden := w.join(w.net.Site("hotel", lab.SiteConfig{NAT: lab.Symmetric, V4: true}).Host("hidden"), w.invite(home))
			other := w.join(w.net.Site("flat", lab.SiteConfig{NAT: lab.Home, V4: true}).Host("other"), w.invite(home))
			w.waitPeers(home, aide, hidden, other)
			w.reached(5*time.Second, hidden, w.addr(other)) // through the relay
			p, err := hidden.Host.Pinger(w.addr(other), lab.PingOptions{Linger: 100 * time.Millisecond})
			w.must(err)
			began := time.Now()
			found := false
			for deadline := began.Add(15 * time.Second); time.Now().Before(deadline) && !found; time.Sleep(50 * time.Millisecond) {
				found = w.stateOf(hidden, "other") == "direct" && w.stateOf(other, "hidden") == "direct"
			}
			if found {
				direct++
				t.Logf("direct after %v", time.Since(began))
			}
			time.Sleep(time.Second)
			if s := p.Stop(); s.Outage > time.Second {
				t.Errorf("meanwhile %v", s)
			}
		})
	}
	t.Logf("%d of %d tries succeeded", direct, tries)
	if direct < (tries+1)/2 { // each succeeds with a probability of 0.98
		t.Errorf("%d of %d tries succeeded", direct, tries)
	}
}

// stateOf is how a node is connected to a member.
func (w *world) stateOf(n *lab.Node, name string) string {
	w.Helper()
	for _, p := range w.status(n).Peers {
		if p.Name == name {
			return p.State
		}
	}
	return ""
}
