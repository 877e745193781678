package path

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/iotest"
	"time"
)

// confirm makes an address up by answering its next ping after rtt.
func confirm(t *testing.T, table *Table, to string, now time.Time, rtt time.Duration) {
	t.Helper()
	pings, _ := table.Tick(now)
	for _, p := range pings {
		if p.Addr == addr(to) {
			table.Pong(p.Addr, p.Transaction, 0, now.Add(rtt))
			return
		}
	}
	t.Fatalf("%s was not pinged: %v", to, pings)
}

func wanted() *Table {
	table := New(Config{Rand: newSource(1)})
	table.Want(true, begin())
	return table
}

func addresses(pings []Ping) (all []string) {
	for _, p := range pings {
		all = append(all, p.Addr.String())
	}
	slices.Sort(all)
	return all
}

func TestCandidatesTaken(t *testing.T) {
	for _, tt := range []struct {
		name  string
		addrs []string
		want  []string
	}{
		{"none", nil, nil},
		{"twice the same", list(b1, b1), list(b1)},
		{"mapped", list("[::ffff:198.51.100.1]:1"), list(b1)},
		{"port 0", list("198.51.100.1:0", b2), list(b2)},
		{"both families", list(b1, b6), list(b1, b6)},
		{"zone", list("[fe80::1%eth0]:1"), list("[fe80::1%eth0]:1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := wanted()
			var addrs []netip.AddrPort
			for _, s := range tt.addrs {
				addrs = append(addrs, addr(s))
			}
			table.SetCandidates(append(addrs, netip.AddrPort{}), begin())
			pings, _ := table.Tick(begin())
			slices.Sort(tt.want)
			if got := addresses(pings); !slices.Equal(got, tt.want) {
				t.Errorf("pings %v, want %v", got, tt.want)
			}
		})
	}
}

func many(n int) (addrs []netip.AddrPort) {
	for i := range n {
		addrs = append(addrs, addr(fmt.Sprintf("203.0.113.%d:%d", i%250, 1+i)))
	}
	return addrs
}

func TestCandidatesAreBounded(t *testing.T) {
	table := wanted()
	now := begin()
	sent := map[netip.AddrPort]bool{}
	all := many(1000)
	for len(all) > 0 {
		table.SetCandidates(all[:min(20, len(all))], now)
		all = all[min(20, len(all)):]
		pings, _ := table.Tick(now)
		for _, p := range pings {
			sent[p.Addr] = true
		}
		now = now.Add(time.Second)
	}
	// 64 in the first minute, then as many as fall out of it.
	if len(sent) > maxTracked {
		t.Errorf("%d addresses pinged in a minute", len(sent))
	}
	if len(table.candidates) > maxTracked {
		t.Errorf("%d tracked", len(table.candidates))
	}
	table.SetCandidates(nil, now)
	table.Tick(now.Add(budgetWindow))
	if n := len(table.candidates); n != 0 {
		t.Errorf("%d tracked in the end", n)
	}
}

// Pings replayed from everywhere do not keep the remote's new address out, and
// do not push out what records name or what is up.
func TestLearningIsBounded(t *testing.T) {
	table := wanted()
	table.SetCandidates([]netip.AddrPort{addr(b1), addr(b2)}, begin())
	confirm(t, table, b1, begin(), time.Millisecond)
	now := begin().Add(time.Second)
	for _, a := range many(1000) {
		now = now.Add(time.Millisecond)
		table.Learn(a, now)
	}
	table.Learn(addr(b6), now.Add(time.Millisecond))
	for _, s := range list(b1, b2, b6) {
		if table.find(addr(s)) == nil {
			t.Errorf("%s is not known", s)
		}
	}
	if len(table.candidates) > maxTracked {
		t.Errorf("%d tracked", len(table.candidates))
	}
}

func TestPongs(t *testing.T) {
	table := wanted()
	table.SetCandidates([]netip.AddrPort{addr(b1)}, begin())
	pings, _ := table.Tick(begin())
	good := pings[0]
	at := begin().Add(10 * time.Millisecond)
	table.Pong(good.Addr, [12]byte{1}, 0, at)
	if table.Confirmed() {
		t.Error("confirmed by another transaction")
	}
	table.Pong(addr(b2), good.Transaction, 0, at)
	if table.Confirmed() {
		t.Error("confirmed by a pong from elsewhere")
	}
	if pings, _ = table.Tick(at); !slices.Equal(addresses(pings), list(b2)) {
		t.Errorf("pings %v, want one to where the pong came from", pings)
	}
	table.Pong(addr("[::ffff:198.51.100.1]:1"), good.Transaction, 0, at)
	if best, ok := table.Best(); !ok || best != addr(b1) {
		t.Errorf("best %v, %v", best, ok)
	}
	table.Pong(good.Addr, good.Transaction, 0, at.Add(time.Second))
	if got := table.Snapshot()[0].RTT; got != 10*time.Millisecond {
		t.Errorf("a pong counts twice: rtt %v", got)
	}
}

func TestLateAndVeryLatePongs(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration
		want  bool
	}{{forgotten - 1, true}, {forgotten, false}} {
		table := wanted()
		table.SetCandidates([]netip.AddrPort{addr(b1)}, begin())
		pings, _ := table.Tick(begin())
		first := pings[0]
		at := begin().Add(tt.after)
		table.Tick(at)
		if table.Pong(first.Addr, first.Transaction, 0, at); table.Confirmed() != tt.want {
			t.Errorf("after %v: confirmed %v", tt.after, !tt.want)
		}
	}
}

