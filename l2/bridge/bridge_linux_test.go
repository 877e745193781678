package bridge

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// enter moves the test to a network namespace of its own, with eth0 on a cable, a TAP,
// and what a host has. The thread ends with the test, which must not start subtests.
func enter(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
	for _, line := range []string{
		"link set lo up", "link add eth0 type veth peer name far", "link set far up",
		"link set eth0 up", "tuntap add mesh0 mode tap", "link set mesh0 up",
		"addr add 192.0.2.5/24 brd + dev eth0", "addr add 10.1.2.3/32 dev eth0 label eth0:x",
		"addr add 2001:db8:5::5/64 dev eth0 nodad", "addr add 2001:db8:6::5/64 dev eth0 nodad noprefixroute",
		"addr add 2001:db8:7::5/64 dev eth0 nodad valid_lft 5000 preferred_lft 0",
		"route add default via 192.0.2.1 dev eth0 metric 100 congctl cubic", "route add 203.0.113.0/24 via 192.0.2.9 mtu 1400",
		"route add default via 192.0.2.2 dev eth0 table 77", "-6 route add default via fe80::1 dev eth0 metric 1024",
		"-6 route add 2001:db8:9::/48 via 2001:db8:5::1 dev eth0", "-6 route del 2001:db8:5::/64 dev eth0", "-6 route add 2001:db8:5::/64 dev eth0 metric 1024",
	} {
		ip(t, line)
	}
	for _, name := range []string{"eth0", "far", "mesh0"} {
		waitInUse(t, name)
	}
}

// waitInUse waits until no address of a link is tentative: the kernel may take more than two seconds for that.
func waitInUse(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; awaitUse(index(t, name)) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if inUse(link) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: its addresses are not in use", name)
		}
	}
}

func ip(t *testing.T, line string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", line, err, out)
	}
	return string(out)
}

