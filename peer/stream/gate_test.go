package stream

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func prefix(i int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.%d/32", i>>16&255, i>>8&255, i&255))
}

// However strangers come and go, no more than allowed are inside, and nobody is
// thrown out before its time.
func TestGateHoldsItsBounds(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 2))
		g := gate{limit: 64, perSource: 16, patience: time.Second}
		now := time.Unix(1_800_000_000, 0)
		since := map[uint64]time.Time{}
		source := map[uint64]netip.Prefix{}
		for range 5000 {
			now = now.Add(time.Duration(rng.IntN(40)) * time.Millisecond)
			if rng.IntN(3) == 0 {
				for id := range since {
					g.leave(id)
					delete(since, id)
					delete(source, id)
					break
				}
				continue
			}
			from := prefix(rng.IntN(1 << rng.IntN(10)))
			id, evicted, ok := g.enter(from, now)
			if evicted != 0 {
				if now.Sub(since[evicted]) < g.patience {
					t.Fatalf("seed %d: thrown out after %v", seed, now.Sub(since[evicted]))
				}
				delete(since, evicted)
				delete(source, evicted)
			}
			if ok {
				since[id], source[id] = now, from
			}
			there := 0
			for _, s := range source {
				if s == from {
					there++
				}
			}
			if len(since) != len(g.inside) || len(since) > g.limit || there > g.perSource {
				t.Fatalf("seed %d: %d inside, %d known, %d of one source", seed, len(g.inside), len(since), there)
			}
		}
	}
}

// Whoever holds all places does not keep a newcomer out.
func TestGateLetsNewcomersIn(t *testing.T) {
	g := gate{limit: 64, perSource: 16, patience: time.Second}
	now := time.Unix(1_800_000_000, 0)
	for i := range 64 {
		if _, _, ok := g.enter(prefix(i), now); !ok {
			t.Fatalf("place %d is not given", i)
		}
	}
	if _, _, ok := g.enter(prefix(1000), now.Add(500*time.Millisecond)); ok {
		t.Error("somebody was thrown out in their first second")
	}
	id, evicted, ok := g.enter(prefix(1000), now.Add(time.Second))
	if !ok || evicted != 1 {
		t.Fatalf("a newcomer gets no place: %d, %d, %v", id, evicted, ok)
	}
	// One source that fills its own share displaces its own only.
	for range 40 {
		_, evicted, ok := g.enter(prefix(7), now.Add(2*time.Second))
		if ok && evicted == id {
			t.Fatal("another's place was taken")
		}
	}
}
