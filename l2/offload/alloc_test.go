//go:build !race

package offload

import (
	"bytes"
	"testing"
)

// stream is a super-frame and its segments.
func stream(size int) (f Frame, frames [][]byte) {
	s := tcp4()
	s.tcpOpts, s.payload = timestamps, counting(size*44)
	return s.super(size), s.slowCut(size)
}

func TestNoAllocation(t *testing.T) {
	f, frames := stream(1374)
	data := bytes.Clone(f.Data)
	var c Cutter
	m := &Merger{Features: All}
	interleaved := append(append([][]byte(nil), frames[:20]...), frames[10:30]...)
	for name, run := range map[string]func(){
		"cut": func() {
			copy(f.Data, data)
			c.Begin(f, 1440)
			for _, more := c.Next(); more; _, more = c.Next() {
			}
		},
		"merge": func() {
			for _, b := range frames {
				m.Add(b, 0)
			}
			m.Frames()
			m.Reset()
		},
		"merge, with holes": func() {
			for _, b := range interleaved {
				m.Add(b, 0)
			}
			m.Frames()
			m.Reset()
		},
	} {
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkCut(b *testing.B) {
	f, _ := stream(1374)
	data := bytes.Clone(f.Data[:100])
	b.SetBytes(int64(len(f.Data)))
	var c Cutter
	for b.Loop() {
		copy(f.Data, data)
		c.Begin(f, 0)
		for _, more := c.Next(); more; _, more = c.Next() {
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	_, frames := stream(1374)
	m := &Merger{Features: All}
	b.SetBytes(int64(1440 * len(frames)))
	for b.Loop() {
		for _, frame := range frames {
			m.Add(frame, 0)
		}
		m.Frames()
		m.Reset()
	}
}

func BenchmarkMergeNothing(b *testing.B) { // what small packets pay
	s := tcp4()
	s.udp, s.payload = true, counting(64)
	var frames [][]byte
	for i := range 64 {
		s.sport = uint16(i)
		frames = append(frames, s.frame())
	}
	m := &Merger{Features: All}
	for b.Loop() {
		for _, frame := range frames {
			m.Add(frame, 0)
		}
		m.Frames()
		m.Reset()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/frame")
}

func BenchmarkSum(b *testing.B) {
	data := counting(1400)
	b.SetBytes(1400)
	for b.Loop() {
		sum(data, 0)
	}
}
