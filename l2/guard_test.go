package l2

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"meshd/l2/l2test/frames"
)

var (
	macOfMallory = MAC(snoopSrc)
	victim6      = netip.MustParseAddr("fd00::b")
	victimHost   = MAC{2, 0, 0, 0, 0, 0x1b} // behind B
)

// from returns frame with another Ethernet source.
func from(src MAC, frame []byte) []byte { return frames.From(src[:], frame) }

// speaking returns an ARP frame of a host about itself.
func speaking(mac MAC, ip string) []byte { return frames.Speaking(mac[:], ip) }

// attacks are those that mallory can try in the segment that guarded makes.
func attacks() map[string][]byte {
	hw := func(mac MAC) net.HardwareAddr { return mac[:] }
	return frames.Cast{
		Thief: snoopSrc, Own: hw(ownMAC), OwnHost: hw(host1), Member: hw(macOfB), MembersHost: hw(victimHost),
		Router: hw(MAC{2, 0, 0, 0, 0, 0xc}), RoutersHost: hw(host2),
		Own4: "10.0.0.255", OwnHost4: "10.0.0.50", Member4: "10.0.0.11", MembersHost4: "10.0.0.27", Router4: "10.0.0.1",
		Own6: "fd00::ff", Member6: victim6.String(), Free6: "fd00::77",
	}.Attacks()
}

// guarded is a segment with a member of no role, a victim and a router.
func guarded(t testing.TB) *rig {
	r := newRig(t, Config{StormRate: 1e6, StormBurst: 1e6})
	r.connect("mallory", Allow{MAC: macOfMallory, Addresses: []netip.Addr{netip.MustParseAddr("fd00::a")}})
	r.connect("b", Allow{MAC: macOfB, Addresses: []netip.Addr{victim6}})
	r.connect("router", Allow{MAC: MAC{2, 0, 0, 0, 0, 0xc}, Bridge: true, Router: true, DHCP: true})
	r.sw.SetOwn(Allow{MAC: ownMAC, Addresses: []netip.Addr{netip.MustParseAddr("fd00::ff")}})
	for _, hello := range []struct {
		at  string
		mac MAC
		ip  string
	}{{"b", macOfB, "10.0.0.11"}, {"b", victimHost, "10.0.0.27"}, {"", ownMAC, "10.0.0.255"}, {"", host1, "10.0.0.50"}, {"router", host2, "10.0.0.1"}} {
		if got := r.send(hello.at, speaking(hello.mac, hello.ip)); got == "" || got[0] == '!' {
			t.Fatalf("%s says that it has %s: %s", hello.mac, hello.ip, got)
		}
	}
	return r
}

// TestAttacksAreRefused sends each frame a thousand times: nothing of it leaves the switch.
func TestAttacksAreRefused(t *testing.T) {
	all := attacks()
	if len(all) < 30 {
		t.Fatalf("%d attacks", len(all))
	}
	for name, frame := range all {
		t.Run(name, func(t *testing.T) {
			r := guarded(t)
			for range 1000 {
				if got := r.send("mallory", frame); got == "" || got[0] != '!' {
					t.Fatalf("went to %q", got)
				}
			}
		})
	}
}

// TestHonestFramesPass has the same said by those who may.
func TestHonestFramesPass(t *testing.T) {
	routerMAC := MAC{2, 0, 0, 0, 0, 0xc}
	b := net.HardwareAddr(macOfB[:])
	tests := map[string]struct {
		at    string
		frame []byte
	}{
		"a member's own addresses":     {"b", from(macOfB, advertisement(victim6.String(), b))},
		"its link-local address":       {"b", from(macOfB, advertisement(linkLocal(macOfB).String(), b))},
		"an address that nobody has":   {"mallory", arp(snoopSrc, "10.0.0.99", 1)},
		"its host's own address again": {"b", speaking(victimHost, "10.0.0.27")},
		"another host behind the same": {"b", speaking(host3, "10.0.0.27")},
		"duplicate detection":          {"mallory", solicitation("::", snoopSrc)},
		"arp probe":                    {"mallory", arp(snoopSrc, "0.0.0.0", 1)},
		"the router's advertisement":   {"router", from(routerMAC, routerAdvertisement(linkLocal(routerMAC).String(), routerMAC[:]))},
		"a router behind it":           {"router", from(host2, routerAdvertisement("fe80::7", host2[:]))},
		"its redirect":                 {"router", from(routerMAC, redirect())},
		"its dhcp offer":               {"router", from(routerMAC, udp(false, 67, 68, bootReply, 1, 6, 0))},
		"its dhcpv6 reply":             {"router", from(routerMAC, udp(true, 547, 546, 7, 0, 0, 1))},
		"a dhcp request":               {"mallory", udp(false, 68, 67, 1, 1, 6, 0)},
		"a router solicitation":        {"mallory", nd("fe80::5", ndRouterSolicitation, &layers.ICMPv6RouterSolicitation{Options: option(layers.ICMPv6OptSourceAddress, snoopSrc)})},
		"an echo in fragments":         {"mallory", extended(nd("fd00::5", layers.ICMPv6TypeEchoRequest, &layers.ICMPv6Echo{}), nextFragment, 1)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := guarded(t).send(test.at, test.frame); got != "host" {
				t.Errorf("went to %q", got)
			}
		})
	}
}

// TestAddressMoves lets an address go to another host when the first has been silent for as long as a station lives,
// and not before.
func TestAddressMoves(t *testing.T) {
	r := guarded(t)
	takes := func(at string, mac MAC, want string) {
		t.Helper()
		if got := r.send(at, speaking(mac, "10.0.0.27")); got != want {
			t.Errorf("after %v: %q, want %q", r.time, got, want)
		}
	}
	r.time = r.time.Add(DefaultAge - time.Second)
	takes("mallory", macOfMallory, "!address-taken")
	r.time = r.time.Add(2 * time.Second)
	takes("mallory", macOfMallory, "host")
	takes("b", victimHost, "!address-taken") // its new holder is there
	r.disconnect("mallory")
	takes("b", victimHost, "host")
}

// TestOwnHostHasNoRoles keeps what this host may not send from leaving it.
func TestOwnHostHasNoRoles(t *testing.T) {
	r := guarded(t)
	ra := from(ownMAC, routerAdvertisement(linkLocal(ownMAC).String(), ownMAC[:]))
	if got := r.send("", ra); got != "!router" {
		t.Errorf("without the role: %q", got)
	}
	r.sw.SetOwn(Allow{MAC: ownMAC, Router: true})
	if got := r.send("", ra); got != "b mallory router" {
		t.Errorf("with the role: %q", got)
	}
	if got := r.send("", from(ownMAC, arp(ownMAC[:], "10.0.0.11", 1))); got != "!address-taken" {
		t.Errorf("a member's address: %q", got)
	}
}

func TestGuardsAllocateNothing(t *testing.T) {
	r := guarded(t)
	frames := [][]byte{arp(snoopSrc, "10.0.0.99", 1), advertisement("fd00::a", snoopSrc), advertisement(victim6.String(), snoopSrc)}
	port := r.remotes["mallory"]
	judge := func() {
		for _, frame := range frames {
			port.judge(r.sw.view.Load(), frame)
		}
	}
	judge()
	if got := testing.AllocsPerRun(1000, judge); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
