package bridge

import (
	"bytes"
	"errors"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Undo puts everything back. It may be called again when it has failed.
func (b *Bridge) Undo() error {
	if b.gone {
		return nil
	}
	if err := restore(&b.record); err != nil {
		return err
	}
	b.gone = true
	return b.cfg.Note(nil)
}

// Undo puts back what a record lists, whoever has written it.
func Undo(record []byte) error {
	if len(record) == 0 {
		return nil
	}
	r, err := parseRecord(record)
	if err != nil {
		return err
	}
	if r.Boot != bootID() {
		return nil // bridges and addresses ended with that kernel
	}
	return restore(r)
}

// restore is level-triggered, too.
func restore(r *Record) error {
	br, err := linkOf(r.Bridge)
	if err != nil {
		return fail("find the bridge", r.Bridge, err)
	}
	if tap, err := linkOf(r.TAP); err == nil && tap != nil {
		if br == nil || tap.Attrs().MasterIndex == br.Attrs().Index {
			if err := netlink.LinkSetNoMaster(tap); err != nil {
				return fail("take it out of "+r.Bridge, r.TAP, err)
			}
		}
		sysctl("ipv6", r.TAP, "disable_ipv6").set("0")
	}
	if r.made() {
		return restorePort(r, br)
	}
	if br == nil || !isBridge(br) {
		return nil
	}
	b := &Bridge{record: *r}
	mac, err := net.ParseMAC(r.MAC)
	if err != nil {
		return fail("read its address", r.Bridge, err)
	}
	if least := leastMAC(br); r.Least && least != nil {
		mac = least // its ports may be others by now, and the kernel lets no bridge follow them again
	}
	return errors.Join(b.dropMember(br), b.setMAC(br, mac))
}

// leastMAC is the least address of a bridge's ports, nil for none.
func leastMAC(br netlink.Link) (least net.HardwareAddr) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil
	}
	for _, l := range links {
		a := l.Attrs()
		if a.MasterIndex == br.Attrs().Index && (least == nil || bytes.Compare(a.HardwareAddr, least) < 0) {
			least = a.HardwareAddr
		}
	}
	return least
}

// dropMember removes the member's addresses.
func (b *Bridge) dropMember(br netlink.Link) error {
	for _, p := range b.record.Set {
		if err := netlink.AddrDel(br, memberAddr(p)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fail("remove "+p.String(), b.record.Bridge, err)
		}
	}
	return nil
}

// restorePort removes the bridge that was made and gives the interface back what it had.
func restorePort(r *Record, br netlink.Link) error {
	if isBridge(br) {
		if err := netlink.LinkDel(br); err != nil {
			return fail("remove it", r.Bridge, err)
		}
	}
	port, err := linkOf(r.Port)
	if err != nil || port == nil {
		return fail("find it", r.Port, err) // unplugged for good: it takes its addresses with it
	}
	if err := setAddrs(r.Addrs, port, true); err != nil {
		return fail("give addresses back", r.Port, err)
	}
	return fail("give routes back", r.Port, setRoutes(r.Routes, port, r.Skip, true))
}
