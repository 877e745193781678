package l2

import (
	"bytes"
	"testing"
	"time"

	"meshd/l2/snoop"
)

// lanEar records what concerns the LAN.
type lanEar struct {
	heard    [][]byte
	suspects int
}

func (e *lanEar) Heard(frame []byte) { e.heard = append(e.heard, bytes.Clone(frame)) }
func (e *lanEar) Suspect()           { e.suspects++ }

var macOfC = MAC{2, 0, 0, 0, 0, 0xc}

// lanRig is a switch that bridges, with a and b, which are perhaps on its LAN, and c.
func lanRig(t *testing.T) (*rig, *lanEar) {
	ear := &lanEar{}
	r := newRig(t, Config{LAN: ear, Bridge: true})
	r.connect("a", Allow{MAC: macOfA, Bridge: true})
	r.connect("b", Allow{MAC: macOfB, Bridge: true})
	r.connect("c", Allow{MAC: macOfC, Bridge: true})
	return r, ear
}

func (r *rig) expect(what, want, from string, frame []byte) {
	r.t.Helper()
	if got := r.send(from, frame); got != want {
		r.t.Errorf("%s: went to %q, want %q", what, got, want)
	}
}

func TestShut(t *testing.T) {
	r, _ := lanRig(t)
	r.expect("open", "a b c", "", eth(broadcast, host1, 0))
	r.sw.Shut(true)
	r.expect("out", "!blocked", "", eth(broadcast, host1, 0))
	r.expect("out, by this host", "!blocked", "", eth(macOfA, ownMAC, 0))
	r.expect("in", "!blocked", "a", eth(broadcast, macOfA, 0))
	r.expect("in, to this host", "!blocked", "a", eth(ownMAC, macOfA, 0))
	// What another forwards from the overlay to the LAN is not taken for the LAN's.
	r.expect("a station of the overlay, seen on the LAN", "!blocked", "", eth(broadcast, host2, 0))
	r.expect("the same from the overlay", "!blocked", "c", eth(broadcast, host2, 0))
	r.sw.Shut(false)
	r.sw.Forwards()
	r.host.frames = nil // announcements, which TestAnnounce looks at
	r.expect("the same, open again", "host", "c", eth(broadcast, host2, 0))
	r.expect("a station that was behind the LAN has moved meanwhile", "host", "a", eth(broadcast, host1, 0))
}

func TestBeside(t *testing.T) {
	r, _ := lanRig(t)
	r.sw.Beside(map[string]bool{"a": true})
	r.expect("from the LAN", "b c", "", eth(broadcast, host1, 0))
	r.expect("to a member on the LAN", "!blocked", "", eth(macOfA, host1, 0))
	r.expect("from it over the overlay", "!blocked", "a", eth(broadcast, host2, 0))
	r.expect("from others", "host", "b", eth(broadcast, host3, 0))
	r.sw.Beside(nil)
	r.expect("it has left", "a b c", "", l2frame(broadcast, host1, 1))
	r.expect("and is heard again", "host", "a", eth(broadcast, macOfA, 0))
}

func TestStandIn(t *testing.T) {
	r, _ := lanRig(t)
	r.expect("for itself", "a", "", eth(macOfA, ownMAC, 0))
	r.sw.StandIn("a", "b")
	r.expect("to it", "b", "", eth(macOfA, ownMAC, 0))
	r.expect("from it", "host", "b", eth(ownMAC, macOfA, 0))
	r.expect("nobody else may", "!source-mac", "c", eth(ownMAC, macOfA, 0))
	r.expect("nor itself meanwhile", "!source-mac", "a", eth(ownMAC, macOfA, 0))
	r.sw.StandIn("a", Here)
	r.expect("on the LAN behind us, to others", "c", "", eth(macOfC, macOfA, 0))
	r.expect("and to it", "host", "c", eth(macOfA, macOfC, 0))
	r.expect("not by another any more", "!source-mac", "b", eth(ownMAC, macOfA, 0))
	r.sw.StandIn("a", "b")
	r.disconnect("b")
	r.expect("who stood in is gone", "a", "", eth(macOfA, ownMAC, 0))
	r.sw.StandIn("a", "nobody")
	r.expect("nobody is itself", "host", "a", eth(ownMAC, macOfA, 0))
}

