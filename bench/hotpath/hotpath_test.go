package hotpath

import (
	"flag"
	"testing"
	"testing/synctest"

	"meshd/l2"
)

var times = flag.Int("times", 20, "how often each batch is sent, counted and not")

// way is a kind of traffic: a batch that a busy host hands over at once.
type way struct {
	name      string
	frames    []l2.Frame
	datagrams int // that the batch becomes on the wire
}

// ways are what is counted.
func ways() []way {
	to, from := macOf(1), macOf(0)
	datagrams := func(size int) (all []l2.Frame) {
		for port := range uint16(64) {
			all = append(all, Datagram(to, from, 1000+port, size))
		}
		return all
	}
	six := make([]l2.Frame, 64)
	for i := range six {
		six[i] = Datagram6(to, from, uint16(1000+i), 64)
	}
	supers := make([]l2.Frame, 4)
	for i := range supers {
		supers[i] = Super(to, from, 60000, 1448)
	}
	return []way{
		{"udp64", datagrams(64), 64},
		{"udp64v6", six, 64}, // of which the guards look at more
		{"udp1200", datagrams(1200), 64},
		{"udp1472", datagrams(1472), 2 * 64}, // in two pieces
		{"tcp", supers, 4 * 44},              // segments that fit
	}
}

// TestHotPath sends frames of every kind and counts them at the other end. It is
// also what callgrind runs.
func TestHotPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its time stands still while frames pass: no probe and no rekey is among them
		r, err := New(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}()
		wire, host := r.Nodes[0].Wire, r.Nodes[1].Device
		for _, w := range ways() {
			r.Through(w.frames, 2) // pools and caches are filled
			sent, frames, bytes := wire.sent.Load(), host.frames.Load(), host.bytes.Load()
			count(w.name+" out", func() { r.Out(w.frames, *times) })
			if host.frames.Load() != frames {
				t.Errorf("%s: frames arrived that were to be dropped", w.name)
			}
			count(w.name+" through", func() { r.Through(w.frames, *times) })
			size := 0
			for _, f := range w.frames {
				size += len(f.Data)
			}
			if got, want := wire.sent.Load()-sent, int64(2**times*w.datagrams); got != want {
				t.Errorf("%s: %d datagrams were sent, want %d", w.name, got, want)
			}
			if got, want := host.frames.Load()-frames, int64(*times*len(w.frames)); got != want {
				t.Errorf("%s: %d frames arrived, want %d", w.name, got, want)
			}
			if got, want := host.bytes.Load()-bytes, int64(*times*size); got != want {
				t.Errorf("%s: %d bytes arrived, want %d", w.name, got, want)
			}
		}
	})
}

// TestRig holds that a rig does what the scaling figures are made with: members
// without sessions, stations, many sessions, and datagrams that are kept and replayed.
func TestRig(t *testing.T) {
	r, err := New(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := r.Know(20); err != nil {
		t.Fatal(err)
	}
	station := l2.MAC{0x0a, 0, 0, 0, 0, 1} // 6 would be the voice of node 1 on its LAN
	r.Learn(2, station)
	if n := r.Stations(); n < 1+23+1 {
		t.Errorf("%d stations, want its own, 23 members' and one behind a bridge", n)
	}
	hub, far := r.Nodes[0], r.Nodes[2].Device
	before := far.frames.Load()
	r.Through([]l2.Frame{Datagram(station, hub.MAC, 1, 64), Datagram(r.Nodes[3].MAC, hub.MAC, 1, 64)}, 5)
	if n := far.frames.Load() - before; n != 5 {
		t.Errorf("%d frames came to the station, want 5", n)
	}
	sent := hub.Wire.sent.Load()
	if r.OutCPU([]l2.Frame{Datagram(station, hub.MAC, 1, 64)}, 100); hub.Wire.sent.Load()-sent != 100 {
		t.Errorf("%d datagrams were sent, want 100", hub.Wire.sent.Load()-sent)
	}
	before = hub.Device.frames.Load()
	batches := map[int][]l2.Frame{}
	for n := 1; n <= 3; n++ {
		batches[n] = []l2.Frame{Datagram(hub.MAC, r.Nodes[n].MAC, 1, 64), Datagram(hub.MAC, r.Nodes[n].MAC, 2, 64)}
	}
	if _, datagrams := r.InCPU(batches); datagrams != 6 || hub.Device.frames.Load()-before != 6 {
		t.Errorf("%d datagrams and %d frames came in, want 6", datagrams, hub.Device.frames.Load()-before)
	}
}
