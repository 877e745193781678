package mesh

import (
	"log/slog"
	"testing"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/l2/l2test"
	"meshd/l2/lanport"
)

// deadEnd is a port to a remote that takes nothing.
type deadEnd struct{}

func (deadEnd) Send([]byte, int) bool { return true }
func (deadEnd) MaxFrame() int         { return 0 }
func (deadEnd) Flush()                {}

// TestNothingPassesBeforeTheLANWasListenedTo holds that frames which waited for a node to
// come back do not get to the LAN in the moment in which its TAP has come into the bridge,
// and nobody has looked yet whether there is a link.
func TestNothingPassesBeforeTheLANWasListenedTo(t *testing.T) {
	identity, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	device := l2test.NewDevice("lan0")
	remote := l2.MAC{2, 0, 0, 0, 0, 9}
	l := &lanSide{
		node: &Node{identity: identity, log: slog.New(slog.DiscardHandler)}, cause: make(chan struct{}, 1), decide: func() {}, latest: map[lanport.ID]signedStatement{},
		machine: lanport.New(lanport.Config{Self: lanport.ID{1}, NewSegment: func() lanport.Segment { return lanport.Segment{1} }}),
		sw:      l2.NewSwitch(l2.Config{Device: device, MAC: l2.MAC{2, 0, 0, 0, 0, 1}}),
	}
	port := l.sw.Connect("far", deadEnd{}, l2.Allow{MAC: remote})
	passes := func() (passed bool) {
		t.Helper()
		all := l2.MAC{255, 255, 255, 255, 255, 255}
		port.Receive(l2test.Frame(all, remote, 1, 100), 0)
		port.Flush()
		for {
			select {
			case f := <-device.Frames():
				passed = passed || l2.LANPayload(f) == nil
			default:
				return passed
			}
		}
	}
	now := time.Unix(1e9, 0)
	expect := func(what string, want bool) {
		t.Helper()
		if passes() != want {
			t.Errorf("%s: frames pass: %v", what, !want)
		}
	}
	l.expect()
	expect("the TAP comes into a bridge", false)
	l.step(now)
	expect("looked at first", false)
	l.set(true, true)
	l.step(now.Add(time.Millisecond))
	expect("there is a link", false)
	l.step(now.Add(time.Second))
	l.step(now.Add(2 * time.Second))
	expect("listened to", true)
	l.set(false, true)
	l.step(now.Add(3 * time.Second))
	expect("the cable is pulled", true)
	l.expect()
	l.set(false, true) // it was none
	l.step(now.Add(4 * time.Second))
	expect("it could not be bridged", true)
}
