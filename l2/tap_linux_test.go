package l2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/l2"
	"meshd/l2/l2test"
)

var macA, macB = l2.MAC{2, 0x11, 0, 0, 0, 0xa}, l2.MAC{2, 0x11, 0, 0, 0, 0xb}

func ofTest(frame []byte) bool {
	h, ok := l2.ParseHeader(frame)
	return ok && h.EtherType == l2test.EtherType
}

func openTAP(t *testing.T, n *network, cfg l2.TAPConfig) *l2.TAP {
	t.Helper()
	var tap *l2.TAP
	n.do(func() (err error) {
		tap, err = l2.OpenTAP(cfg)
		return err
	})
	t.Cleanup(func() { tap.Close() })
	return tap
}

func TestTAPConforms(t *testing.T) {
	l2test.Conform(t, func(t *testing.T) (l2.Device, l2test.Host) {
		n := newNetwork(t)
		tap := openTAP(t, n, l2.TAPConfig{Name: "mesh0", MAC: macA})
		return tap, newWire(t, n, "mesh0", ofTest)
	})
}

// state is what the host shows of an interface.
func state(n *network, name string) (link netlink.Link, addrs []string) {
	n.t.Helper()
	n.do(func() (err error) {
		if link, err = netlink.LinkByName(name); err != nil {
			return err
		}
		list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		for _, a := range list {
			addrs = append(addrs, a.IPNet.String())
		}
		slices.Sort(addrs)
		return err
	})
	return link, addrs
}

func gone(n *network, name string) bool {
	var err error
	n.do(func() error {
		_, err = netlink.LinkByName(name)
		return nil
	})
	return errors.As(err, new(netlink.LinkNotFoundError))
}

func TestTAPIsSetUp(t *testing.T) {
	n := newNetwork(t)
	n.do(func() error { // a host that keeps IPv6 off new interfaces and listens to routers
		return errors.Join(
			os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_ra", []byte("2"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/default/addr_gen_mode", []byte("1"), 0))
	})
	tap := openTAP(t, n, l2.TAPConfig{Name: "mesh0", MAC: macA, MTU: 1400})
	link, addrs := state(n, "mesh0")
	a := link.Attrs()
	if tap.Name() != "mesh0" || tap.MTU() != 1400 || a.MTU != 1400 || a.TxQLen != 1000 || a.Flags&net.FlagUp == 0 {
		t.Errorf("mtu %d, txqueuelen %d, flags %v", a.MTU, a.TxQLen, a.Flags)
	}
	if l2.MAC(a.HardwareAddr) != macA {
		t.Errorf("address %v, want %v", a.HardwareAddr, macA)
	}
	if want := []string{"fe80::11:ff:fe00:a/64"}; !slices.Equal(addrs, want) {
		t.Errorf("addresses %v, want %v", addrs, want)
	}
	n.do(func() error {
		for key, want := range map[string]string{"accept_ra": "0", "autoconf": "0", "disable_ipv6": "0"} {
			got, err := os.ReadFile("/proc/sys/net/ipv6/conf/mesh0/" + key)
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s is %q (%v), want %s", key, got, err, want)
			}
		}
		return nil
	})
	if p := tap.Problems(); len(p) != 0 {
		t.Errorf("problems %v", p)
	}
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestTAPAddresses(t *testing.T) {
	n := newNetwork(t)
	const linkLocal = "fe80::11:ff:fe00:a/64"
	tap := openTAP(t, n, l2.TAPConfig{Name: "mesh0", MAC: macA, Persist: true})
	n.do(func() error {
		link, _ := netlink.LinkByName("mesh0")
		byHand, _ := netlink.ParseAddr("fd00:99::1/64")
		return netlink.AddrAdd(link, byHand)
	})
	check := func(tap *l2.TAP, set []string, want ...string) {
		t.Helper()
		if err := tap.SetAddresses(prefixes(set...)); err != nil {
			t.Fatal(err)
		}
		want = append(want, linkLocal, "fd00:99::1/64")
		slices.Sort(want)
		if _, got := state(n, "mesh0"); !slices.Equal(got, want) {
			t.Errorf("after %v: %v, want %v", set, got, want)
		}
	}
	check(tap, []string{"fd00:1::1/64"}, "fd00:1::1/64")
	check(tap, []string{"fd00:1::1/64", "fd00:2::1/64", "10.1.0.1/24"}, "fd00:1::1/64", "fd00:2::1/64", "10.1.0.1/24")
	check(tap, []string{"fd00:2::1/64"}, "fd00:2::1/64")
	check(tap, []string{"fd00:2::1/64", "fd00:99::1/64"}, "fd00:2::1/64")

	n.do(func() error { // someone else removes one: level-triggered, it comes back
		link, _ := netlink.LinkByName("mesh0")
		ours, _ := netlink.ParseAddr("fd00:2::1/64")
		return netlink.AddrDel(link, ours)
	})
	check(tap, []string{"fd00:2::1/64", "fd00:99::1/64"}, "fd00:2::1/64")

	n.do(func() error { // no address is tentative: it is usable at once
		link, _ := netlink.LinkByName("mesh0")
		list, err := netlink.AddrList(link, netlink.FAMILY_V6)
		for _, a := range list {
			if strings.HasPrefix(a.IPNet.String(), "fd00:2:") && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
				t.Errorf("%v has flags %#x", a.IPNet, a.Flags)
			}
		}
		return err
	})

	check(tap, []string{"fd00:2::1/64"}, "fd00:2::1/64")

	tap.Close() // as a crash would leave it
	again := openTAP(t, n, l2.TAPConfig{Name: "mesh0", MAC: macA, Persist: true})
	check(again, []string{"fd00:3::1/64"}, "fd00:3::1/64")
}