func TestMoveStations(t *testing.T) {
	r, _ := lanRig(t)
	for name, mac := range map[string]MAC{"a": macOfA, "b": macOfB} { // they have agreed
		r.connect(name, Allow{MAC: mac, Bridge: true, LAN: "a"})
	}
	r.expect("learned", "host", "a", eth(broadcast, host1, 0))
	r.expect("not yet", "!source-moved", "b", eth(broadcast, host1, 0))
	r.sw.MoveStations("a", "b")
	r.expect("moved", "b", "", eth(host1, ownMAC, 0))
	r.expect("moved", "host", "b", eth(broadcast, host1, 0))
	if a, b := r.remotes["a"].stations, r.remotes["b"].stations; a != 0 || b != 1 {
		t.Errorf("a has %d stations, b %d", a, b)
	}
	r.sw.MoveStations("b", "")
	r.expect("forgotten", "a b c", "", eth(host1, ownMAC, 0))
	r.sw.MoveStations("b", "b")
	r.expect("learned", "host", "a", eth(broadcast, host2, 0))
	r.sw.MoveStations("a", "c")
	if n := r.remotes["c"].stations; n != 0 {
		t.Errorf("c, which has not agreed, has got %d stations", n)
	}
	r.sw.MoveStations(Here, "")
	r.sw.MoveStations("nobody", "b")
}

// TestStatementsStayOnTheLAN holds that they never cross, either way.
func TestStatementsStayOnTheLAN(t *testing.T) {
	r, ear := lanRig(t)
	statement := LANFrame(nil, macOfB, []byte("statement"))
	r.expect("from the LAN", "!reserved-multicast", "", statement)
	if len(ear.heard) != 1 || string(LANPayload(ear.heard[0])) != "statement" {
		t.Errorf("heard %q", ear.heard)
	}
	r.expect("from the overlay", "!reserved-multicast", "a", statement)
	if len(ear.heard) != 1 {
		t.Error("one that came over the overlay was heard")
	}
	r.sw.Shut(true)
	r.expect("shut", "!reserved-multicast", "", statement)
	if len(ear.heard) != 2 {
		t.Error("a port that is shut does not hear")
	}
	if err := r.sw.Say(statement); err != nil || len(r.host.frames) != 1 {
		t.Errorf("said %d frames, %v", len(r.host.frames), err)
	}
	if LANPayload(eth(broadcast, host1, 0)) != nil || LANPayload(nil) != nil || LANPayload(make([]byte, 9000)) != nil {
		t.Error("another frame was taken for a statement")
	}
}

// TestAnnounce holds that a port that opens tells the LAN's switches who is behind it now.
func TestAnnounce(t *testing.T) {
	r, ear := lanRig(t)
	r.sw.Shut(true)
	r.send("c", eth(broadcast, host1, 0))
	r.send("c", eth(broadcast, host2, 5))
	r.sw.Beside(map[string]bool{"a": true})
	r.sw.StandIn("a", Here)
	r.sw.Shut(false)
	r.sw.Forwards()
	got := map[station]bool{}
	for _, f := range r.host.frames {
		h, ok := ParseHeader(f)
		if !ok || h.Dst != lanGroup || len(f) != minFrame || LANPayload(f) != nil {
			t.Fatalf("%x", f)
		}
		got[stationOf(h.VLAN, h.Src)] = true
	}
	for _, k := range []station{stationOf(0, macOfB), stationOf(0, macOfC), stationOf(0, host1), stationOf(5, host2)} {
		if !got[k] {
			t.Errorf("%v in %d was not announced", k.mac(), k.vlan())
		}
	}
	if len(got) != 4 {
		t.Errorf("%d announced", len(got))
	}
	r.host.frames = nil
	if r.sw.Shut(false); len(r.host.frames) > 0 {
		t.Error("announced again")
	}
	r.expect("on the LAN of another", "!reserved-multicast", "", announcement(stationOf(0, macOfB)))
	if len(ear.heard) > 1 {
		t.Error("an announcement was taken for a statement")
	}
}

