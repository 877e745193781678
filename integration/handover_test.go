//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

// TestSwitchKeepsOrder moves a busy TCP connection from a relay to a direct path: it
// takes nothing for lost.
func TestSwitchKeepsOrder(t *testing.T) {
	w := newWorld(t)
	slow := lab.HostConfig{V4: true, Link: lab.Link{Delay: 10 * time.Millisecond}}
	home := w.found(w.net.Host("home", slow))
	a := w.join(w.net.Host("a", lab.HostConfig{V4: true}), w.invite(home))
	b := w.join(w.net.Host("b", lab.HostConfig{V4: true}), w.invite(home))
	w.waitPeers(home, a, b)
	clean := 0
	for range repeats(t) {
		for _, x := range [][2]*lab.Node{{a, b}, {b, a}} {
			w.hostNft(x[0].Host, fmt.Sprintf("add table ip cut; add chain ip cut in { type filter hook input priority 0; }; add rule ip cut in ip saddr %s drop", x[1].Host.Addrs()[0]))
		}
		w.eventually(20*time.Second, "a relay is used", func() error {
			w.reached(20*time.Second, a, w.addr(b))
			if w.stateOf(a, "b") != "relayed" || w.stateOf(b, "a") != "relayed" {
				return errors.New("direct")
			}
			return nil
		})
		echo, err := b.Host.Echo(netip.AddrPortFrom(w.addr(b), 0))
		w.must(err)
		s, err := a.Host.Stream(w.within(time.Minute), echo.Addr(), lab.StreamOptions{Interval: 2 * time.Millisecond, Size: 8 << 10})
		w.must(err)
		time.Sleep(time.Second)
		before := w.tcpCounters(a, b)
		for _, x := range []*lab.Node{a, b} {
			w.hostNft(x.Host, "delete table ip cut")
		}
		began := time.Now()
		w.eventually(time.Minute, "a direct path is used", func() error {
			if w.stateOf(a, "b") != "direct" || w.stateOf(b, "a") != "direct" {
				return errors.New("relayed")
			}
			return nil
		})
		t.Logf("direct after %v", time.Since(began))
		time.Sleep(time.Second)
		after := w.tcpCounters(a, b)
		grown := func(name string) int { return after[name] - before[name] }
		// A tail loss probe (RFC 8985, section 7) sends one segment again after a silence of two round trips, which a busy
		// machine brings about. It is no sign that anything was taken for lost.
		again := grown("RetransSegs") - grown("TCPLossProbes")
		t.Logf("%d of %d segments were sent again, %d more by tail loss probes, %d reordered, %d timeouts", again, grown("OutSegs"),
			grown("TCPLossProbes"), grown("TCPSACKReorder")+grown("TCPTSReorder"), grown("TCPTimeouts"))
		if again <= 0 {
			clean++
		}
		w.must(s.Close())
		w.must(echo.Close())
	}
	if all := repeats(t); clean <= all/2 { // not all: what a busy machine loses and delays is in it, too
		t.Errorf("TCP noticed nothing in %d of %d moves", clean, all)
	}
}

// tcpCounters adds up what the hosts of nodes count of TCP.
func (w *world) tcpCounters(nodes ...*lab.Node) map[string]int {
	w.Helper()
	sum := map[string]int{}
	for _, n := range nodes {
		out, err := n.Host.Command(w.within(10*time.Second), "cat", "/proc/net/snmp", "/proc/net/netstat").Output()
		w.must(err)
		lines := strings.Split(string(out), "\n")
		for i := 0; i+1 < len(lines); i++ {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			if len(names) < 2 || len(names) != len(values) || names[0] != values[0] || !strings.HasPrefix(names[0], "Tcp") {
				continue
			}
			for j := range names[1:] {
				v, err := strconv.Atoi(values[j+1])
				w.must(err)
				sum[names[j+1]] += v
			}
			i++
		}
	}
	return sum
}
