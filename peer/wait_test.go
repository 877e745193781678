package peer

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"meshd/peer/inner"
)

// Whatever is put in: no more waits than may, the newest do, in order, and all that
// does not is counted.
func TestWaitQueue(t *testing.T) {
	for seed := range uint64(50) {
		testWaitQueue(t, seed, false, 2000, 1)
	}
	for seed := range uint64(3) {
		testWaitQueue(t, seed, true, 16_000, 97)
	}
}

// testWaitQueue puts so many frames in and looks at the queue after each step of them.
func testWaitQueue(t *testing.T, seed uint64, held bool, puts, step int) {
	most, mostBytes := maxQueued, maxQueueBytes
	if held {
		most, mostBytes = maxHeldFrames, maxHeldBytes
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	var total atomic.Int64
	queues := []*waitQueue{{total: &total}, {total: &total}, {total: &total}}
	model := make([][]int, len(queues)) // sizes and numbers of what was put in
	put, taken := make([]int, len(queues)), make([]int, len(queues))
	others := int64(rng.IntN(2) * (maxQueuedBytes - 300<<10)) // what waits for the rest of a large mesh
	total.Add(others)
	for n := range puts {
		i := rng.IntN(len(queues))
		q := queues[i]
		if rng.IntN(10) == 0 && len(q.frames) > 0 {
			q.take()
			q.length.Store(int32(len(q.frames)))
			taken[i]++
			continue
		}
		size := 4 + rng.IntN([]int{60, 1500, 9000}[seed%3])
		frame := make([]byte, size)
		frame[0], frame[1] = byte(n>>8), byte(n)
		model[i] = append(model[i], n)
		put[i]++
		q.put(inner.KindFrame, frame, held, time.Time{})
		if n%step != 0 {
			continue
		}
		bytes, sum := 0, others
		for _, f := range q.frames {
			bytes += len(f.data)
		}
		for _, q := range queues {
			sum += int64(q.bytes)
		}
		if len(q.frames) > most || bytes > mostBytes || bytes != q.bytes || int(q.length.Load()) != len(q.frames) {
			t.Fatalf("seed %d: %d frames with %d bytes wait, noted are %d", seed, len(q.frames), bytes, q.bytes)
		}
		if total.Load() != sum || sum > maxQueuedBytes {
			t.Fatalf("seed %d: %d bytes wait in all, %d are noted", seed, sum, total.Load())
		}
		if k := len(q.frames); int(q.dropped.Load()) != put[i]-taken[i]-k {
			t.Fatalf("seed %d: %d dropped of %d, %d taken, %d wait", seed, q.dropped.Load(), put[i], taken[i], k)
		}
		at := len(model[i])
		for k := len(q.frames) - 1; k >= 0 && others == 0; k-- { // the newest, without a gap
			at--
			if got := int(q.frames[k].data[0])<<8 | int(q.frames[k].data[1]); got != model[i][at] {
				t.Fatalf("seed %d: frame %d waits where %d should", seed, got, model[i][at])
			}
		}
	}
	for _, q := range queues {
		q.clear()
	}
	if total.Load() != others {
		t.Fatalf("seed %d: %d bytes are left", seed, total.Load()-others)
	}
}
