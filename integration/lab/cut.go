//go:build linux

package lab

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Customer is what is connected to a network: a [Site] or a [Host] on the internet.
type Customer interface {
	Name() string
	uplinks() []*uplink
}

func (s *Site) uplinks() []*uplink {
	if s.up == nil {
		return nil
	}
	return []*uplink{s.up}
}

func (h *Host) uplinks() []*uplink {
	var ups []*uplink
	for _, n := range h.nics {
		if n.up != nil {
			ups = append(ups, n.up)
		}
	}
	return ups
}

const cutTable = "labcut"

// Cut drops all packets between two customers, silently: each still reaches everyone else.
func (n *Network) Cut(a, b Customer) error {
	return n.lab.change(fmt.Sprintf("cut %s from %s", a.Name(), b.Name()), func() error {
		return flush(n.core.fd, func(batch *batch) {
			t := batch.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: cutTable})
			c := batch.base(t, nftables.ChainTypeFilter, nftables.ChainHookForward, -10, false)
			for _, from := range a.uplinks() {
				for _, to := range b.uplinks() {
					batch.rule(c, between(from, to), verdict(expr.VerdictDrop))
					batch.rule(c, between(to, from), verdict(expr.VerdictDrop))
				}
			}
		})
	})
}

// Blackhole drops all packets of a customer, silently.
func (n *Network) Blackhole(a Customer) error {
	return n.lab.change("blackhole "+a.Name(), func() error {
		return flush(n.core.fd, func(batch *batch) {
			t := batch.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: cutTable})
			c := batch.base(t, nftables.ChainTypeFilter, nftables.ChainHookForward, -10, false)
			for _, up := range a.uplinks() {
				batch.rule(c, iif(up.cable.a.name), verdict(expr.VerdictDrop))
				batch.rule(c, oif(up.cable.a.name), verdict(expr.VerdictDrop))
			}
		})
	})
}

// DropTooBig drops the ICMP errors that tell a sender of too large a packet, as badly kept networks do.
func (n *Network) DropTooBig() error {
	return n.lab.change("drop too-big messages in "+n.name, func() error {
		return flush(n.core.fd, func(batch *batch) {
			t := batch.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: cutTable})
			icmpType := expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}
			for _, hook := range []*nftables.ChainHook{nftables.ChainHookForward, nftables.ChainHookOutput} {
				c := batch.base(t, nftables.ChainTypeFilter, hook, -10, false)
				for p, kind := range map[byte]byte{unix.IPPROTO_ICMP: 3, unix.IPPROTO_ICMPV6: 2} {
					is := []expr.Any{load(icmpType, reg1), &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{kind}}}
					batch.rule(c, proto(p), is, verdict(expr.VerdictDrop))
				}
			}
		})
	})
}

// Heal takes back every Cut, Blackhole and DropTooBig.
func (n *Network) Heal() error {
	return n.lab.change("heal "+n.name, func() error {
		return flush(n.core.fd, func(batch *batch) {
			t := batch.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: cutTable}) // if it is not there
			batch.conn.DelTable(t)
		})
	})
}

func between(from, to *uplink) []expr.Any {
	return join(iif(from.cable.a.name), oif(to.cable.a.name))
}
