//go:build linux

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

// router is a miniupnpd on a site's router.
type router struct {
	w    *world
	site *lab.Site
	conf string
	cmd  *exec.Cmd
}

// miniupnpd starts the daemon that most home routers run, with these settings beside the usual ones. The lab's firewall
// lets in what it opens.
func (w *world) miniupnpd(site *lab.Site, settings ...string) *router {
	w.Helper()
	w.nft(site, `
add chain inet lab miniupnpd
add chain inet lab upnp_prerouting
add chain inet lab upnp_postrouting
add chain inet lab upnp_nat { type nat hook prerouting priority -100; }
add chain inet lab upnp_snat { type nat hook postrouting priority 99; }
add rule inet lab upnp_nat jump upnp_prerouting
add rule inet lab upnp_snat jump upnp_postrouting
insert rule inet lab filter2_1000 jump miniupnpd
`)
	r := &router{w: w, site: site, conf: filepath.Join(w.TempDir(), "miniupnpd.conf")}
	config := append([]string{
		"ext_ifname=wan0", "ext_ifname6=wan0", "listening_ip=lan0", "http_port=0", "secure_mode=yes",
		"enable_upnp=yes", "ipv6_disable=no", "system_uptime=no", "notify_interval=60",
		"upnp_table_name=lab", "upnp_nat_table_name=lab", "upnp_forward_chain=miniupnpd",
		"upnp_nat_chain=upnp_prerouting", "upnp_nat_postrouting_chain=upnp_postrouting",
		"uuid=fc4ec57e-b051-11db-88f8-0060085db3f6", "allow 1024-65535 0.0.0.0/0 1024-65535", "min_lifetime=120", "max_lifetime=86400",
	}, settings...)
	w.must(os.WriteFile(r.conf, []byte(strings.Join(config, "\n")+"\n"), 0o644))
	r.start()
	return r
}

// nft changes a router's firewall, and returns what it prints.
func (w *world) nft(site *lab.Site, text string) string {
	w.Helper()
	cmd := site.Command(w.within(10*time.Second), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("change the firewall of %s: %v\n%s", site.Name(), err, out)
	}
	return string(out)
}

func (r *router) start() {
	r.w.Helper()
	r.cmd = r.site.Command(r.w.Context(), "miniupnpd", "-d", "-f", r.conf, "-P", filepath.Join(r.w.TempDir(), "pid"))
	var out strings.Builder
	r.cmd.Stdout, r.cmd.Stderr = &out, &out
	r.w.must(r.cmd.Start())
	r.w.Cleanup(func() {
		r.stop()
		if r.w.Failed() {
			r.w.Logf("miniupnpd: %s", out.String())
		}
	})
}

// stop ends it, as a power cut would.
func (r *router) stop() {
	if r.cmd.ProcessState == nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	}
}

// endpoint waits until a node has an endpoint of a kind and family, and returns it.
func (w *world) endpoint(n *lab.Node, kind string, v6 bool) (found netip.AddrPort) {
	w.Helper()
	w.eventually(20*time.Second, fmt.Sprintf("%s has an endpoint of kind %s", n.Host.Name(), kind), func() error {
		list := w.endpoints(n)
		for _, e := range list {
			if e.Kind == kind && e.Addr.Addr().Is6() == v6 {
				found = e.Addr
				return nil
			}
		}
		return fmt.Errorf("%v", list)
	})
	return found
}

type endpoint struct {
	Addr netip.AddrPort
	Kind string
}

func (w *world) endpoints(n *lab.Node) []endpoint {
	w.Helper()
	var s struct {
		Self struct{ Endpoints []endpoint }
	}
	w.must(n.JSON(w.within(10*time.Second), &s, "status"))
	return s.Self.Endpoints
}

// publicAddr is an address that miniupnpd takes for public.
var publicAddr = netip.MustParseAddr("11.0.0.1")