func TestTAPPersists(t *testing.T) {
	n := newNetwork(t)
	cfg := l2.TAPConfig{Name: "mesh0", MAC: macA, Persist: true}
	tap := openTAP(t, n, cfg)
	if err := tap.SetAddresses(prefixes("fd00:1::1/64")); err != nil {
		t.Fatal(err)
	}
	before, addrs := state(n, "mesh0")
	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
	left, leftAddrs := state(n, "mesh0")
	if left.Attrs().Index != before.Attrs().Index || !slices.Equal(leftAddrs, addrs) {
		t.Fatalf("after close: %v %v, before %v %v", left.Attrs().Index, leftAddrs, before.Attrs().Index, addrs)
	}

	again := openTAP(t, n, cfg)
	after, afterAddrs := state(n, "mesh0")
	if after.Attrs().Index != before.Attrs().Index || !slices.Equal(afterAddrs, addrs) {
		t.Fatalf("attached again: %v %v, before %v %v", after.Attrs().Index, afterAddrs, before.Attrs().Index, addrs)
	}
	wire := newWire(t, n, "mesh0", ofTest)
	frame := l2test.Frame(macA, macB, 1, 64)
	if err := again.Write(l2test.Whole(frame)); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, wire); !bytes.Equal(got, frame) {
		t.Fatalf("received %x, want %x", got, frame)
	}
	if err := again.Remove(); err != nil {
		t.Fatal(err)
	}
	if !gone(n, "mesh0") {
		t.Fatal("it is still there after Remove")
	}
}

func receive(t *testing.T, from interface{ Frames() <-chan []byte }) []byte {
	t.Helper()
	select {
	case frame := <-from.Frames():
		return frame
	case <-time.After(patience):
		t.Fatal("nothing received")
		return nil
	}
}

