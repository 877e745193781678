package l2_test

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/l2"
)

// deaf is a port that frames go out of and are lost.
type deaf struct{}

func (deaf) Send([]byte, int) bool { return true }
func (deaf) MaxFrame() int         { return 0 }
func (deaf) Flush()                {}

// tables are what a kernel believes: its neighbours (not how sure it is of them),
// routes and addresses.
func tables(n *network) (text []string) {
	n.t.Helper()
	n.do(func() error {
		link, err := netlink.LinkByName("mesh0")
		if err != nil {
			return err
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			neighbours, err := netlink.NeighList(link.Attrs().Index, family)
			if err != nil {
				return err
			}
			for _, e := range neighbours {
				const resolved = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT
				if e.State&resolved != 0 {
					text = append(text, e.IP.String()+" at "+e.HardwareAddr.String())
				}
			}
			routes, err := netlink.RouteList(nil, family)
			if err != nil {
				return err
			}
			for _, r := range routes {
				text = append(text, r.String())
			}
			addrs, err := netlink.AddrList(link, family)
			if err != nil {
				return err
			}
			for _, a := range addrs {
				text = append(text, a.IPNet.String())
			}
		}
		return nil
	})
	slices.Sort(text)
	return text
}

// TestAttacksLeaveKernelTables sends each attack a thousand times at a host that
// believes router advertisements and redirects. Its tables stay as they were; a frame
// that is let through changes them, which shows that they could have.
func TestAttacksLeaveKernelTables(t *testing.T) {
	n := newNetwork(t)
	own := l2.MAC{2, 0, 0, 0, 0, 0xff}
	tap := openTAP(t, n, l2.TAPConfig{Name: "mesh0", MAC: own})
	ownIP := netip.MustParsePrefix("fd00::ff/64")
	if err := tap.SetAddresses([]netip.Prefix{ownIP, netip.MustParsePrefix("10.0.0.255/16")}); err != nil {
		t.Fatal(err)
	}
	n.do(func() error {
		for name, value := range map[string]string{
			"ipv6/conf/mesh0/accept_ra": "2", "ipv6/conf/mesh0/autoconf": "1", "ipv6/conf/mesh0/accept_redirects": "1", "ipv4/conf/mesh0/accept_redirects": "1",
		} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})
	sw := l2.NewSwitch(l2.Config{Device: tap, MAC: own, StormRate: 1e6, StormBurst: 1e6})
	sw.SetOwn(l2.Allow{MAC: own, Addresses: []netip.Addr{ownIP.Addr()}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sw.Run(ctx) }()
	defer func() { cancel(); <-done }()

	victim := l2.MAC{2, 0, 0, 0, 0, 0xb}
	b := sw.Connect("b", deaf{}, l2.Allow{MAC: victim, Addresses: []netip.Addr{netip.MustParseAddr("fd00::b")}})
	mallory := l2.Allow{MAC: l2.MAC{2, 0, 0, 0, 0, 1}}
	m := sw.Connect("mallory", deaf{}, mallory)
	n.do(func() error { // the host has spoken with the victim
		link, err := netlink.LinkByName("mesh0")
		if err != nil {
			return err
		}
		for ip, mac := range map[string]l2.MAC{"fd00::b": victim, "10.0.0.11": victim} {
			err := netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: netip.MustParseAddr(ip).AsSlice(), HardwareAddr: mac[:], State: netlink.NUD_STALE})
			if err != nil {
				return err
			}
		}
		return nil
	})
	for _, frame := range [][]byte{l2.Advertisement("fd00::b", victim), l2.Speaking(victim, "10.0.0.11"), l2.Speaking(l2.MAC{2, 0, 0, 0, 0, 0x1b}, "10.0.0.27")} {
		b.Receive(frame, 0)
	}
	b.Flush()

	before := tables(n)
	for _, frame := range l2.Attacks() {
		for range 1000 {
			m.Receive(frame, 0)
		}
		m.Flush()
	}
	time.Sleep(100 * time.Millisecond) // what was delivered has been believed by then
	if after := tables(n); !slices.Equal(before, after) {
		t.Errorf("tables were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}

	mallory.Router = true
	m = sw.Connect("mallory", deaf{}, mallory)
	m.Receive(l2.RouterAdvertisement(), 0)
	m.Flush()
	for end := time.Now().Add(patience); slices.Equal(before, tables(n)); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("even a router advertisement that is let through changes nothing: the test proves nothing")
		}
	}
}