// TestPortMapping has a node behind a home router ask a real miniupnpd for a port, by each protocol. Who knows nothing but
// the mapped address joins there.
func TestPortMapping(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		settings []string
		firewall string // of the router, against PCP
	}{
		{"pcp", []string{"enable_natpmp=yes"}, ""},
		{"nat-pmp", []string{"enable_natpmp=yes", "enable_upnp=no"}, "insert rule inet lab filter1_1000 udp dport 5351 @th,64,8 2 drop"},
		{"upnp-igd", []string{"enable_natpmp=no"}, "insert rule inet lab filter1_1000 udp dport 5351 drop"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			site := w.net.Site("home", lab.SiteConfig{NAT: lab.Home})
			host := site.Host("nas")
			w.must(w.lab.Ready(w.within(10 * time.Second)))
			w.must(site.AddPublic(publicAddr))
			w.miniupnpd(site, append(test.settings, "ext_ip="+publicAddr.String())...)
			w.nft(site, test.firewall)
			nas := w.found(host, "--log-level", "debug")
			mapped := w.endpoint(nas, "mapped", false)
			if mapped.Addr() != publicAddr {
				t.Errorf("mapped at %v, the router is %v", mapped, publicAddr)
			}
			ways := []netip.AddrPort{mapped}
			if test.name != "nat-pmp" { // which has no IPv6
				pinhole := w.endpoint(nas, "mapped", true)
				if !slices.Contains(host.Addrs(), pinhole.Addr()) {
					t.Errorf("a pinhole for %v, the host has %v", pinhole, host.Addrs())
				}
				ways = append(ways, pinhole)
			}
			w.eventually(5*time.Second, "the node says how", func() error { // after status shows it
				if text := "protocol=" + test.name; !strings.Contains(nas.Output(), text) {
					return fmt.Errorf("it does not say %q", text)
				}
				return nil
			})
			for _, at := range ways {
				name := "stranger4"
				if at.Addr().Is6() {
					name = "stranger6"
				}
				stranger := w.net.Host(name, lab.HostConfig{V4: at.Addr().Is4(), V6: at.Addr().Is6()})
				w.joinByApprovalAt(stranger, nas, at.String())
			}
			w.must(nas.Interrupt())
			if rules := w.nft(site, "list table inet lab"); strings.Contains(rules, "51830") {
				t.Errorf("after the end the router still has\n%s", rules)
			}
		})
	}
}

// TestRouterRestart cuts a router's power: it has forgotten all ports when it is back, says so, and the node asks again. Then
// it has another address.
func TestRouterRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	site := w.net.Site("home", lab.SiteConfig{NAT: lab.Home, V4: true})
	host := site.Host("nas")
	w.must(w.lab.Ready(w.within(10 * time.Second)))
	other := netip.MustParseAddr("11.0.0.2")
	w.must(site.AddPublic(publicAddr))
	w.must(site.AddPublic(other))
	r := w.miniupnpd(site, "enable_natpmp=yes", "ext_ip="+publicAddr.String())
	nas := w.found(host, "--log-level", "debug")
	w.endpoint(nas, "mapped", false)
	mapped := func() error {
		if rules := w.nft(site, "list chain inet lab upnp_prerouting"); !strings.Contains(rules, "51830") {
			return errors.New(rules)
		}
		return nil
	}
	w.must(mapped())
	r.stop()
	w.nft(site, "flush chain inet lab upnp_prerouting\nflush chain inet lab upnp_postrouting\nflush chain inet lab miniupnpd")
	r.start()
	w.eventually(90*time.Second, "the port is mapped again", mapped)

	r.stop()
	conf, err := os.ReadFile(r.conf)
	w.must(err)
	w.must(os.WriteFile(r.conf, []byte(strings.ReplaceAll(string(conf), publicAddr.String(), other.String())), 0o644))
	w.nft(site, "flush chain inet lab upnp_prerouting\nflush chain inet lab upnp_postrouting\nflush chain inet lab miniupnpd")
	r.start()
	w.eventually(90*time.Second, "the other address is known", func() error {
		if list := w.endpoints(nas); !slices.ContainsFunc(list, func(e endpoint) bool { return e.Kind == "mapped" && e.Addr.Addr() == other }) {
			return fmt.Errorf("%v", list)
		}
		return nil
	})
}

