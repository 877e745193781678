//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meshd/integration/lab"
)

// checkNames asks each node's name server, which is where doctor says, for all nodes by name and by address, and for what
// it must not answer. Then the last host does what doctor advises, with a dnsmasq: its programs find the members by name.
func (w *world) checkNames(nodes ...*lab.Node) {
	w.Helper()
	const zone = ".mesh.internal."
	members := make(map[string][]netip.Addr)
	for _, n := range nodes {
		members[n.Host.Name()] = w.status(n).Self.Addresses
	}
	last := nodes[len(nodes)-1]
	server, option := w.nameServer(last) // on the others it is there as well: each host is alone with its node
	prefix := netip.PrefixFrom(w.addr(nodes[0]), 64).Masked()
	for _, n := range nodes {
		for name, addrs := range members {
			w.eventually(10*time.Second, fmt.Sprintf("%s resolves %s", n.Host.Name(), name), func() error {
				r, err := ask(n.Host, "udp", server, name+zone, dns.TypeAAAA)
				if err != nil {
					return err
				}
				if got := addresses(r); r.Rcode != dns.RcodeSuccess || !r.Authoritative || !slices.Equal(got, addrs) {
					return fmt.Errorf("%v: want %v", r, addrs)
				}
				return nil
			})
			for _, a := range addrs {
				reverse, err := dns.ReverseAddr(a.String())
				w.must(err)
				w.answers(n, server, reverse, dns.TypePTR, dns.RcodeSuccess, name+zone)
			}
			w.answers(n, server, strings.ToUpper(name)+zone, dns.TypeAAAA, dns.RcodeSuccess, addrs[0].String())
			w.answers(n, server, name+zone, dns.TypeA, dns.RcodeSuccess, "")
		}
		unknown, err := dns.ReverseAddr(prefix.Addr().Next().String())
		w.must(err)
		foreign, err := dns.ReverseAddr("2001:db8:ffff::53")
		w.must(err)
		w.answers(n, server, "nobody"+zone, dns.TypeAAAA, dns.RcodeNameError, "")
		w.answers(n, server, "www."+nodes[0].Host.Name()+zone, dns.TypeAAAA, dns.RcodeNameError, "")
		w.answers(n, server, unknown, dns.TypePTR, dns.RcodeNameError, "")
		w.answers(n, server, foreign, dns.TypePTR, dns.RcodeRefused, "")
		w.answers(n, server, "home.example.", dns.TypeAAAA, dns.RcodeRefused, "")
		w.answers(n, server, "internal.", dns.TypeNS, dns.RcodeRefused, "")
	}
	w.pointResolver(last, option, members)
}

// nameServer is where doctor says that a node answers for names, and dnsmasq's option for it.
func (w *world) nameServer(n *lab.Node) (at netip.AddrPort, option string) {
	w.Helper()
	checks, _ := w.doctor(n, "--offline")
	found := regexp.MustCompile(`server=/mesh\.internal/([0-9.]+)#([0-9]+)`).FindStringSubmatch(checks["mesh-names"].Remedy)
	if found == nil {
		w.Fatalf("doctor of %s does not say where names are resolved: %+v", n.Host.Name(), checks["mesh-names"])
	}
	at, err := netip.ParseAddrPort(found[1] + ":" + found[2])
	w.must(err)
	return at, found[0]
}

// answers asks a name server on a host a question, by UDP and by TCP. The answer must be one record with this value, or
// none.
func (w *world) answers(n *lab.Node, server netip.AddrPort, name string, kind uint16, rcode int, value string) {
	w.Helper()
	for _, network := range []string{"udp", "tcp"} {
		r, err := ask(n.Host, network, server, name, kind)
		w.must(err)
		got := ""
		for _, rr := range r.Answer {
			got += strings.TrimPrefix(rr.String(), rr.Header().String())
		}
		if r.Rcode != rcode || got != value {
			w.Errorf("%s asks for %s by %s: want %s and %q, got\n%v", n.Host.Name(), name, network, dns.RcodeToString[rcode], value, r)
		}
	}
}

// ask asks a name server from a host.
func ask(h *lab.Host, network string, server netip.AddrPort, name string, kind uint16) (r *dns.Msg, err error) {
	client := &dns.Client{Net: network, Timeout: 5 * time.Second}
	err = h.Do(func() (err error) {
		r, _, err = client.Exchange(new(dns.Msg).SetQuestion(name, kind), server.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s asks %v for %s by %s: %w", h.Name(), server, name, network, err)
	}
	return r, nil
}

// addresses are those of an answer.
func addresses(r *dns.Msg) (list []netip.Addr) {
	for _, rr := range r.Answer {
		if aaaa, ok := rr.(*dns.AAAA); ok {
			a, _ := netip.AddrFromSlice(aaaa.AAAA)
			list = append(list, a)
		}
	}
	return list
}

// pointResolver points a resolver on a node's host at meshd, as doctor advises: then the host's programs resolve the names
// of members, others as before, and doctor is content.
func (w *world) pointResolver(n *lab.Node, option string, members map[string][]netip.Addr) {
	w.Helper()
	upstream := strings.Fields(w.on(n.Host, "sed", "-n", "s/^nameserver //p", "/etc/resolv.conf"))
	args := []string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root", "--no-hosts", "--no-resolv", "--cache-size=0",
		"--listen-address=127.0.0.1", "--bind-interfaces", "--" + option, "--server=" + upstream[0],
	}
	w.spawn(n.Host, "dnsmasq", args...)
	w.on(n.Host, "sh", "-ec", "echo nameserver 127.0.0.1 > /etc/resolv.conf")
	resolves := func(name string, addr netip.Addr) {
		w.Helper()
		w.eventually(10*time.Second, fmt.Sprintf("programs on %s resolve %s", n.Host.Name(), name), func() error {
			out, err := n.Host.Command(w.within(10*time.Second), "getent", "ahosts", name).CombinedOutput()
			if err == nil && !slices.Contains(strings.Fields(string(out)), addr.String()) {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
	}
	for name, addrs := range members {
		resolves(name+".mesh.internal", addrs[0])
	}
	elsewhere := netip.MustParseAddr("2001:db8:66::7")
	w.net.SetName("elsewhere.example", elsewhere)
	resolves("elsewhere.example", elsewhere)
	if checks, _ := w.doctor(n, "--offline"); checks["mesh-names"].State != "ok" {
		w.Errorf("doctor with a resolver that asks meshd: %+v", checks["mesh-names"])
	}
}
