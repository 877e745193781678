package l2_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"meshd/l2"
	"meshd/l2/l2test"
	"meshd/l2/offload"
)

// plain is a device without offloads.
type plain struct{ *l2test.Device }

func (plain) Offloads() offload.Features { return offload.None }

// outlet is a port that keeps what goes out of it.
type outlet struct{ frames chan []byte }

func (o outlet) Send(frame []byte, _ int) bool { o.frames <- bytes.Clone(frame); return true }
func (outlet) MaxFrame() int                   { return 0 }
func (outlet) Flush()                          {}

// plugSite is a switch with a host, two virtual machines and a member.
type plugSite struct {
	t       *testing.T
	sw      *l2.Switch
	places  map[string]<-chan []byte
	devices map[string]*l2test.Device
	member  *l2.RemotePort
	unplug  map[string]context.CancelFunc
	ended   chan error
}

var (
	hostMAC   = l2.MAC{2, 0, 0, 0, 0, 1}
	vm1MAC    = l2.MAC{2, 0, 0, 0, 1, 1}
	vm2MAC    = l2.MAC{2, 0, 0, 0, 1, 2}
	memberMAC = l2.MAC{2, 0, 0, 0, 0, 9}
)

func newPlugSite(t *testing.T, tap bool) *plugSite {
	s := &plugSite{t: t, places: map[string]<-chan []byte{}, devices: map[string]*l2test.Device{}, unplug: map[string]context.CancelFunc{}, ended: make(chan error, 3)}
	cfg := l2.Config{MAC: hostMAC}
	ctx, cancel := context.WithCancel(context.Background())
	if tap {
		dev := l2test.NewDevice("mesh0")
		cfg.Device, s.devices["host"], s.places["host"] = dev, dev, dev.Frames()
	}
	s.sw = l2.NewSwitch(cfg)
	go func() { s.ended <- s.sw.Run(ctx) }()
	for _, name := range []string{"vm1", "vm2"} {
		s.plugIn(name)
	}
	out := outlet{make(chan []byte, 100)}
	s.places["member"] = out.frames
	s.member = s.sw.Connect("member", out, l2.Allow{MAC: memberMAC})
	t.Cleanup(func() {
		for _, end := range s.unplug {
			end()
		}
		cancel()
		for range 1 + len(s.unplug) {
			if err := <-s.ended; err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// plugIn returns once the cable carries frames.
func (s *plugSite) plugIn(name string) {
	dev := l2test.NewDevice(name)
	s.devices[name], s.places[name] = dev, dev.Frames()
	ctx, cancel := context.WithCancel(context.Background())
	s.unplug[name] = cancel
	go func() { s.ended <- s.sw.Plug(ctx, plain{dev}) }()
	for end := time.Now().Add(patience); s.sw.Plugs() < len(s.unplug); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatal("not plugged in")
		}
	}
}

// send has a place send a frame; it must arrive at all of want and nowhere else.
func (s *plugSite) send(at string, frame []byte, want ...string) {
	s.t.Helper()
	before := s.dropped()
	if at == "member" {
		s.member.Receive(frame, 0)
		s.member.Flush()
	} else {
		s.devices[at].Inject(frame)
	}
	for _, place := range want {
		select {
		case got := <-s.places[place]:
			if !bytes.Equal(got, frame) {
				s.t.Errorf("%s received another frame", place)
			}
		case <-time.After(patience):
			s.t.Fatalf("nothing from %s arrived at %s", at, place)
		}
	}
	for end := time.Now().Add(patience); len(want) == 0 && s.dropped() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatal("not dropped")
		}
	}
	for place, frames := range s.places {
		select {
		case <-frames:
			s.t.Errorf("%s received it as well", place)
		default:
		}
	}
}

func (s *plugSite) dropped() (sum uint64) {
	c := s.sw.Counters()
	for _, flow := range []l2.Flow{c.FromDevice, c.FromRemotes} {
		for _, n := range flow.Dropped {
			sum += n
		}
	}
	return sum
}

func frameFor(dst, src l2.MAC) []byte {
	frame := append(append(append([]byte(nil), dst[:]...), src[:]...), 0x88, 0xb5)
	return append(frame, make([]byte, 46)...)
}

func TestPlugs(t *testing.T) {
	all := l2.MAC{255, 255, 255, 255, 255, 255}
	s := newPlugSite(t, true)
	s.send("vm1", frameFor(all, vm1MAC), "host", "vm2", "member")
	s.send("host", frameFor(all, hostMAC), "vm1", "vm2", "member")
	s.send("member", frameFor(all, memberMAC), "host", "vm1", "vm2")
	s.send("member", frameFor(vm1MAC, memberMAC), "vm1")
	s.send("host", frameFor(vm1MAC, hostMAC), "vm1")
	s.send("vm1", frameFor(hostMAC, vm1MAC), "host")
	s.send("vm1", frameFor(memberMAC, vm1MAC), "member")
	s.send("vm2", frameFor(vm1MAC, vm2MAC), "vm1")
	s.send("vm1", frameFor(vm2MAC, vm1MAC), "vm2")
	s.send("vm1", frameFor(vm1MAC, vm1MAC)) // to itself
	s.send("vm2", frameFor(all, vm1MAC))    // as the other, who is there
	s.send("vm2", frameFor(all, hostMAC))   // as the host
	s.send("vm2", frameFor(all, memberMAC)) // as a member
	s.send("member", frameFor(all, vm1MAC)) // as a virtual machine
	s.send("member", frameFor(hostMAC, memberMAC), "host")

	// A machine that is started again has a new cable.
	s.unplug["vm1"]()
	if err := <-s.ended; err != nil {
		t.Fatal(err)
	}
	delete(s.unplug, "vm1")
	s.plugIn("vm1")
	s.send("vm1", frameFor(all, vm1MAC), "host", "vm2", "member")
	s.send("member", frameFor(vm1MAC, memberMAC), "vm1")
}

// TestPlugsAlone has no TAP.
func TestPlugsAlone(t *testing.T) {
	all := l2.MAC{255, 255, 255, 255, 255, 255}
	s := newPlugSite(t, false)
	s.send("vm1", frameFor(all, vm1MAC), "vm2", "member")
	s.send("member", frameFor(all, memberMAC), "vm1", "vm2")
	s.send("member", frameFor(vm1MAC, memberMAC), "vm1")
	s.send("member", frameFor(hostMAC, memberMAC))
}