// TestLANDiscovery starts two members of one LAN when nobody else is left: they were admitted at a member that is dead, have
// other addresses than when they last met, and neither internet nor DNS. With IPv6, all they have may be link-local.
func TestLANDiscovery(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		cfg  lab.SiteConfig
		bare bool // addresses are taken away
	}{
		{"IPv4", lab.SiteConfig{NAT: lab.Home, V4: true}, false},
		{"IPv6, link-local alone", lab.SiteConfig{V6: true}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			site := w.net.Site("office", test.cfg)
			a, b := site.Host("a"), site.Host("b")
			home := w.found(w.net.Host("home", lab.HostConfig{}))
			invite := w.invite(home, "--uses", "2")
			w.must(w.lab.Ready(w.within(10 * time.Second)))
			first, second := w.join(a, invite), w.join(b, invite)
			w.waitPeers(home, first, second)
			w.must(home.Kill())
			w.must(first.Terminate())
			w.must(second.Terminate())
			for _, h := range []*lab.Host{a, b} {
				if test.bare {
					w.must(h.SetAddrs())
				} else {
					w.must(h.Renumber())
				}
			}
			start := time.Now()
			w.resume(first)
			w.resume(second)
			w.pingWhen(first, second)
			t.Logf("together after %v", time.Since(start))
		})
	}
}

// pingWhen waits until one node reaches the other.
func (w *world) pingWhen(from, to *lab.Node) {
	w.Helper()
	w.reached(15*time.Second, from, w.addr(to))
}

