//go:build linux

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/integration/lab"
)

// outsider is a prefix that somebody advertises of whom the network knows nothing.
var outsider = netip.MustParsePrefix("2001:db8:88::/64")

// config writes a configuration.
func (w *world) config(text string) (path string) {
	w.Helper()
	path = filepath.Join(w.TempDir(), "config")
	w.must(os.WriteFile(path, []byte(text), 0o644))
	return path
}

// has reports whether an interface has an address in a prefix.
func (w *world) has(h *lab.Host, name string, p netip.Prefix) bool {
	w.Helper()
	return slices.ContainsFunc(w.addrs(h, name), func(a netlink.Addr) bool {
		ip, ok := netip.AddrFromSlice(a.IP)
		return ok && p.Contains(ip.Unmap())
	})
}

// advertises says whether a frame is a router advertisement with a prefix in it.
func advertises(p netip.Prefix) func(lab.Frame) bool {
	bytes16 := p.Addr().As16()
	return func(f lab.Frame) bool {
		return len(f.Data) > 54 && f.Data[12] == 0x86 && f.Data[20] == 58 && f.Data[54] == 134 && bytes.Contains(f.Data, bytes16[:8])
	}
}

// advertised waits until so many advertisements of the outsider were sent.
func (w *world) advertised(sent *lab.Capture, want int) {
	w.Helper()
	w.eventually(20*time.Second, "advertisements are sent", func() error {
		if n := sent.Count(advertises(outsider)); n < want {
			return fmt.Errorf("%d of %d", n, want)
		}
		return nil
	})
}

// TestRadvd: a real radvd on the host of a member with the role router configures hosts of the segment; on that of
// another it configures nobody.
func TestRadvd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v4 := lab.HostConfig{V4: true}
	home := w.found(w.net.Host("home", v4))
	socket := t.TempDir() + "/ctl"
	laptop := w.join(w.net.Host("laptop", v4), w.invite(home), "--plug", "vde:"+socket)
	office := w.join(w.net.Host("office", v4), w.invite(home))
	w.waitPeers(home, laptop, office)
	vm := w.plugged("vm", socket)
	w.slaac(vm, "vm0", w.status(home).Network.Prefixes[0])

	w.sysctl(office.Host, "net.ipv6.conf.mesh0.forwarding=1")
	config := w.config(fmt.Sprintf(`interface mesh0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvDefaultLifetime 1800;
	prefix %v { AdvOnLink on; AdvAutonomous on; }; };`, outsider))
	seen, err := office.Host.Capture("mesh0")
	w.must(err)
	at, err := vm.Capture("vm0")
	w.must(err)
	w.spawn(office.Host, "radvd", "-n", "-C", config, "-p", filepath.Join(t.TempDir(), "pid"), "-m", "stderr")
	w.advertised(seen, 2) // and never arrived
	if at.Count(advertises(outsider)) != 0 || w.has(vm, "vm0", outsider) {
		t.Error("advertisements of a member without the role arrive")
	}
	_, err = home.Run(w.within(5*time.Second), "role", "office", "router")
	w.must(err)
	w.slaac(vm, "vm0", outsider)
	w.eventually(10*time.Second, "the host takes the router", func() error {
		return contains(w.run(vm, "ip", "-6", "route", "show", "default"), "proto ra")
	})
	// Members heed it as well: that is the way for what has a mesh source.
	w.gatewayHeard(laptop)
	if codes := w.healthCodes(office); slices.Contains(codes, "routes") {
		t.Errorf("whose radvd it is takes a route by itself: %v", codes)
	}
	_, err = home.Run(w.within(5*time.Second), "role", "office", "member")
	w.must(err)
	before := 0
	w.eventually(20*time.Second, "its advertisements arrive no longer", func() error {
		from := seen.Count(advertises(outsider))
		before = at.Count(advertises(outsider))
		w.eventually(10*time.Second, "one more is sent", func() error {
			if seen.Count(advertises(outsider)) <= from {
				return errors.New("none")
			}
			return nil
		})
		time.Sleep(200 * time.Millisecond) // what was sent has arrived, or does not
		if n := at.Count(advertises(outsider)); n != before {
			return fmt.Errorf("%d arrived", n-before)
		}
		return nil
	})
}