func TestNoRandomnessNoProbe(t *testing.T) {
	table := New(Config{Rand: iotest.ErrReader(errors.New("broken"))})
	table.Want(true, begin())
	table.SetCandidates([]netip.AddrPort{addr(b1)}, begin())
	if pings, wake := table.Tick(begin()); len(pings) != 0 || !wake.IsZero() && !wake.After(begin()) {
		t.Errorf("pings %v, wake %v", pings, wake)
	}
}

func TestTransactionsDiffer(t *testing.T) {
	table := New(Config{})
	table.Want(true, begin())
	table.SetCandidates(many(16), begin())
	seen := map[[12]byte]bool{}
	for now := begin(); now.Before(begin().Add(time.Minute)); now = now.Add(100 * time.Millisecond) {
		pings, _ := table.Tick(now)
		for _, p := range pings {
			if seen[p.Transaction] || p.Transaction == [12]byte{} {
				t.Fatalf("transaction %x twice", p.Transaction)
			}
			seen[p.Transaction] = true
		}
	}
}

func TestSnapshot(t *testing.T) {
	table := wanted()
	table.SetCandidates([]netip.AddrPort{addr(b2), addr(b1), addr(b6)}, begin())
	if table.MTU() != baseMTU {
		t.Errorf("MTU %d without a path", table.MTU())
	}
	pings, _ := table.Tick(begin())
	for _, p := range pings {
		switch p.Addr {
		case addr(b1):
			table.Pong(p.Addr, p.Transaction, 0, begin().Add(10*time.Millisecond))
		case addr(b6):
			table.Pong(p.Addr, p.Transaction, 0, begin().Add(5*time.Millisecond))
		}
	}
	states := table.Snapshot()
	if len(states) != 3 || states[2].Addr != addr(b2) || states[2].Up {
		t.Fatalf("states %+v", states)
	}
	for i, s := range states[:2] {
		if s.Active != (i == 0) || !s.Up || s.Loss != 0 || s.MTU != baseMTU || s.LastHeard.IsZero() || s.RTT == 0 {
			t.Errorf("state %d: %+v", i, s)
		}
	}
}

// A caller that repeats itself, or lags, does not cause anything.
func TestRepeatedReportsChangeNothing(t *testing.T) {
	table := wanted()
	table.SetCandidates([]netip.AddrPort{addr(b1)}, begin())
	confirm(t, table, b1, begin(), time.Millisecond)
	now := begin().Add(time.Second)
	heard, sent := now, now.Add(-time.Millisecond)
	for range 100 {
		now = now.Add(10 * time.Millisecond)
		table.Heard(addr(b1), heard)
		table.Sent(sent)
		table.Heard(addr(b2), heard) // not up
		table.Want(true, now)
	}
	if c := table.find(addr(b1)); !c.waiting.IsZero() {
		t.Error("waits for an answer to what was sent before the last sign of life")
	}
	table.Tick(now)
	table.Heard(addr(b2), heard)
	if table.find(addr(b1)).poked || table.find(addr(b2)).poked {
		t.Error("asks for pings again")
	}
}

// An address that has not answered for long is pinged again at once when its
// remote has shown to be there.
func TestVouchRenewsTheBudget(t *testing.T) {
	table := wanted()
	now := begin()
	table.SetCandidates([]netip.AddrPort{addr(b1)}, now)
	for table.Afford(addr(b1), now) { // hellos, say
		now = now.Add(time.Second)
	}
	table.Learn(addr(b1), now)
	if pings, _ := table.Tick(now); len(pings) != 0 {
		t.Fatalf("%d pings beyond the budget", len(pings))
	}
	table.Vouch(addr(b1), now)
	if pings, _ := table.Tick(now); len(pings) != 1 {
		t.Fatalf("%d pings to an address that was vouched for, want 1", len(pings))
	}
}

// TestUnsent: what could not be sent does not count against an address, so that it is
// probed as soon as there is a network again; nor is a hello tried meanwhile.
func TestUnsent(t *testing.T) {
	for _, fails := range []bool{true, false} {
		table, now := wanted(), begin()
		table.SetCandidates(endpoints(b1), now)
		for range 10 { // changes of our own addresses that do not help
			table.LocalChange(now)
			pings, _ := table.Tick(now)
			for _, p := range pings {
				if fails {
					table.Unsent(p)
				}
			}
			now = now.Add(2 * time.Second)
		}
		if table.Afford(addr(b1), now) {
			t.Errorf("fails %v: a hello is tried", fails)
		}
		table.LocalChange(now)
		if pings, _ := table.Tick(now); len(pings) == 1 != fails {
			t.Errorf("fails %v: %d pings", fails, len(pings))
		}
	}
}

// A path that was slow is judged by what it is now after some pongs, and by none of them alone.
func TestSlowPathIsFastAgain(t *testing.T) {
	var r rtt
	for range 20 {
		r.sample(3 * time.Second)
	}
	r.sample(50 * time.Millisecond)
	if got := r.timeout(); got < time.Second {
		t.Errorf("after one fast pong a ping counts as lost after %v", got)
	}
	for range 9 {
		r.sample(50 * time.Millisecond)
	}
	if got := r.timeout(); got > 300*time.Millisecond || got < 200*time.Millisecond {
		t.Errorf("after ten a ping counts as lost after %v", got)
	}
}
