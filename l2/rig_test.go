package l2

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/l2/offload"
)

// tape records what it is given: a device without a host, and a port.
type tape struct {
	frames  [][]byte
	starts  []int // of the checksums that were left out, for each frame sent
	partial bool  // such are taken
	flushed int   // how many frames Flush has seen
	err     error
}

func (d *tape) Read([]Frame) (int, error) { select {} }

func (d *tape) Offloads() offload.Features { return offload.All }

func (d *tape) Write(frames []Frame) error {
	for _, frame := range frames {
		d.frames = append(d.frames, bytes.Clone(frame.Data))
	}
	return d.err
}

func (d *tape) Name() string { return "tape0" }
func (d *tape) Close() error { return nil }

func (d *tape) Send(frame []byte, csumStart int) bool {
	if csumStart != 0 && !d.partial {
		return false
	}
	d.frames = append(d.frames, bytes.Clone(frame))
	d.starts = append(d.starts, csumStart)
	return true
}

func (d *tape) MaxFrame() int { return 0 }
func (d *tape) Flush()        { d.flushed = len(d.frames) }

// rig is a switch whose time stands still, with recorders at its ports.
type rig struct {
	t       testing.TB
	sw      *Switch
	pump    *pump
	host    *tape
	time    time.Time
	ports   map[string]*tape
	remotes map[string]*RemotePort
}

var ownMAC = MAC{2, 0, 0, 0, 0, 0xff}

func newRig(t testing.TB, cfg Config) *rig {
	r := &rig{t: t, host: &tape{}, time: time.Unix(1e9, 0), ports: map[string]*tape{}, remotes: map[string]*RemotePort{}}
	cfg.Device, cfg.MAC = r.host, ownMAC
	cfg.Now = func() time.Time { return r.time }
	r.sw = NewSwitch(cfg)
	r.pump = &pump{sw: r.sw, from: &r.sw.local}
	return r
}

func (r *rig) connect(name string, allow Allow) {
	r.ports[name] = &tape{}
	r.remotes[name] = r.sw.Connect(name, r.ports[name], allow)
}

func (r *rig) disconnect(name string) {
	r.sw.Disconnect(name)
	delete(r.ports, name)
}

// send passes one frame through the switch, from the host ("") or a remote. It
// returns who received it, sorted: names, or "host", or "!reason" when it was dropped.
func (r *rig) send(from string, frame []byte) string {
	r.t.Helper()
	before := r.sw.Counters()
	if from == "" {
		r.pump.batch([]Frame{{Data: frame}})
	} else {
		r.remotes[from].Receive(frame, 0)
		r.remotes[from].Flush()
	}
	var got []string
	collect := func(name string, d *tape) {
		for _, f := range d.frames {
			if from == "" && d == r.host && bytes.HasPrefix(f, lanGroup[:]) {
				continue // a hail, for the frame was sent before
			}
			if !bytes.Equal(f, frame) {
				r.t.Fatalf("%s received\n%x, sent was\n%x", name, f, frame)
			}
			got = append(got, name)
		}
		if d != r.host && d.flushed != len(d.frames) {
			r.t.Fatalf("%s was not flushed", name)
		}
		d.frames, d.flushed = nil, 0
	}
	collect("host", r.host)
	for name, port := range r.ports {
		collect(name, port)
	}
	after := r.sw.Counters()
	was, is := before.FromRemotes, after.FromRemotes
	if from == "" {
		was, is = before.FromDevice, after.FromDevice
	}
	for why, count := range is.Dropped {
		if count != was.Dropped[why] {
			got = append(got, "!"+why)
		}
	}
	if forwarded := is.Frames - was.Frames; forwarded == 1 && is.Bytes-was.Bytes != uint64(len(frame)) {
		r.t.Fatalf("counted %d bytes, sent %d", is.Bytes-was.Bytes, len(frame))
	}
	slices.Sort(got)
	return strings.Join(got, " ")
}

// eth makes a frame of 60 bytes; vlan 0 is untagged.
func eth(dst, src MAC, vlan uint16) []byte {
	frame := append(append([]byte(nil), dst[:]...), src[:]...)
	if vlan != 0 {
		frame = binary.BigEndian.AppendUint16(append(frame, 0x81, 0), vlan)
	}
	return append(append(frame, 0x88, 0xb5), make([]byte, 46)...)
}

var (
	broadcast = MAC{255, 255, 255, 255, 255, 255}
	macOfA    = MAC{2, 0, 0, 0, 0, 0xa}
	macOfB    = MAC{2, 0, 0, 0, 0, 0xb}
	host1     = MAC{2, 0, 0, 0, 1, 1}
	host2     = MAC{2, 0, 0, 0, 1, 2}
	host3     = MAC{2, 0, 0, 0, 1, 3}
)

func whole(list ...[]byte) (frames []Frame) {
	for _, b := range list {
		frames = append(frames, Frame{Data: b})
	}
	return frames
}
