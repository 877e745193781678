package path

import (
	"net/netip"
	"testing"
	"time"

	"meshd/peer/way"
)

// drive lets a table live, one quick ping at a time, and answers pings to the
// addresses in rtts.
func drive(table *Table, from time.Time, d time.Duration, rtts map[string]time.Duration) time.Time {
	end := from.Add(d)
	for now := from; ; {
		pings, wake := table.Tick(now)
		for _, p := range pings {
			if rtt, ok := rtts[p.Addr.String()]; ok {
				table.Pong(p.Addr, p.Transaction, 0, now.Add(rtt))
			}
		}
		if wake.IsZero() || wake.After(end) {
			return end
		}
		now = wake
	}
}

func best(t *testing.T, table *Table) string {
	t.Helper()
	a, ok := table.Best()
	if !ok {
		return ""
	}
	return a.String()
}

// A way that is held open is used at once when there is nothing better, and
// yields to what answers, the better class first.
func TestWays(t *testing.T) {
	relay1, relay2 := way.Virtual(way.Relayed, 1), way.Virtual(way.Relayed, 2)
	tcp := way.Virtual(way.TCP, 1)
	table, now := wanted(), begin()
	table.Hold(tcp, true, now)
	if got := best(t, table); got != tcp.String() {
		t.Fatalf("best is %q before anything has answered", got)
	}
	table.Hold(relay1, true, now)
	table.Hold(relay2, true, now)
	if n := table.MTU(); n != baseMTU {
		t.Errorf("MTU %d over TCP", n)
	}
	now = drive(table, now, 2*time.Second, map[string]time.Duration{relay2.String(): 30 * time.Millisecond})
	if got := best(t, table); got != relay2.String() {
		t.Fatalf("best is %q, and relay 2 alone has answered", got)
	}
	if got := table.MTU(); got <= baseMTU-relayedLess {
		t.Errorf("MTU %d over a relay that lets everything pass", got)
	}
	table.SetCandidates(endpoints(b1), now)
	// A direct path wins, although it is slower.
	now = drive(table, now, 2*time.Second, map[string]time.Duration{
		relay2.String(): 30 * time.Millisecond, b1: 80 * time.Millisecond,
	})
	if got := best(t, table); got != b1 {
		t.Fatalf("best is %q, and there is a direct path", got)
	}
	// It dies: the relay takes over, and the direct path gets a second chance.
	now = drive(table, now, 40*time.Second, map[string]time.Duration{relay2.String(): 30 * time.Millisecond})
	if got := best(t, table); got != relay2.String() {
		t.Fatalf("best is %q, and the direct path is dead", got)
	}
	table.Release(relay2, now)
	if got := best(t, table); got == relay2.String() {
		t.Fatal("a way is used that has ended")
	}
	if n := len(table.AppendUp(nil)); n > 1 {
		t.Errorf("%d paths up", n)
	}
}

// The smallest packet that is taken for granted leaves room for three relays.
func TestRelayedBase(t *testing.T) {
	table := wanted()
	relay := way.Virtual(way.Relayed, 1)
	table.Hold(relay, true, begin())
	if got := table.MTU(); got != baseMTU-24 {
		t.Errorf("MTU %d over a relay of which nothing is known", got)
	}
	table.Release(relay, begin())
	if len(table.candidates) != 0 {
		t.Error("a way that has ended is remembered")
	}
}

// A direct path that comes and goes is not returned to at once.
func TestClassHysteresis(t *testing.T) {
	relay := way.Virtual(way.Relayed, 1)
	table, now := wanted(), begin()
	table.Hold(relay, true, now)
	table.SetCandidates(endpoints(b1), now)
	both := map[string]time.Duration{relay.String(): 30 * time.Millisecond, b1: 5 * time.Millisecond}
	now = drive(table, now, 3*time.Second, both)
	if got := best(t, table); got != b1 {
		t.Fatalf("best is %q", got)
	}
	died := now
	for best(t, table) == b1 {
		if now.Sub(died) > 40*time.Second {
			t.Fatal("a dead path is kept")
		}
		now = drive(table, now, 50*time.Millisecond, map[string]time.Duration{relay.String(): 30 * time.Millisecond})
	}
	left := now
	for best(t, table) != b1 {
		if now.Sub(left) > 60*time.Second {
			t.Fatal("a direct path that is back is not returned to")
		}
		now = drive(table, now, 50*time.Millisecond, both)
	}
	if now.Sub(left) < betweenMoves-100*time.Millisecond {
		t.Errorf("back after %v", now.Sub(left))
	}
}