// nat64 makes a site's router a NAT64 (tayga) with a DNS64 (unbound), and its hosts IPv6-only.
func (w *world) nat64(site *lab.Site, prefix netip.Prefix, hosts ...*lab.Host) {
	w.Helper()
	dir := w.TempDir()
	run := func(h interface {
		Command(context.Context, string, ...string) *exec.Cmd
	}, script string,
	) {
		w.Helper()
		if out, err := h.Command(w.within(10*time.Second), "sh", "-ec", script).CombinedOutput(); err != nil {
			w.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		w.must(os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	background := func(name string, args ...string) {
		cmd := site.Command(w.Context(), name, args...)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		w.must(cmd.Start())
		w.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if w.Failed() {
				w.Logf("%s: %s", name, out.String())
			}
		})
	}
	const own4, pool4 = "192.168.255.1", "192.168.255.0/24"
	conf := file("tayga.conf", fmt.Sprintf("tun-device nat64\nipv4-addr %s\nprefix %v\ndynamic-pool %s\ndata-dir %s\n", own4, prefix, pool4, dir))
	run(site, fmt.Sprintf("tayga --config %s --mktun; ip link set nat64 up; ip route add %s dev nat64; ip route add %v dev nat64", conf, pool4, prefix))
	background("tayga", "--config", conf, "-d")
	w.nft(site, "insert rule inet lab filter2_1000 iifname nat64 accept")
	lan := ""
	for _, h := range hosts {
		own := h.Addr6()
		lan = netip.PrefixFrom(own, 64).Masked().Addr().Next().String()
		w.must(h.SetAddrs(netip.PrefixFrom(own, 64)))
		run(h, fmt.Sprintf("echo nameserver %s > /etc/resolv.conf; ip route replace default via %s dev eth0", lan, lan))
	}
	background("unbound", "-d", "-c", file("unbound.conf", fmt.Sprintf(`server:
  interface: %s
  access-control: ::0/0 allow
  module-config: "dns64 iterator"
  dns64-prefix: %v
  chroot: ""
  username: ""
  directory: %q
  pidfile: ""
  use-syslog: no
  do-daemonize: no
forward-zone:
  name: "."
  forward-addr: %s
`, lan, prefix, dir, upstreamDNS)))
	w.eventually(10*time.Second, "names resolve by the DNS64", func() error {
		out, err := hosts[0].Command(w.Context(), "getent", "ahostsv6", "ipv4only.arpa").CombinedOutput()
		if err == nil && !strings.Contains(string(out), "c000:aa") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
}

// upstreamDNS is the lab's name server.
const upstreamDNS = "2001:db8:ffff::53"

// TestNAT64 has an IPv6-only host reach a home that has IPv4 alone, through a real NAT64: by its name, by an IPv4 literal,
// and by an invite with IPv4 entry points.
func TestNAT64(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.net.SetName("ipv4only.arpa", netip.MustParseAddr("192.0.0.170"), netip.MustParseAddr("192.0.0.171"))
	home := w.found(w.net.Host("home", lab.HostConfig{V4: true}))
	friend := w.join(w.net.Host("friend", lab.HostConfig{V4: true}), w.invite(home))
	site := w.net.Site("mobile", lab.SiteConfig{NAT: lab.Home})
	phone, tablet := site.Host("phone"), site.Host("tablet")
	w.must(w.lab.Ready(w.within(10 * time.Second)))
	w.nat64(site, netip.MustParsePrefix("2001:db8:64:64::/96"), phone, tablet)
	a := w.joinByApprovalAt(phone, home, home.Host.Addr4().String())
	b := w.join(tablet, w.invite(home))
	w.waitPeers(home, friend, a, b)
	w.pingAll(5, home, friend, a, b)
	for _, p := range w.status(a).Peers {
		if p.Name == "home" && p.Transport != "udp6" {
			t.Errorf("the phone reaches home by %s at %s", p.Transport, p.Endpoint)
		}
	}
}

// netcheck is what tests read of `meshd netcheck --json`.
type netcheck struct {
	UDP, Node bool
	Asked     int
	NAT64     []netip.Prefix
	Families  []struct {
		Family, Address, Mapping, Filtering, Hairpin string
		UDP                                          bool
		Reflexive                                    []netip.AddrPort
		PathMTU                                      int `json:"path_mtu"`
	}
	Routers []struct {
		Addr, Family, Used, Mapped string
		Protocols                  []string
		DoubleNAT                  bool `json:"double_nat"`
	}
}

// TestNetcheck measures NATs of every kind, from nodes with the help of members and without a node. What they are is what
// the lab's own tests have found by plain sockets.
func TestNetcheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{}))
	invite := w.invite(home, "--uses", "20")
	friend := w.join(w.net.Host("friend", lab.HostConfig{}), invite)
	const eim, apdm, adf, apdf = "endpoint-independent", "address-and-port-dependent", "address-dependent", "address-and-port-dependent"
	tests := []struct {
		name                        string
		cfg                         lab.SiteConfig
		mapping, filtering, hairpin string
		mtu                         int
	}{
		{"public", lab.SiteConfig{NAT: lab.None, V4: true}, "none", eim, "not-needed", 1500},
		{"fullcone", lab.SiteConfig{NAT: lab.FullCone, V4: true}, eim, eim, "no", 1500},
		{"restricted", lab.SiteConfig{NAT: lab.AddressRestricted, V4: true}, eim, adf, "no", 1500},
		{"home", lab.SiteConfig{NAT: lab.Home, V4: true, Link: lab.Link{MTU: 1492}}, eim, apdf, "no", 1492},
		{"symmetric", lab.SiteConfig{NAT: lab.Symmetric, V4: true}, apdm, apdf, "unknown", 1500},
		{"carrier", lab.SiteConfig{NAT: lab.CGNAT, V4: true}, eim, apdf, "no", 1500},
	}
	nodes := make([]*lab.Node, len(tests))
	for i, test := range tests {
		site := w.net.Site(test.name, test.cfg)
		nodes[i] = w.join(site.Host("h-"+test.name), invite, "--no-portmap")
	}
	w.all(nodes, func(n *lab.Node) error {
		for _, peer := range []string{"home", "friend"} {
			if _, err := n.Run(w.within(30*time.Second), "wait", "--direct", peer, "--timeout", "20s"); err != nil {
				return err
			}
		}
		return nil
	})
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := w.under(t)
			var r netcheck
			w.must(nodes[i].JSON(w.within(30*time.Second), &r, "netcheck"))
			if !r.UDP || !r.Node || len(r.Families) != 2 || r.Families[0].Family != "ipv4" {
				t.Fatalf("%+v", r)
			}
			f := r.Families[0]
			if f.Mapping != test.mapping || f.Filtering != test.filtering || f.Hairpin != test.hairpin || f.PathMTU != test.mtu {
				t.Errorf("%+v\nwant mapping %s, filtering %s, hairpin %s, MTU %d", f, test.mapping, test.filtering, test.hairpin, test.mtu)
			}
			bare := lab.NewNode(nodes[i].Host, w.bin, filepath.Join(w.TempDir(), "none"))
			r = netcheck{}
			w.must(bare.JSON(w.within(30*time.Second), &r, "netcheck", home.Host.Addr4().String(), friend.Host.Addr4().String()))
			if f := r.Families[0]; r.Node || f.Mapping != test.mapping || f.Filtering != "unknown" || f.PathMTU != test.mtu {
				t.Errorf("without a node: %+v", r)
			}
		})
	}
}

