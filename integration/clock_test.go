//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
	"meshd/integration/lab/guest"
)

// TestWrongClocks has members whose clocks are wrong, as only a machine's own can be: virtual machines. Each joins by an
// invite, exchanges pings with members whose clocks are right and with each other, is told that its clock is wrong, and
// stays reachable when it starts anew, when its clock is set right, and when it starts anew after that. With many repeats
// (`make soak`) sessions are renewed meanwhile.
func TestWrongClocks(t *testing.T) {
	w := newWorld(t)
	t.Setenv("CGO_ENABLED", "0") // for a guest without libraries
	static, err := lab.Build(w.within(5*time.Minute), w.dir, "meshd/cmd/meshd", "-ldflags=-s -w")
	w.must(err)
	clocks := []time.Duration{time.Hour, -time.Hour}
	if repeats(t) >= 20 {
		const year = 365 * 24 * time.Hour
		clocks = append(clocks, 10*year, -20*year) // as it is without a battery
	}
	boots := make(map[*lab.Host][]guest.Options)
	var all []*clockMember
	for i, off := range clocks {
		m := &clockMember{w: w, name: fmt.Sprintf("clock-%d", i+1), host: w.net.Host(fmt.Sprintf("rack-%d", i+1), lab.HostConfig{V4: true}), off: off}
		boots[m.host] = []guest.Options{{Name: m.name, Netdev: m.takeOver(), Clock: off, Put: []string{static}}}
		all = append(all, m)
	}
	home := w.found(w.net.Host("home", lab.HostConfig{V4: true}))
	guests := w.guests(w.within(2*time.Minute), boots)
	invite := w.invite(home, "--uses", strconv.Itoa(len(all)+1))
	w.eachOf(all, func(m *clockMember) error { m.guest = guests[m.name]; return m.join(invite) })
	friend := w.join(w.net.Host("friend", lab.HostConfig{V4: true}), invite) // its certificate is of the future for some
	right := []*lab.Node{home, friend}
	w.reachAll(all, right, "joined")

	w.eachOf(all, func(m *clockMember) error { return m.health("clock-skew", true) })
	w.eachOf(all, (*clockMember).restart)
	w.reachAll(all, right, "started anew")
	if repeats(t) >= 20 {
		w.eachOf(all, func(m *clockMember) error { return m.pings(w.addr(home), 130) })
	}

	w.eachOf(all, (*clockMember).setClock)
	w.reachAll(all, right, "clocks are right")
	w.eachOf(all, (*clockMember).restart)
	w.reachAll(all, right, "clocks are right, and started anew")
	w.eachOf(all, func(m *clockMember) error { return m.health("clock-skew", false) })
}

// clockMember is a member in a virtual machine of its own.
type clockMember struct {
	w     *world
	name  string
	host  *lab.Host // in whose place it is
	off   time.Duration
	guest *guest.Guest
	setup string // commands that give it the host's address
	addr  netip.Addr
}

// takeOver bridges the host's uplink to a TAP, for a guest that has its address from then on. It returns QEMU's -netdev.
func (m *clockMember) takeOver() string {
	m.w.Helper()
	m.w.must(m.w.lab.Ready(m.w.within(time.Minute)))
	addr := fieldAfter(m.w.on(m.host, "ip", "-4", "-o", "addr", "show", "dev", "eth0"), "inet")
	via := fieldAfter(m.w.on(m.host, "ip", "-4", "route", "show", "default"), "via")
	m.setup = fmt.Sprintf("ip addr add %s dev eth0; ip route add default via %s", addr, via)
	m.w.on(m.host, "sh", "-ec", "ip tuntap add dev vm0 mode tap; ip link add br0 type bridge; ip addr flush dev eth0; "+
		"for i in vm0 eth0; do ip link set $i master br0 up; done; ip link set br0 up")
	return "tap,ifname=vm0,script=no,downscript=no"
}

// fieldAfter is the word behind another.
func fieldAfter(text, word string) string {
	fields := strings.Fields(text)
	if i := slices.Index(fields, word); i >= 0 && i+1 < len(fields) {
		return fields[i+1]
	}
	return ""
}

// run runs a command in the guest.
func (m *clockMember) run(limit time.Duration, command string) (string, error) {
	return m.guest.Run(m.w.within(limit), command)
}

