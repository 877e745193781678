package relay

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestDivide(t *testing.T) {
	for _, c := range []struct {
		name  string
		total uint64
		want  []uint64
		got   []uint64
	}{
		{"no limit", 0, []uint64{5, 6}, []uint64{0, 0}},
		{"nobody", 100, nil, []uint64{}},
		{"one", 100, []uint64{7}, []uint64{100}},
		{"who wants little leaves the rest", 100, []uint64{200, 10, 200}, []uint64{45, 10, 45}},
		{"all want more", 90, []uint64{100, 1000, 10000}, []uint64{30, 30, 30}},
		{"enough for all, and the rest spread", 100, []uint64{10, 20}, []uint64{45, 55}},
		{"next to nothing is not no limit", 1, []uint64{5, 5}, []uint64{1, 1}},
	} {
		if got := Divide(c.total, c.want); !slices.Equal(got, c.got) {
			t.Errorf("%s: %v, want %v", c.name, got, c.got)
		}
	}
}

// Nobody gets more than is there in all, and nobody who is not satisfied gets less
// than another.
func TestDivideIsFair(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10000 {
		total := 1 + rng.Uint64N(1000)
		wanted := make([]uint64, 1+rng.IntN(8))
		for i := range wanted {
			wanted[i] = rng.Uint64N(1000)
		}
		shares := Divide(total, wanted)
		sum := uint64(0)
		for i, s := range shares {
			sum += s
			for j, o := range shares {
				if s < wanted[i] && o > s+1 && o > wanted[j] {
					t.Fatalf("%d of %v: %v: %d goes without for %d", total, wanted, shares, i, j)
				}
				if s < wanted[i] && s+1 < min(o, wanted[j]) {
					t.Fatalf("%d of %v: %v: %d gets less than %d", total, wanted, shares, i, j)
				}
			}
		}
		if sum > total+uint64(len(shares)) {
			t.Fatalf("%d of %v: %v", total, wanted, shares)
		}
	}
}

func TestBucket(t *testing.T) {
	var b Bucket
	if !b.Take(1, 1<<30, true) {
		t.Fatal("no limit, and refused")
	}
	const rate = 10_000_000
	b.Limit(rate)
	start := int64(time.Hour)
	passed := 0
	for now := start; now < start+int64(10*time.Second); now += int64(time.Millisecond) {
		if b.Take(now, 20_000, true) { // twice the rate
			passed += 20_000
		}
	}
	if passed < 10*rate || passed > 10*rate+rate/5 {
		t.Errorf("%d bytes in 10 s", passed)
	}
	// A pause is good for a burst and no more.
	burst := 0
	for b.Take(start+int64(time.Hour), 1000, true) {
		burst += 1000
	}
	if burst > rate/5 || burst < burstLeast {
		t.Errorf("burst of %d bytes", burst)
	}
}

// A pair that offers many times its share keeps its probes, and gets no more than
// its share for that.
func TestBucketReserve(t *testing.T) {
	const rate = 100_000
	var b Bucket
	b.Limit(rate)
	start := int64(time.Hour)
	data, probes, lost := 0, 0, 0
	for now := start; now < start+int64(60*time.Second); now += int64(time.Millisecond) {
		if b.Take(now, 1200, true) { // twelve times the rate
			data += 1200
		}
		if now%int64(50*time.Millisecond) == 0 {
			if probes++; !b.Take(now, 100, false) {
				lost++
			}
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d probes lost", lost, probes)
	}
	if data > 60*rate+burstLeast {
		t.Errorf("%d bytes of data in 60 s", data)
	}
	// What says that it is a probe is held to the share all the same.
	passed := 0
	for now := start + int64(time.Hour); now < start+int64(time.Hour+time.Minute); now += int64(time.Millisecond) {
		if b.Take(now, 1200, false) {
			passed += 1200
		}
	}
	if most := 60*rate + burstLeast + rate; passed > most {
		t.Errorf("%d bytes passed as probes in 60 s, more than %d", passed, most)
	}
}

func TestCarriesData(t *testing.T) {
	header := func(inside []byte) []byte {
		b := append(make([]byte, HeaderLen), inside...)
		NewHeader(false, 7).Put(b)
		return b
	}
	for name, c := range map[string]struct {
		datagram []byte
		want     bool
	}{
		"data":                     {header([]byte{4, 0, 0, 0}), true},
		"probe":                    {header([]byte{0xd2}), false},
		"initiation":               {header([]byte{1, 0, 0, 0}), false},
		"data on two circuits":     {header(header([]byte{4})), true},
		"a probe on three":         {header(header(header([]byte{0xd2, 4}))), false},
		"a header with no more in": {header(header(nil)), false},
	} {
		if got := CarriesData(c.datagram); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestYield(t *testing.T) {
	var y Yield
	now := time.Unix(1_800_000_000, 0)
	observe := func(d time.Duration, carried uint64, flows, suffers bool) (limit uint64) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(200 * time.Millisecond)
			if limit > 0 {
				carried = min(carried, limit)
			}
			limit = y.Observe(carried, flows, suffers, now)
		}
		return limit
	}
	if got := observe(5*time.Second, 10e6, true, false); got != 0 {
		t.Errorf("limit %d although nothing suffers", got)
	}
	if got := observe(5*time.Second, 10e6, false, true); got != 0 {
		t.Errorf("limit %d although there is no traffic of its own", got)
	}
	if got := observe(600*time.Millisecond, 10e6, true, true); got < 2e6 || got > 5e6 {
		t.Errorf("limit %d when traffic suffers", got)
	}
	if got := observe(20*time.Second, 10e6, true, true); got != leastCarried {
		t.Errorf("limit %d after long suffering", got)
	}
	low := observe(2*time.Second, 10e6, true, false)
	high := observe(20*time.Second, 10e6, true, false)
	if low < leastCarried || high < low*2 || high > low*4 {
		t.Errorf("limits %d and %d while it goes well", low, high)
	}
	if got := observe(time.Second, 10e6, false, false); got != 0 {
		t.Errorf("limit %d when its own traffic has ceased", got)
	}
}
