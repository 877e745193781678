package l2

import (
	"fmt"
	"testing"
	"time"
)

// TestEchoWaits has a port that makes statements take a frame from the LAN twice: the second waits
// until it is known whether it has come round.
func TestEchoWaits(t *testing.T) {
	for name, joined := range map[string]bool{"a host repeats itself": false, "LANs were joined": true} {
		t.Run(name, func(t *testing.T) {
			r, ear := lanRig(t)
			frame := eth(broadcast, host1, 0)
			r.expect("first", "a b c", "", frame)
			r.expect("another", "a b c", "", l2frame(broadcast, host1, 1))
			r.expect("again", "", "", frame)
			if ear.suspects != 1 {
				t.Errorf("%d suspicions", ear.suspects)
			}
			if joined {
				r.sw.Beside(map[string]bool{"a": true})
			}
			arrived := func() string {
				return fmt.Sprint(len(r.ports["a"].frames), len(r.ports["b"].frames), len(r.ports["c"].frames))
			}
			r.time = r.time.Add(echoHold - time.Millisecond)
			if r.sw.Advance(); arrived() != "0 0 0" {
				t.Errorf("%s came at once", arrived())
			}
			r.time = r.time.Add(time.Millisecond)
			want, drops := "1 1 1", uint64(0)
			if joined {
				want, drops = "0 0 0", 1
			}
			r.sw.Advance()
			if got := arrived(); got != want || r.sw.Counters().FromDevice.Dropped[DropLoop] != drops || r.sw.echoes.held.Load() != 0 {
				t.Errorf("came %s, want %s; dropped %v, %d wait", got, want, r.sw.Counters().FromDevice.Dropped, r.sw.echoes.held.Load())
			}
		})
	}
}

// TestEchoesAreFew has a host that says the same without end: nothing is lost, and what waits is bounded.
func TestEchoesAreFew(t *testing.T) {
	r, _ := lanRig(t)
	const frames = 4 * maxEchoes
	for range frames {
		r.pump.batch([]Frame{{Data: eth(broadcast, host1, 0)}})
	}
	if held := r.sw.echoes.held.Load(); held != maxEchoes {
		t.Errorf("%d wait", held)
	}
	r.time = r.time.Add(echoHold)
	r.sw.Advance()
	if got := len(r.ports["a"].frames); got != frames {
		t.Errorf("%d came of %d", got, frames)
	}
	hails := 0
	for _, f := range r.host.frames {
		if f[0] == lanGroup[0] {
			hails++
		}
	}
	if hails != 1 {
		t.Errorf("hailed %d times in %v", hails, echoGap)
	}
}

// TestHailed has a remote's voice heard on our side: what it sends to all comes by that way.
func TestHailed(t *testing.T) {
	r := newRig(t, Config{Bridge: true})
	r.connect("a", Allow{MAC: macOfA, Bridge: true})
	r.connect("b", Allow{MAC: macOfB, Bridge: true})
	r.expect("before", "host", "a", eth(broadcast, host1, 0))
	r.expect("it is heard", "!reserved-multicast", "", announcement(stationOf(0, macOfA.onLAN())))
	r.expect("a station behind it", "!loop", "a", eth(broadcast, host1, 0))
	r.expect("in another VLAN", "host", "a", eth(broadcast, host1, 5))
	r.expect("what is for this host", "host", "a", eth(ownMAC, host1, 0))
	r.expect("another member", "host", "b", eth(broadcast, host2, 0))
	r.time = r.time.Add(loopHold)
	r.expect("a second later", "host", "a", eth(broadcast, host1, 0))
}

// TestLoopClosedUnderWay closes a loop while a frame is between the members: it has been on
// one side only, and no other frame follows that would show the loop.
func TestLoopClosedUnderWay(t *testing.T) {
	for _, vlan := range []uint16{0, 5} {
		t.Run(fmt.Sprint("VLAN ", vlan), func(t *testing.T) {
			f := newFabric(t, bridge, bridge, Allow{})
			l := &looseLAN{f: f, sites: f.sites[:2], vlan: vlan, copies: map[string]int{}}
			frame := eth(broadcast, host1, vlan)
			f.sites[0].says(frame)
			l.carries(nil, nil) // what the second has put on its side crosses the cable
			l.step(2 * time.Second)
			if n := l.copies[string(frame)]; n == 0 || n > 2 {
				t.Errorf("%d copies", n)
			}
		})
	}
}