// Of ways of a class that is used which has bandwidth to offer, unless it is much farther, and they
// are not changed to and fro.
func TestSlowWay(t *testing.T) {
	ways := []netip.AddrPort{way.Virtual(way.Relayed, 1), way.Virtual(way.Relayed, 2), way.Virtual(way.Relayed, 3)}
	for _, c := range []struct {
		name       string
		slow       [3]time.Duration // the nearest first
		want, heir int              // the heir is used when that has died
	}{
		{"no limits", [3]time.Duration{}, 0, 1},
		{"the nearest is slow", [3]time.Duration{time.Second}, 1, 2},
		{"the farthest is the only fast one", [3]time.Duration{time.Second, 2 * time.Second}, 2, 0},
		{"a farther one is slow", [3]time.Duration{1: time.Second}, 0, 2},
		{"all are", [3]time.Duration{time.Second, time.Second, time.Second}, 0, 1},
		{"hardly slower", [3]time.Duration{12 * time.Millisecond}, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			rtts := map[string]time.Duration{}
			table, now := wanted(), begin()
			live := func(d time.Duration) {
				for end := now.Add(d); now.Before(end); {
					table.Used(now)
					now = drive(table, now, 100*time.Millisecond, rtts)
				}
			}
			keeps := func(d time.Duration, want int) {
				t.Helper()
				for live(2 * betweenMoves); d >= 0; d -= 100 * time.Millisecond {
					if live(100 * time.Millisecond); best(t, table) != ways[want].String() {
						t.Fatalf("best is %q, not %v", best(t, table), ways[want])
					}
				}
			}
			for i, w := range ways {
				rtts[w.String()] = time.Duration(20+10*i) * time.Millisecond
				table.Hold(w, true, now)
				table.Slow(w, c.slow[i], now)
			}
			keeps(time.Minute, c.want)
			dead := ways[c.want].String()
			rtt := rtts[dead]
			delete(rtts, dead)
			keeps(time.Second, c.heir)
			rtts[dead] = rtt
			for _, w := range ways {
				table.Slow(w, 0, now)
			}
			keeps(time.Minute, 0) // without limits the nearest
		})
	}
}

func endpoints(addrs ...string) (all []netip.AddrPort) {
	for _, a := range addrs {
		all = append(all, addr(a))
	}
	return all
}

// A remote in doubt is asked until it answers; it is mute, for now, when it does not, within a
// second, and keeps its path.
func TestMute(t *testing.T) {
	table, now := wanted(), begin()
	table.SetCandidates(endpoints(b1), now)
	alive := map[string]time.Duration{b1: 20 * time.Millisecond}
	now = drive(table, now, 30*time.Second, alive)
	table.Doubt()
	now = drive(table, now, time.Second, alive)
	if table.Mute(now) || table.Doubted(now) {
		t.Fatal("who answers is mute, or stays in doubt")
	}
	began, asked := now, 0
	table.Doubt()
	for !table.Mute(now) {
		pings, _ := table.Tick(now)
		asked += len(pings)
		if now = now.Add(5 * time.Millisecond); now.Sub(began) > time.Second {
			t.Fatal("who is silent is not mute after a second")
		}
	}
	if took := now.Sub(began); took < swift || asked > 5 { // one of them padded
		t.Errorf("mute after %v and %d pings", took, asked)
	}
	if got := best(t, table); got != b1 {
		t.Errorf("the path in use is %q", got)
	}
	now = drive(table, now, time.Second, alive)
	if table.Mute(now) || table.Doubted(now) {
		t.Error("mute, or in doubt, after an answer")
	}
}

// Frames that get no answer put a path to the test, and only when that fails too
// the path is in doubt.
func TestDoubt(t *testing.T) {
	table, now := wanted(), begin()
	table.SetCandidates(endpoints(b1), now)
	alive := map[string]time.Duration{b1: 20 * time.Millisecond}
	now = drive(table, now, 5*time.Second, alive)
	for range 20 { // as a host does that speaks to a multicast group
		now = now.Add(100 * time.Millisecond) // the last answer has come
		table.Used(now)
		table.Sent(now)
		for range 60 { // sooner than the tests of a busy path's size
			pings, _ := table.Tick(now)
			if table.Doubted(now) {
				t.Fatal("in doubt because nobody answers a frame")
			}
			now = now.Add(10 * time.Millisecond)
			for _, p := range pings {
				table.Pong(p.Addr, p.Transaction, 0, now)
			}
		}
	}
	now = now.Add(100 * time.Millisecond)
	table.Used(now)
	table.Sent(now)
	began := now
	for !table.Doubted(now) {
		if now = drive(table, now, 10*time.Millisecond, nil); now.Sub(began) > time.Second {
			t.Fatal("a dead path is not in doubt after a second")
		}
	}
	if now.Sub(began) < suspicion {
		t.Errorf("in doubt after %v", now.Sub(began))
	}
}

// TestSizesThroughRelays: each size that is tried through relays passes over links of the same kind when three relays add
// their headers and each of them sends over IPv6, so that nothing is lost when one changes its path from IPv4 to that.
func TestSizesThroughRelays(t *testing.T) {
	const headers6, headerOfRelay, relays = 40 + 8, 8, 3
	direct, relayed := mtuSearch{}, mtuSearch{less: relayedLess}
	for i := range len(sizes) + 1 {
		payload := relayed.rung(i) - headers6 // what an end sends to a virtual address, which is of IPv6
		if payload+relays*headerOfRelay > direct.rung(i)-headers6 {
			t.Errorf("%d through relays is too much for a link of %d", relayed.rung(i), direct.rung(i))
		}
		for _, m := range []*mtuSearch{&direct, &relayed} {
			if m.rung(i+1) > m.rung(i) || i < len(sizes) && m.rung(i+1) == m.rung(i) {
				t.Errorf("sizes do not fall: %d, then %d", m.rung(i), m.rung(i+1))
			}
		}
	}
}