func index(t *testing.T, name string) int {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

// settings are the host's, without what changes by itself.
func settings(t *testing.T) string {
	t.Helper()
	s := ip(t, "link show") + ip(t, "addr show") + ip(t, "-4 route show table all") + ip(t, "-6 route show table all") + ip(t, "rule show")
	s = regexp.MustCompile(`(valid|preferred)_lft \d+sec`).ReplaceAllString(s, "${1}_lft N")
	return regexp.MustCompile(`expires \d+sec`).ReplaceAllString(s, "expires N")
}

var mac = [6]byte{2, 0x6d, 0x65, 0x73, 0x68, 1}

func compare(t *testing.T, what, before, after string) {
	t.Helper()
	if before == after {
		return
	}
	b := map[string]bool{}
	for _, l := range strings.Split(before, "\n") {
		b[l] = true
	}
	a := map[string]bool{}
	for _, l := range strings.Split(after, "\n") {
		a[l] = true
		if !b[l] {
			t.Errorf("%s: new: %s", what, l)
		}
	}
	for l := range b {
		if !a[l] {
			t.Errorf("%s: missing: %s", what, l)
		}
	}
	if !t.Failed() {
		was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
		for i := range min(len(was), len(is)) {
			if was[i] != is[i] {
				t.Errorf("%s: another order: %q, was %q", what, is[i], was[i])
			}
		}
	}
}

func open(t *testing.T, name string) (*Bridge, *[]byte) {
	t.Helper()
	record := new([]byte)
	b, err := Open(Config{Name: name, TAP: "mesh0", MAC: mac, Note: func(r []byte) error { *record = r; return nil }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b, record
}

func TestInterface(t *testing.T) {
	enter(t)
	before := settings(t)
	b, record := open(t, "eth0")
	member := netip.MustParsePrefix("fd00:6d::5/64")
	if err := b.SetAddresses([]netip.Prefix{member}); err != nil {
		t.Fatal(err)
	}
	on := ip(t, "addr show dev br-mesh0") + ip(t, "route show dev br-mesh0 table all") + ip(t, "-6 route show dev br-mesh0 table all")
	for _, want := range []string{"192.0.2.5/24", "10.1.2.3/32", "2001:db8:7::5/64", member.String(), net.HardwareAddr(mac[:]).String(), "default via 192.0.2.1", "via fe80::1", "table 77", "congctl cubic"} {
		if !strings.Contains(on, want) {
			t.Errorf("%s is not on the bridge:\n%s", want, on)
		}
	}
	if left := ip(t, "-4 addr show dev eth0") + ip(t, "-4 route show dev eth0") + ip(t, "-6 addr show dev eth0 scope global"); left != "" {
		t.Errorf("left on eth0: %s", left)
	}
	quiet := settings(t)
	for _, old := range [][]netip.Addr{{member.Addr()}, nil} {
		if err := b.Deprecate(old); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if p := b.Sync(); p != nil {
				t.Fatalf("%+v", p)
			}
		}
		if is := strings.Contains(ip(t, "addr show dev br-mesh0 to "+member.Addr().String()), "deprecated"); is != (old != nil) {
			t.Errorf("deprecated: %v, of %v", is, old)
		}
	}
	compare(t, "nothing was to be repaired", quiet, settings(t))
	if !b.Link() {
		t.Error("no link")
	}
	if err := b.Undo(); err != nil {
		t.Fatal(err)
	}
	compare(t, "undone", before, settings(t))
	if len(*record) != 0 {
		t.Errorf("noted is %s", *record)
	}
}

func TestUndoAfterKill(t *testing.T) {
	enter(t)
	before := settings(t)
	b, record := open(t, "eth0")
	if err := b.SetAddresses([]netip.Prefix{netip.MustParsePrefix("fd00:6d::5/64")}); err != nil {
		t.Fatal(err)
	}
	// A second process takes over what the first has left.
	again, err := Open(Config{Name: "eth0", TAP: "mesh0", MAC: mac, Note: func(r []byte) error { *record = r; return nil }}, *record)
	if err != nil {
		t.Fatal(err)
	}
	if again.Name() != "br-mesh0" {
		t.Errorf("the bridge is %q", again.Name())
	}
	for range 2 { // the second finds nothing to do
		if err := Undo(*record); err != nil {
			t.Fatal(err)
		}
		compare(t, "undone", before, settings(t))
	}
}

func TestExistingBridge(t *testing.T) {
	enter(t)
	ip(t, "link add br0 type bridge")
	ip(t, "link add d0 type veth peer name d1")
	ip(t, "link set d0 master br0 up")
	ip(t, "link set d1 up")
	ip(t, "link set br0 address 02:00:00:00:00:99 up")
	ip(t, "addr add 198.51.100.1/24 dev br0")
	for _, name := range []string{"br0", "d0", "d1"} {
		waitInUse(t, name)
	}
	before := settings(t)
	b, _ := open(t, "br0")
	if err := b.SetAddresses([]netip.Prefix{netip.MustParsePrefix("fd00:6d::5/64")}); err != nil {
		t.Fatal(err)
	}
	if out := ip(t, "link show br0"); !strings.Contains(out, net.HardwareAddr(mac[:]).String()) {
		t.Errorf("not the member's address: %s", out)
	}
	if err := b.Undo(); err != nil {
		t.Fatal(err)
	}
	compare(t, "undone", before, settings(t))
}

// TestFollowingBridge: a bridge that nobody gave an address has the least of its ports', and gets that of those that it
// has by then.
func TestFollowingBridge(t *testing.T) {
	enter(t)
	ip(t, "link add br0 type bridge")
	ip(t, "link add d0 address 02:00:00:00:00:55 type veth peer name d1")
	ip(t, "link set d0 master br0 up")
	b, record := open(t, "br0")
	ip(t, "link add e0 address 02:00:00:00:00:33 type veth peer name e1")
	ip(t, "link set e0 master br0 up")
	ip(t, "link del d0")
	if err := b.Undo(); err != nil {
		t.Fatal(err)
	}
	if out := ip(t, "link show br0"); !strings.Contains(out, "02:00:00:00:00:33") || len(*record) > 0 {
		t.Errorf("%s, noted is %s", out, *record)
	}
}

// TestRepair takes apart by hand what was put together.
func TestRepair(t *testing.T) {
	enter(t)
	before := settings(t)
	b, _ := open(t, "eth0")
	whole := settings(t)
	for _, hand := range []string{"link set mesh0 nomaster", "link set eth0 nomaster", "link set br-mesh0 address 02:00:00:00:00:77"} {
		ip(t, hand)
		if p := b.Sync(); p != nil {
			t.Errorf("%s: %+v", hand, p)
		}
		compare(t, hand, whole, settings(t))
	}
	ip(t, "addr add 192.0.2.77/24 dev eth0") // as a DHCP client does
	if p := b.Sync(); p != nil || !strings.Contains(ip(t, "addr show dev br-mesh0"), "192.0.2.77") {
		t.Errorf("an address that came was not moved: %+v", p)
	}
	ip(t, "addr del 192.0.2.77/24 dev br-mesh0")
	b.record.Addrs = b.record.Addrs[:len(b.record.Addrs)-1]
	ip(t, "link del br-mesh0")
	if p := b.Sync(); p != nil {
		t.Errorf("bridge gone: %+v", p)
	}
	if !strings.Contains(ip(t, "addr show dev br-mesh0"), "192.0.2.5/24") {
		t.Error("the bridge did not come back")
	}
	if err := b.Undo(); err != nil {
		t.Fatal(err)
	}
	compare(t, "undone", before, settings(t))
}

func TestBridgeGone(t *testing.T) {
	enter(t)
	ip(t, "link add br0 type bridge")
	b, _ := open(t, "br0")
	ip(t, "link del br0")
	if p := b.Sync(); len(p) != 1 || p[0].Remedy == "" {
		t.Errorf("%+v", p)
	}
	if b.Link() {
		t.Error("a link by a bridge that is gone")
	}
	ip(t, "link add br0 type bridge")
	if p := b.Sync(); p != nil {
		t.Errorf("it is back: %+v", p)
	}
	if err := b.Undo(); err != nil {
		t.Error(err)
	}
}

func TestProblems(t *testing.T) {
	enter(t)
	b, _ := open(t, "eth0")
	if p := b.Sync(); p != nil {
		t.Errorf("all is well: %+v", p)
	}
	ip(t, "link set eth0 mtu 1400")
	if p := b.Sync(); len(p) != 1 || p[0].Code != "bridge-mtu" || !strings.Contains(p[0].Text, "eth0 is 1400") {
		t.Errorf("a smaller MTU: %+v", p)
	}
	dir := t.TempDir()
	if p := filtered(dir); p != nil {
		t.Errorf("without the module: %+v", p)
	}
	for name, value := range map[string]string{"bridge-nf-call-iptables": "1\n", "bridge-nf-call-ip6tables": "0\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p := filtered(dir); p != nil {
		t.Errorf("without a firewall: %+v", p)
	}
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	drop := nftables.ChainPolicyDrop
	conn.AddChain(&nftables.Chain{
		Name: "forward", Table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"}),
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if p := filtered(dir); len(p) != 1 || p[0].Remedy[:len("sysctl -w net.bridge.bridge-nf-call-iptables=0,")] != "sysctl -w net.bridge.bridge-nf-call-iptables=0," {
		t.Errorf("%+v", p)
	}
	if err := b.Undo(); err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	enter(t)
	ip(t, "link add br0 type bridge")
	ip(t, "link add d0 type veth peer name d1")
	ip(t, "link set d0 master br0")
	before := settings(t)
	for name, want := range map[string]string{
		"lo": "no Ethernet", "nothing0": "no such interface", "d0": "belongs to another", "../x": "not an interface name", "": "not an interface name",
	} {
		_, err := Open(Config{Name: name, TAP: "mesh0", MAC: mac, Note: func([]byte) error { return nil }}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
	compare(t, "refused", before, settings(t))
}

func TestWireless(t *testing.T) {
	root := t.TempDir()
	for name, sign := range map[string]string{"wlan0": "phy80211", "wlan1": "wireless", "eth0": "device"} {
		if err := os.MkdirAll(filepath.Join(root, name, sign), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"wlan0": true, "wlan1": true, "eth0": false, "gone": false} {
		if got := wirelessOf(root, name); got != want {
			t.Errorf("%s wireless: %v", name, got)
		}
	}
	answer := func(kind uint32, four byte) []byte {
		b := []byte{7, 1, 0, 0}
		b = appendAttr(b, attr{4, []byte("wlan0\x00")})
		b = appendAttr(b, attr{attrIftype, binary.NativeEndian.AppendUint32(nil, kind)})
		return appendAttr(b, attr{attr4Addr, []byte{four}})
	}
	for _, c := range []struct {
		what string
		raw  []byte
		want bool
	}{
		{"station", answer(2, 0), false},
		{"station with four addresses", answer(2, 1), true},
		{"access point", answer(3, 0), true},
		{"mesh point", answer(7, 0), true},
		{"monitor", answer(6, 0), false},
		{"cut off", answer(3, 0)[:9], false},
		{"nothing", nil, false},
	} {
		if got := parseRadio(c.raw).bridges(); got != c.want {
			t.Errorf("%s: can be bridged: %v", c.what, got)
		}
	}
}