// TestSuspicion holds that a frame on the LAN whose source is on the overlay is noticed.
func TestSuspicion(t *testing.T) {
	r, ear := lanRig(t)
	r.expect("a station", "host", "a", eth(broadcast, host1, 0))
	r.expect("on the LAN as well", "!source-moved", "", eth(broadcast, host1, 0))
	r.expect("a member on the LAN", "!source-mac", "", eth(broadcast, macOfA, 0))
	if ear.suspects != 2 {
		t.Errorf("%d suspicions", ear.suspects)
	}
	r.expect("another's MAC over the overlay", "!source-mac", "b", eth(broadcast, macOfA, 0))
	if ear.suspects != 2 {
		t.Error("the LAN was suspected for what came over the overlay")
	}
}

// TestLoopEnds holds that a frame does not come round where no statements are made.
func TestLoopEnds(t *testing.T) {
	r := newRig(t, Config{Bridge: true})
	r.connect("a", Allow{MAC: macOfA, Bridge: true})
	r.expect("learned", "host", "a", eth(broadcast, host1, 0))
	r.expect("the LANs are one", "!source-moved", "", eth(broadcast, host1, 0))
	r.expect("the copy by the overlay", "!loop", "a", eth(broadcast, host1, 0))
	r.expect("other stations", "host", "a", eth(broadcast, host2, 0))
	r.expect("what is for this host", "host", "a", eth(ownMAC, host1, 0))
	r.time = r.time.Add(time.Second + time.Millisecond)
	r.expect("a second later", "host", "a", eth(broadcast, host1, 0))
}

// TestOwnLoopEnds is the same for a member's own frames, and those of a router.
func TestOwnLoopEnds(t *testing.T) {
	r := newRig(t, Config{Bridge: true})
	r.connect("a", Allow{MAC: macOfA, Bridge: true, Router: true})
	r.connect("b", Allow{MAC: macOfB, Bridge: true})
	r.sw.SetRouters([]MAC{routerMAC}, nil)
	for _, src := range []MAC{macOfA, routerMAC} {
		r.expect("by the overlay", "host", "a", eth(broadcast, src, 0))
		r.expect("the LANs are one", "!source-mac", "", eth(broadcast, src, 0))
		r.expect("the copy by the overlay", "!loop", "a", eth(broadcast, src, 0))
		r.expect("stations behind it", "host", "a", eth(broadcast, host2, 0))
		r.expect("what is for this host", "host", "a", eth(ownMAC, src, 0))
		r.expect("another member", "host", "b", eth(broadcast, macOfB, 0))
		r.time = r.time.Add(time.Second + time.Millisecond)
		r.expect("a second later", "host", "a", eth(broadcast, src, 0))
	}
	r.expect("one member by another", "!source-mac", "b", eth(broadcast, macOfA, 0))
	r.expect("that is no loop", "host", "a", eth(broadcast, macOfA, 0))
}

// TestOwnLoopIsBrief has a port that makes statements, which end a loop: what is heard twice
// for a moment, as when a cable is plugged in, does not cost a second.
func TestOwnLoopIsBrief(t *testing.T) {
	r, _ := lanRig(t)
	r.expect("the LANs are one", "!source-mac", "", eth(broadcast, macOfA, 0))
	r.expect("the copy by the overlay", "!loop", "a", eth(broadcast, macOfA, 0))
	r.time = r.time.Add(briefHold + time.Millisecond)
	r.expect("soon after", "host", "a", eth(broadcast, macOfA, 0))
}

// TestVoiceOfAMember holds that what a member says on its LAN by a MAC of its own making is
// no host there.
func TestVoiceOfAMember(t *testing.T) {
	r, _ := lanRig(t)
	voice := MAC(snoop.ProxyMAC(macOfA))
	if voice != macOfA.onLAN() {
		t.Fatal("a member has two voices")
	}
	r.expect("heard on the LAN", "a b c", "", eth(broadcast, voice, 0))
	r.expect("and by the overlay", "host", "b", eth(broadcast, voice, 0))
	for _, h := range r.sw.Hosts() {
		if h.MAC == voice {
			t.Errorf("%+v", h)
		}
	}
	if list := r.sw.Local(); len(list) > 0 {
		t.Errorf("announced: %+v", list)
	}
}