// check is one of `meshd doctor --json`.
type check struct{ Name, State, Text, Remedy string }

// doctor runs meshd doctor and returns its checks by name, and its exit status.
func (w *world) doctor(n *lab.Node, args ...string) (map[string]check, int) {
	w.Helper()
	status := 0
	out, err := n.Run(w.within(40*time.Second), append([]string{"doctor", "--json"}, args...)...)
	if exit := new(lab.ExitError); errors.As(err, &exit) {
		status = exit.Code
	} else {
		w.must(err)
	}
	var r struct{ Checks []check }
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	checks := map[string]check{}
	for _, c := range r.Checks {
		checks[c.Name] = c
	}
	return checks, status
}

// expect compares checks' states, and what their text or remedy says.
func (w *world) expect(checks map[string]check, want map[string][2]string) {
	w.Helper()
	for name, e := range want {
		c, ok := checks[name]
		if !ok || c.State != e[0] || !strings.Contains(c.Text+" | "+c.Remedy, e[1]) {
			w.Errorf("check %s: %+v, want %s and %q", name, c, e[0], e[1])
		}
		if (c.State == "warning" || c.State == "failed") && c.Remedy == "" {
			w.Errorf("check %s does not say what to do: %+v", name, c)
		}
	}
}

// TestDoctor breaks one thing after another, and doctor has to name it.
func TestDoctor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{V4: true}))
	friend := w.join(w.net.Host("friend", lab.HostConfig{V4: true}), w.invite(home))

	hotel := w.net.Site("hotel", lab.SiteConfig{NAT: lab.Home, V4: true, BlockUDP: true})
	guest := w.node(hotel.Host("guest"))
	checks, status := w.doctor(guest, "--offline")
	w.expect(checks, map[string][2]string{
		"daemon": {"warning", "meshd up"}, "tun": {"ok", ""}, "port": {"ok", "51830"}, "firewall": {"ok", ""}, "ipv6": {"ok", ""},
		"pairs": {"skipped", ""}, "certificate": {"skipped", ""}, "dns": {"ok", ""}, "udp": {"skipped", ""},
	})
	if status != 3 {
		t.Errorf("without a daemon: exit status %d, want 3", status)
	}

	var rival *net.UDPConn
	w.must(guest.Host.Do(func() (err error) {
		rival, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 51830})
		return err
	}))
	checks, status = w.doctor(guest, "--offline")
	w.expect(checks, map[string][2]string{"port": {"failed", "--listen"}})
	if status != 1 {
		t.Errorf("with a rival on the port: exit status %d, want 1", status)
	}
	rival.Close()

	w.hostNft(friend.Host, "add table inet fw\nadd chain inet fw in { type filter hook input priority 0; policy drop; }\nadd rule inet fw in ct state established,related accept")
	checks, _ = w.doctor(friend)
	w.expect(checks, map[string][2]string{"firewall": {"ok", "not understood"}, "udp": {"ok", ""}, "nat": {"ok", "none"}})
	w.hostNft(friend.Host, "insert rule inet fw in udp dport 51830 drop")
	checks, _ = w.doctor(friend, "--offline")
	w.expect(checks, map[string][2]string{"firewall": {"warning", "udp dport 51830 accept"}})

	checks, status = w.doctor(home) // whose only neighbour is deaf now
	w.expect(checks, map[string][2]string{"udp": {"failed", "UDP is blocked, or none of them is there"}})
	if status != 1 {
		t.Errorf("with UDP blocked: exit status %d, want 1", status)
	}
	w.hostNft(friend.Host, "delete table inet fw")

	w.must(os.Chmod(home.State, 0o755))
	checks, status = w.doctor(home)
	w.expect(checks, map[string][2]string{
		"daemon": {"ok", "home"}, "tun": {"ok", "mesh0"}, "certificate": {"ok", ""}, "mesh-names": {"warning", "127.0.0.1#5383"},
		"state": {"warning", "chmod 700"}, "mtu": {"ok", "1500"}, "pairs": {"ok", "1 members"},
	})
	if status != 0 {
		t.Errorf("with warnings alone: exit status %d, want 0", status)
	}
}