func TestTAPRemove(t *testing.T) {
	tests := map[string]struct {
		persist bool
		remove  func(*l2.TAP) error
	}{
		"open":                {true, (*l2.TAP).Remove},
		"open, not kept":      {false, (*l2.TAP).Remove},
		"closed":              {true, func(tap *l2.TAP) error { return errors.Join(tap.Close(), tap.Remove()) }},
		"twice":               {true, func(tap *l2.TAP) error { return errors.Join(tap.Remove(), tap.Remove()) }},
		"left by a crash":     {true, func(tap *l2.TAP) error { return errors.Join(tap.Close(), l2.RemoveTAP("mesh0")) }},
		"ends with its close": {false, (*l2.TAP).Close},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			tap := openTAP(t, n, l2.TAPConfig{Name: "mesh0", MAC: macA, Persist: test.persist})
			n.do(func() error { return test.remove(tap) })
			if !gone(n, "mesh0") {
				t.Error("the interface is still there")
			}
		})
	}
	t.Run("never there", func(t *testing.T) {
		newNetwork(t).do(func() error { return l2.RemoveTAP("mesh0") })
	})
}

func TestTAPRefusals(t *testing.T) {
	type outcome struct{ text, remedy string }
	tests := map[string]struct {
		prepare func(t *testing.T, n *network)
		cfg     l2.TAPConfig
		remove  bool // RemoveTAP instead of OpenTAP
		want    outcome
	}{
		"held by another": {
			prepare: func(t *testing.T, n *network) { openTAP(t, n, l2.TAPConfig{Name: "mesh0"}) },
			cfg:     l2.TAPConfig{Name: "mesh0"},
			want:    outcome{fmt.Sprintf("another program holds it (pid %d, ", os.Getpid()), "stop that program"},
		},
		"held by another, to be removed": {
			prepare: func(t *testing.T, n *network) { openTAP(t, n, l2.TAPConfig{Name: "mesh0"}) },
			cfg:     l2.TAPConfig{Name: "mesh0"}, remove: true,
			want: outcome{"another program holds it", "stop that program"},
		},
		"a bridge": {
			prepare: addLink(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "mesh0"}}),
			cfg:     l2.TAPConfig{Name: "mesh0"},
			want:    outcome{"is a bridge, not a TAP", "choose another name"},
		},
		"a bridge, to be removed": {
			prepare: addLink(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "mesh0"}}),
			cfg:     l2.TAPConfig{Name: "mesh0"}, remove: true,
			want: outcome{"is a bridge, not a TAP", "choose another name"},
		},
		"a tun": {
			prepare: addLink(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "mesh0"}, Mode: netlink.TUNTAP_MODE_TUN}),
			cfg:     l2.TAPConfig{Name: "mesh0"},
			want:    outcome{"is a tun, not a TAP", "choose another name"},
		},
		"no name":        {cfg: l2.TAPConfig{}, want: outcome{"not an interface name", ""}},
		"a path":         {cfg: l2.TAPConfig{Name: "../all"}, want: outcome{"not an interface name", ""}},
		"a pattern":      {cfg: l2.TAPConfig{Name: "mesh%d"}, want: outcome{"not an interface name", ""}},
		"long name":      {cfg: l2.TAPConfig{Name: "mesh012345678901"}, want: outcome{"longer than 15", ""}},
		"small MTU":      {cfg: l2.TAPConfig{Name: "mesh0", MTU: 1279}, want: outcome{"1279", ""}},
		"multicast addr": {cfg: l2.TAPConfig{Name: "mesh0", MAC: l2.MAC{1}}, want: outcome{"multicast", ""}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			if test.prepare != nil {
				test.prepare(t, n)
			}
			var err error
			n.do(func() error {
				if test.remove {
					err = l2.RemoveTAP(test.cfg.Name)
				} else {
					_, err = l2.OpenTAP(test.cfg)
				}
				return nil
			})
			var why *l2.DeviceError
			if !errors.As(err, &why) || !strings.Contains(err.Error(), test.want.text) || !strings.Contains(why.Remedy, test.want.remedy) {
				t.Fatalf("error %v (%+v), want %+v", err, why, test.want)
			}
			if test.prepare == nil && !gone(n, "mesh0") {
				t.Error("an interface was made all the same")
			}
		})
	}
}

