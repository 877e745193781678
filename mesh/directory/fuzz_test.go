package directory

import (
	"testing"
	"time"

	"meshd/keys"
	"meshd/mesh/record"
)

func FuzzHandleSync(f *testing.F) {
	a := newAuthority(f)
	ids, raws := a.population(60)
	d := a.directory(raws...)
	few := a.directory(raws[:4]...)
	f.Add(Push(raws[:2])[0])
	f.Add(d.summary())
	f.Add(few.Digest()[0])
	f.Add(few.Sum())
	f.Add(appendDigest(2, 0, ^uint64(0), d.store.order[:40]))
	f.Add([]byte{kindPull, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(Push([][]byte{a.node(ids[0], record.Version{Epoch: 1, Counter: 2}, "192.0.2.1:1")})[0])
	target := a.directory(raws[:20]...)
	clock := testNow()
	f.Fuzz(func(t *testing.T, msg []byte) {
		clock = clock.Add(time.Minute) // budgets are full again
		before := len(target.store.items)
		replies, delta, _ := target.HandleSync(keys.NodeID{9}, msg, clock)
		if len(replies) > maxPushes+maxAsked/maxPull {
			t.Fatalf("%d replies", len(replies))
		}
		for _, r := range replies {
			if len(r) > MaxMessage {
				t.Fatalf("a reply of %d bytes", len(r))
			}
		}
		if len(target.store.items) > before+len(delta) || len(target.parked) > maxParked {
			t.Fatal("kept what it does not pass on")
		}
		for _, raw := range delta { // only what is well signed
			if !d.store.known[record.HashOf(raw)] && d.anyCertificate(mustParse(t, raw).Key.Owner) == nil {
				t.Fatalf("passed on %x", raw)
			}
		}
	})
}

func mustParse(t *testing.T, raw []byte) *record.Record {
	t.Helper()
	r, err := record.Parse(raw)
	check(t, err)
	return r
}
