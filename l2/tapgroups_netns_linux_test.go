package l2_test

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"meshd/l2"
)

// TestHostGroups joins groups on a real TAP, and on a bridge that it is put into.
func TestHostGroups(t *testing.T) {
	n := newNetwork(t)
	n.do(func() error {
		tap, err := l2.OpenTAP(l2.TAPConfig{Name: "tap0", MTU: 1500, MAC: l2.MAC{2, 0, 0, 0, 0, 1}})
		if err != nil {
			return err
		}
		defer tap.Close()
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		link, err := netlink.LinkByName("tap0")
		if err := errors.Join(err, netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge)); err != nil {
			return err
		}
		for _, step := range []struct {
			on     string
			master netlink.Link
			group  string
		}{{"tap0", nil, "239.1.2.3"}, {"tap0", nil, "ff15::4d:1"}, {"br0", bridge, "239.1.2.4"}, {"br0", bridge, "ff15::4d:2"}} {
			if step.master != nil {
				if err := netlink.LinkSetMaster(link, step.master); err != nil {
					return err
				}
			}
			group := netip.MustParseAddr(step.group)
			ifi, err := net.InterfaceByName(step.on)
			if err != nil {
				return err
			}
			conn, err := net.ListenMulticastUDP("udp", ifi, &net.UDPAddr{IP: group.AsSlice(), Port: 5004})
			if err != nil {
				return err
			}
			groups, err := tap.HostGroups()
			if err != nil || !slices.Contains(groups, group) {
				t.Errorf("joined %v on %s: %v, %v", group, step.on, groups, err)
			}
			if err := conn.Close(); err != nil {
				return err
			}
			if groups, err := tap.HostGroups(); err != nil || slices.Contains(groups, group) {
				t.Errorf("left %v on %s: %v, %v", group, step.on, groups, err)
			}
		}
		return nil
	})
}
