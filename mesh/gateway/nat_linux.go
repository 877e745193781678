package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// label marks our IPv4 address on the interface.
const label = ":meshd"

// uplink4 is the interface of the host's own IPv4 default route.
func (h *Host) uplink4(inside netlink.Link) (string, bool) {
	routes, err := h.nl.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return "", false
	}
	for _, r := range routes {
		if !isDefault(r) || r.LinkIndex == 0 || r.LinkIndex == inside.Attrs().Index {
			continue
		}
		if link, err := h.nl.LinkByIndex(r.LinkIndex); err == nil {
			return link.Attrs().Name, true
		}
	}
	return "", false
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
func (h *Host) syncNAT(inside string, subnet netip.Prefix) error {
	if subnet.IsValid() && h.nat == subnet {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("masquerade %v: %w", subnet, err)
	}
	name := fmt.Sprintf("meshd_%x", h.table(0))
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		if !subnet.IsValid() { // there is no nftables: then there is nothing of ours in it
			return nil
		}
		return fmt.Errorf("masquerade %v: %w", subnet, err)
	}
	for _, t := range tables {
		if t.Name == name {
			c.DelTable(t)
		}
	}
	if subnet.IsValid() {
		t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: name})
		chain := c.AddChain(&nftables.Chain{
			Name: "leave", Table: t, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: masquerade(inside, subnet)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("masquerade %v: %w", subnet, err)
	}
	h.nat = subnet
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
