package radv

import (
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/ndp"
)

var (
	uplinkMAC = MAC{2, 0, 0, 0, 1, 1}
	ispMAC    = MAC{2, 0, 0, 0, 1, 2}
)

func question6(src netip.Addr, target string) []byte {
	ip := netip.MustParseAddr(target)
	f, err := Packet{ispMAC, GroupMAC(SolicitedNode(ip)), src, SolicitedNode(ip), &ndp.NeighborSolicitation{TargetAddress: ip}}.Frame()
	if err != nil {
		panic(err)
	}
	return f
}

func TestProxy(t *testing.T) {
	here := map[string]bool{"2001:db8:1:2::7": true}
	held := func(ip netip.Addr) bool { return here[ip.String()] }
	p := NewProxy(uplinkMAC, []netip.Addr{netip.MustParseAddr("2001:db8:1:2::1")})
	p.Serve([]netip.Prefix{prefix}, []netip.Prefix{prefix})
	isp := LinkLocal(ispMAC)
	now := epoch
	for _, c := range []struct {
		name   string
		frame  []byte
		answer string // to whom
		ask    int
	}{
		{"known", question6(isp, "2001:db8:1:2::7"), isp.String(), 0},
		{"by one who wants it", question6(netip.IPv6Unspecified(), "2001:db8:1:2::7"), "ff02::1", 0},
		{"unknown", question6(isp, "2001:db8:1:2::8"), "", 1},
		{"again: the segment is asked once", question6(isp, "2001:db8:1:2::8"), "", 0},
		{"the uplink's own", question6(isp, "2001:db8:1:2::1"), "", 0},
		{"another prefix", question6(isp, "2001:db8:1:3::7"), "", 0},
		{"no solicitation", []byte("junk"), "", 0},
	} {
		p.Receive(c.frame, now)
		frames, ask, _ := p.Poll(now, held)
		got := ""
		if len(frames) == 1 {
			k, err := Parse(frames[0])
			if err != nil || k.SrcMAC != uplinkMAC || !k.Message.(*ndp.NeighborAdvertisement).Override {
				t.Errorf("%s: %+v, %v", c.name, k, err)
			}
			got = k.Dst.String()
		}
		if got != c.answer || len(ask) != c.ask {
			t.Errorf("%s: answered %q, asked %v", c.name, got, ask)
		}
	}
	// The segment answers: so do we.
	here["2001:db8:1:2::8"] = true
	now = now.Add(lookAgain)
	if frames, _, next := p.Poll(now, held); len(frames) != 1 || !next.IsZero() {
		t.Errorf("%d answers, next %v", len(frames), next)
	}
	// It does not: that ends, too.
	p.Receive(question6(isp, "2001:db8:1:2::9"), now)
	polls := 0
	for next := now; !next.IsZero(); polls++ {
		now = next
		_, _, next = p.Poll(now, held)
	}
	if polls < 10 || polls > int(pendingFor/lookAgain)+2 {
		t.Errorf("%d polls", polls)
	}
}

// TestProxyBounded: a scan of the prefix costs little.
func TestProxyBounded(t *testing.T) {
	p := NewProxy(uplinkMAC, nil)
	p.Serve([]netip.Prefix{prefix}, []netip.Prefix{prefix})
	asked, now := 0, epoch
	for i := range 10000 {
		a := prefix.Addr().As16()
		a[14], a[15] = byte(i>>8), byte(i)
		p.Receive(question6(LinkLocal(ispMAC), netip.AddrFrom16(a).String()), now)
		_, ask, _ := p.Poll(now, func(netip.Addr) bool { return false })
		asked += len(ask)
		now = now.Add(time.Millisecond)
	}
	if most := maxPending * 8; asked > most {
		t.Errorf("the segment was asked %d times in 10 s, at most %d wanted", asked, most)
	}
}

// TestAnnounce: a standby does not answer, and announces at its turn what the active
// one has told it, and nothing that was only asked for.
func TestAnnounce(t *testing.T) {
	p := NewProxy(uplinkMAC, nil)
	p.Serve([]netip.Prefix{prefix}, nil)
	for _, target := range []string{"2001:db8:1:2::7", "2001:db8:9::1", "2001:db8:1:2::7"} {
		p.Receive(question6(LinkLocal(ispMAC), target), epoch)
	}
	if frames, ask, next := p.Poll(epoch, func(netip.Addr) bool { return true }); len(frames)+len(ask) > 0 || !next.IsZero() {
		t.Errorf("a standby says %d things and asks %d", len(frames), len(ask))
	}
	if len(p.Announce(prefix)) != 0 {
		t.Error("announced what may be on the uplink")
	}
	p.Remember([]netip.Addr{netip.MustParseAddr("2001:db8:9::1"), netip.MustParseAddr("2001:db8:1:2::7")})
	if got := p.Sought(5); len(got) != 1 {
		t.Errorf("sought: %v", got)
	}
	frames := p.Announce(prefix)
	if len(frames) != 1 {
		t.Fatalf("%d frames", len(frames))
	}
	k, err := Parse(frames[0])
	if m, ok := k.Message.(*ndp.NeighborAdvertisement); err != nil || !ok || m.Solicited || !m.Override || m.TargetAddress.String() != "2001:db8:1:2::7" {
		t.Errorf("%+v, %v", k, err)
	}
}

// FuzzProxy gives any frame to a proxy.
func FuzzProxy(f *testing.F) {
	f.Add(question6(LinkLocal(ispMAC), "2001:db8:1:2::7"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		p := NewProxy(uplinkMAC, nil)
		p.Serve([]netip.Prefix{prefix}, []netip.Prefix{prefix})
		p.Receive(fixed(frame), epoch)
		frames, _, _ := p.Poll(epoch, func(netip.Addr) bool { return true })
		for _, f := range frames {
			if _, err := Parse(f); err != nil {
				t.Errorf("%x: %v", f, err)
			}
		}
	})
}