func addLink(link netlink.Link) func(*testing.T, *network) {
	return func(_ *testing.T, n *network) { n.do(func() error { return netlink.LinkAdd(link) }) }
}

func TestTAPWithoutDriver(t *testing.T) {
	n := newNetwork(t)
	tests := map[string]struct {
		cover  string // mounted over /dev/net/tun's directory
		remedy string
	}{
		"no device": {"tmpfs", "modprobe tun"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n.do(func() error {
				if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS),
					unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
					unix.Mount(test.cover, "/dev/net", test.cover, 0, "")); err != nil {
					return err
				}
				_, err := l2.OpenTAP(l2.TAPConfig{Name: "mesh0"})
				var why *l2.DeviceError
				if !errors.As(err, &why) || !strings.Contains(why.Remedy, test.remedy) {
					t.Errorf("error %v (%+v), want the remedy %q", err, why, test.remedy)
				}
				return nil
			})
		})
	}
}

func TestTAPWithoutRight(t *testing.T) {
	n := newNetwork(t)
	n.do(func() error {
		// The thread is given up afterwards, and with it what it has lost.
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		_, err := l2.OpenTAP(l2.TAPConfig{Name: "mesh0"})
		var why *l2.DeviceError
		if !errors.As(err, &why) || !strings.Contains(why.Remedy, "CAP_NET_ADMIN") {
			t.Errorf("error %v (%+v), want a remedy that names CAP_NET_ADMIN", err, why)
		}
		return nil
	})
	if !gone(n, "mesh0") {
		t.Error("an interface was made all the same")
	}
}

func TestTAPReadOnlySysctl(t *testing.T) {
	n := newNetwork(t)
	n.do(func() error {
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
			unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")); err != nil {
			return err
		}
		tap, err := l2.OpenTAP(l2.TAPConfig{Name: "mesh0"})
		if err != nil {
			return err
		}
		defer tap.Close()
		p := tap.Problems()
		if len(p) != 1 || p[0].Code != "tap-sysctl" || !strings.Contains(p[0].Remedy, "net.ipv6.conf.mesh0.accept_ra=0") {
			t.Errorf("problems %+v, want one of code tap-sysctl", p)
		}
		return nil
	})
}

// The interface goes away under the switch: an operator's `ip link del`.
func TestTAPDeleted(t *testing.T) {
	n := newNetwork(t)
	tap := openTAP(t, n, l2.TAPConfig{Name: "mesh0"})
	ended := make(chan error, 1)
	go func() { ended <- l2.NewSwitch(l2.Config{Device: tap, MAC: macA}).Run(context.Background()) }()
	n.do(func() error {
		link, err := netlink.LinkByName("mesh0")
		return errors.Join(err, netlink.LinkDel(link))
	})
	select {
	case err := <-ended:
		if err == nil {
			t.Fatal("Run ended without an error")
		}
	case <-time.After(patience):
		t.Fatal("Run did not end")
	}
}

func TestTAPDownDropsOnly(t *testing.T) {
	n := newNetwork(t)
	tap := openTAP(t, n, l2.TAPConfig{Name: "mesh0", MAC: macA})
	wire := newWire(t, n, "mesh0", ofTest)
	set := func(change func(netlink.Link) error) {
		n.do(func() error {
			link, err := netlink.LinkByName("mesh0")
			return errors.Join(err, change(link))
		})
	}
	frame := l2test.Frame(macA, macB, 1, 64)
	set(netlink.LinkSetDown)
	if err := tap.Write(l2test.Whole(frame)); err == nil {
		t.Error("writing to an interface that is down is no error")
	}
	set(netlink.LinkSetUp)
	if err := tap.Write(l2test.Whole(frame)); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, wire); !bytes.Equal(got, frame) {
		t.Fatalf("received %x, want %x", got, frame)
	}
}
