package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// label marks our IPv4 address on the interface.
const label = ":meshd"

// uplink4 is the interface of the host's own IPv4 default route, "" for none; beside says
// that there is one by the bridge that the TAP is in.
func (h *Host) uplink4(inside netlink.Link) (name string, beside bool) {
	routes, err := h.nl.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return "", false
	}
	for _, r := range routes {
		if !isDefault(r) || r.LinkIndex == 0 {
			continue
		}
		if r.LinkIndex == inside.Attrs().Index {
			beside = true
		} else if link, err := h.nl.LinkByIndex(r.LinkIndex); err == nil {
			return link.Attrs().Name, beside
		}
	}
	return "", beside
}

// syncAddress4 gives this host the first address of a subnet, and takes others away
// that it gave before.
func (h *Host) syncAddress4(inside netlink.Link, subnet netip.Prefix) error {
	list, err := h.nl.AddrList(inside, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses of %q: %w", inside.Attrs().Name, err)
	}
	var want netip.Prefix
	if subnet.IsValid() {
		want = netip.PrefixFrom(subnet.Masked().Addr().Next(), subnet.Bits())
	}
	have := false
	var errs []error
	name := inside.Attrs().Name
	name = name[:min(len(name), unix.IFNAMSIZ-1-len(label))] + label
	for i := range list {
		if list[i].Label != name {
			continue
		}
		if want.IsValid() && list[i].IPNet.String() == want.String() {
			have = true
			continue
		}
		errs = append(errs, h.nl.AddrDel(inside, &list[i]))
	}
	if want.IsValid() && !have {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: want.Addr().AsSlice(), Mask: net.CIDRMask(want.Bits(), 32)}, Label: name}
		if err := h.nl.AddrReplace(inside, a); err != nil {
			errs = append(errs, fmt.Errorf("add %v to %q: %w", want, inside.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}

// syncNAT has what comes from the subnet masqueraded, wherever it leaves but by the mesh.
// It looks at what is there: whoever flushes the rules of nftables tells nobody.
func (h *Host) syncNAT(inside string, subnet netip.Prefix) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("masquerade %v: %w", subnet, err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: fmt.Sprintf("meshd_%x", h.table(0))}
	tables, err := c.ListTablesOfFamily(table.Family)
	if err != nil {
		if !subnet.IsValid() { // there is no nftables: then there is nothing of ours in it
			return nil
		}
		return fmt.Errorf("masquerade %v: %w", subnet, err)
	}
	there := slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == table.Name })
	chain := &nftables.Chain{
		Name: "leave", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	}
	mark := userdata.AppendString(nil, userdata.TypeComment, fmt.Sprintf("%v, not by %s", subnet, inside))
	switch {
	case !there && !subnet.IsValid():
		return nil
	case there && subnet.IsValid():
		if rules, err := c.GetRules(table, chain); err == nil && len(rules) == 1 && bytes.Equal(rules[0].UserData, mark) {
			return nil
		}
	}
	if there {
		c.DelTable(table)
	}
	if subnet.IsValid() {
		c.AddTable(table)
		c.AddChain(chain)
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: masquerade(inside, subnet), UserData: mark})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("masquerade %v: %w", subnet, err)
	}
	return nil
}

// masquerade is: ip saddr SUBNET oifname != INSIDE masquerade.
func masquerade(inside string, subnet netip.Prefix) []expr.Any {
	const saddr = 12 // in the IPv4 header
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, inside)
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: saddr, Len: 4},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: net.CIDRMask(subnet.Bits(), 32), Xor: binaryutil.NativeEndian.PutUint32(0),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: subnet.Masked().Addr().AsSlice()},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: name},
		&expr.Masq{},
	}
}