// hostNft changes a host's own firewall.
func (w *world) hostNft(h *lab.Host, text string) {
	w.Helper()
	cmd := h.Command(w.within(10*time.Second), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("change the firewall of %s: %v\n%s", h.Name(), err, out)
	}
}

// health are the codes of a node's health lines.
func (w *world) health(n *lab.Node) (codes []string) {
	w.Helper()
	var s struct{ Health []struct{ Code string } }
	w.must(n.JSON(w.within(10*time.Second), &s, "status"))
	for _, h := range s.Health {
		codes = append(codes, h.Code)
	}
	return codes
}

// waitHealth waits until a node says, or no longer says, that something is wrong.
func (w *world) waitHealth(n *lab.Node, code string, ill bool) {
	w.Helper()
	begin := time.Now()
	defer func() { w.Logf("%s: health %s is %v after %v", n.Host.Name(), code, ill, time.Since(begin)) }()
	w.eventually(60*time.Second, fmt.Sprintf("%s: health %s is %v", n.Host.Name(), code, ill), func() error {
		if codes := w.health(n); slices.Contains(codes, code) != ill {
			return fmt.Errorf("%v", codes)
		}
		return nil
	})
}

// busy is the processor time that a node has used.
func (w *world) busy(n *lab.Node) time.Duration {
	w.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.PID()))
	w.must(err)
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	w.must(err)
	system, err := strconv.Atoi(fields[12])
	w.must(err)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// TestBadNetwork has nodes in networks that are broken: each stays up, says what is wrong, is not busy, and recovers.
func TestBadNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{}))
	invite := w.invite(home, "--uses", "9")

	stranded := w.join(w.net.Host("stranded", lab.HostConfig{}), invite)
	site := w.net.Site("cafe", lab.SiteConfig{NAT: lab.Home})
	guest := w.join(site.Host("guest"), invite)
	nameless := w.join(w.net.Host("nameless", lab.HostConfig{}), invite)
	broken := w.net.Site("broken", lab.SiteConfig{NAT: lab.Home})
	w.must(w.lab.Ready(w.within(10 * time.Second)))
	w.nft(broken, "insert rule inet lab filter2_1000 meta nfproto ipv6 drop") // announced, and dead
	dual := w.join(broken.Host("dual"), invite)

	w.must(stranded.Terminate())
	w.must(stranded.Host.SetAddrs())
	w.resume(stranded)
	used, since := w.busy(stranded), time.Now()

	w.must(nameless.Terminate())
	out, err := nameless.Host.Command(w.Context(), "sh", "-c", "echo nameserver 198.51.100.1 > /etc/resolv.conf").CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	w.resume(nameless, "--stun", "stun.example:3478", "--advertise", "nameless.example:51830")

	// The cafe lets nobody out any more before he has signed in.
	w.nft(site, "insert rule inet lab filter2_1000 iifname lan0 meta l4proto udp drop\nadd chain inet lab portal { type nat hook prerouting priority -110; }\n"+
		"add rule inet lab portal iifname lan0 tcp dport 80 redirect to :8080")
	var l net.Listener
	w.must(site.Do(func() (err error) {
		l, err = net.Listen("tcp", ":8080")
		return err
	}))
	portal := &http.Server{Handler: http.RedirectHandler("http://portal.example/", http.StatusFound)}
	go func() { _ = portal.Serve(l) }()
	t.Cleanup(func() { portal.Close() })

	w.waitHealth(stranded, "link-local-only", true)
	w.waitHealth(nameless, "dns-failing", true)
	w.reached(10*time.Second, nameless, w.addr(home))
	w.waitHealth(dual, "ipv6-broken", true)
	w.waitHealth(guest, "captive-portal", true)

	if busy, d := w.busy(stranded)-used, time.Since(since); busy > d/5 {
		t.Errorf("a node without a network has used %v of %v", busy, d)
	}
	w.must(stranded.Host.Renumber())
	w.reached(20*time.Second, stranded, w.addr(home))
	w.waitHealth(stranded, "link-local-only", false)
}
