package udptest

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"meshd/peer/udp"
)

func openPair(t *testing.T, v6 bool) (a, b udp.Conn) {
	n := NewInternet(1)
	n.LogOnFailure(t)
	var conns [2]udp.Conn
	for i, s := range []string{"198.18.0.1", "198.18.0.2"} {
		addr := netip.MustParseAddr(s)
		if v6 {
			addr = netip.MustParseAddr([]string{"2001:db8::1", "2001:db8::2"}[i])
		}
		h := n.Host(addr)
		h.SetLink(Link{Delay: time.Millisecond}, Link{Delay: time.Millisecond})
		c, err := h.ListenAddr(netip.AddrPortFrom(addr, 0))
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c
	}
	return conns[0], conns[1]
}

func TestConformance(t *testing.T) { TestConn(t, openPair) }

func TestConformanceInBubble(t *testing.T) {
	for name, run := range map[string]func(*testing.T, udp.Conn, udp.Conn){
		"groups": testGroups, "order": testOrder, "concurrent": testConcurrent, "close": testClose,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := openPair(t, false)
				run(t, a, b)
			})
		})
	}
}
