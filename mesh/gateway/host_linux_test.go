package gateway

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// enter moves the test to a network namespace of its own, with an uplink eth0, a bridge br0 with a port, and a TAP. The
// thread ends with the test, which must not start subtests.
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
		"link set lo up", "link add eth0 type veth peer name far", "link set far up", "link set eth0 up",
		"link add br0 type bridge", "link add p0 type veth peer name l0", "link set l0 up", "link set p0 master br0 up", "link set br0 up",
		"addr add 192.0.2.5/24 dev eth0", "route add default via 192.0.2.1 dev eth0",
	} {
		run(t, "ip", strings.Fields(line)...)
	}
	plugTAP(t, "br0")
	for _, name := range []string{"eth0", "br0"} { // routes by what has no carrier do not count
		for end := time.Now().Add(5 * time.Second); !strings.Contains(run(t, "ip", "link", "show", name), "state UP"); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(run(t, "ip", "link"))
			}
		}
	}
}

// plugTAP makes the TAP anew, in a bridge.
func plugTAP(t *testing.T, bridge string) {
	t.Helper()
	for _, line := range []string{"tuntap add mesh0 mode tap", "link set mesh0 up", "link set mesh0 master " + bridge} {
		run(t, "ip", strings.Fields(line)...)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// changed is what this node may have changed of the host, the TAP apart.
func changed(t *testing.T) string {
	t.Helper()
	return run(t, "sh", "-c", `ip -4 addr | grep inet; ip -4 route; ip -6 route show table all proto 109; ip rule; ip -6 rule
nft list ruleset; grep . /proc/sys/net/ipv4/conf/br0/forwarding /proc/sys/net/ipv4/conf/eth0/forwarding`)
}

func host(t *testing.T, notes *[]byte) *Host {
	t.Helper()
	h, err := Open("mesh0", *notes, func(b []byte) error { *notes = b; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// all is all that a host without an uplink of its own may be asked for.
func all() Want {
	router, prefix := netip.MustParseAddr("fe80::6d:1"), netip.MustParsePrefix("fd00:6d::/64")
	return Want{
		Default: router, NAT4: netip.MustParsePrefix("10.66.0.0/24"),
		Prefixes: []Prefix{{Prefix: prefix, Own: netip.MustParseAddr("fd00:6d::5"), Via: router}},
	}
}

// at checks on which interface the default route and the address are.
func at(t *testing.T, what, inside string) {
	t.Helper()
	for _, name := range []string{"mesh0", "br0"} {
		out := run(t, "ip", "-6", "route", "show", "default", "dev", name) + run(t, "ip", "-4", "addr", "show", "dev", name)
		want := 0
		if name == inside {
			want = 2
		}
		if got := strings.Count(out, "fe80::6d:1") + strings.Count(out, "10.66.0.1/24"); got != want {
			t.Errorf("%s: %s has %d of route and address, want %d:\n%s", what, name, got, want, out)
		}
	}
}

// TestBridgeLeft: a node whose TAP is in a bridge that was there has set routes and an address there. All of it is put
// back, in whatever order the TAP and the process end.
func TestBridgeLeft(t *testing.T) {
	enter(t)
	before := changed(t)
	for _, c := range []struct {
		name, gone string // what becomes of the TAP before the routes are put back
		killed     bool
	}{
		{"ended", "", false},
		{"killed", "", true},
		{"out of the bridge", "link set mesh0 nomaster", false},
		{"killed and out of the bridge", "link set mesh0 nomaster", true},
		{"TAP gone", "link del mesh0", false},
		{"killed and TAP gone", "link del mesh0", true},
	} {
		var notes []byte
		h := host(t, &notes)
		for range 2 { // level-triggered
			if err := h.Sync(all()); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		at(t, c.name, "br0")
		if c.gone != "" {
			run(t, "ip", strings.Fields(c.gone)...)
		}
		if c.killed {
			h = host(t, &notes)
		}
		if err := h.Close(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if after := changed(t); after != before {
			t.Errorf("%s: was\n%s\nis\n%s", c.name, before, after)
		}
		if len(notes) > 0 {
			t.Errorf("%s: noted is %s", c.name, notes)
		}
		if strings.HasPrefix(c.gone, "link del") {
			plugTAP(t, "br0")
		} else {
			run(t, "ip", "link", "set", "mesh0", "master", "br0")
		}
	}
}

// TestBridgeMoves: the TAP leaves its bridge and comes back while the node runs.
func TestBridgeMoves(t *testing.T) {
	enter(t)
	before := changed(t)
	var notes []byte
	h := host(t, &notes)
	for _, c := range []struct{ hand, inside string }{
		{"link set mesh0 master br0", "br0"}, {"link set mesh0 nomaster", "mesh0"}, {"link set mesh0 master br0", "br0"},
	} {
		run(t, "ip", strings.Fields(c.hand)...)
		if err := h.Sync(all()); err != nil {
			t.Fatalf("%s: %v", c.hand, err)
		}
		at(t, c.hand, c.inside)
		if rules := run(t, "nft", "list", "ruleset"); !strings.Contains(rules, `oifname != "`+c.inside+`" masquerade`) {
			t.Errorf("%s: %s", c.hand, rules)
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if after := changed(t); after != before || len(notes) > 0 {
		t.Errorf("was\n%s\nis\n%s\nnoted is %s", before, after, notes)
	}
}

// TestFlushed: masquerading is there again after others have flushed nftables, and is left alone while it is there.
func TestFlushed(t *testing.T) {
	enter(t)
	var notes []byte
	h := host(t, &notes)
	rules := func() string {
		t.Helper()
		if err := h.Sync(all()); err != nil {
			t.Fatal(err)
		}
		return run(t, "nft", "-a", "list", "ruleset")
	}
	first := rules()
	if !strings.Contains(first, "ip saddr 10.66.0.0/24") || !strings.Contains(first, "masquerade") {
		t.Fatal(first)
	}
	if again := rules(); again != first {
		t.Errorf("made anew although it was there:\n%s\n%s", first, again)
	}
	table := strings.Fields(first)[2]
	for _, hand := range []string{"flush ruleset", "flush table ip " + table, "delete table ip " + table, "add rule ip " + table + " leave drop"} {
		run(t, "nft", hand)
		if got := rules(); strings.Count(got, "masquerade") != 1 || strings.Contains(got, "drop") {
			t.Errorf("after nft %s:\n%s", hand, got)
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if left := run(t, "nft", "list", "ruleset"); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestUplinkInBridge: default routes by the bridge that the TAP is in are no uplink, and are told apart from ours.
func TestUplinkInBridge(t *testing.T) {
	enter(t)
	var notes []byte
	h := host(t, &notes)
	defer h.Close()
	lan := netip.MustParseAddr("fe80::1")
	check := func(what string, up string, beside ...netip.Addr) {
		t.Helper()
		u, ok, err := h.Uplink()
		if err != nil || ok != (up != "") || u.Name != up || !slices.Equal(u.Beside, beside) {
			t.Errorf("%s: %+v, %v, %v; want %q, %v", what, u, ok, err, up, beside)
		}
	}
	blamed := func() bool {
		return slices.ContainsFunc(h.Problems(all()), func(p Problem) bool { return strings.Contains(p.Text, "leaves by br0") })
	}
	check("none", "")
	if err := h.Sync(all()); err != nil {
		t.Fatal(err)
	}
	check("ours", "")
	run(t, "ip", "-6", "route", "add", "default", "via", lan.String(), "dev", "br0")
	check("of the LAN", "", lan)
	run(t, "ip", "-6", "route", "add", "default", "via", "fe80::2", "dev", "eth0", "metric", "2048")
	check("and another", "eth0")
	if blamed() {
		t.Error("blamed is IPv4 although it has an uplink")
	}
	run(t, "ip", "route", "add", "default", "via", "192.0.2.9", "dev", "br0", "onlink", "metric", "50")
	if blamed() {
		t.Error("blamed is IPv4 although it has an uplink, too")
	}
	run(t, "ip", "route", "del", "default", "dev", "eth0")
	if !blamed() {
		t.Errorf("IPv4 leads into the bridge, and the problems are %+v", h.Problems(all()))
	}
}
