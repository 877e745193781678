package udp_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"meshd/peer/udp"
)

func TestListenPort(t *testing.T) {
	v4, v6, err := udp.ListenPort(0, udp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if v4 == nil {
		t.Fatal("no IPv4 socket")
	}
	defer v4.Close()
	port := v4.LocalAddr().Port()
	if port == 0 || !v4.LocalAddr().Addr().Is4() {
		t.Errorf("bound to %v", v4.LocalAddr())
	}
	if v6 == nil {
		t.Skip("this host has no IPv6")
	}
	defer v6.Close()
	if v6.LocalAddr().Port() != port || !v6.LocalAddr().Addr().Is6() {
		t.Errorf("bound to %v and %v", v4.LocalAddr(), v6.LocalAddr())
	}
}

// TestListenPortTaken: when one family's port is taken, the other is let go.
func TestListenPortTaken(t *testing.T) {
	for _, addr := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		t.Run(addr.String(), func(t *testing.T) {
			taken := listen(t, netip.AddrPortFrom(addr, 0), udp.Options{})
			port := taken.LocalAddr().Port()
			v4, v6, err := udp.ListenPort(port, udp.Options{})
			if !errors.Is(err, syscall.EADDRINUSE) || v4 != nil || v6 != nil {
				t.Fatalf("ListenPort = %v, %v, %v", v4, v6, err)
			}
			_ = taken.Close()
			v4, v6, err = udp.ListenPort(port, udp.Options{})
			if err != nil {
				t.Fatalf("the port was kept: %v", err)
			}
			_, _ = v4.Close(), v6.Close()
		})
	}
}

// TestPortOwner: the error names the program, which is this test.
func TestPortOwner(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Skip("needs /proc")
	}
	want := fmt.Sprintf("address already in use by %q (pid %d)", strings.TrimSpace(string(comm)), os.Getpid())
	for _, v6 := range []bool{false, true} {
		taken := listen(t, loopback(v6), udp.Options{})
		_, err := udp.Listen(taken.LocalAddr(), udp.Options{})
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("Listen on a port in use: %v", err)
		}
	}
}

func TestListenRefuses(t *testing.T) {
	for name, addr := range map[string]netip.AddrPort{
		"no address":       {},
		"foreign address":  netip.MustParseAddrPort("192.0.2.1:0"),
		"foreign address6": netip.MustParseAddrPort("[2001:db8::1]:0"),
	} {
		if c, err := udp.Listen(addr, udp.Options{}); err == nil {
			t.Errorf("%s: listening on %v", name, c.LocalAddr())
			_ = c.Close()
		}
	}
}