func (m *clockMember) join(invite string) error {
	out, err := m.run(time.Minute, m.setup+"; echo '"+invite+"' | meshd up --state /state --join - --detach")
	if err != nil {
		return fmt.Errorf("%s: join: %w", m.name, err)
	}
	m.w.Logf("%s: %s", m.name, out)
	if err := m.clockIsOff(m.off); err != nil {
		return err
	}
	var s status
	if err := m.json(&s); err != nil {
		return err
	}
	m.addr = s.Self.Addresses[0]
	return nil
}

// clockIsOff says whether the clock is as wrong as it shall be.
func (m *clockMember) clockIsOff(want time.Duration) error {
	out, err := m.run(20*time.Second, "date +%s")
	if err != nil {
		return err
	}
	unix, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return err
	}
	if off := time.Until(time.Unix(unix, 0)); math.Abs((off - want).Seconds()) > 20 {
		return fmt.Errorf("%s: its clock is off by %v, not %v", m.name, off, want)
	}
	return nil
}

// setClock sets the clock right, beneath a running node.
func (m *clockMember) setClock() error {
	if _, err := m.run(20*time.Second, fmt.Sprintf("date -u -s @%d", time.Now().Unix())); err != nil {
		return err
	}
	return m.clockIsOff(0)
}

func (m *clockMember) restart() error {
	_, err := m.run(time.Minute, "kill -TERM $(pidof meshd); while [ -e /state/meshd.sock ]; do sleep 0.1; done; meshd up --state /state --resume --detach")
	if err != nil {
		return fmt.Errorf("%s: start anew: %w", m.name, err)
	}
	return nil
}

func (m *clockMember) json(v any) error {
	out, err := m.run(20*time.Second, "meshd status --state /state --json")
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), v)
}

// health waits until the node says, or no longer says, that something is wrong.
func (m *clockMember) health(code string, ill bool) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		var s struct{ Health []struct{ Code, Text string } }
		if err := m.json(&s); err != nil {
			return err
		}
		if slices.ContainsFunc(s.Health, func(h struct{ Code, Text string }) bool { return h.Code == code }) == ill {
			m.w.Logf("%s: %v", m.name, s.Health)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: health %s is not %v: %v", m.name, code, ill, s.Health)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// pings waits until a ping is answered, and wants all of the next ones to be.
func (m *clockMember) pings(to netip.Addr, count int) error {
	out, err := m.run(time.Duration(count+20)*time.Second, fmt.Sprintf("until ping -c 1 -W 1 %[1]v; do :; done >/dev/null 2>&1; ping -c %[2]d -i %[3]s -W 2 %[1]v",
		to, count, map[bool]string{false: "0.05", true: "1"}[count > 100]))
	if err == nil && !strings.Contains(out, " 0% packet loss") {
		err = fmt.Errorf("%s", out)
	}
	if err != nil {
		return fmt.Errorf("%s to %v: %w", m.name, to, err)
	}
	return nil
}

// eachOf does something with all members at a time.
func (w *world) eachOf(all []*clockMember, do func(*clockMember) error) {
	w.Helper()
	errs := make(chan error, len(all))
	for _, m := range all {
		go func() { errs <- do(m) }()
	}
	for range all {
		if err := <-errs; err != nil {
			w.Error(err)
		}
	}
	if w.Failed() {
		w.FailNow()
	}
}

// reachAll has all members of wrong clocks and of right ones reach each other.
func (w *world) reachAll(all []*clockMember, right []*lab.Node, when string) {
	w.Helper()
	start := time.Now()
	var to []netip.Addr
	for _, n := range right {
		to = append(to, w.addr(n))
	}
	for _, m := range all {
		to = append(to, m.addr)
	}
	w.eachOf(all, func(m *clockMember) error {
		for _, a := range to {
			if a == m.addr {
				continue
			}
			if err := m.pings(a, 5); err != nil {
				return fmt.Errorf("%s: %w", when, err)
			}
		}
		return nil
	})
	w.pingRight(all, right)
	w.Logf("%s: all reach each other after %v", when, round(time.Since(start)))
}

// pingRight pings from members of right clocks.
func (w *world) pingRight(all []*clockMember, right []*lab.Node) {
	w.Helper()
	w.all(right, func(n *lab.Node) error {
		for _, m := range all {
			s, err := n.Host.Ping(w.within(20*time.Second), m.addr, 5, lab.PingOptions{Interval: 20 * time.Millisecond})
			if err == nil && s.Lost() > 0 {
				err = fmt.Errorf("%v", s)
			}
			if err != nil {
				return fmt.Errorf("%s to %s: %w", n.Host.Name(), m.name, err)
			}
		}
		return nil
	})
}
