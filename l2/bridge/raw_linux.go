package bridge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Addresses and routes are moved as the kernel's own messages (rtnetlink(7)), so that
// nothing about them is lost that this program does not know.

const (
	addrHead   = unix.SizeofIfAddrmsg
	routeHead  = unix.SizeofRtMsg
	attrHead   = unix.SizeofRtAttr
	rtaExpires = unix.RTA_EXPIRES // seconds, where dumps have RTA_CACHEINFO
	userHZ     = 100              // what RTA_CACHEINFO counts in
)

// attr is one attribute of a message.
type attr struct {
	kind  uint16
	value []byte
}

func attrsOf(b []byte) (list []attr) {
	for len(b) >= attrHead {
		size := int(binary.NativeEndian.Uint16(b))
		if size < attrHead || size > len(b) {
			return list
		}
		list = append(list, attr{binary.NativeEndian.Uint16(b[2:]), b[attrHead:size]})
		b = b[min(len(b), (size+3)&^3):]
	}
	return list
}

func appendAttr(b []byte, a attr) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHead+len(a.value)))
	b = append(binary.NativeEndian.AppendUint16(b, a.kind), a.value...)
	return append(b, make([]byte, -len(b)&3)...)
}

func find(list []attr, kind uint16) []byte {
	for _, a := range list {
		if a.kind == kind {
			return a.value
		}
	}
	return nil
}

func find32(list []attr, kind uint16) (uint32, bool) {
	if v := find(list, kind); len(v) == 4 {
		return binary.NativeEndian.Uint32(v), true
	}
	return 0, false
}

func dump(request, answer int, body nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	req.AddData(body)
	list, err := req.Execute(unix.NETLINK_ROUTE, uint16(answer))
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		err = nil // whoever changes something has us called again
	}
	return list, err
}

