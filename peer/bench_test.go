//go:build !race

package peer

import (
	"fmt"
	"testing"
	"time"

	"meshd/peer/udp"
)

// Out and in again: with the session, the path and the header around the cipher.
// 1514 crosses in two pieces.
func BenchmarkSendAndReceive(b *testing.B) {
	for _, size := range []int{64, 1400, 1514} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			toB, toA, a, _ := pair(b)
			got := new(sink)
			toA.Attach(got)
			a.keep.Store(true)
			rx := &receiver{engine: toA.engine, now: time.Now()}
			rx.stamp = toA.engine.stamp(rx.now)
			frame := make([]byte, size)
			p := udp.Packet{Addr: a.at}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			sent := 0
			for b.Loop() {
				toB.Send(frame, 0)
				toB.Flush()
				p.Data, p.Seg = a.kept, toB.segment(len(a.kept))
				rx.packet(&p)
				rx.flush()
				sent++
			}
			// Now and then a probe of the engine's own is what was kept last.
			if n := int(got.frames.Load()); n < sent-sent/10 {
				b.Errorf("%d of %d frames arrived", n, sent)
			}
		})
	}
}
