package stream

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// data is a datagram of data, numbered.
func data(number, size int) []byte {
	b := make([]byte, max(size, 8))
	b[0] = 4
	copy(b[4:], fmt.Sprint(number))
	return b
}

// model is the obvious queue.
type model struct {
	urgent, data [][]byte
	since        []time.Time
	dropped      uint64
}

func sizeOf(list [][]byte) (n int) {
	for _, d := range list {
		n += entryHeader + len(d)
	}
	return n
}

func (m *model) push(d []byte, now time.Time) {
	if isUrgent(d) {
		for sizeOf(m.urgent)+entryHeader+len(d) > urgentBytes {
			m.urgent = m.urgent[1:]
			m.dropped++
		}
		m.urgent = append(m.urgent, d)
		return
	}
	for sizeOf(m.data)+entryHeader+len(d) > queueBytes {
		m.data, m.since = m.data[1:], m.since[1:]
		m.dropped++
	}
	m.data, m.since = append(m.data, d), append(m.since, now)
}

func (m *model) take(limit int, now time.Time) (b []byte) {
	for len(m.urgent) > 0 {
		if len(b)+headerLen+len(m.urgent[0]) > limit {
			return b
		}
		b = appendFrame(b, m.urgent[0])
		m.urgent = m.urgent[1:]
	}
	for len(m.data) > 0 {
		late := now.Sub(m.since[0]) > queueAge
		if !late && len(b)+headerLen+len(m.data[0]) > limit {
			return b
		}
		if late {
			m.dropped++
		} else {
			b = appendFrame(b, m.data[0])
		}
		m.data, m.since = m.data[1:], m.since[1:]
	}
	return b
}

func TestQueueAgainstModel(t *testing.T) {
	var all uint64
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		now := time.Unix(1_800_000_000, 0)
		var q queue
		var m model
		var dropped uint64
		for i := range 4000 {
			if rng.IntN(20) == 0 {
				now = now.Add(time.Duration(rng.IntN(200)) * time.Millisecond)
			}
			if rng.IntN(10) < 8 {
				d := data(i, rng.IntN(maxDatagram))
				if rng.IntN(10) == 0 {
					d[0] = 0xd2
				}
				q.push(d, now)
				m.push(d, now)
			} else {
				limit := headerLen + maxDatagram + rng.IntN(writeBatch)
				got, want := q.take(make([]byte, 0, limit)[:0:limit], now), m.take(limit, now)
				if !bytes.Equal(got, want) {
					t.Fatalf("seed %d, step %d: %d bytes, want %d", seed, i, len(got), len(want))
				}
			}
			dropped += q.lost()
		}
		all += dropped
		if dropped != m.dropped {
			t.Errorf("seed %d: %d dropped, want %d", seed, dropped, m.dropped)
		}
		if size := cap(q.data.buf) + cap(q.urgent.buf); size > 4*(queueBytes+urgentBytes) {
			t.Errorf("seed %d: a queue of %d bytes", seed, size)
		}
	}
	if all == 0 {
		t.Error("nothing was ever dropped")
	}
}

func TestUrgent(t *testing.T) {
	relay := func(inner []byte) []byte { return append([]byte{0xd3, 1, 0, 0, 0, 0, 0, 1}, inner...) }
	for _, c := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"initiation", []byte{1, 0, 0, 0}, true},
		{"transport", []byte{4, 0, 0, 0}, false},
		{"probe", []byte{0xd2, 1}, true},
		{"hello", []byte{0xd1, 1}, true},
		{"relayed transport", relay([]byte{4, 0, 0, 0}), false},
		{"relayed probe", relay([]byte{0xd2, 1}), true},
		{"twice relayed transport", relay(relay([]byte{4, 0, 0, 0})), false},
		{"relay header alone", relay(nil), true},
		{"nothing", nil, true},
	} {
		if got := isUrgent(c.b); got != c.want {
			t.Errorf("%s: urgent is %v", c.name, got)
		}
	}
}

// A steady flow allocates nothing.
func TestQueueAllocates(t *testing.T) {
	var q queue
	d, buf, now := data(1, 1400), make([]byte, 0, writeBatch), time.Unix(1_800_000_000, 0)
	allocs := testing.AllocsPerRun(1000, func() {
		for range 10 {
			q.push(d, now)
		}
		for len(q.take(buf[:0], now)) > 0 {
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
