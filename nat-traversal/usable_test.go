package traversal

import (
	"net/netip"
	"testing"
)

func TestUsable(t *testing.T) {
	for s, want := range map[string]bool{
		"198.18.0.1": true, "10.0.0.1": true, "192.168.1.5": true, "100.64.0.1": true, "169.254.7.7": true, "8.8.8.8": true,
		"127.0.0.1": false, "127.9.9.9": false, "0.0.0.0": false, "0.1.2.3": false,
		"224.0.0.1": false, "239.255.255.250": false, "240.0.0.1": false, "255.255.255.255": false,
		"2001:db8::1": true, "fd00::1": true, "2a00:1450::1": true, "64:ff9b::808:808": true,
		"::": false, "::1": false, "::127.0.0.1": false, "ff02::1": false, "ff0e::1": false,
		"fe80::1": false, "fe80::1%eth0": false, "2001:db8::1%eth0": false,
		"::ffff:127.0.0.1": false, "::ffff:198.18.0.1": false,
	} {
		if got := Usable(netip.MustParseAddr(s)); got != want {
			t.Errorf("Usable(%s) = %v", s, got)
		}
	}
	if Usable(netip.Addr{}) {
		t.Error("the zero address is usable")
	}
	if UsableEndpoint(netip.MustParseAddrPort("198.18.0.1:0")) || !UsableEndpoint(netip.MustParseAddrPort("198.18.0.1:1")) {
		t.Error("port 0 is usable, or port 1 is not")
	}
}

func FuzzUsable(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1})
	f.Add(make([]byte, 16))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok || !Usable(a) {
			return
		}
		// By the standard library alone, on what a socket would make of it.
		if u := a.Unmap(); u.IsLoopback() || u.IsMulticast() || u.IsUnspecified() || u.IsInterfaceLocalMulticast() {
			t.Errorf("%v is usable", a)
		}
	})
}
