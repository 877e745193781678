//go:build !race

package l2

import (
	"bytes"
	"testing"

	"meshd/l2/offload"
	"meshd/l2/snoop"
)

// sink is a device or port that forgets.
type sink struct{ tape }

func (*sink) Write([]Frame) error   { return nil }
func (*sink) Send([]byte, int) bool { return true }

// idle is a switch with many remotes, the pump that a Run would have, and a remote.
func idle(remotes int) (*pump, *RemotePort) {
	sw := NewSwitch(Config{Device: &sink{}, MAC: ownMAC, StormRate: 1 << 30, StormBurst: 1 << 30, GroupRate: 1 << 30})
	a := sw.Connect("a", &sink{}, Allow{MAC: macOfA})
	for n := range remotes - 1 {
		sw.Connect(string(rune(0x100+n)), &sink{}, Allow{MAC: MAC{2, 9, 0, 0, byte(n >> 8), byte(n)}})
	}
	a.Receive(eth(ownMAC, host1, 5), 0)
	a.Flush()
	return &pump{sw: sw, from: &sw.local}, a
}

// arpOf is an ARP request by the station mac itself.
func arpOf(mac MAC, ip string) []byte {
	frame := arp(mac[:], ip, 1)
	copy(frame[6:], mac[:])
	return frame
}

func TestNoAllocationPerFrame(t *testing.T) {
	p, a := idle(50)
	a.SetGroups(wants(snoop.Group{Addr: film}, snoop.Group{Addr: film6}))
	p.batch(whole(igmpReport(film, ownMAC, 0x16)))
	batch := func(frames ...[]byte) func() {
		batch := whole(frames...)
		return func() { p.batch(batch) }
	}
	receive := func(frames ...[]byte) func() {
		return func() {
			for range 8 {
				for _, frame := range frames {
					a.Receive(frame, 0)
				}
			}
			a.Flush()
		}
	}
	for name, f := range map[string]func(){
		"to a member":             batch(eth(macOfA, ownMAC, 0), eth(macOfA, ownMAC, 0)),
		"to a learned station":    batch(eth(host1, ownMAC, 5)),
		"from a local station":    batch(eth(macOfA, host2, 0)),
		"to all":                  batch(eth(broadcast, ownMAC, 0)),
		"to a group":              batch(groupFrame(film, ownMAC, 0, 1000), groupFrame(film6, ownMAC, 5, 1000)),
		"from a group":            receive(groupFrame(film, macOfA, 0, 1000), groupFrame(film6, macOfA, 5, 1000)),
		"a report":                batch(igmpReport(film, ownMAC, 0x16)),
		"dropped":                 batch(eth(ownMAC, ownMAC, 0), nil),
		"ARP of ours":             batch(arpOf(ownMAC, "10.0.0.1")),
		"a super-frame":           superBatch(p, macOfA),
		"a super-frame to all":    superBatch(p, broadcast),
		"segments, merged":        receive(segments(ownMAC, macOfA)...),
		"from a member":           receive(eth(ownMAC, macOfA, 0)),
		"from a learned station":  receive(eth(ownMAC, host1, 5)),
		"ARP of a member":         receive(arpOf(macOfA, "10.0.0.2")),
		"refused and broadcast":   receive(eth(broadcast, macOfA, 0), eth(ownMAC, macOfB, 0), eth(ownMAC, ownMAC, 0), nil),
		"more than a batch holds": receive(append(eth(ownMAC, macOfA, 0), make([]byte, 1400)...), eth(ownMAC, macOfA, 0)),
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	for _, h := range p.sw.Hosts() {
		if (h.MAC == ownMAC || h.MAC == macOfA) && len(h.IPs) != 1 {
			t.Errorf("the ARP frames were not read: %+v", h)
		}
	}
}

// superBatch passes one super-frame. The cutter overwrites it, as it may.
func superBatch(p *pump, dst MAC) func() {
	f := superFrame(dst, ownMAC, 0, 60000, 1448)
	headers, buf := bytes.Clone(f.Data[:54]), make([]Frame, 1)
	return func() {
		copy(f.Data, headers)
		buf[0] = f
		p.batch(buf)
	}
}

// segments are what a path carries of a super-frame.
func segments(dst, src MAC) (frames [][]byte) {
	var c offload.Cutter
	c.Begin(superFrame(dst, src, 0, 60000, 1374), 0)
	for b, more := c.Next(); more; b, more = c.Next() {
		frames = append(frames, bytes.Clone(b))
	}
	return frames
}

func BenchmarkSuperFrame(b *testing.B) {
	p, a := idle(50)
	b.Run("cut", func(b *testing.B) {
		pass := superBatch(p, macOfA)
		b.SetBytes(60000)
		for b.Loop() {
			pass()
		}
	})
	b.Run("merge", func(b *testing.B) {
		frames := segments(ownMAC, macOfA)
		b.SetBytes(60000)
		for b.Loop() {
			for _, frame := range frames {
				a.Receive(frame, 0)
			}
			a.Flush()
		}
	})
}

func BenchmarkFromDevice(b *testing.B) {
	for name, frame := range map[string][]byte{
		"member":  eth(macOfA, ownMAC, 0),
		"learned": eth(host1, ownMAC, 5),
		"flood50": eth(broadcast, ownMAC, 0),
		"group50": groupFrame(film, ownMAC, 0, 60),
	} {
		b.Run(name, func(b *testing.B) {
			p, a := idle(50)
			for _, r := range p.sw.view.Load().ports {
				r.SetGroups(wants(snoop.Group{Addr: film6}))
			}
			a.SetGroups(wants(snoop.Group{Addr: film}))
			batch := make([]Frame, 64)
			for i := range batch {
				batch[i] = Frame{Data: frame}
			}
			for b.Loop() {
				p.batch(batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/frame")
		})
	}
}

func BenchmarkReceive(b *testing.B) {
	for name, frame := range map[string][]byte{
		"member":  append(eth(ownMAC, macOfA, 0), make([]byte, 1440)...),
		"learned": append(eth(ownMAC, host1, 5), make([]byte, 1440)...),
	} {
		b.Run(name, func(b *testing.B) {
			_, a := idle(50)
			for b.Loop() {
				for range 64 {
					a.Receive(frame, 0)
				}
				a.Flush()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/frame")
		})
	}
}
