package underlay

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The guard drops marked packets on their way into the TAP. In a bridge, where they go
// is not the routing's business: a frame to a neighbour that the bridge has not learned
// yet is flooded to the TAP, too.

const guardChain = "egress"

func (r *Rules) guardTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyNetdev, Name: "meshd-" + r.tap}
}

// Guard has marked packets dropped before the TAP while that is in a bridge. Sync does
// it, too; it is to be called now and then besides, since whoever flushes the rules of
// nftables tells nobody.
func (r *Rules) Guard() error {
	link, err := r.handle.LinkByName(r.tap)
	if bridged := err == nil && link.Attrs().MasterIndex != 0; bridged || r.guarded {
		return r.guard(bridged)
	}
	return nil // hosts without a bridge need no nftables
}

// guard is level-triggered.
func (r *Rules) guard(wanted bool) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	if wanted {
		r.guarded = false // until it is known
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return fmt.Errorf("list nftables: %w", err)
	}
	table := r.guardTable()
	there := slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == table.Name })
	switch {
	case !there && !wanted:
		r.guarded = false
		return nil
	case there && wanted:
		if rules, err := conn.GetRules(table, &nftables.Chain{Name: guardChain}); err == nil && len(rules) == 1 {
			r.guarded = true
			return nil
		}
	}
	if there {
		conn.DelTable(table)
	}
	if !wanted {
		err := conn.Flush()
		r.guarded = err != nil
		return err
	}
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Name: guardChain, Table: table, Type: nftables.ChainTypeFilter,
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