func send(kind, flags int, payload []byte) error {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	req.AddRawData(payload)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// addrsOf lists the addresses of an interface that somebody, or a router, gave it:
// not those that the kernel makes by itself, or makes anew.
func addrsOf(index int) ([][]byte, error) {
	all, err := dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var list [][]byte
	for _, m := range all {
		if len(m) < addrHead || int(binary.NativeEndian.Uint32(m[4:])) != index {
			continue
		}
		flags, ok := find32(attrsOf(m[addrHead:]), unix.IFA_FLAGS)
		if !ok {
			flags = uint32(m[2])
		}
		if a := addrIn(m); a.Is6() && a.IsLinkLocalUnicast() || flags&unix.IFA_F_TEMPORARY != 0 && a.Is6() {
			continue
		}
		list = append(list, bytes.Clone(m))
	}
	return list, nil
}

// addrIn is the address of a message.
func addrIn(m []byte) netip.Addr {
	list := attrsOf(m[addrHead:])
	b := find(list, unix.IFA_LOCAL)
	if b == nil {
		b = find(list, unix.IFA_ADDRESS)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// addrOn is the message of an address for another interface. Its label goes where the
// address has to be taken for the interface's own.
func addrOn(m []byte, index int, label bool) []byte {
	out := bytes.Clone(m[:addrHead])
	binary.NativeEndian.PutUint32(out[4:], uint32(index))
	for _, a := range attrsOf(m[addrHead:]) {
		if a.kind != unix.IFA_LABEL || label {
			out = appendAttr(out, a)
		}
	}
	return out
}

// routesOf lists the routes by an interface: in all tables but the kernel's local one,
// and skip, and without those that come with its link-local addresses.
func routesOf(index int, skip uint32) ([][]byte, error) {
	var list [][]byte
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		head := &nl.RtMsg{}
		head.Family = uint8(family)
		all, err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, head)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, m := range all {
			if len(m) >= routeHead && ofInterest(m, index, skip) {
				list = append(list, bytes.Clone(m))
			}
		}
	}
	// Those to the link first: the others are by gateways there.
	slices.SortStableFunc(list, func(a, b []byte) int { return rankOf(a) - rankOf(b) })
	return list, nil
}

func ofInterest(m []byte, index int, skip uint32) bool {
	attrs := attrsOf(m[routeHead:])
	oif, ok := find32(attrs, unix.RTA_OIF)
	table, ok2 := find32(attrs, unix.RTA_TABLE)
	if !ok2 {
		table = uint32(m[4])
	}
	if !ok || int(oif) != index || table == unix.RT_TABLE_LOCAL || table == skip || m[7] != unix.RTN_UNICAST {
		return false
	}
	if binary.NativeEndian.Uint32(m[8:])&unix.RTM_F_CLONED != 0 {
		return false
	}
	dst, ok := netip.AddrFromSlice(find(attrs, unix.RTA_DST))
	return !ok || !dst.Is6() || !dst.IsLinkLocalUnicast()
}

func rankOf(m []byte) int {
	attrs := attrsOf(m[routeHead:])
	if find(attrs, unix.RTA_GATEWAY) != nil || find(attrs, unix.RTA_VIA) != nil {
		return 1
	}
	return 0
}

// routeOn is the message of a route for another interface.
func routeOn(m []byte, index int) []byte {
	out := bytes.Clone(m[:routeHead])
	flags := binary.NativeEndian.Uint32(out[8:]) & unix.RTNH_F_ONLINK
	binary.NativeEndian.PutUint32(out[8:], flags)
	for _, a := range attrsOf(m[routeHead:]) {
		switch a.kind {
		case unix.RTA_OIF:
			a.value = binary.NativeEndian.AppendUint32(nil, uint32(index))
		case unix.RTA_CACHEINFO: // of IPv6: clntref, lastuse, expires
			if len(a.value) < 12 {
				continue
			}
			left := int32(binary.NativeEndian.Uint32(a.value[8:])) / userHZ
			if left <= 0 {
				continue
			}
			a = attr{rtaExpires, binary.NativeEndian.AppendUint32(nil, uint32(left))}
		}
		out = appendAttr(out, a)
	}
	return out
}

// keyOf tells routes apart, whatever their interface and age.
func keyOf(m []byte) string {
	attrs := attrsOf(routeOn(m, 0)[routeHead:])
	attrs = slices.DeleteFunc(attrs, func(a attr) bool { return a.kind == rtaExpires })
	slices.SortFunc(attrs, func(a, b attr) int { return int(a.kind) - int(b.kind) })
	key := bytes.Clone(m[:8])
	for _, a := range attrs {
		key = appendAttr(key, a)
	}
	return string(key)
}

// setAddrs adds addresses to an interface, without a time in which they are tentative.
func setAddrs(list [][]byte, to netlink.Link, label bool) error {
	index, name := to.Attrs().Index, to.Attrs().Name
	dad := sysctl("ipv6", name, "accept_dad")
	before := dad.get()
	dad.set("0")
	var errs []error
	for _, m := range inOrder(list) {
		if err := send(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, addrOn(m, index, label)); err != nil {
			errs = append(errs, fmt.Errorf("give %v to %q: %w", addrIn(m), name, err))
		}
	}
	awaitUse(index)
	dad.set(before)
	return errors.Join(errs...)
}

// inOrder is in which order addresses are to be added so that they are listed as they
// were: the kernel puts IPv6 addresses before, and IPv4 addresses behind, the others.
func inOrder(list [][]byte) [][]byte {
	var v4, v6 [][]byte
	for _, m := range list {
		if m[0] == unix.AF_INET6 {
			v6 = append(v6, m)
		} else {
			v4 = append(v4, m)
		}
	}
	slices.Reverse(v6)
	return append(v4, v6...)
}

// setRoutes makes the routes by an interface those of the list, or adds what is missing.
func setRoutes(list [][]byte, to netlink.Link, skip uint32, prune bool) error {
	index := to.Attrs().Index
	there, err := routesOf(index, skip)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, m := range list {
		wanted[keyOf(m)] = true
	}
	for _, m := range there {
		if k := keyOf(m); wanted[k] {
			delete(wanted, k)
		} else if prune {
			_ = send(unix.RTM_DELROUTE, 0, routeOn(m, index)) // gone with another, if it fails
		}
	}
	var errs []error
	for _, m := range list {
		if !wanted[keyOf(m)] {
			continue
		}
		attrs := attrsOf(m[routeHead:])
		err := send(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, routeOn(m, index))
		switch {
		case err == nil || errors.Is(err, unix.EEXIST):
		case errors.Is(err, unix.EINVAL) && find(attrs, unix.RTA_PREFSRC) != nil: // from an address that has gone since
		default:
			dst, _ := netip.AddrFromSlice(find(attrs, unix.RTA_DST))
			errs = append(errs, fmt.Errorf("route to %v/%d by %q: %w", dst, m[1], to.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}
