//go:build linux

package lab

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Count is a number of packets, and of their bytes from the IP header on.
type Count struct {
	Packets, Bytes uint64
}

// Counters are what has passed a router's interface to the internet, or a host's.
type Counters struct {
	In, Out       Count // all
	UDPIn, UDPOut Count // of these
	Dropped       Count // by the firewall; included in In
}

// The names of rules that count.
const (
	countIn      = "in"
	countOut     = "out"
	countUDPIn   = "udp-in"
	countUDPOut  = "udp-out"
	countDropped = "dropped"
)

// readCounters adds up the rules of table lab that count.
func readCounters(ns *namespace) (Counters, error) {
	var c Counters
	conn, err := nftables.New(nftables.WithNetNSFd(ns.fd))
	if err != nil {
		return c, fmt.Errorf("lab: open nftables in %q: %w", ns.name, err)
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return c, fmt.Errorf("lab: list rules of %q: %w", ns.name, err)
	}
	to := map[string]*Count{countIn: &c.In, countOut: &c.Out, countUDPIn: &c.UDPIn, countUDPOut: &c.UDPOut, countDropped: &c.Dropped}
	for _, chain := range chains {
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			return c, fmt.Errorf("lab: read rules of %q: %w", ns.name, err)
		}
		for _, rule := range rules {
			sum, ok := to[string(rule.UserData)]
			if !ok {
				continue
			}
			for _, e := range rule.Exprs {
				if n, ok := e.(*expr.Counter); ok {
					sum.Packets += n.Packets
					sum.Bytes += n.Bytes
				}
			}
		}
	}
	return c, nil
}

// CountPackets begins to count the host's packets, on all interfaces but lo. Counters reads the result.
func (h *Host) CountPackets() error {
	return h.lab.change("count packets of "+h.name, func() error {
		return flush(h.ns.fd, func(b *batch) {
			t := b.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "lab"})
			in := b.base(t, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300, false)
			out := b.base(t, nftables.ChainTypeFilter, nftables.ChainHookPostrouting, 300, false)
			for _, n := range h.nics {
				b.named(in, countIn, iif(n.name), count())
				b.named(in, countUDPIn, iif(n.name), proto(unix.IPPROTO_UDP), count())
				b.named(out, countOut, oif(n.name), count())
				b.named(out, countUDPOut, oif(n.name), proto(unix.IPPROTO_UDP), count())
			}
		})
	})
}

// Counters are the host's packets since CountPackets.
func (h *Host) Counters() (Counters, error) {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	if h.lab.err != nil {
		return Counters{}, h.lab.err
	}
	return readCounters(h.ns)
}
