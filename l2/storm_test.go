package l2

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

func TestBucketIsExact(t *testing.T) {
	b := bucket{rate: 300, burst: 600}
	now := 5 * time.Second // a full bucket stays at its burst
	for i := range 600 {
		if !b.take(now) {
			t.Fatalf("frame %d of the burst was refused", i)
		}
	}
	if b.take(now) {
		t.Fatal("the burst is larger than 600")
	}
	if b.take(now + time.Second/300 - 1) { // 1/300 s is not a whole number of nanoseconds
		t.Fatal("a frame passed before its time")
	}
	if !b.take(now + time.Second/300 + 1) {
		t.Fatal("a frame was refused after its time")
	}
	passes := 0
	for i := range 100_000 { // 10 s of a flood
		if b.take(now + time.Duration(i)*100*time.Microsecond) {
			passes++
		}
	}
	if passes != 2998 && passes != 2999 { // one of them went ahead above
		t.Errorf("%d frames passed in 10 s, want 300/s", passes)
	}
}

func TestBucketExtremes(t *testing.T) {
	b := bucket{rate: 1, burst: 1}
	if !b.take(0) || b.take(0) || b.take(time.Second-1) || !b.take(time.Second) {
		t.Error("one per second is not kept")
	}
	if !b.take(1<<62) || b.take(1<<62) {
		t.Error("a pause of a century does not fill it to its burst")
	}
	if b.take(0) {
		t.Error("time that runs backwards fills it")
	}
	fast := bucket{rate: 1_000_000, burst: 1_000_000}
	for i := range 1_000_000 {
		if !fast.take(0) {
			t.Fatalf("frame %d of a large burst was refused", i)
		}
	}
	if fast.take(0) || !fast.take(time.Microsecond) {
		t.Error("a large bucket is not exact")
	}
}

// The model counts in fractions and knows no overflow.
func TestBucketAgainstFractions(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		rate, burst := int64(1+rng.IntN(1000)), int64(1+rng.IntN(1000))
		b := bucket{rate: rate, burst: burst}
		tokens, now := big.NewRat(burst, 1), time.Duration(0)
		for range 2000 {
			step := time.Duration(rng.Int64N(int64(1) << rng.IntN(34)))
			now += step
			tokens.Add(tokens, big.NewRat(int64(step)*rate, int64(time.Second)))
			if full := big.NewRat(burst, 1); tokens.Cmp(full) > 0 {
				tokens = full
			}
			want := tokens.Cmp(big.NewRat(1, 1)) >= 0
			if want {
				tokens.Sub(tokens, big.NewRat(1, 1))
			}
			if got := b.take(now); got != want {
				t.Fatalf("seed %d, %d/s burst %d at %v: %v, want %v", seed, rate, burst, now, got, want)
			}
		}
	}
}
