package way

import (
	"net/netip"
	"testing"
)

func TestVirtual(t *testing.T) {
	for _, c := range []struct {
		class Class
		id    uint64
		want  string
	}{
		{Relayed, 1, "[100::1:0:0:1]:1"},
		{TCP, 1<<48 - 1, "[100::2:ffff:ffff:ffff]:1"},
		{SSH, 0, "[100::3:0:0:0]:1"},
		{Relayed, 1<<48 | 7, "[100::1:0:0:7]:1"},
	} {
		a := Virtual(c.class, c.id)
		if a != netip.MustParseAddrPort(c.want) {
			t.Errorf("Virtual(%v, %#x) = %v, want %v", c.class, c.id, a, c.want)
		}
		if ClassOf(a) != c.class || ID(a) != c.id&(1<<48-1) || !IsVirtual(a.Addr()) {
			t.Errorf("%v: class %v, id %#x", a, ClassOf(a), ID(a))
		}
	}
}

func TestDirect(t *testing.T) {
	for _, s := range []string{"198.18.0.1:51830", "[2001:db8::1]:1", "[101::1:0:0:1]:1", "[100:0:0:1::1]:1", "[::ffff:1.0.0.0]:1", "[fe80::1%eth0]:1"} {
		if a := netip.MustParseAddrPort(s); ClassOf(a) != Direct || IsVirtual(a.Addr()) {
			t.Errorf("%v is %v", a, ClassOf(a))
		}
	}
	if !IsVirtual(netip.MustParseAddr("100::1%eth0")) {
		t.Error("a zone hides a virtual address")
	}
}

func TestSource(t *testing.T) {
	for _, c := range []struct{ addr, want string }{
		{"198.18.0.1", "198.18.0.1/32"},
		{"::ffff:198.18.0.1", "198.18.0.1/32"},
		{"2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"},
		{"fe80::1%eth0", "fe80::/64"},
		{"100::2:0:0:7", "100::2:0:0:7/128"},
	} {
		if got := Source(netip.MustParseAddr(c.addr)); got.String() != c.want {
			t.Errorf("Source(%s) = %v, want %s", c.addr, got, c.want)
		}
	}
	if got := Source(netip.Addr{}); got.IsValid() {
		t.Errorf("no address is of source %v", got)
	}
}
