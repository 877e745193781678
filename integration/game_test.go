//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

// TestGameLAN runs examples/game-lan: servers at two members and a client at a third, which finds each of them by
// broadcast and by multicast, and as nobody else answers, each at its own address.
func TestGameLAN(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	game, err := lab.Build(w.within(time.Minute), w.dir, "meshd/examples/game-lan")
	w.must(err)
	home := w.found(w.net.Host("home", lab.HostConfig{}))
	invite := w.invite(home, "--uses", "2")
	nodes := []*lab.Node{
		home,
		w.join(w.net.Site("work", lab.SiteConfig{NAT: lab.Home}).Host("laptop"), invite),
		w.join(w.net.Host("office", lab.HostConfig{}), invite),
	}
	w.waitPeers(nodes...)
	var want []string
	for i, n := range nodes {
		addr := netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)})
		w.up(n.Host, "mesh0", netip.PrefixFrom(addr, 24))
		if n == home {
			continue // the client's
		}
		name := n.Host.Name() + "'s castle"
		w.spawn(n.Host, game, "-interface", "mesh0", "serve", name)
		want = append(want, fmt.Sprintf("%s\t%v:47777", name, addr), fmt.Sprintf("%s\t[%v%%mesh0]:47777", name, w.linkLocal(n)))
	}
	w.eventually(15*time.Second, "the client finds all servers, on all interfaces", func() error {
		out, err := home.Host.Command(w.within(10*time.Second), game, "-wait", "1s", "list").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		found := make(map[string]bool)
		for line := range strings.Lines(string(out)) {
			found[strings.TrimSpace(line)] = true
		}
		for _, line := range want {
			if !found[line] {
				return fmt.Errorf("no line %q in\n%s", line, out)
			}
		}
		if len(found) != len(want) {
			t.Errorf("more than all servers:\n%s", out)
		}
		return nil
	})
}

// linkLocal is the link-local address of a node's TAP.
func (w *world) linkLocal(n *lab.Node) netip.Addr {
	w.Helper()
	out, err := n.Host.Command(w.within(5*time.Second), "ip", "-6", "-o", "addr", "show", "dev", "mesh0", "scope", "link").Output()
	w.must(err)
	for _, field := range strings.Fields(string(out)) {
		if p, err := netip.ParsePrefix(field); err == nil {
			return p.Addr()
		}
	}
	w.Fatalf("no link-local address: %s", out)
	return netip.Addr{}
}
