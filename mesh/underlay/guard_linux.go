package underlay

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The guard drops marked packets on their way into the TAP. In a bridge, where they go
// is not the routing's business: a frame to a neighbour that the bridge has not learned
// yet is flooded to the TAP, too.

func (r *Rules) guardTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyNetdev, Name: "meshd-" + r.tap}
}

// guard is level-triggered: there is one while the TAP is in a bridge.
func (r *Rules) guard(bridged bool) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	there := false
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return fmt.Errorf("list nftables: %w", err)
	}
	table := r.guardTable()
	for _, t := range tables {
		there = there || t.Name == table.Name
	}
	if there == bridged {
		r.guarded = bridged
		return nil
	}
	r.guarded = false
	if there {
		conn.DelTable(table)
		return conn.Flush()
	}
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Name: "egress", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookEgress, Priority: nftables.ChainPriorityFilter, Device: r.tap,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binary.NativeEndian.AppendUint32(nil, r.mark)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("keep marked packets out of %q: %w", r.tap, err)
	}
	r.guarded = true
	return nil
}