// TestDnsmasq: a real dnsmasq on a member's host serves DHCP and advertises a router, if the member has the roles.
func TestDnsmasq(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v4 := lab.HostConfig{V4: true}
	home := w.found(w.net.Host("home", v4))
	socket := t.TempDir() + "/ctl"
	laptop := w.join(w.net.Host("laptop", v4), w.invite(home), "--plug", "vde:"+socket)
	office := w.join(w.net.Host("office", v4), w.invite(home))
	w.waitPeers(home, laptop, office)
	vm := w.plugged("vm", socket)
	w.sysctl(office.Host, "net.ipv6.conf.mesh0.forwarding=1")
	w.run(office.Host, "ip", "addr", "add", "10.66.0.1/24", "dev", "mesh0")
	w.run(office.Host, "ip", "addr", "add", "2001:db8:88::1/64", "dev", "mesh0", "nodad")
	w.spawn(office.Host, "dnsmasq", "--keep-in-foreground", "--port=0", "--interface=mesh0", "--bind-interfaces", "--leasefile-ro", "--user=root",
		"--conf-file=/dev/null", "--dhcp-range=10.66.0.50,10.66.0.60,1h", "--dhcp-range=2001:db8:88::,ra-only,64,1h", "--enable-ra", "--ra-param=mesh0,4,1800", "--pid-file=")
	if out, err := w.lease(vm, 3); err == nil {
		t.Errorf("a lease from a member without the role: %s", out)
	}
	if w.has(vm, "vm0", outsider) {
		t.Error("an advertisement from a member without the role")
	}
	_, err := home.Run(w.within(5*time.Second), "role", "office", "router", "dhcp")
	w.must(err)
	w.eventually(30*time.Second, "a lease", func() error { _, err := w.lease(vm, 2); return err })
	w.reached(5*time.Second, &lab.Node{Host: vm}, netip.MustParseAddr("10.66.0.1"))
	for _, off := range []string{"1", "0"} { // it solicits: unasked, dnsmasq advertises after 5 to 20 s in its first minute
		w.sysctl(vm, "net.ipv6.conf.vm0.disable_ipv6="+off)
	}
	w.slaac(vm, "vm0", outsider)
}

// lease asks for an IPv4 address by DHCP, as a host does that starts, and takes it.
func (w *world) lease(h *lab.Host, tries int) (string, error) {
	w.Helper()
	script := filepath.Join(w.TempDir(), "script")
	w.must(os.WriteFile(script, []byte(`#!/bin/sh
[ "$1" = bound ] || exit 0
ip -4 addr flush dev $interface
ip -4 addr add $ip/$mask dev $interface
for r in $router; do ip -4 route replace default via $r dev $interface; done
echo "bound $ip $router $dns $serverid"
`), 0o755))
	out, err := h.Command(w.within(time.Duration(tries+2)*3*time.Second), "busybox", "udhcpc", "-f", "-q", "-n", "-i", "vm0",
		"-t", strconv.Itoa(tries), "-T", "1", "-s", script).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return string(out), nil
}

// dhclient asks for an IPv4 address by Debian's DHCP client, which keeps its leases in dir: when it has one, it asks for
// that (INIT-REBOOT). It returns what it was told.
func (w *world) dhclient(h *lab.Host, dir string) (string, error) {
	w.Helper()
	script, pid, told := dir+"/script", dir+"/pid", dir+"/told"
	w.must(os.WriteFile(script, []byte(`#!/bin/sh
case $reason in BOUND | RENEW | REBIND | REBOOT) ;; *) exit 0 ;; esac
ip -4 addr flush dev $interface
ip -4 addr add $new_ip_address/$new_subnet_mask dev $interface
for r in $new_routers; do ip -4 route replace default via $r dev $interface; done
echo "bound $new_ip_address $new_routers $new_domain_name_servers $new_dhcp_server_identifier" > `+told+`
`), 0o755))
	// Once it has a lease it goes on in the background.
	cmd := h.Command(w.within(20*time.Second), "dhclient", "-4", "-1", "-v", "-cf", "/dev/null", "-sf", script, "-lf", dir+"/leases", "-pf", pid, "vm0")
	out, err := cmd.CombinedOutput()
	if id, e := os.ReadFile(pid); e == nil {
		_ = h.Command(w.within(5*time.Second), "kill", strings.TrimSpace(string(id))).Run()
	}
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	text, err := os.ReadFile(told)
	return string(text), err
}

// TestDHCP4: a gateway hands out IPv4 addresses to a real client behind another member, which reaches the internet by its
// NAT, also after others have flushed the firewall; the client keeps its address when the gateway is killed and comes
// back; nothing is left at last.
func TestDHCP4(t *testing.T) {
	w := newWorld(t)
	v4 := lab.HostConfig{V4: true}
	home := w.net.Host("home", v4)
	server := w.net.Host("server", v4)
	gw := w.found(home, "--dhcp4", "10.66.0.0/24", "--ra-dns", "10.66.0.1")
	socket := t.TempDir() + "/ctl"
	laptop := w.join(w.net.Host("laptop", v4), w.invite(gw), "--plug", "vde:"+socket)
	w.waitPeers(gw, laptop)
	vm := w.plugged("vm", socket)
	leases := t.TempDir()
	got, err := w.dhclient(vm, leases)
	w.must(err)
	if !strings.Contains(got, " 10.66.0.1 10.66.0.1 10.66.0.1") {
		t.Errorf("told: %s", got)
	}
	w.reached(10*time.Second, &lab.Node{Host: vm}, netip.MustParseAddr("10.66.0.1"))
	w.reached(10*time.Second, &lab.Node{Host: vm}, server.Addr4())
	stats, err := vm.Ping(w.within(20*time.Second), server.Addr4(), 100, lab.PingOptions{Interval: 5 * time.Millisecond})
	if err != nil || stats.Lost() > 0 {
		t.Errorf("vm to server: %v, %v", stats, err)
	}
	w.run(home, "nft", "flush", "ruleset")
	w.run(home, "ip", "addr", "add", "192.0.2.77/32", "dev", "lo")             // any change of the host has it look, at once
	w.eventually(10*time.Second, "vm reaches the server again", func() error { // a ping that went without NAT keeps its way in the kernel
		s, err := vm.Ping(w.within(5*time.Second), server.Addr4(), 1, lab.PingOptions{Linger: 500 * time.Millisecond})
		if err == nil && s.Received == 0 {
			err = errors.New("no answer")
		}
		return err
	})
	w.run(home, "ip", "addr", "del", "192.0.2.77/32", "dev", "lo")
	w.eventually(10*time.Second, "the lease is written", func() error {
		if files, _ := filepath.Glob(filepath.Join(gw.State, "leases*")); len(files) == 0 {
			return errors.New("it is not")
		}
		return nil
	})
	w.must(gw.Kill())
	w.resume(gw, "--dhcp4", "10.66.0.0/24", "--ra-dns", "10.66.0.1")
	w.waitPeers(gw, laptop)
	again := ""
	w.eventually(20*time.Second, "a lease again", func() error { again, err = w.dhclient(vm, leases); return err })
	if again != got {
		t.Errorf("before %s, now %s", got, again)
	}
	w.must(gw.Interrupt())
	if out := w.run(home, "sh", "-c", "nft list ruleset; cat /proc/sys/net/ipv4/conf/eth0/forwarding"); strings.TrimSpace(out) != "0" {
		t.Errorf("left behind: %s", out)
	}
	w.nothingLeft(home)
}
