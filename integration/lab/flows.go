//go:build linux

package lab

import (
	"bytes"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Flow is a direction between two customers of a network.
type Flow struct {
	From, To string // names of sites, or of hosts on the internet
}

const flowTable, flowSet = "labflows", "flows"

// CountFlows begins to count UDP packets between customers, at the core: evidence of who talks to whom that no program
// can have a part in. Flows reads the result. It may be called again, and counts anew.
func (n *Network) CountFlows() error {
	return n.lab.change("count flows of "+n.name, func() error {
		return flush(n.core.fd, func(b *batch) {
			old := b.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: flowTable})
			b.conn.DelTable(old)
			t := b.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: flowTable})
			s := &nftables.Set{
				Table: t, ID: 1, Name: flowSet, Dynamic: true, Size: 65535, Counter: true,
				KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName), Concatenation: true,
			}
			if err := b.conn.AddSet(s, nil); err != nil {
				b.err = err
				return
			}
			c := b.base(t, nftables.ChainTypeFilter, nftables.ChainHookForward, 20, false)
			b.rule(c, proto(unix.IPPROTO_UDP), []expr.Any{
				&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg2},
				&expr.Dynset{SrcRegKey: reg1, SetID: s.ID, SetName: s.Name, Operation: uint32(unix.NFT_DYNSET_OP_ADD), Exprs: []expr.Any{&expr.Counter{}}},
			})
		})
	})
}

// Flows are the packets between customers since CountFlows.
func (n *Network) Flows() (map[Flow]Count, error) {
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	if n.lab.err != nil {
		return nil, n.lab.err
	}
	conn, err := nftables.New(nftables.WithNetNSFd(n.core.fd))
	if err != nil {
		return nil, fmt.Errorf("lab: open nftables in %q: %w", n.name, err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: flowTable}
	set, err := conn.GetSetByName(table, flowSet)
	if err != nil {
		return nil, fmt.Errorf("lab: find flows of %q: %w", n.name, err)
	}
	elements, err := conn.GetSetElements(set)
	if err != nil {
		return nil, fmt.Errorf("lab: read flows of %q: %w", n.name, err)
	}
	flows := make(map[Flow]Count)
	for _, e := range elements {
		if len(e.Key) != 2*unix.IFNAMSIZ || e.Counter == nil {
			return nil, fmt.Errorf("lab: read flows of %q: key %x, counter %v", n.name, e.Key, e.Counter)
		}
		f := Flow{From: n.customers[ifName(e.Key[:unix.IFNAMSIZ])], To: n.customers[ifName(e.Key[unix.IFNAMSIZ:])]}
		sum := flows[f]
		flows[f] = Count{Packets: sum.Packets + e.Counter.Packets, Bytes: sum.Bytes + e.Counter.Bytes}
	}
	return flows, nil
}

func ifName(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }
