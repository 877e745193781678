package l2

import "testing"

// Plugs share a lane, and each counts its own batches no more: what the second sends is
// flushed although the first has sent in a batch of the same number.
func TestPlugsFlushWhatTheySend(t *testing.T) {
	r := newRig(t, Config{})
	r.connect("a", Allow{MAC: macOfA})
	for i, host := range []MAC{host1, host2} {
		port := &plugPort{dev: &tape{}}
		port.plug, port.share = port, r.sw.local.share
		r.sw.viaPlugs(&pump{sw: r.sw, from: &port.origin, index: r.sw.queues}, []Frame{{Data: eth(macOfA, host, 0)}})
		if p := r.ports["a"]; len(p.frames) != i+1 || p.flushed != i+1 {
			t.Fatalf("%d frames, %d flushed after %d plugs", len(p.frames), p.flushed, i+1)
		}
	}
}
