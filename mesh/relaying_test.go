package mesh_test

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/api"
	"meshd/peer/udp/udptest"
)

// behind is a machine behind a NAT of its own, through which nobody is reached
// directly.
func (w *world) behind(outside string) *host {
	return w.behindNAT(outside, udptest.NATConfig{Mapping: udptest.AddressAndPortDependent, Filtering: udptest.AddressAndPortDependent})
}

// behindNAT is a machine behind a NAT of its own.
func (w *world) behindNAT(outside string, cfg udptest.NATConfig) *host {
	nat := w.net.NAT(cfg, netip.MustParseAddr(outside))
	nat.SetLink(line10ms, line10ms)
	return &host{world: w, machine: nat.Host(netip.MustParseAddr("192.168.1.2")), changed: make(chan struct{}, 1)}
}

// eventually waits until ok holds.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
	}
	return time.Since(began)
}

// Members behind symmetric NATs exchange frames through the founder, who is
// public, and everybody says so.
func TestRelayedMembers(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		home := w.host("198.18.0.1")
		home.machine.SetLink(line10ms, line10ms)
		a := w.up(home, "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.behind("203.0.113.1"), "b", a.invite(1))
		b.waitReady(10 * time.Second)
		c := w.up(w.behind("203.0.113.2"), "c", a.invite(1))
		c.waitReady(10 * time.Second)
		eventually(t, 5*time.Second, "b knows c", func() bool { return len(b.status().Peers) == 2 && len(c.status().Peers) == 2 })
		t.Logf("a frame after %v", reaches(t, b, c, time.Second))
		reaches(t, c, b, time.Second)
		p := b.peer("c")
		if p.State != api.StateRelayed || !slices.Equal(p.Via, []string{"home"}) || p.Endpoint != "198.18.0.1:51830" || p.Transport != "udp4" {
			t.Errorf("c in the status of b: %+v", p)
		}
		relaying := a.status().Relaying
		if len(relaying) == 0 || relaying[0].Bytes == 0 {
			t.Errorf("relaying: %+v", relaying)
		}
		err := b.ask().Ping(t.Context(), "c", 1, func(r api.PingReply) {
			if r.Lost || r.State != api.StateRelayed || !slices.Equal(r.Via, []string{"home"}) {
				t.Errorf("ping: %+v", r)
			}
		})
		if err != nil {
			t.Error(err)
		}
		sh, err := b.ask().Share(t.Context(), api.ShareChange{})
		if err != nil || len(sh.By) != 1 || sh.By[0].Peer != "c" {
			t.Errorf("share: %+v, %v", sh, err)
		}
		// Off ends it.
		off := false
		if sh, err = a.ask().Share(t.Context(), api.ShareChange{On: &off}); err != nil || sh.On || sh.UsedBytes == 0 {
			t.Errorf("share of home: %+v, %v", sh, err)
		}
		b.becomes("c", 15*time.Second, api.StateConnecting, api.StateOffline)
		if list := a.status().Relaying; len(list) != 0 {
			t.Errorf("still relaying: %+v", list)
		}
		on := true
		if _, err = a.ask().Share(t.Context(), api.ShareChange{On: &on}); err != nil {
			t.Error(err)
		}
		b.wait(api.WaitSpec{Peer: "c"}, 30*time.Second)
	})
}
